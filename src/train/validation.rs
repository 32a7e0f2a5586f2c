//! Validation while a stage trains: greedy programs for held-out parts, executed; the best checkpoint by their IoU is kept.

use std::path::Path;

use anyhow::Result;
use cadwright_rewards::Body;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::Stage;
use super::evaluate::{EvalOptions, Prediction, Report, evaluate};
use super::pictures::{Pictures, decoded};
use crate::data::Dataset;
use crate::data::render::{render_csg, render_mesh, side_by_side};
use crate::model::InternVl;
use crate::telemetry::Telemetry;

/// The best validation so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Best {
    /// Its IoU; none before the first validation.
    pub iou: Option<f64>,
    /// Its VSR.
    pub vsr: f64,
    /// The number of steps taken then.
    pub step: usize,
}

/// Validates `model` after `step` steps on the first `samples` validation parts, shows a few of them, and keeps the model in
/// `directory` if it is the best so far.
///
/// # Errors
/// The scorer cannot go on, or the directory cannot be written.
pub fn validate(
    stage: &Stage,
    model: &InternVl,
    samples: usize,
    step: usize,
    best: &mut Best,
    directory: &Path,
    telemetry: &mut Telemetry,
) -> Result<Report> {
    let Stage { config, validation, scorer, .. } = stage;
    let pictures = Pictures::new(validation, config.model.max_tiles, 0);
    let questions = stage.questions(validation, &pictures);
    let indices: Vec<usize> = (0..validation.len().min(samples)).collect();
    let options = EvalOptions {
        sampling: stage.sampling(0.0, 1.0),
        batch_size: config.generate.batch_size,
        seed: u64::from(config.run.seed),
    };
    let predictions = evaluate(&model.frozen_copy(), &questions, &indices, scorer, options, |_| {})?;
    if let Some(picture) = contact_sheet(validation, &predictions) {
        telemetry.picture(step, "validation", &picture);
    }
    let report = Report::new(&predictions, &[config.reward_frame()]);
    let iou = report.iou_in(config.reward_frame());
    // By IoU, then by VSR; of equals, the one that was trained for longer.
    if best.iou.is_none_or(|best_iou| (iou, report.vsr) >= (best_iou, best.vsr)) {
        *best = Best { iou: Some(iou), vsr: report.vsr, step };
        stage.save_policy(model, directory)?;
    }
    Ok(report)
}

/// Pictures shown in TensorBoard.
const PICTURES_SHOWN: usize = 4;

/// The first predictions that built a solid: the input beside the predicted solid, pair after pair.
fn contact_sheet(dataset: &Dataset, predictions: &[Prediction]) -> Option<RgbImage> {
    let pairs: Vec<RgbImage> = predictions
        .iter()
        .filter_map(|prediction| Some((prediction, prediction.score.solid.as_ref()?)))
        .take(PICTURES_SHOWN)
        .filter_map(|(prediction, solid)| {
            let input = decoded(&dataset.examples()[prediction.index]);
            let predicted = match &solid.body {
                Body::Mesh(mesh) => render_mesh(&mesh.vertices, &mesh.triangles, &mesh.faces, input.width()).ok()?,
                Body::Csg(csg) => render_csg(csg, input.width()),
            };
            Some(side_by_side(&[input, predicted]))
        })
        .collect();
    (!pairs.is_empty()).then(|| side_by_side(&pairs))
}
