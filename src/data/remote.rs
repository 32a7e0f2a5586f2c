//! The files of a split on the Hugging Face hub.

use std::path::PathBuf;

use super::Split;
use super::dataset::{DataError, split_of};
use crate::hub::{Hub, HubError, RepoKind, base_name};

/// Local paths of the parquet files of a split, sorted by name; downloaded if need be.
///
/// # Errors
/// The repository cannot be reached or has no such split, or only some of its files are in the cache.
pub fn split_files(hub: &Hub, repo: &str, revision: &str, split: Split) -> Result<Vec<PathBuf>, DataError> {
    let is_of_split = |name: &str| split_of(base_name(name)) == Some(split.name());
    let files = hub.files(RepoKind::Dataset, repo, revision, is_of_split)?;
    if files.is_empty() {
        let found = hub.cached(RepoKind::Dataset, repo, revision).unwrap_or_default();
        let missing = HubError::Missing {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            wanted: format!("{split} split ({split}-*.parquet)"),
            found: found.into_iter().map(|(name, _)| name).filter(|name| name.ends_with(".parquet")).collect(),
        };
        return Err(missing.into());
    }
    let names: Vec<String> = files.iter().map(|path| base_name(&path.to_string_lossy()).to_owned()).collect();
    match shard_count(&names) {
        Some(expected) if expected != files.len() => Err(DataError::Incomplete {
            split,
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            found: files.len(),
            expected,
            cache: hub.cache.clone(),
        }),
        _ => Ok(files),
    }
}

/// The number of files that a name such as `train-00000-of-00003.parquet` promises.
fn shard_count(names: &[String]) -> Option<usize> {
    names.iter().find_map(|name| name.strip_suffix(".parquet")?.rsplit_once("-of-")?.1.parse().ok())
}
