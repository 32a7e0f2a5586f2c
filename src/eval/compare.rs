//! Two evaluations of the same parts, compared part by part.

use std::collections::BTreeMap;

use cadwright_rewards::stats::{MeanCi, best_at_k, mean, sign_flip_p};
use serde_json::{Map, Value, json};

/// One part in an evaluation.
#[derive(Debug, Clone, PartialEq)]
struct EvaluatedPart {
    id: String,
    ground_truth: Value,
    /// The IoU of each sample.
    ious: Vec<f64>,
    /// The IoU of the chosen program; without a choice, the mean over the samples.
    iou: f64,
    /// 1 if the chosen program is valid, else 0; without a choice, the mean over the samples.
    vsr: f64,
}

impl EvaluatedPart {
    fn read(key: &str, row: &Value) -> Result<Self, String> {
        let missing =
            |field: &str| format!("{key}: field {field} is missing; is this a predictions.json of cadwright?");
        let single = [row.clone()];
        let samples = row["samples"].as_array().map_or(&single[..], Vec::as_slice);
        let read = |programs: &[Value]| -> Result<(Vec<f64>, f64), String> {
            let (mut ious, mut valid) = (Vec::new(), Vec::new());
            for program in programs {
                ious.push(program["iou"].as_f64().ok_or_else(|| missing("iou"))?);
                let outcome = program["outcome"].as_str().ok_or_else(|| missing("outcome"))?;
                valid.push(f64::from(outcome == "solid"));
            }
            Ok((ious, mean(&valid)))
        };
        let (ious, _) = read(samples)?;
        let is_chosen = !row["chosen"].is_null();
        let (quoted, vsr) = read(if is_chosen { &single } else { samples })?;
        let id = row["id"].as_str().unwrap_or(key).to_owned();
        let ground_truth = json!([row["ground_truth_code"], row["ground_truth_mesh"]]);
        Ok(Self { id, ground_truth, ious, iou: mean(&quoted), vsr })
    }
}

/// The paired difference of one number over parts: B minus A.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Name of the number.
    pub name: String,
    /// Mean of A.
    pub a: f64,
    /// Mean of B.
    pub b: f64,
    /// 95 % bootstrap interval of the mean of B - A.
    pub ci95: [f64; 2],
    /// Two-sided p-value of a sign-flip test.
    pub p: f64,
    /// Number of parts on which B is better than A, equal within 1e-9, and worse.
    pub wins_ties_losses: [usize; 3],
}

/// Two evaluations of the same parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Number of parts in both evaluations.
    pub n: usize,
    /// `iou` and `vsr`, of a part's chosen program, or means over its samples if none was chosen; also
    /// `best@k` if both have the same number of samples.
    pub differences: Vec<Difference>,
    /// Parts whose IoU changed most: id, IoU in A, IoU in B.
    pub largest: Vec<(String, f64, f64)>,
}

const LARGEST: usize = 10;

impl Comparison {
    /// Compares two `predictions.json`. With `common`, parts in only one of them are left out.
    ///
    /// # Errors
    /// A file that is not a `predictions.json`, or two files about different parts.
    pub fn new(a: &Value, b: &Value, common: bool) -> Result<Self, String> {
        let [a, b] = [read(a).map_err(|e| format!("A: {e}"))?, read(b).map_err(|e| format!("B: {e}"))?];
        let only = |x: &BTreeMap<String, EvaluatedPart>, y: &BTreeMap<String, EvaluatedPart>| {
            x.keys().filter(|id| !y.contains_key(*id)).count()
        };
        let (only_a, only_b) = (only(&a, &b), only(&b, &a));
        if !common && only_a + only_b > 0 {
            return Err(format!(
                "{only_a} parts are in A only and {only_b} in B only: evaluate the same parts, or compare the common ones with --common"
            ));
        }
        let pairs: Vec<(&EvaluatedPart, &EvaluatedPart)> =
            a.iter().filter_map(|(id, part)| Some((part, b.get(id)?))).collect();
        if let Some((part, _)) = pairs.iter().find(|(a, b)| a.ground_truth != b.ground_truth) {
            return Err(format!("part {}: A and B have different ground truths", part.id));
        }
        if pairs.is_empty() {
            return Err("A and B have no part in common".into());
        }
        let mut differences =
            vec![difference("iou", &pairs, |part| part.iou), difference("vsr", &pairs, |part| part.vsr)];
        let samples = pairs[0].0.ious.len();
        if samples > 1 && pairs.iter().all(|(a, b)| a.ious.len() == samples && b.ious.len() == samples) {
            let ks = std::iter::successors(Some(2), |k| Some(k * 2)).take_while(|&k| k < samples).chain([samples]);
            differences.extend(ks.map(|k| difference(&format!("best@{k}"), &pairs, |part| best_at_k(&part.ious, k))));
        }
        let change = |(a, b): &(&EvaluatedPart, &EvaluatedPart)| (a.id.clone(), a.iou, b.iou);
        let mut largest: Vec<_> = pairs.iter().map(change).collect();
        largest.sort_by(|x, y| (y.2 - y.1).abs().total_cmp(&(x.2 - x.1).abs()));
        largest.truncate(LARGEST);
        Ok(Self { n: pairs.len(), differences, largest })
    }

