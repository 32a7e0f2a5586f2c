//! A program as something with numbers to turn: a draft, or text whose literals are turned.

use rand_chacha::ChaCha8Rng;

use crate::agent::draft::{Draft, Handle, draw_edit, own_lattice};

/// The part's longest side has this many steps if its numbers lie on no lattice.
const STEPS_ACROSS: f64 = 64.0;

/// A program that can be changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// In the data set's form.
    Sketches(Draft),
    /// In another form: only its literals change.
    Text(Literals),
}

/// What is turned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Knob {
    /// Numbers of a draft that belong together.
    Handle(Handle),
    /// A literal of a text, by its position.
    Literal(usize),
}

impl Form {
    /// The form of a program.
    pub fn of(program: &str) -> Self {
        match Draft::parse(program) {
            Some(draft) => Self::Sketches(draft),
            None => Self::Text(Literals::of(program)),
        }
    }

    /// The program.
    pub fn program(&self) -> String {
        match self {
            Self::Sketches(draft) => draft.program(),
            Self::Text(text) => text.program(),
        }
    }

    /// The draft, if the program is in the data set's form.
    pub fn draft(&self) -> Option<&Draft> {
        match self {
            Self::Sketches(draft) => Some(draft),
            Self::Text(_) => None,
        }
    }

    /// The step of the program's numbers: the data set's, else the program's own, else a small share
    /// of the part's size.
    pub fn step(&self, lattice: Option<f64>) -> f64 {
        let Self::Sketches(draft) = self else { return 1.0 };
        let longest = || draft.bounds().map(|bounds| bounds.iter().map(|[low, high]| high - low).fold(0.0, f64::max));
        lattice
            .or_else(|| own_lattice(draft))
            .or_else(|| longest().map(|longest| longest / STEPS_ACROSS))
            .filter(|step| step.is_finite() && *step > 0.0)
            .unwrap_or(1.0 / STEPS_ACROSS)
    }

    /// Everything that can be turned.
    pub fn knobs(&self) -> Vec<Knob> {
        match self {
            Self::Sketches(draft) => draft.handles().into_iter().map(Knob::Handle).collect(),
            Self::Text(text) => (0..text.values.len()).map(Knob::Literal).collect(),
        }
    }

    /// The program with `knob` turned by a number of steps, and the knob's new name. `None` if it
    /// cannot be turned so far.
    pub fn turned(&self, knob: Knob, steps: i32, step: f64) -> Option<(Self, Knob)> {
        match (self, knob) {
            (Self::Sketches(draft), Knob::Handle(handle)) => {
                let (draft, handle) = draft.turned(handle, f64::from(steps) * step)?;
                Some((Self::Sketches(draft), Knob::Handle(handle)))
            }
            (Self::Text(text), Knob::Literal(index)) => Some((Self::Text(text.turned(index, steps)?), knob)),
            _ => None,
        }
    }

    /// The program after an edit of its structure, and the edit's name.
    pub fn edited(&self, library: &[Draft], step: f64, dice: &mut ChaCha8Rng) -> Option<(Self, &'static str)> {
        let (draft, name) = draw_edit(self.draft()?, library, step, dice)?;
        Some((Self::Sketches(draft), name))
    }
}

/// A text, cut at its number literals.
#[derive(Debug, Clone, PartialEq)]
pub struct Literals {
    /// The text before each literal, and after the last.
    between: Vec<String>,
    /// The literals as they are written.
    values: Vec<String>,
}

impl Literals {
    /// Finds the decimal literals of a program, outside of names, strings and comments.
    pub fn of(program: &str) -> Self {
        let (mut between, mut values) = (vec![String::new()], Vec::new());
        let mut chars = program.char_indices().peekable();
        let mut quote: Option<char> = None;
        let mut comment = false;
        let mut before = ' ';
        while let Some((start, c)) = chars.next() {
            match (quote, c) {
                (_, '\n') => (comment, quote) = (false, None),
                (Some(open), c) if c == open && before != '\\' => quote = None,
                (None, '"' | '\'') if !comment => quote = Some(c),
                (None, '#') => comment = true,
                _ => {}
            }
            let begins = c.is_ascii_digit() && !(before.is_alphanumeric() || before == '_' || before == '.');
            if begins && quote.is_none() && !comment {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
                let rest = &program[start..];
                let end = start + rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                while chars.next_if(|(at, _)| *at < end).is_some() {}
                let literal = &program[start..end];
                // Others (1e-5, 0xff, 1_000) stay as they are.
                if literal.chars().all(|c| c.is_ascii_digit() || c == '.') && literal.parse::<f64>().is_ok() {
                    values.push(literal.to_owned());
                    between.push(String::new());
                } else if let Some(text) = between.last_mut() {
                    text.push_str(literal);
                }
                before = '0';
                continue;
            }
            if let Some(text) = between.last_mut() {
                text.push(c);
            }
            before = c;
        }
        Self { between, values }
    }

    /// The text.
    pub fn program(&self) -> String {
        let literals = self.values.iter().map(String::as_str).chain([""]);
        self.between.iter().zip(literals).flat_map(|(text, literal)| [text.as_str(), literal]).collect()
    }

    /// The text with one literal changed by `steps` of a twentieth of its magnitude, rounded to its
    /// second digit. A whole number stays one. `None` below zero.
    fn turned(&self, index: usize, steps: i32) -> Option<Self> {
        let literal = &self.values[index];
        let value: f64 = literal.parse().ok()?;
        let is_whole = !literal.contains('.');
        let magnitude = if value == 0.0 { 1.0 } else { 10f64.powf((value.abs() / 1.5).log10().floor()) / 10.0 };
        let step = if is_whole { magnitude.max(1.0).round() } else { magnitude };
        let changed = crate::agent::draft::tidy(value + f64::from(steps) * step);
        let mut text = self.clone();
        text.values[index] = if is_whole { format!("{changed:.0}") } else { format!("{changed:?}") };
        (changed >= 0.0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &str = "r = cq.Workplane('XY2').box(80, 60.5, 10)  # 3 boxes\nx1 = r.faces(\">Z\").hole(2.5e0, 7)\n";

    #[test]
    fn literals_are_found_outside_of_names_strings_and_comments() {
        let text = Literals::of(FREE);
        assert_eq!(text.values, ["80", "60.5", "10", "7"]);
        assert_eq!(text.program(), FREE);
        for text in ["", "1", "a\u{e9}1.5 2", "'", "\"\\\"3\" 4", "1..2", "9".repeat(500).as_str()] {
            assert_eq!(Literals::of(text).program(), text);
        }
    }

    #[test]
    fn a_literal_is_turned_by_round_steps() {
        let text = Literals::of(FREE);
        let turned = |index, steps| text.turned(index, steps).map(|text| text.values[index].clone());
        assert_eq!(turned(0, 2).as_deref(), Some("82"));
        assert_eq!(turned(1, -1).as_deref(), Some("59.5"));
        assert_eq!(turned(3, 1).as_deref(), Some("8"));
        assert_eq!(turned(3, -8), None);
    }

    #[test]
    fn a_form_is_chosen_by_the_text() {
        assert!(matches!(Form::of(FREE), Form::Text(_)));
        let form = Form::of(crate::agent::draft::PROGRAM);
        assert!(form.draft().is_some());
        assert_eq!(form.step(None), 0.03125);
        assert_eq!(form.step(Some(0.0625)), 0.0625);
        assert_eq!(form.program(), crate::agent::draft::PROGRAM);
    }
}
