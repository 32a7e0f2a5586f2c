//! The curves of a run, from `metrics.jsonl`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::short;

/// Most points of a curve: more than a page has pixels for.
const MOST_POINTS: usize = 400;

/// A number over the steps of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    pub stage: String,
    /// The name without the stage.
    pub name: String,
    /// Ascending.
    pub steps: Vec<u64>,
    /// One for each step; `None` is a number that is not finite.
    pub values: Vec<Option<f64>>,
    /// Number of points before they were thinned.
    pub recorded: usize,
}

impl Curve {
    pub fn last_step(&self) -> Option<u64> {
        self.steps.last().copied()
    }
}

/// The curves in the text of `metrics.jsonl`, and the number of lines that are not rows. A step that
/// was recorded twice has its last value.
pub fn curves(text: &str) -> (Vec<Curve>, usize) {
    let mut points: BTreeMap<(String, String), BTreeMap<u64, Option<f64>>> = BTreeMap::new();
    let mut damaged = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).unwrap_or_default();
        let (Some(stage), Some(step), Some(row)) = (row["stage"].as_str(), row["step"].as_u64(), row.as_object())
        else {
            damaged += 1;
            continue;
        };
        for (tag, value) in row {
            if let Some(name) = tag.strip_prefix(stage).and_then(|rest| rest.strip_prefix('/')) {
                points.entry((stage.to_owned(), name.to_owned())).or_default().insert(step, value.as_f64());
            }
        }
    }
    let curve = |((stage, name), points): ((String, String), BTreeMap<u64, Option<f64>>)| {
        let all: Vec<(u64, Option<f64>)> = points.into_iter().collect();
        let recorded = all.len();
        let (steps, values) = thinned(&all).into_iter().map(|(step, value)| (step, value.map(short))).unzip();
        Curve { stage, name, steps, values, recorded }
    };
    // An evaluation is one point, and the tables have it.
    let curves = points.into_iter().map(curve).filter(|curve| !curve.stage.starts_with("eval/"));
    (curves.collect(), damaged)
}

/// At most [`MOST_POINTS`] points: the first and the last one, and of each stretch between them the
/// lowest and the highest one, so that no peak is lost.
fn thinned(points: &[(u64, Option<f64>)]) -> Vec<(u64, Option<f64>)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let inner = &points[1..points.len() - 1];
    let length = inner.len().div_ceil(MOST_POINTS / 2 - 1);
    let mut kept = vec![points[0]];
    for stretch in inner.chunks(length) {
        let value = |index: &usize| stretch[*index].1.unwrap_or(f64::NAN);
        let low = (0..stretch.len()).min_by(|a, b| value(a).total_cmp(&value(b))).unwrap_or(0);
        let high = (0..stretch.len()).max_by(|a, b| value(a).total_cmp(&value(b))).unwrap_or(0);
        kept.push(stretch[low.min(high)]);
        if low != high {
            kept.push(stretch[low.max(high)]);
        }
    }
    kept.push(points[points.len() - 1]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_curves_and_damaged_lines_are_counted() {
        let text = "{\"stage\":\"sft\",\"step\":1,\"sft/loss\":2.5,\"sft/lr\":\"NaN\"}\n\
                    {\"stage\":\"sft\",\"step\":0,\"sft/loss\":3}\n\
                    {\"stage\":\"sft\",\"step\":1,\"sft/loss\":2}\n\
                    {\"stage\":\"eval/sft\",\"step\":2,\"eval/sft/iou\":0.5}\n\
                    {\"stage\":\"sft\",\"st";
        let (curves, damaged) = curves(text);
        assert_eq!(damaged, 1);
        let shown: Vec<_> = curves.iter().map(|c| (c.name.as_str(), c.steps.clone(), c.values.clone())).collect();
        assert_eq!(shown, [("loss", vec![0, 1], vec![Some(3.0), Some(2.0)]), ("lr", vec![1], vec![None])]);
    }

    #[test]
    fn a_long_curve_keeps_its_ends_and_its_peaks() {
        let value = |step: u64| if step == 7_777 { 9.0 } else { (step % 10) as f64 / 10.0 };
        let points: Vec<_> = (0..20_000).map(|step| (step, Some(value(step)))).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= MOST_POINTS, "{}", kept.len());
        assert_eq!((kept[0].0, kept[kept.len() - 1].0), (0, 19_999));
        assert!(kept.contains(&(7_777, Some(9.0))));
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(&points[..MOST_POINTS]), points[..MOST_POINTS]);
    }
}
