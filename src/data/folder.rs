//! Data sets of plain files: pictures, programs and shapes that bear one name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cadwright_rewards::section;
use serde::{Deserialize, Serialize};

use super::Split;
use super::content::Content;
use super::error::DataError;
use super::listing::{Files, Kind, below, few, insert};
use super::names::SplitNames;
use super::rows::RawRow;

/// What is equal in the names of the files of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchBy {
    /// The file name without its ending, in whatever directory.
    Stem,
    /// The path below the folder, without the ending.
    Path,
}

/// How the parts of a folder are divided into splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// By a hash of the name: a part stays in its split if others come or go.
    Hash,
    /// In the order of names: first training, then validation, then test.
    Fraction,
    /// By files `<split>.txt` with a name a line.
    List,
    /// By the directory right below the folder.
    Directory,
}

impl SplitBy {
    fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Fraction => "fraction",
            Self::List => "list",
            Self::Directory => "directory",
        }
    }
}

section! {
    /// `[data.folder]`: the files of `data.source = "folder"`.
    Folder {
        /// Directory of the pictures (PNG, JPEG, WebP), searched with all below it. Empty:
        /// `data.path`.
        images: PathBuf = "",
        /// Directory of the programs (`.py`). Empty: `data.path`.
        programs: PathBuf = "",
        /// Directory of the shapes (`.stl`, `.step`, `.stp`). Empty: `data.path`. Of an STL and a
        /// STEP file side by side, the latter is used, because it is exact.
        shapes: PathBuf = "",
        /// What the names of pictures have after the part's name, such as `_render`. Pictures
        /// without it are ignored.
        image_suffix: String = "",
        /// `stem` (the files of a part have the same name, in whatever directory) or `path` (the
        /// same path below their folders).
        match_by: MatchBy = MatchBy::Stem,
        /// `hash` (by a hash of the name: a part stays in its split if others come or go),
        /// `fraction` (in the order of names: training, validation, test), `list` (by files
        /// `<split>.txt` with a name a line) or `directory` (by the directory right below the
        /// folder). `[data.splits]` has the splits' names.
        split_by: SplitBy = SplitBy::Hash,
        /// Directory of the lists. Empty: `data.path`.
        lists: PathBuf = "",
        /// Share of the parts in the validation split, for `hash` and `fraction`.
        validation_share: f64 = 0.05f64,
        /// Share of the parts in the test split, for `hash` and `fraction`.
        test_share: f64 = 0.05f64,
    }
}

