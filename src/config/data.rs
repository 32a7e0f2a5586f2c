//! What `[data]` means: the source of the pictures and programs.

use super::keys::{Data, Source};
use super::spelling;
use crate::data::{DataSource, Place};

impl Data {
    /// The configured source; `None` if it is made in the run directory.
    pub fn configured_source(&self) -> Option<DataSource> {
        let place = match self.source {
            Source::Synth => return None,
            Source::Parquet => Place::Parquet(self.path.clone()),
            Source::Jsonl => Place::Jsonl(self.path.clone()),
            Source::Folder => Place::Folder(self.path.clone(), self.folder.clone()),
            Source::Hub => Place::Hub { repo: self.repo.clone(), revision: self.revision.clone() },
        };
        Some(self.with_names(place))
    }

    /// The source that a flag names: see [`DataSource::named`]. Columns, splits and folders are
    /// those of this section.
    pub fn named_source(&self, name: &str) -> DataSource {
        self.with_names(match DataSource::named(name, &self.revision).place {
            Place::Folder(path, _) => Place::Folder(path, self.folder.clone()),
            place => place,
        })
    }

    /// The variable that holds a program's result; `None` if the published rule alone decides.
    pub fn result_name(&self) -> Option<String> {
        Some(self.result_name.clone()).filter(|name| !name.is_empty())
    }

    fn with_names(&self, place: Place) -> DataSource {
        let (columns, splits, views) = (self.columns.clone(), self.splits.clone(), self.views.clone());
        DataSource { columns, splits, views, ..DataSource::new(place) }
    }

    /// Reports values that are out of range or contradict each other.
    pub(super) fn check(&self, require: &mut impl FnMut(bool, String)) {
        let folder = &self.folder;
        let is_set = |path: &std::path::Path| !path.as_os_str().is_empty();
        let needs_path = match self.source {
            Source::Parquet | Source::Jsonl => true,
            Source::Folder => !(is_set(&folder.images) && (is_set(&folder.programs) || is_set(&folder.shapes))),
            Source::Synth | Source::Hub => false,
        };
        require(
            !needs_path || is_set(&self.path),
            format!("data.source = {} needs data.path, which is empty", spelling(&self.source)),
        );
        let [validation, test] = [folder.validation_share, folder.test_share];
        require(
            [validation, test].iter().all(|share| (0.0..=1.0).contains(share)) && validation + test <= 1.0,
            format!(
                "data.folder.validation_share = {validation} and data.folder.test_share = {test}: must be in [0, 1], and so must their sum"
            ),
        );
        let mut views: Vec<&str> = self.views.iter().map(String::as_str).collect();
        views.sort_unstable();
        let is_good = |view: &&str| !view.is_empty() && !view.contains(['/', '\\']);
        require(
            views.iter().all(is_good) && views.windows(2).all(|pair| pair[0] != pair[1]),
            format!("data.views = {}: must be different names as in part_<name>.png", spelling(&self.views)),
        );
        let is_name = self.result_name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !self.result_name.starts_with(|c: char| c.is_ascii_digit());
        require(is_name, format!("data.result_name = {:?}: must be the name of a variable", self.result_name));
        for (split, name) in
            [("train", &self.splits.train), ("validation", &self.splits.validation), ("test", &self.splits.test)]
        {
            require(
                !name.is_empty() && !name.contains(['/', '\\']),
                format!("data.splits.{split} = {name:?}: must be a name as in <name>.jsonl"),
            );
        }
    }
}
