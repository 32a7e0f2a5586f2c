//! Where the prior of a policy comes from.

use anyhow::Result;

use super::prior::Prior;
use crate::config::Config;
use crate::data::{DataSource, Dataset, Selection, Split, open_dataset};
use crate::policy::PolicyPath;

/// Programs from which a prior is learned, at most.
const PROGRAMS: usize = 20_000;

/// The prior for a policy: learned from the data set `agent.prior`, if that is set; else the one
/// beside the adapter or the checkpoint; else one that knows nothing.
///
/// # Errors
/// A data set or a file that cannot be read.
pub fn prior_of(config: &Config, path: &PolicyPath) -> Result<Prior> {
    if !config.agent.prior.is_empty() {
        let source = DataSource { needs_pictures: false, ..config.data.named_source(&config.agent.prior) };
        let selection = Selection { split: Split::Train, limit: Some(PROGRAMS), hundred_subset_only: false };
        return Ok(learned_from(&open_dataset(&source, selection)?));
    }
    Ok(stored_prior(path)?.unwrap_or_default())
}

/// The prior beside the adapter or the checkpoint, if either is stored.
///
/// # Errors
/// A malformed `prior.json`.
pub fn stored_prior(path: &PolicyPath) -> Result<Option<Prior>> {
    for directory in path.adapter.iter().chain([&path.checkpoint]) {
        if let Some(prior) = Prior::of(directory)? {
            return Ok(Some(prior));
        }
    }
    Ok(None)
}

/// Learns from the labelled programs of a data set.
pub fn learned_from(dataset: &Dataset) -> Prior {
    Prior::learn(dataset.examples().iter().filter_map(|example| example.program.as_deref()).take(PROGRAMS))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::draft::PROGRAM;
    use super::*;

    #[test]
    fn programs_are_read_in_the_form_and_by_the_names_of_the_data_section() {
        let directory = tempfile::tempdir().unwrap();
        let row = json!({"id": "1", "code": PROGRAM});
        fs::write(directory.path().join("train.jsonl"), format!("{row}\n")).unwrap();
        let mut config = Config::default();
        config.agent.prior = directory.path().join("*.jsonl").to_str().unwrap().to_owned();
        config.data.columns.program = "code".to_owned();
        let nowhere = PolicyPath { checkpoint: directory.path().to_owned(), adapter: None };
        assert_eq!(prior_of(&config, &nowhere).unwrap().drafts().len(), 1);
    }
}
