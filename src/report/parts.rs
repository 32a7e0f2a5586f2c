//! The gallery: parts with their pictures, programs and solids.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cadwright_rewards::grid::Pose;
use cadwright_rewards::{Frame, Solid, place};
use cadwright_rollout::{Engine, GroundTruth, Scorer};
use image::imageops::{FilterType, resize};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::results::{ShownPolicy, ordered};
use super::run_files::RunFiles;
use super::solids::{PackedSolid, packed};
use super::{ReportOptions, short};
use crate::data::image::decode_rgb;
use crate::data::{DataSource, Dataset, Place, encode_png};
use crate::hub::{Hub, RepoKind};
use crate::run::stored_data;

/// Longest side of a picture, in pixels.
const PICTURE_SIDE: u32 = 256;

/// Longest program or message, in characters.
const LONGEST_TEXT: usize = 12_000;

/// Bytes of all solids together. Those of further parts are left out.
const SOLIDS_BYTES: usize = 2_600_000;

/// Bytes of all pictures together. Those of further parts are left out.
const PICTURES_BYTES: usize = 1_200_000;

/// A part as the page reads it.
#[derive(Debug, Serialize)]
pub struct ShownPart {
    id: String,
    /// Its row in the evaluated split.
    row: usize,
    /// The input picture as a `data:` URL.
    picture: Option<String>,
    /// The true program, if the truth is one.
    program: Option<String>,
    solid: Option<PackedSolid>,
    results: Vec<ShownResult>,
}

/// What a policy wrote for a part.
#[derive(Debug, Serialize)]
struct ShownResult {
    /// Number of the policy.
    policy: usize,
    program: String,
    outcome: String,
    error: Option<String>,
    iou: f64,
    /// By frame.
    ious: Value,
    /// Whatever else the row says: `malformed`, `truncated`, `token_counts`, ..
    more: Value,
    solid: Option<PackedSolid>,
}

/// A part, and what each policy wrote for it.
struct Candidate<'a> {
    id: &'a str,
    run: usize,
    row: usize,
    /// Policy and row of its predictions.
    results: Vec<(usize, &'a Value)>,
}

/// At most `options.parts` parts, evenly over all by the IoU of the last policy, in the order of the
/// data; and the number of all.
pub fn gallery(
    runs: &[RunFiles],
    policies: &[ShownPolicy],
    options: &ReportOptions,
    notes: &mut Vec<String>,
) -> (Vec<ShownPart>, usize) {
    let candidates = candidates(runs, policies);
    let total = candidates.len();
    let chosen = chosen(candidates, options.parts);
    if chosen.is_empty() {
        return (Vec::new(), total);
    }
    let datasets: Vec<Option<Dataset>> = runs
        .iter()
        .enumerate()
        .map(|(number, run)| {
            let is_needed = chosen.iter().any(|part| part.run == number);
            if is_needed { opened(run, notes) } else { None }
        })
        .collect();
    let mut parts: Vec<ShownPart> = chosen.iter().map(|part| shown(part, datasets[part.run].as_ref())).collect();
    limit_pictures(&mut parts, notes);
    if options.solids {
        add_solids(runs, policies, &chosen, &datasets, &mut parts, notes);
    }
    (parts, total)
}

/// The parts of all runs. Runs share a part if its id and its truth are the same.
fn candidates<'a>(runs: &'a [RunFiles], policies: &[ShownPolicy]) -> Vec<Candidate<'a>> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut known = HashMap::new();
    let rows =
        runs.iter().enumerate().flat_map(|(run, files)| files.predictions.iter().map(move |(_, rows)| (run, rows)));
    for (policy, (run, rows)) in rows.enumerate().take(policies.len()) {
        // A data set may have several rows of one id.
        let mut occurrences: HashMap<&str, usize> = HashMap::new();
        for (number, row) in ordered(rows) {
            let id = row["id"].as_str().unwrap_or("?");
            let occurrence = occurrences.entry(id).or_default();
            let key = (id, row["ground_truth_code"].as_str(), row["ground_truth_mesh"].as_str(), *occurrence);
            *occurrence += 1;
            let index = *known.entry(key).or_insert_with(|| {
                candidates.push(Candidate { id, run, row: number, results: Vec::new() });
                candidates.len() - 1
            });
            candidates[index].results.push((policy, row));
        }
    }
    candidates
}

