//! What the model is told about its program before it writes the next one: what came of it, in a
//! few words. Only the program and the pictures are behind it, never the ground truth.

use std::fmt::Display;

use cadwright_rewards::Solid;
use cadwright_rollout::{Answer, Score, Verdict};

/// The longest error message, in characters.
const ERROR_LENGTH: usize = 80;
/// The most differences between pictures that are told.
const DIFFERENCES: usize = 3;
/// What the user asks for.
const REQUEST: &str = "Correct the program.";

/// What came of a program.
#[derive(Debug, Clone)]
pub struct Built<'a> {
    /// The outcome, or why there is none.
    pub verdict: Verdict,
    /// Why there is no solid.
    pub error: Option<String>,
    /// The solid, if there is one.
    pub solid: Option<&'a Solid>,
    /// Whether the completion was cut off before its end.
    pub truncated: bool,
}

impl<'a> Built<'a> {
    /// What an engine answered about the program.
    pub fn of_answer(answer: &'a Answer, truncated: bool) -> Self {
        let solid = answer.solid().map(AsRef::as_ref);
        Self { verdict: answer.verdict(), error: answer.error(), solid, truncated }
    }

    /// What a score says about the program. Its IoU and reward are left out.
    pub fn of_score(score: &'a Score, truncated: bool) -> Self {
        Self { verdict: score.verdict, error: score.error.clone(), solid: score.solid.as_deref(), truncated }
    }
}

/// The feedback to a program: its outcome with the first line of the error; or its number of
/// bodies, volume and bounds, and the first of the `differences` between its picture and the
/// input's. Ends with the request to correct the program.
pub fn feedback(built: &Built, differences: &[impl Display]) -> String {
    let mut lines = Vec::new();
    lines.extend(built.truncated.then(|| "The program was cut off.".to_owned()));
    match (built.solid, built.verdict.class()) {
        (Some(solid), _) => {
            lines.extend(facts(solid));
            lines.extend(differences.iter().take(DIFFERENCES).map(|difference| format!("- {difference}")));
        }
        (None, Some(class)) => lines.push(match built.error.as_deref().map(one_line) {
            Some(error) if !error.is_empty() => format!("{class}: {error}"),
            _ => class.to_string(),
        }),
        // The program was not executed to its end by a fault of ours, which says nothing about it.
        (None, None) => lines.push("It was not built.".to_owned()),
    }
    lines.push(REQUEST.to_owned());
    lines.join("\n")
}

/// Number of bodies and volume, and the bounds along each axis.
fn facts(solid: &Solid) -> [String; 2] {
    let bodies = match solid.solids() {
        Some(1) => "1 body, ".to_owned(),
        Some(count) => format!("{count} bodies, "),
        None => String::new(),
    };
    let malformed = if solid.malformed { ", malformed" } else { "" };
    let bounds = solid.bounds();
    let side = |axis: usize| {
        let [low, high] = [bounds.min[axis], bounds.max[axis]].map(number);
        format!("{} {low} {high}", ["x", "y", "z"][axis])
    };
    [format!("{bodies}volume {}{malformed}", number(solid.mass().volume)), [0, 1, 2].map(side).join(", ")]
}

/// A number as programs write it: with a point, of at most five decimals. They hold the grids of
/// 1/32 exactly, so that a small tokenizer knows the number as one token.
fn number(value: f64) -> String {
    // Adding 0 turns -0 into 0.
    format!("{:?}", (value * 1e5).round() / 1e5 + 0.0)
}

/// The start of the first line that is not blank, in printable ASCII.
fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let plain = line.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    plain.take(ERROR_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::OutcomeClass;
    use cadwright_rewards::csg::{Operation, Vec3};
    use cadwright_rewards::samples::block;

    use super::*;

    fn failed(class: OutcomeClass, error: &str) -> Built<'static> {
        Built { verdict: Verdict::Known(class), error: Some(error.to_owned()), solid: None, truncated: false }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_solid_is_described_by_what_can_be_measured_and_seen() {
        let apart = block(Vec3::new(2.0, 0.0, 0.0), Vec3::new(0.5, 1.0, 0.25));
        let two = block(Vec3::new(-0.03125, 0.0, 0.0), Vec3::repeat(1.0)).combine(Operation::Union, apart);
        let solid = Solid::native(two, false);
        let built =
            Built { verdict: Verdict::Known(OutcomeClass::Solid), error: None, solid: Some(&solid), truncated: false };
        // 1 x 1 x 1 and 0.5 x 1 x 0.25.
        let facts = "2 bodies, volume 1.125\nx -0.03125 2.5, y 0.0 1.0, z 0.0 1.0";
        assert_eq!(feedback(&built, &NOTHING), format!("{facts}\nCorrect the program."));
        let seen = ["too wide at the left by a quarter", "a hole is missing", "c", "d"];
        let expected =
            format!("{facts}\n- too wide at the left by a quarter\n- a hole is missing\n- c\nCorrect the program.");
        assert_eq!(feedback(&built, &seen), expected);
        let cut = Built { truncated: true, ..built };
        assert_eq!(feedback(&cut, &NOTHING), format!("The program was cut off.\n{facts}\nCorrect the program."));
    }

    #[test]
    fn a_failure_is_one_line_whatever_the_program_printed() {
        let text = feedback(&failed(OutcomeClass::Exception, "ValueError: No pending wires present"), &NOTHING);
        assert_eq!(text, "exception: ValueError: No pending wires present\nCorrect the program.");
        assert_eq!(feedback(&failed(OutcomeClass::Timeout, " \n"), &NOTHING), "timeout\nCorrect the program.");
        let hostile = format!("\n\tE\u{1b}[2J\u{2028}é {}\nsecond line", "x".repeat(500));
        let text = feedback(&failed(OutcomeClass::Syntax, &hostile), &NOTHING);
        let expected = format!("syntax: E?[2J?? {}\nCorrect the program.", "x".repeat(ERROR_LENGTH - 8));
        assert_eq!(text, expected);
    }

    #[test]
    fn a_fault_of_ours_says_nothing_about_the_program() {
        let error = Some("cadwright panicked: index out of bounds".to_owned());
        let built = Built { verdict: Verdict::Panicked, error, solid: None, truncated: false };
        assert_eq!(feedback(&built, &NOTHING), "It was not built.\nCorrect the program.");
    }
}
