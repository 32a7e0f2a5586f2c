//! What a candidate is judged by.

use std::sync::Arc;

use anyhow::{Context, Result};
use cadwright_rewards::{Frame, Solid, frame_iou};
use cadwright_rollout::{GroundTruth, Scorer};

use super::look::{Look, LookOptions};
use crate::config::{Config, VerifierKind};
use crate::data::Dataset;
use crate::data::render::View;
use crate::pictures::all_decoded;

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
    /// The configured verifier of a part, whose pictures `look` gives. Only `truth` uses the ground
    /// truth.
    ///
    /// # Errors
    /// Those of `look`; for `truth`, no ground truth, or one that is no solid.
    pub fn new(
        config: &Config,
        scorer: &Scorer,
        look: impl FnOnce() -> Result<Look>,
        ground_truth: Option<&GroundTruth>,
    ) -> Result<Self> {
        Ok(match config.agent.verifier {
            VerifierKind::Image => Self::Image(Box::new(look()?)),
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

/// How the pictures of a part are compared: in the views of `agent.views`, or else in those that
/// their names say (`data.views`); in the data set's view if neither says any.
///
/// # Errors
/// `agent.views` names a view that does not exist.
pub fn look_options(agent_views: &[String], names: &[String]) -> Result<LookOptions> {
    let candidates = agent_views.iter().map(|name| View::named(name).context("agent.views"));
    let views = candidates.collect::<Result<Vec<_>>>()?.concat();
    if !views.is_empty() {
        return Ok(LookOptions { views, ..LookOptions::default() });
    }
    let named = |name: &String| View::named(name).ok().filter(|views| views.len() == 1);
    match names.iter().map(named).collect::<Option<Vec<_>>>() {
        Some(views) if !views.is_empty() => {
            Ok(LookOptions { views: views.concat(), in_order: true, ..LookOptions::default() })
        }
        _ => Ok(LookOptions::default()),
    }
}

/// The pictures of a data set's part, for comparison: all of them if there are views for as many,
/// else the first ones.
pub fn look_at(dataset: &Dataset, index: usize, options: &LookOptions) -> Look {
    let mut pictures = all_decoded(&dataset.examples()[index]);
    pictures.truncate(options.views.len());
    Look::new(&pictures, options)
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::csg::{Aabb, CsgSolid, Operation, Vec3};
    use cadwright_rewards::samples::block;
    use image::RgbImage;

    use super::*;
    use crate::data::render::{Framing, canvas_side, draw_csg};
    use crate::data::{Example, encode_png};

    fn picture(solid: &CsgSolid, view: &str) -> RgbImage {
        let bounds: Aabb = solid.bounds().unwrap();
        draw_csg(solid, Framing::fit(&bounds, View::named(view).unwrap()[0], canvas_side(112))).to_picture(112)
    }

    #[test]
    fn a_part_is_compared_with_all_pictures_whose_views_are_known() {
        let body = block(Vec3::zeros(), Vec3::new(3.0, 1.0, 2.0));
        let solid = body.clone().combine(Operation::Union, block(Vec3::x(), Vec3::new(1.0, 1.0, 4.0)));
        let encoded = |view| encode_png(&picture(&solid, view)).unwrap().into();
        let part = Example {
            id: "part".into(),
            image: encoded("front"),
            further: vec![encoded("iso")],
            program: None,
            ground_truth: "solid".into(),
            label: None,
            hundred_subset: false,
        };
        let mut dataset = Dataset::of_examples(vec![part]).unwrap();
        let mut score = |names: [&str; 2]| {
            dataset.views = names.map(str::to_owned).to_vec();
            let look = look_at(&dataset, 0, &look_options(&[], &dataset.views).unwrap());
            look.score(&Solid::native(solid.clone(), false))
        };
        let right = score(["front", "iso"]);
        assert!(right.score > 0.999 && right.pictures.len() == 2, "{right:?}");
        // No picture is compared in the view of another one.
        let swapped = score(["iso", "front"]);
        assert!(swapped.score < 0.9 && swapped.pictures.len() == 2, "{swapped:?}");
        assert_eq!(score(["first", "second"]).pictures.len(), 1);
    }

    #[test]
    fn views_come_from_the_agents_section_or_from_the_names_of_the_pictures() {
        let options = |agent: &[&str], names: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let LookOptions { views, in_order, .. } = look_options(&owned(agent), &owned(names)).unwrap();
            (views.iter().map(View::name).collect::<Vec<_>>(), in_order)
        };
        assert_eq!(options(&[], &[]), (vec!["iso"], false));
        assert_eq!(options(&[], &["front", "iso"]), (vec!["front", "iso"], true));
        assert_eq!(options(&["axes"], &["front", "iso"]).0.len(), 6);
        // Names that are no views say nothing; nor does one that means several.
        for names in [["front", "photo"], ["corners", "iso"]] {
            assert_eq!(options(&[], &names), (vec!["iso"], false));
        }
        let error = look_options(&["elsewhere".to_owned()], &[]).unwrap_err();
        assert!(format!("{error:#}").starts_with("agent.views: "), "{error:#}");
    }
}
