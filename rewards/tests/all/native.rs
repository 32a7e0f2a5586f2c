//! Compares the native engine with the recorded answers of real CadQuery (see
//! `scripts/reference/cadquery_rules.py`).

use cadwright_rewards::native::execute;
use cadwright_rewards::{Outcome, Solid};
use serde::Deserialize;

#[derive(Deserialize)]
struct Rule {
    rule: String,
    program: String,
    outcome: String,
    error: Option<String>,
    volume: Option<f64>,
    centroid: Option<[f64; 3]>,
    bounds: Option<[f64; 6]>,
    solids: Option<u32>,
    malformed: Option<bool>,
}

/// Rules that the native engine hands on to CadQuery: malformed solids, and cases too rare to be
/// worth the code.
const DECLINED: &[&str] = &[
    "bow tie",
    "spike",
    "sliver at a corner",
    "out and back to both sides",
    "union with what is malformed",
    "bow tie beside a cut",
    "edge across a seam",
    "cap touched from side to side",
    "cylinders across each other touch",
    "fillet beside an acute corner",
    "triangle across the outline",
    "triangle across the outline, turned",
    "triangle across the outline, from another corner",
    "mirror and union",
    "not closed then closed",
    "no radius",
    "equal cylinders cross",
    "edge of 2e-7",
    "outline across the axis",
    "rectangles in an array",
    "segment of lists",
    "add of a sketch",
    "cut by joined faces",
    "cap touches a cylinder",
    "edge rests on a cap",
    "cylinders touch",
    "spheres cross",
    "ball in a box",
    "bodies on both sides",
    "ring cutThruAll",
    "intersect with a face",
    "hole of text",
    "taper of text",
    "revolve from 1e-16",
    "vectors compared",
    "text of an error",
    "flat loop and another",
];

fn rules() -> Vec<Rule> {
    let text = include_str!("../cadquery_rules.json");
    serde_json::from_str(text).expect("the file is written by a script")
}

#[test]
fn every_rule_is_answered_as_by_cadquery_or_handed_on() {
    let mut wrong = Vec::new();
    for rule in rules() {
        let declined = DECLINED.contains(&rule.rule.as_str());
        match execute(&rule.program) {
            Err(_) if declined => {}
            Err(decline) => wrong.push(format!("{}: declined: {decline}", rule.rule)),
            Ok(_) if declined => wrong.push(format!("{}: no longer declined: take it off the list", rule.rule)),
            Ok(outcome) => wrong.extend(difference(&rule, &outcome).map(|what| format!("{}: {what}", rule.rule))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(rule: &Rule, outcome: &Outcome) -> Option<String> {
    if outcome.class().name() != rule.outcome {
        return Some(format!("{} instead of {}: {:?}", outcome.class(), rule.outcome, outcome.error()));
    }
    if let (Some(expected), Some(found)) = (&rule.error, outcome.error()) {
        let class = found.split(':').next().unwrap_or("");
        return (class != expected).then(|| format!("{found} instead of {expected}"));
    }
    outcome.solid().and_then(|solid| shape_difference(rule, solid))
}

fn shape_difference(rule: &Rule, solid: &Solid) -> Option<String> {
    let mass = solid.mass();
    let (volume, bounds) = (rule.volume?, rule.bounds?);
    let size = (0..3).map(|axis| bounds[axis + 3] - bounds[axis]).fold(0.0, f64::max);
    let far = |a: f64, b: f64, tolerance: f64| (a - b).abs() > tolerance;
    if far(mass.volume, volume, 1e-3 * volume) {
        return Some(format!("volume {} instead of {volume}", mass.volume));
    }
    if mass.centroid.iter().zip(rule.centroid?).any(|(a, b)| far(*a, b, 1e-3 * size)) {
        return Some(format!("centroid {:?} instead of {:?}", mass.centroid, rule.centroid));
    }
    let found = [mass.bounds.min, mass.bounds.max].concat();
    if found.iter().zip(bounds).any(|(a, b)| far(*a, b, 1e-6 * size)) {
        return Some(format!("bounds {found:?} instead of {bounds:?}"));
    }
    if rule.malformed != Some(solid.malformed) {
        return Some(format!("malformed: {}", solid.malformed));
    }
    let is_wrong = solid.solids().is_some_and(|solids| rule.solids != Some(solids));
    is_wrong.then(|| format!("{:?} solids instead of {:?}", solid.solids(), rule.solids))
}
