//! What programs of a data set are like: a prior that is learned from labelled programs.
//!
//! A picture that is framed automatically shows neither place nor size of a part, and nothing of
//! its hidden sides. A search that follows the picture alone drifts there. So [`Prior`] counts, in
//! programs of the data set, the habits that a picture leaves open: where the first sketch begins,
//! how long the longest side is, on which planes which outlines stand and what they touch, when an
//! extrusion goes to both sides, which numbers are used. Nothing about any of them is written here;
//! only what is counted is.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use cadwright_rewards::csg::Operation;
use serde::{Deserialize, Serialize};

use super::draft::{Body, Draft, Loop, tidy};
use crate::files::write_whole;

/// The file beside a policy's weights.
const FILE: &str = "prior.json";

/// Programs that are kept whole, as material for search.
const LIBRARY: usize = 1000;

/// Pseudo-count of the symbols that were never seen in a context, together.
const UNSEEN: f64 = 0.5;

/// Lattices that numbers may lie on: multiples of one of these.
const LATTICES: [f64; 6] = [1.0 / 8.0, 1.0 / 16.0, 1.0 / 32.0, 1.0 / 64.0, 1.0 / 128.0, 0.01];

/// Habits of a data set's programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// How often each symbol was seen in each context.
    counts: BTreeMap<String, BTreeMap<String, u32>>,
    /// The plausibility of the least plausible program.
    least: f64,
    /// The step of the numbers, if nearly all are multiples of one.
    lattice: Option<f64>,
    /// Programs in the data set's form.
    programs: Vec<String>,
    /// [`Self::programs`], parsed.
    #[serde(skip)]
    drafts: Vec<Draft>,
}

impl Prior {
    /// Learns from programs; those in another form than the data set's are left out.
    pub fn learn<'a>(programs: impl IntoIterator<Item = &'a str>) -> Self {
        let (programs_read, drafts): (Vec<String>, Vec<Draft>) =
            programs.into_iter().filter_map(|program| Some((program.to_owned(), Draft::parse(program)?))).unzip();
        let mut prior = Self { lattice: lattice_of(&drafts), ..Self::default() };
        for draft in &drafts {
            for (context, symbol) in habits(draft, prior.lattice) {
                *prior.counts.entry(context).or_default().entry(symbol).or_default() += 1;
            }
        }
        prior.least = drafts.iter().map(|draft| prior.plausibility(draft)).fold(0.0, f64::min);
        prior.programs = programs_read.into_iter().take(LIBRARY).collect();
        prior.drafts = drafts.into_iter().take(LIBRARY).collect();
        prior
    }

    /// Whether nothing was learned: every program is as likely as any other.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The step of the data set's numbers, if it has one.
    pub fn lattice(&self) -> Option<f64> {
        self.lattice
    }

    /// Programs of the data set, as drafts.
    pub fn drafts(&self) -> &[Draft] {
        &self.drafts
    }

    /// How unusual the draft is, in nats; at most 0. Each habit counts by how much less likely its
    /// symbol is than symbols of its context are on average (the context's entropy), and not at all
    /// if it is likelier. So a program is not the worse for having more bodies and numbers, if they
    /// are like those of other programs.
    pub fn plausibility(&self, draft: &Draft) -> f64 {
        habits(draft, self.lattice).iter().map(|(context, symbol)| self.surprise(context, symbol)).sum()
    }

    /// [`Self::plausibility`] of a program. One in another form than the data set's counts as the
    /// least plausible one that was learned from.
    pub fn plausibility_of(&self, program: &str) -> f64 {
        Draft::parse(program).map_or(self.least, |draft| self.plausibility(&draft))
    }

    /// The most telling habits that the draft breaks: context, symbol and how unusual it is.
    pub fn surprises(&self, draft: &Draft, count: usize) -> Vec<(String, String, f64)> {
        let scored = habits(draft, self.lattice).into_iter().map(|(context, symbol)| {
            let surprise = self.surprise(&context, &symbol);
            (context, symbol, surprise)
        });
        let mut scored: Vec<_> = scored.collect();
        scored.sort_by(|a, b| a.2.total_cmp(&b.2));
        scored.truncate(count);
        scored
    }

    /// The log-probability of a symbol in its context plus the entropy of the context, at most 0. A
    /// context that was never seen says nothing.
    fn surprise(&self, context: &str, symbol: &str) -> f64 {
        let Some(symbols) = self.counts.get(context) else { return 0.0 };
        let total = symbols.values().copied().map(f64::from).sum::<f64>() + UNSEEN;
        let seen = symbols.get(symbol).map_or(UNSEEN / (1.0 + symbols.len() as f64), |count| f64::from(*count));
        let entropy: f64 = symbols.values().map(|count| f64::from(*count) / total).map(|p| -p * p.ln()).sum();
        ((seen / total).ln() + entropy).min(0.0)
    }

    /// Writes the prior beside a policy, as `prior.json`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        write_whole(&path, &serde_json::to_string(self)?)
    }

    /// The prior beside a policy, if there is one.
    ///
    /// # Errors
    /// `prior.json` cannot be read, or is malformed.
    pub fn of(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut prior: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))?;
        prior.drafts = prior.programs.iter().filter_map(|program| Draft::parse(program)).collect();
        Ok(Some(prior))
    }
}

