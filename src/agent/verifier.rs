//! What a candidate is judged by.

use std::sync::Arc;

use anyhow::{Context, Result};
use cadwright_rewards::{Frame, Solid, frame_iou};
use cadwright_rollout::{GroundTruth, Scorer};
use image::RgbImage;

use super::look::{Look, LookOptions};
use crate::config::{Config, VerifierKind};
use crate::data::render::View;

/// A judge of solids, for one part.
pub enum Verifier {
    /// The likeness of pictures; needs no ground truth.
    Image(Box<Look>),
    /// Whether there is a solid.
    Execution,
    /// The IoU with the ground truth: the upper bound of what any verifier can choose.
    Truth {
        /// The ground truth's solid.
        solid: Arc<Solid>,
        /// The frame of the comparison.
        frame: Frame,
        /// Cells along each axis.
        cells: usize,
    },
}

impl Verifier {
    /// The configured verifier of the part in these pictures. Only `truth` uses the ground truth.
    ///
    /// # Errors
    /// A view that does not exist; for `truth`, no ground truth, or one that is no solid.
    pub fn new(
        config: &Config,
        scorer: &Scorer,
        pictures: &[RgbImage],
        ground_truth: Option<&GroundTruth>,
    ) -> Result<Self> {
        Ok(match config.agent.verifier {
            VerifierKind::Image => Self::Image(Box::new(Look::new(pictures, &look_options(config)?))),
            VerifierKind::Execution => Self::Execution,
            VerifierKind::Truth => {
                let answer =
                    scorer.ground_truth(ground_truth.context("the verifier \"truth\" needs a ground truth")?)?;
                let reason = || answer.error().unwrap_or_default();
                let solid =
                    answer.solid().cloned().with_context(|| format!("the ground truth is no solid: {}", reason()))?;
                Self::Truth { solid, frame: config.rollout.frame, cells: config.rollout.grid }
            }
        })
    }

    /// The score of a solid, in [0, 1]. A malformed solid, whose shape is not what it seems, has 0.
    pub fn score(&self, solid: &Solid) -> f64 {
        match self {
            _ if solid.malformed => 0.0,
            Self::Image(look) => look.score(solid).score,
            Self::Execution => 1.0,
            Self::Truth { solid: truth, frame, cells } => frame_iou(*frame, *cells, solid, truth),
        }
    }

    /// Where the candidate's picture differs from the input's, in words; empty if no pictures are
    /// compared.
    pub fn differences(&self, solid: &Solid) -> Vec<String> {
        match self {
            Self::Image(look) => look.differences(solid).iter().map(ToString::to_string).collect(),
            Self::Execution | Self::Truth { .. } => Vec::new(),
        }
    }
}

/// How pictures are compared.
///
/// # Errors
/// `agent.views` names a view that does not exist.
pub fn look_options(config: &Config) -> Result<LookOptions> {
    let named = config.agent.views.iter().map(|name| View::named(name).context("agent.views"));
    let views = named.collect::<Result<Vec<_>>>()?.concat();
    Ok(LookOptions { views, ..LookOptions::default() })
}
