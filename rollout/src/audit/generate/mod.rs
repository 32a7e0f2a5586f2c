//! Generates random programs that are varied, realistic in form and difficult in detail. A program
//! depends only on its style, seed and index.

mod freeform;
mod gencad;
mod mutants;
mod python;
mod sketch;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::draw::Draw;
use crate::error::{Error, Result};

pub use mutants::perturbed;

/// The style of generated programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// GenCAD-Code's dialect: planes, loops of lines and arcs, extrusions, booleans.
    Gencad,
    /// `Gencad` with the mistakes that a half-trained model makes.
    Mutants,
    /// The style of a general language model: boxes, holes, patterns, selectors, functions, loops.
    Freeform,
    /// The Sketch class, and sketches on workplanes.
    Sketch,
    /// Tests of Python's semantics; the geometry only shows the result.
    Python,
}

impl Style {
    /// Every style, in the order of reports.
    pub const ALL: [Self; 5] = [Self::Gencad, Self::Mutants, Self::Freeform, Self::Sketch, Self::Python];

    /// The name in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gencad => "gencad",
            Self::Mutants => "mutants",
            Self::Freeform => "freeform",
            Self::Sketch => "sketch",
            Self::Python => "python",
        }
    }

    /// Parses a list such as `gencad,sketch`. It keeps the order, and a repeated name counts once.
    ///
    /// # Errors
    /// An unknown name, or an empty list.
    pub fn parse_list(list: &str) -> Result<Vec<Self>> {
        let mut styles = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let style = name.parse()?;
            if !styles.contains(&style) {
                styles.push(style);
            }
        }
        if styles.is_empty() { Err(unknown(list)) } else { Ok(styles) }
    }
}

fn unknown(name: &str) -> Error {
    let expected = format!("a list of styles, each one of: {}", Style::ALL.map(Style::name).join(", "));
    Error::Config { key: "styles", expected, found: format!("\"{name}\"") }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Style {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|style| style.name() == name).ok_or_else(|| unknown(name))
    }
}

/// Program `index` of a seed. The same arguments always give the same text.
pub fn program(style: Style, seed: u64, index: u64) -> String {
    let mut draw = Draw::new(seed, style as u64, index);
    match style {
        Style::Gencad => gencad::program(&mut draw),
        Style::Mutants => mutants::program(&mut draw),
        Style::Freeform => freeform::program(&mut draw),
        Style::Sketch => sketch::program(&mut draw),
        Style::Python => python::program(&mut draw),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::engines::execute_natively;

    #[test]
    fn names_round_trip_and_errors_list_the_known_ones() {
        for style in Style::ALL {
            assert_eq!(style.name().parse::<Style>().unwrap(), style);
        }
        assert_eq!(Style::parse_list("sketch, gencad,sketch").unwrap(), [Style::Sketch, Style::Gencad]);
        for wrong in ["", "gencads"] {
            assert!(Style::parse_list(wrong).unwrap_err().to_string().contains("gencad, mutants, freeform"));
        }
    }

    #[test]
    fn every_style_has_solids_and_failures() {
        for style in Style::ALL {
            let outcomes = (0..150).filter_map(|index| execute_natively(&program(style, 1, index), None).ok());
            let valid: Vec<bool> = outcomes.map(|outcome| outcome.class().is_valid()).collect();
            let solids = valid.iter().filter(|valid| **valid).count();
            assert!(solids >= 10 && solids < valid.len(), "{style}: {solids} solids of {} certified", valid.len());
        }
    }

    #[test]
    fn programs_depend_on_style_seed_and_index_only() {
        for style in Style::ALL {
            let texts: Vec<_> = (0..40).map(|index| program(style, 7, index)).collect();
            let again: Vec<_> = (0..40).rev().map(|index| program(style, 7, index)).collect();
            assert_eq!(texts, again.into_iter().rev().collect::<Vec<_>>());
            assert!(texts.iter().collect::<HashSet<_>>().len() > 35, "{style}");
            assert_ne!(texts[0], program(style, 8, 0));
        }
    }
}
