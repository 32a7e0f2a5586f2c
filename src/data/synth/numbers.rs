//! From lattice cells to numbers and their text.

use serde::{Deserialize, Serialize};

use super::part::Side;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Multiples of `1 / grid`, written as short as they are: `0.5`, `0.03125`.
    #[default]
    Short,
    /// Long floats as in GenCAD-Code: each part is scaled by some nineteenths, and plane vectors carry rounding noise
    /// such as `6.123233995736766e-17`.
    Full,
}

/// What a cell measures, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    numbers: Numbers,
    grid: f64,
    /// In `full`, how many nineteenths of its short size the part has.
    nineteenths: f64,
}

impl Scale {
    pub(super) fn new(numbers: Numbers, grid: u32, nineteenths: u32) -> Self {
        Self {
            numbers,
            grid: f64::from(grid),
            nineteenths: f64::from(nineteenths),
        }
    }

    /// The number for a count of cells. The text is read back to exactly this.
    pub(super) fn value(&self, cells: i32) -> f64 {
        let short = f64::from(cells) / self.grid;
        match self.numbers {
            Numbers::Short => short,
            Numbers::Full => short * self.nineteenths / 19.0,
        }
    }

    /// The number as Python's `repr` writes it. Lattice numbers are far from where `repr` turns to exponents.
    pub(super) fn text(&self, cells: i32) -> String {
        format!("{:?}", self.value(cells))
    }

    /// `xDir` and normal of a plane.
    pub(super) fn plane_vectors(&self, side: Side) -> [&'static str; 2] {
        const NOISY_FRONT: [&str; 2] = [
            "1.0, 6.123233995736766e-17, -6.123233995736766e-17",
            "6.123233995736766e-17, -1.0, 6.123233995736766e-17",
        ];
        const NOISY_RIGHT: [&str; 2] = [
            "3.749399456654644e-33, 1.0, -6.123233995736766e-17",
            "1.0, 0.0, 6.123233995736766e-17",
        ];
        match (side, self.numbers) {
            (Side::Top, _) => ["1.0, 0.0, 0.0", "0.0, 0.0, 1.0"],
            (Side::Front, Numbers::Short) => ["1.0, 0.0, 0.0", "0.0, -1.0, 0.0"],
            (Side::Right, Numbers::Short) => ["0.0, 1.0, 0.0", "1.0, 0.0, 0.0"],
            (Side::Front, Numbers::Full) => NOISY_FRONT,
            (Side::Right, Numbers::Full) => NOISY_RIGHT,
        }
    }
}