    /// The comparison as JSON.
    pub fn to_json(&self) -> Value {
        let row = |d: &Difference| {
            let [wins, ties, losses] = d.wins_ties_losses;
            let json = json!({
                "a": d.a, "b": d.b, "difference": d.b - d.a, "ci95": d.ci95, "p": d.p,
                "wins": wins, "ties": ties, "losses": losses,
            });
            (d.name.clone(), json)
        };
        let differences: Map<String, Value> = self.differences.iter().map(row).collect();
        let largest: Vec<Value> =
            self.largest.iter().map(|(id, a, b)| json!({"id": id, "iou_a": a, "iou_b": b})).collect();
        json!({"n": self.n, "differences": differences, "largest_changes": largest})
    }

    /// The comparison as a text table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} parts\n{:<8} {:>7} {:>7} {:>8} {:>18} {:>7}  {}\n",
            self.n, "", "A", "B", "B - A", "95 %", "p", "wins/ties/losses"
        );
        for d in &self.differences {
            let [wins, ties, losses] = d.wins_ties_losses;
            let interval = format!("[{:+.4}, {:+.4}]", d.ci95[0], d.ci95[1]);
            text += &format!(
                "{:<8} {:>7.4} {:>7.4} {:>+8.4} {interval:>18} {:>7.4}  {wins}/{ties}/{losses}\n",
                d.name,
                d.a,
                d.b,
                d.b - d.a,
                d.p
            );
        }
        text
    }
}

/// Parts by id. A row without an id has its key `sample_<i>` as its id.
fn read(predictions: &Value) -> Result<BTreeMap<String, EvaluatedPart>, String> {
    let rows = predictions.as_object().filter(|rows| !rows.is_empty()).ok_or("holds no predictions")?;
    let mut parts = BTreeMap::new();
    for (key, row) in rows {
        let part = EvaluatedPart::read(key, row)?;
        // A data set may contain the same part twice.
        let mut id = part.id.clone();
        while parts.contains_key(&id) {
            id.push('\'');
        }
        parts.insert(id, part);
    }
    Ok(parts)
}

