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