/// The coarsest lattice that holds nearly all numbers.
fn lattice_of(drafts: &[Draft]) -> Option<f64> {
    let numbers: Vec<f64> = drafts.iter().flat_map(Draft::numbers).collect();
    let holds = |step: f64| numbers.iter().filter(|number| on_lattice(**number, step)).count();
    LATTICES.into_iter().find(|step| !numbers.is_empty() && holds(*step) as f64 >= 0.98 * numbers.len() as f64)
}

fn on_lattice(value: f64, step: f64) -> bool {
    (value / step - (value / step).round()).abs() < 1e-6
}

/// What is counted: pairs of a context and the symbol that a program shows in it.
fn habits(draft: &Draft, lattice: Option<f64>) -> Vec<(String, String)> {
    let mut found = vec![("bodies".to_owned(), draft.bodies.len().min(12).to_string())];
    let mut before: Option<[[f64; 2]; 3]> = None;
    for (number, body) in draft.bodies.iter().enumerate() {
        let role = match (number, body.operation) {
            (0, _) => "first",
            (_, Operation::Union) => "union",
            (_, Operation::Cut) => "cut",
            (_, Operation::Intersect) => "intersect",
        };
        let mut note = |what: &str, symbol: String| found.push((format!("{role} {what}"), symbol));
        sketch_habits(body, &mut note);
        number_habits(body, lattice, &mut note);
        if let (Some(axes), Some(bounds)) = (body.axes(), body.bounds()) {
            // Along an axis of space only if the sketch plane is parallel to two of them.
            let normal = (0..3).max_by(|a, b| axes[2][*a].abs().total_cmp(&axes[2][*b].abs())).unwrap_or(2);
            match &before {
                None => first_place_habits(body, &bounds, &mut note),
                Some(before) => later_place_habits(body, &bounds, before, normal, &mut note),
            }
            let solid = number == 0 || body.operation == Operation::Union;
            if solid {
                before = Some(before.map_or(bounds, |all| {
                    std::array::from_fn(|axis| [all[axis][0].min(bounds[axis][0]), all[axis][1].max(bounds[axis][1])])
                }));
            }
        }
    }
    found
}

/// Plane and direction, which depend on what is sketched, and where the sketch begins.
fn sketch_habits(body: &Body, note: &mut impl FnMut(&str, String)) {
    let (plane, shape) = (plane_name(body), shape_name(body));
    note("plane", plane.clone());
    note(&format!("plane of a {shape}"), plane.clone());
    note(&format!("both on {plane}"), body.both.to_string());
    note(&format!("direction on {plane}"), if body.distance < 0.0 { "-" } else { "+" }.to_owned());
    note("corner", corner_name(&body.loops[0]));
}

/// What is sketched: the pieces of the outline, and whether it has holes.
fn shape_name(body: &Body) -> String {
    let holes = if body.loops.len() > 1 { " with holes" } else { "" };
    let outline = &body.loops[0];
    let mut corners = Vec::new();
    outline.for_each_point(|point| corners.push(point));
    let is_at_edge =
        |point: &[f64; 2]| (0..2).all(|axis| outline.extent(axis).iter().any(|end| (end - point[axis]).abs() < 1e-6));
    let is_rectangle = outline.signature() == "LLL" && corners.iter().all(is_at_edge);
    format!("{}{holes}", if is_rectangle { "rectangle".to_owned() } else { outline.signature() })
}

/// Where the outline's first corner is, and whether the path ends there.
fn corner_name(outline: &Loop) -> String {
    let near = |a: f64| a.abs() < 1e-6;
    match outline {
        Loop::Circle { center, radius } => {
            let left = near(center[0] - radius) && near(center[1]);
            format!(
                "circle {}",
                if left {
                    "left"
                } else if near(center[0]) && near(center[1]) {
                    "centre"
                } else {
                    "other"
                }
            )
        }
        Loop::Path { pieces, .. } => {
            let mut corner = [f64::INFINITY; 2];
            for piece in pieces {
                let end = piece.end();
                if end[0] < corner[0] - 1e-9 || (end[0] < corner[0] + 1e-9 && end[1] < corner[1]) {
                    corner = end;
                }
            }
            let closes = pieces.last().is_some_and(|piece| piece.end() == corner);
            format!(
                "path {}{}",
                if near(corner[0]) && near(corner[1]) { "zero" } else { "other" },
                if closes { " closed" } else { "" }
            )
        }
    }
}