fn difference(
    name: &str,
    pairs: &[(&EvaluatedPart, &EvaluatedPart)],
    number: impl Fn(&EvaluatedPart) -> f64,
) -> Difference {
    let values: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (number(a), number(b))).collect();
    let differences: Vec<f64> = values.iter().map(|(a, b)| b - a).collect();
    let count = |is: &dyn Fn(f64) -> bool| differences.iter().filter(|d| is(**d)).count();
    Difference {
        name: name.to_owned(),
        a: mean(&values.iter().map(|(a, _)| *a).collect::<Vec<_>>()),
        b: mean(&values.iter().map(|(_, b)| *b).collect::<Vec<_>>()),
        ci95: MeanCi::of(&differences).ci95,
        p: sign_flip_p(&differences),
        wins_ties_losses: [count(&|d| d > 1e-9), count(&|d| d.abs() <= 1e-9), count(&|d| d < -1e-9)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(ious: &[(&str, f64)]) -> Value {
        let row = |(i, (id, iou)): (usize, &(&str, f64))| {
            let outcome = if *iou > 0.0 { "solid" } else { "exception" };
            (format!("sample_{i}"), json!({"id": id, "ground_truth_code": id, "outcome": outcome, "iou": iou}))
        };
        Value::Object(ious.iter().enumerate().map(row).collect())
    }

    #[test]
    fn parts_are_matched_by_id_whatever_their_order() {
        let a = predictions(&[("x", 0.5), ("y", 0.0), ("z", 0.25)]);
        let b = predictions(&[("z", 0.25), ("x", 0.75), ("y", 0.5)]);
        let found = Comparison::new(&a, &b, false).unwrap();
        let (iou, vsr) = (&found.differences[0], &found.differences[1]);
        assert_eq!((iou.a, iou.b, iou.wins_ties_losses), (0.25, 0.5, [2, 1, 0]));
        assert_eq!((vsr.a, vsr.b, vsr.wins_ties_losses), (2.0 / 3.0, 1.0, [1, 2, 0]));
        assert_eq!(found.largest[0], ("y".into(), 0.0, 0.5));
        assert!(iou.ci95[0] >= 0.0 && iou.ci95[1] <= 0.5);
        // Of the 4 choices of signs of 0.25 and 0.5, two give a sum as far from 0 as the observed
        // one.
        assert!((iou.p - 0.5).abs() < 0.02, "{}", iou.p);
    }

    #[test]
    fn a_difference_that_is_always_the_same_is_certain() {
        let ids: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let all_at = |iou: f64| predictions(&ids.iter().map(|id| (id.as_str(), iou)).collect::<Vec<_>>());
        let found = Comparison::new(&all_at(0.25), &all_at(0.5), false).unwrap();
        assert_eq!(found.differences[0].ci95, [0.25, 0.25]);
        assert!(found.differences[0].p < 2e-4);
        let same = Comparison::new(&all_at(0.5), &all_at(0.5), false).unwrap();
        assert_eq!((same.differences[0].p, same.differences[0].wins_ties_losses), (1.0, [0, 50, 0]));
    }

    #[test]
    fn samples_give_best_at_k() {
        let with_samples = |ious: [f64; 4]| {
            let samples: Vec<Value> = ious.iter().map(|iou| json!({"outcome": "solid", "iou": iou})).collect();
            json!({"sample_0": {"id": "x", "ground_truth_code": "", "outcome": "solid", "iou": ious[0], "samples": samples}})
        };
        let found = Comparison::new(&with_samples([0.0, 0.0, 0.0, 1.0]), &with_samples([0.5; 4]), false).unwrap();
        let names: Vec<&str> = found.differences.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["iou", "vsr", "best@2", "best@4"]);
        // Of the six pairs, three contain the 1.
        for (d, a) in found.differences[2..].iter().zip([0.5, 1.0]) {
            assert!((d.a - a).abs() < 1e-12 && (d.b - 0.5).abs() < 1e-12, "{d:?}");
        }
    }

    #[test]
    fn a_chosen_program_is_compared_and_the_samples_still_give_best_at_k() {
        let samples =
            [("exception", 0.0), ("solid", 0.75)].map(|(outcome, iou)| json!({"outcome": outcome, "iou": iou}));
        let mut row = json!({"id": "x", "ground_truth_code": "", "outcome": "solid", "iou": 0.75, "samples": samples, "chosen": 1});
        let chosen = json!({"sample_0": row});
        row.as_object_mut().unwrap().remove("chosen");
        let found = Comparison::new(&json!({"sample_0": row}), &chosen, false).unwrap();
        let [iou, vsr, best] = [0, 1, 2].map(|i| &found.differences[i]);
        assert_eq!((iou.a, iou.b, vsr.a, vsr.b), (0.375, 0.75, 0.5, 1.0));
        assert_eq!((best.name.as_str(), best.a, best.b), ("best@2", 0.75, 0.75));
        assert_eq!(found.largest, [("x".to_owned(), 0.375, 0.75)]);
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let (a, b) = (predictions(&[("x", 0.5), ("y", 0.5)]), predictions(&[("x", 0.5), ("z", 0.5)]));
        let error = Comparison::new(&a, &b, false).unwrap_err();
        assert!(error.contains("1 parts are in A only and 1 in B only"), "{error}");
        assert_eq!(Comparison::new(&a, &b, true).unwrap().n, 1);
        let mut other = a.clone();
        other["sample_0"]["ground_truth_code"] = json!("another");
        assert!(
            Comparison::new(&a, &other, false).unwrap_err().contains("part x: A and B have different ground truths")
        );
        assert!(Comparison::new(&json!({}), &a, false).unwrap_err().contains("A: holds no predictions"));
        assert!(Comparison::new(&a, &json!({"sample_0": {}}), false).unwrap_err().contains("field iou is missing"));
    }
}