impl Folder {
    /// The directories that are searched for pictures, programs and shapes; an empty path for a kind
    /// that has none.
    fn roots<'a>(&'a self, path: &'a Path) -> [(Kind, &'a Path); 3] {
        let or_path = |own: &'a Path| if own.as_os_str().is_empty() { path } else { own };
        [
            (Kind::Image, or_path(&self.images)),
            (Kind::Program, or_path(&self.programs)),
            (Kind::Shape, or_path(&self.shapes)),
        ]
    }

    /// The directories in words.
    pub(super) fn describe(&self, path: &Path) -> String {
        let mut roots: Vec<String> = self.roots(path).iter().map(|(_, root)| root.display().to_string()).collect();
        roots.retain(|root| !root.is_empty());
        roots.dedup();
        roots.join(", ")
    }

    /// The rows of a split in the order of names, or of the list. The files are not read. Parts that
    /// lack a picture, or both program and shape, are rows of the training split unless a list or a
    /// directory says otherwise: they will be skipped there.
    ///
    /// # Errors
    /// A directory that cannot be read, two files of one name, nothing that belongs together, an
    /// empty split.
    pub(super) fn rows(
        &self,
        path: &Path,
        (split, splits): (Split, &SplitNames),
        views: &[String],
        needs_pictures: bool,
    ) -> Result<Vec<RawRow>, DataError> {
        let ending = |view: &String| format!("_{view}{}", self.image_suffix);
        let first = views.first().map_or_else(|| self.image_suffix.clone(), ending);
        let [images, programs, shapes] = self.files(path, splits.of(split), &first)?;
        let files_of = |view: &String| Ok(std::mem::take(&mut self.files(path, splits.of(split), &ending(view))?[0]));
        let further = views.iter().skip(1).map(files_of).collect::<Result<Vec<Files>, DataError>>()?;
        let mut names: Vec<&String> = programs.keys().chain(shapes.keys()).collect();
        if needs_pictures {
            names.extend(images.keys());
        }
        names.sort_unstable();
        names.dedup();
        let is_whole = |name: &&&String| {
            let has_pictures = || images.contains_key(**name) && further.iter().all(|view| view.contains_key(**name));
            (!needs_pictures || has_pictures()) && (programs.contains_key(**name) || shapes.contains_key(**name))
        };
        let (whole, broken): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| is_whole(name));
        if whole.is_empty() {
            return Err(self.nothing(path, (split, splits), needs_pictures, [&images, &programs, &shapes]));
        }
        let mut chosen = self.chosen(path, (split, splits), &whole)?;
        if split == Split::Train && matches!(self.split_by, SplitBy::Hash | SplitBy::Fraction)
            || self.split_by == SplitBy::Directory
        {
            chosen.extend(broken.into_iter().cloned());
        }
        let file = |files: &Files, name: &str| files.get(name).cloned().map(Content::File);
        let row = |(row, name): (usize, String)| RawRow {
            row,
            image: file(&images, &name),
            further: further.iter().map(|view| file(view, &name)).collect(),
            program: file(&programs, &name),
            shape: file(&shapes, &name),
            id: Some(name),
            ..RawRow::default()
        };
        Ok(chosen.into_iter().enumerate().map(row).collect())
    }

    /// The pictures, programs and shapes by name: of the split `split` alone, if directories divide.
    /// Names of pictures end with `ending`.
    fn files(&self, path: &Path, split: &str, ending: &str) -> Result<[Files; 3], DataError> {
        let mut searched: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        let mut found = [Files::new(), Files::new(), Files::new()];
        for (files, (kind, root)) in found.iter_mut().zip(self.roots(path)) {
            if root.as_os_str().is_empty() {
                continue;
            }
            if !searched.contains_key(root) {
                searched.insert(root.to_owned(), below(root)?);
            }
            for file in searched[root].iter().filter(|file| Kind::of(file) == Some(kind)) {
                if let Some(name) = self.name_of(file, root, split, (kind, ending)) {
                    insert(files, name, file)?;
                }
            }
        }
        Ok(found)
    }

    /// The name of the part that a file belongs to; `None` if it belongs to none of this split.
    fn name_of(&self, file: &Path, root: &Path, split: &str, (kind, ending): (Kind, &str)) -> Option<String> {
        let mut below = file.strip_prefix(root).ok()?;
        if self.split_by == SplitBy::Directory {
            below = below.strip_prefix(split).ok().filter(|rest| !rest.as_os_str().is_empty())?;
        }
        let name = match self.match_by {
            MatchBy::Stem => below.file_stem()?.to_string_lossy().into_owned(),
            MatchBy::Path => below.with_extension("").to_string_lossy().replace('\\', "/"),
        };
        match kind {
            Kind::Image => name.strip_suffix(ending).map(str::to_owned),
            _ => Some(name),
        }
    }

    /// The names of a split, among those of parts that are whole.
    fn chosen(
        &self,
        path: &Path,
        (split, splits): (Split, &SplitNames),
        whole: &[&String],
    ) -> Result<Vec<String>, DataError> {
        let of = |split: Split| -> Vec<String> {
            let ranked = whole.iter().enumerate();
            ranked
                .filter(|(rank, name)| self.split_of(name, *rank, whole.len()) == split)
                .map(|(_, n)| (*n).clone())
                .collect()
        };
        let (names, found) = match self.split_by {
            SplitBy::Directory => (whole.iter().map(|name| (*name).clone()).collect(), String::new()),
            SplitBy::List => self.listed(path, splits.of(split))?,
            SplitBy::Hash | SplitBy::Fraction => {
                let counts = Split::ALL.map(|split| format!("{split} {}", of(split).len()));
                let shares = format!(
                    "data.folder.validation_share = {}, test_share = {}",
                    self.validation_share, self.test_share
                );
                (of(split), format!("{} parts: {}; {shares}", whole.len(), counts.join(", ")))
            }
        };
        if names.is_empty() { Err(self.empty(path, split, found)) } else { Ok(names) }
    }

    /// The split of a part, the `rank`-th of `count` by name.
    fn split_of(&self, name: &str, rank: usize, count: usize) -> Split {
        let test = self.test_share;
        let held_out = test + self.validation_share;
        let place = match self.split_by {
            SplitBy::Fraction => {
                // The last ones are held out: as many as the shares say, rounded.
                let from_end = (count - 1 - rank) as f64;
                let [test, held_out] = [test, held_out].map(|share| (share * count as f64).round());
                return match from_end {
                    place if place < test => Split::Test,
                    place if place < held_out => Split::Validation,
                    _ => Split::Train,
                };
            }
            _ => {
                let [a, b, c, d, ..] = *blake3::hash(name.as_bytes()).as_bytes();
                f64::from(u32::from_le_bytes([a, b, c, d])) / 2f64.powi(32)
            }
        };
        match place {
            place if place < test => Split::Test,
            place if place < held_out => Split::Validation,
            _ => Split::Train,
        }
    }

    /// The names in the list of a split, and what to say if there are none. Endings of files are
    /// dropped.
    fn listed(&self, path: &Path, split: &str) -> Result<(Vec<String>, String), DataError> {
        let directory = if self.lists.as_os_str().is_empty() { path } else { &self.lists };
        let list = directory.join(format!("{split}.txt"));
        let text = match std::fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let is_list = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "txt");
                let lists = below(directory)?.into_iter().filter(is_list).map(|file| file.display().to_string());
                return Ok((Vec::new(), format!("there is no {}; lists there: {}", list.display(), few(lists))));
            }
            Err(source) => return Err(DataError::Io { path: list, source }),
        };
        let bare = |line: &str| match Kind::of(Path::new(line)) {
            Some(_) => Path::new(line).with_extension("").to_string_lossy().into_owned(),
            None => line.to_owned(),
        };
        let names = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(bare).collect();
        Ok((names, format!("{} has no line", list.display())))
    }

    fn empty(&self, path: &Path, split: Split, found: String) -> DataError {
        DataError::EmptySplit { origin: self.describe(path), split, split_by: self.split_by.name(), found }
    }

    /// The error about files of which no part can be made.
    fn nothing(
        &self,
        path: &Path,
        (split, splits): (Split, &SplitNames),
        needs_pictures: bool,
        [images, programs, shapes]: [&Files; 3],
    ) -> DataError {
        if self.split_by == SplitBy::Directory && [images, programs, shapes].iter().all(|files| files.is_empty()) {
            let is_directory = |entry: std::fs::DirEntry| {
                entry.path().is_dir().then(|| entry.file_name().to_string_lossy().into_owned())
            };
            let directories = self.roots(path).into_iter().filter_map(|(_, root)| std::fs::read_dir(root).ok());
            let mut names: Vec<String> = directories.flatten().flatten().filter_map(is_directory).collect();
            names.sort_unstable();
            names.dedup();
            let wanted = splits.of(split);
            return self.empty(
                path,
                split,
                format!("no files in {wanted}/; directories there: {}", few(names.into_iter())),
            );
        }
        let words = |files: &Files| few(files.values().map(|file| file.display().to_string()));
        DataError::Unmatched {
            origin: self.describe(path),
            needs_pictures,
            images: words(images),
            programs: words(programs),
            shapes: words(shapes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_decide_how_many_parts_are_held_out() {
        let names: Vec<String> = (0..1000).map(|i| format!("part-{i:04}")).collect();
        for (split_by, slack) in [(SplitBy::Fraction, 0), (SplitBy::Hash, 40)] {
            let folder = Folder { split_by, validation_share: 0.1, test_share: 0.2, ..Folder::default() };
            let splits: Vec<Split> =
                names.iter().enumerate().map(|(rank, name)| folder.split_of(name, rank, names.len())).collect();
            for (split, expected) in [(Split::Train, 700), (Split::Validation, 100), (Split::Test, 200)] {
                let count = splits.iter().filter(|found| **found == split).count();
                assert!(count.abs_diff(expected) <= slack, "{split_by:?} {split}: {count}");
            }
        }
        let folder =
            Folder { split_by: SplitBy::Fraction, test_share: 0.2, validation_share: 0.2, ..Folder::default() };
        let splits: Vec<Split> = (0..5).map(|rank| folder.split_of("", rank, 5)).collect();
        assert_eq!(splits, [Split::Train, Split::Train, Split::Train, Split::Validation, Split::Test]);
    }

    #[test]
    fn a_hash_moves_no_part_if_others_come() {
        let folder = Folder { test_share: 0.3, validation_share: 0.3, ..Folder::default() };
        let of = |count: usize| -> Vec<Split> { (0..20).map(|i| folder.split_of(&format!("{i}"), i, count)).collect() };
        assert_eq!(of(20), of(2000));
    }
}