/// `count` of the parts, evenly over their order by the IoU of the last policy that has them.
fn chosen(candidates: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    if candidates.len() <= count {
        return candidates;
    }
    let iou = |part: &Candidate| part.results.last().and_then(|(_, row)| row["iou"].as_f64()).unwrap_or(0.0);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| iou(&candidates[a]).total_cmp(&iou(&candidates[b])));
    let last = candidates.len() - 1;
    // With one part, that is the middle.
    let place = |k: usize| if count == 1 { last / 2 } else { k * last / (count - 1) };
    let mut picked: Vec<usize> = (0..count).map(|k| order[place(k)]).collect();
    picked.sort_unstable();
    candidates
        .into_iter()
        .enumerate()
        .filter(|(index, _)| picked.binary_search(index).is_ok())
        .map(|(_, part)| part)
        .collect()
}

/// The rows that a run evaluated.
fn opened(run: &RunFiles, notes: &mut Vec<String>) -> Option<Dataset> {
    let config = run.config.as_ref()?;
    let Some(source) = on_this_machine(stored_data(config, &run.directory)) else {
        notes.push(format!("There are no input pictures: {} is not in the cache of the hub.", config.data.repo));
        return None;
    };
    match Dataset::open_selection(&source, config.eval_selection()) {
        Ok(dataset) => Some(dataset),
        Err(error) => {
            notes.push(format!("There are no input pictures: {error}."));
            None
        }
    }
}

/// The same data without the network: a report downloads nothing. `None` if it is not in the cache.
fn on_this_machine(source: DataSource) -> Option<DataSource> {
    let Place::Hub { repo, revision } = &source.place else { return Some(source) };
    let cached = Hub::from_env().ok()?.cached(RepoKind::Dataset, repo, revision)?;
    let (_, file) = cached.into_iter().find(|(name, _)| name.ends_with(".parquet"))?;
    let place = Place::Parquet(file.parent()?.to_owned());
    Some(DataSource { place, ..source })
}

fn shown(part: &Candidate, dataset: Option<&Dataset>) -> ShownPart {
    let example = dataset.and_then(|dataset| dataset.get(part.row)).filter(|example| example.id == part.id);
    let truth = part.results[0].1;
    let result = |&(policy, row): &(usize, &Value)| {
        const SHOWN: [&str; 8] =
            ["id", "predicted_code", "ground_truth_code", "ground_truth_mesh", "outcome", "error", "iou", "ious"];
        let more = row.as_object().into_iter().flatten();
        let more = more.filter(|(key, value)| !SHOWN.contains(&key.as_str()) && !value.is_null());
        ShownResult {
            policy,
            program: cut(row["predicted_code"].as_str().unwrap_or_default()),
            outcome: row["outcome"].as_str().unwrap_or("unknown").to_owned(),
            error: row["error"].as_str().map(cut),
            iou: short(row["iou"].as_f64().unwrap_or(0.0)),
            ious: row["ious"].clone(),
            more: more.map(|(key, value)| (key.clone(), brief(value))).collect(),
            solid: None,
        }
    };
    ShownPart {
        id: part.id.to_owned(),
        row: part.row,
        picture: example.and_then(|example| picture(&example.image)),
        program: truth["ground_truth_code"].as_str().map(cut),
        solid: None,
        results: part.results.iter().map(result).collect(),
    }
}

/// A value without the texts of other samples and turns.
fn brief(value: &Value) -> Value {
    match value {
        Value::Array(rows) => rows.iter().map(|row| row.get("iou").cloned().unwrap_or_else(|| brief(row))).collect(),
        Value::String(text) => cut(text).into(),
        other => other.clone(),
    }
}

/// The text, or its beginning if it is too long.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}\n# .. cut: {} characters in all", &text[..end], text.chars().count()),
        None => text.to_owned(),
    }
}