/// The directions of the sketch plane, without rounding noise.
fn plane_name(body: &Body) -> String {
    let text = |vector: [f64; 3]| vector.map(|v| format!("{:.3}", tidy((v * 1e3).round() / 1e3))).join(" ");
    format!("{} / {}", text(body.x_dir), text(body.normal))
}

/// How round the numbers are: how often the lattice's step can be doubled and still holds them.
fn number_habits(body: &Body, lattice: Option<f64>, note: &mut impl FnMut(&str, String)) {
    let Some(step) = lattice else { return };
    let roundness = |value: f64| {
        if !on_lattice(value, step) {
            return "off".to_owned();
        }
        let doubled = (1..4).take_while(|power| on_lattice(value, step * f64::from(1 << power))).count();
        if value.abs() < 1e-9 { "zero".to_owned() } else { doubled.to_string() }
    };
    for value in body.origin {
        note("number origin", roundness(value));
    }
    for outline in &body.loops {
        outline.for_each_point(|point| point.into_iter().for_each(|value| note("number point", roundness(value))));
        if let Loop::Circle { radius, .. } = outline {
            note("number radius", roundness(*radius));
        }
    }
    note("number distance", roundness(body.distance));
}

/// Place and size of the first body.
fn first_place_habits(body: &Body, bounds: &[[f64; 2]; 3], note: &mut impl FnMut(&str, String)) {
    let rounded = |value: f64| format!("{:.3}", tidy((value * 1e3).round() / 1e3));
    for axis in 0..3 {
        note("origin", rounded(body.origin[axis]));
    }
    let longest = bounds.iter().map(|[low, high]| high - low).fold(0.0, f64::max);
    note("longest side", rounded(longest));
}

/// Where a later body stands relative to what is there before.
fn later_place_habits(
    body: &Body,
    bounds: &[[f64; 2]; 3],
    before: &[[f64; 2]; 3],
    normal: usize,
    note: &mut impl FnMut(&str, String),
) {
    let place = |value: f64, [low, high]: [f64; 2]| {
        let near = 1e-6;
        match value {
            v if (v - low).abs() < near => "low",
            v if (v - high).abs() < near => "high",
            v if v < low => "below",
            v if v > high => "above",
            v if (v - (low + high) / 2.0).abs() < near => "middle",
            _ => "inside",
        }
    };
    let ends = bounds[normal].map(|end| place(end, before[normal]));
    note("level", place(body.origin[normal], before[normal]).to_owned());
    note("ends", ends.join(" "));
}

#[cfg(test)]
mod tests {
    use super::super::draft::PROGRAM;
    use super::*;

    /// Plates of several sizes, whose sketch begins at the origin.
    fn plates() -> Vec<String> {
        let plate = |n: usize| PROGRAM.replace("0.75", &format!("{:?}", 0.75 + n as f64 / 32.0));
        (0..10).map(plate).collect()
    }

    #[test]
    fn a_broken_habit_costs_and_a_kept_one_does_not() {
        let plates = plates();
        let prior = Prior::learn(plates.iter().map(String::as_str));
        assert_eq!(prior.lattice(), Some(1.0 / 32.0));
        let draft = Draft::parse(&plates[3]).unwrap();
        let usual = prior.plausibility(&draft);
        let mut moved = draft.clone();
        moved.bodies[0].shift(0, 0.125);
        assert!(prior.plausibility(&moved) < usual - 3.0);
        assert!(prior.surprises(&moved, 2).iter().any(|(context, _, _)| context == "first origin"));
        let mut off = draft.clone();
        off.bodies[1].distance = 0.13;
        assert!(prior.plausibility(&off) < usual - 3.0);
        let mut turned = draft.clone();
        turned.bodies[0].both = true;
        assert!(prior.plausibility(&turned) < usual - 2.0);
    }

    #[test]
    fn without_programs_nothing_is_preferred() {
        let prior = Prior::learn([]);
        assert!(prior.is_empty());
        assert_eq!(prior.plausibility(&Draft::parse(PROGRAM).unwrap()), 0.0);
        assert_eq!(Prior::learn(["a = 1"]), prior);
    }

    #[test]
    fn a_prior_is_the_same_after_it_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Prior::of(directory.path()).unwrap(), None);
        let plates = plates();
        let prior = Prior::learn(plates.iter().map(String::as_str));
        prior.save(directory.path()).unwrap();
        assert_eq!(Prior::of(directory.path()).unwrap(), Some(prior));
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(Prior::of(directory.path()).unwrap_err().to_string().contains("prior.json"));
    }
}
