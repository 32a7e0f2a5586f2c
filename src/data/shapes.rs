//! Files of shapes in a folder: STEP, STL, and CadQuery programs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cadwright_rewards::extract_program;
use cadwright_rollout::{GroundTruth, Shape};
use thiserror::Error;

/// A file that has a part's shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShapeFile {
    /// The path in the folder that was searched, without its extension: names the part.
    pub stem: PathBuf,
    /// What kind of file it is.
    pub kind: ShapeKind,
    /// The file.
    pub path: PathBuf,
}

/// The kinds of files, the preferred one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShapeKind {
    /// Exact surfaces: `.step`, `.stp`.
    Step,
    /// Triangles: `.stl`.
    Stl,
    /// A program: `.py`.
    Program,
}

/// The reason why no shapes are found.
#[derive(Debug, Error)]
pub enum ShapesError {
    /// The file system reports an error.
    #[error("cannot read {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of another kind.
    #[error("{0} is no shape: give .stl, .step, .stp or .py, or a folder of such files")]
    Kind(PathBuf),
    /// A folder without shapes.
    #[error("{path} has no shapes: expected files named .stl, .step, .stp or .py, found {found} others")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// Number of other files.
        found: usize,
    },
}

impl ShapeKind {
    /// The kind of a file of this name, whatever its letters' case.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "step" | "stp" => Some(Self::Step),
            "stl" => Some(Self::Stl),
            "py" => Some(Self::Program),
            _ => None,
        }
    }
}

impl ShapeFile {
    /// The part in the file.
    ///
    /// # Errors
    /// The file cannot be read, or a program is not UTF-8.
    pub fn read(&self) -> io::Result<GroundTruth> {
        match self.kind {
            ShapeKind::Program => Ok(extract_program(&fs::read_to_string(&self.path)?).into()),
            ShapeKind::Step | ShapeKind::Stl => Ok(GroundTruth::Shape(Arc::new(Shape::read(&self.path)?))),
        }
    }
}

/// The shapes at a path, sorted by name: a file, or all in a folder and below it. Of files that
/// differ only in their extensions, a STEP file is preferred, then an STL file. Hidden files and
/// links to directories are left out.
///
/// # Errors
/// See [`ShapesError`].
pub fn shape_files(input: &Path) -> Result<Vec<ShapeFile>, ShapesError> {
    if input.is_dir() {
        let (mut found, mut others) = (Vec::new(), 0);
        search(input, Path::new(""), &mut found, &mut others)?;
        found.sort();
        found.dedup_by(|later, first| later.stem == first.stem);
        return match found.is_empty() {
            true => Err(ShapesError::Empty { path: input.to_owned(), found: others }),
            false => Ok(found),
        };
    }
    fs::metadata(input).map_err(|source| ShapesError::Io { path: input.to_owned(), source })?;
    let kind = ShapeKind::of(input).ok_or_else(|| ShapesError::Kind(input.to_owned()))?;
    let stem = PathBuf::from(input.file_stem().unwrap_or_default());
    Ok(vec![ShapeFile { stem, kind, path: input.to_owned() }])
}

fn search(folder: &Path, below: &Path, found: &mut Vec<ShapeFile>, others: &mut usize) -> Result<(), ShapesError> {
    let io = |source| ShapesError::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let (path, name) = (entry.path(), PathBuf::from(entry.file_name()));
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(io)?.is_dir() {
            search(&path, &below.join(name), found, others)?;
        } else if let Some(kind) = ShapeKind::of(&path) {
            found.push(ShapeFile { stem: below.join(name.file_stem().unwrap_or_default()), kind, path });
        } else {
            *others += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_found_by_name_and_each_part_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        for name in ["b.STL", "a.py", "a.step", "a.stl", "notes.txt", ".c.stl", "more/a.py"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = shape_files(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|file| (file.stem.to_str().unwrap(), file.kind)).collect();
        assert_eq!(found, [("a", ShapeKind::Step), ("b", ShapeKind::Stl), ("more/a", ShapeKind::Program)]);
    }

    #[test]
    fn what_is_no_shape_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| shape_files(path).unwrap_err().to_string();
        assert!(error(&folder.path().join("nowhere")).starts_with("cannot read"));
        let picture = folder.path().join("part.png");
        fs::write(&picture, "").unwrap();
        assert!(error(&picture).contains("part.png is no shape: give .stl, .step"));
        assert!(error(folder.path()).contains("found 1 others"));
    }
}