/// A picture as a `data:` URL, made smaller if it is large.
fn picture(bytes: &[u8]) -> Option<String> {
    let picture = decode_rgb(bytes).ok()?;
    let longest = picture.width().max(picture.height());
    let scaled = |side: u32| (side * PICTURE_SIDE / longest).max(1);
    let png = if longest > PICTURE_SIDE {
        let size = (scaled(picture.width()), scaled(picture.height()));
        encode_png(&resize(&picture, size.0, size.1, FilterType::Triangle)).ok()?
    } else if bytes.starts_with(b"\x89PNG") {
        bytes.to_vec()
    } else {
        encode_png(&picture).ok()?
    };
    Some(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

fn limit_pictures(parts: &mut [ShownPart], notes: &mut Vec<String>) {
    let (mut bytes, mut left_out) = (0, 0);
    for part in parts {
        bytes += part.picture.as_ref().map_or(0, String::len);
        if bytes > PICTURES_BYTES {
            left_out += usize::from(part.picture.take().is_some());
        }
    }
    if left_out > 0 {
        notes.push(format!("{left_out} parts of the gallery are without their picture, to keep this file small."));
    }
}

/// Executes the true and the written programs of the chosen parts and adds their solids.
fn add_solids(
    runs: &[RunFiles],
    policies: &[ShownPolicy],
    chosen: &[Candidate],
    datasets: &[Option<Dataset>],
    parts: &mut [ShownPart],
    notes: &mut Vec<String>,
) {
    let scorer = match scorer(&runs[0]) {
        Ok(scorer) => scorer,
        Err(error) => return notes.push(format!("There are no solids: {error}.")),
    };
    let frame_of = |policy: usize| policies[policy].frame.parse().unwrap_or(Frame::Canonical);
    let build = |part: &Candidate| {
        let example = datasets[part.run].as_ref().and_then(|dataset| dataset.get(part.row));
        let truth = match example.filter(|example| example.id == part.id) {
            Some(example) => Some(example.ground_truth.clone()),
            None => part.results[0].1["ground_truth_code"].as_str().map(GroundTruth::from),
        };
        let truth = truth.and_then(|truth| scorer.ground_truth(&truth).ok()?.solid().cloned());
        let built = |&(policy, row): &(usize, &Value)| {
            if row["outcome"] != "solid" {
                return None;
            }
            let answer = scorer.execute(row["predicted_code"].as_str()?).ok()?.answer;
            let solid = answer.solid()?;
            packed(solid, &poses(frame_of(policy), solid, truth.as_deref()).0)
        };
        let results: Vec<Option<PackedSolid>> = part.results.iter().map(built).collect();
        let frame = frame_of(part.results[0].0);
        (truth.and_then(|truth| packed(&truth, &poses(frame, &truth, Some(&truth)).1)), results)
    };
    let built: Vec<_> = scorer.install(|| chosen.par_iter().map(build).collect());
    let (mut bytes, mut left_out) = (0, 0);
    for (part, (truth, results)) in parts.iter_mut().zip(built) {
        bytes += results.iter().chain([&truth]).flatten().map(PackedSolid::bytes).sum::<usize>();
        if bytes > SOLIDS_BYTES {
            left_out += 1;
            continue;
        }
        part.solid = truth;
        part.results.iter_mut().zip(results).for_each(|(result, solid)| result.solid = solid);
    }
    if left_out > 0 {
        notes.push(format!("{left_out} parts of the gallery are without their solids, to keep this file small."));
    }
}

/// A scorer that executes with CadQuery, whose solids have triangles. True parts that the run has
/// executed come from its cache.
fn scorer(run: &RunFiles) -> cadwright_rollout::Result<Scorer> {
    let config = run.config.clone().unwrap_or_default();
    let cache = match &config.rollout.cache_dir {
        unset if unset.as_os_str().is_empty() => run.directory.join("cache"),
        path => path.clone(),
    };
    let open = |cache| Scorer::new(config.scorer(Engine::Cadquery, config.eval.grid, &[Frame::Canonical], cache));
    // The directory of a run may be read-only, or without a cache.
    let scorer = if cache.is_dir() { open(Some(cache)).or_else(|_| open(None)) } else { open(None) }?;
    scorer.ready()?;
    Ok(scorer)
}

/// The poses in which `frame` compares a solid with the truth: of the solid, and of the truth.
fn poses(frame: Frame, solid: &Solid, truth: Option<&Solid>) -> (Pose, Pose) {
    // Only the best of the turned frames depends on the grid, and a coarse one finds it.
    const GRID: usize = 32;
    let is_moved = matches!(frame, Frame::Normalised | Frame::Aligned);
    let placed = truth.filter(|_| is_moved).and_then(|truth| place(frame, GRID, solid, truth));
    placed.map_or((Pose::identity(), Pose::identity()), |placed| (placed.prediction, placed.ground_truth))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_gallery_is_even_over_the_ious_and_in_the_order_of_the_data() {
        let rows: Vec<Value> = (0..10).map(|i| json!({"iou": f64::from(9 - i) / 10.0})).collect();
        let candidates = || -> Vec<Candidate> {
            let part = |(row, value)| Candidate { id: "x", run: 0, row, results: vec![(0, value)] };
            rows.iter().enumerate().map(part).collect()
        };
        let picked = |count| -> Vec<usize> { chosen(candidates(), count).iter().map(|part| part.row).collect() };
        assert_eq!(picked(4), [0, 3, 6, 9]);
        assert_eq!(picked(20), (0..10).collect::<Vec<_>>());
        assert_eq!((picked(1), picked(0)), (vec![5], vec![]));
    }

    #[test]
    fn long_programs_are_cut_between_characters() {
        let text = "é".repeat(LONGEST_TEXT + 1);
        assert!(cut(&text).ends_with(&format!("é\n# .. cut: {} characters in all", LONGEST_TEXT + 1)));
        assert_eq!(cut("short"), "short");
    }
}
