//! Converts lattice cells to numbers and their text.

use serde::{Deserialize, Serialize};

use super::part::Side;

/// The form of numbers in programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Multiples of `1 / grid` in their shortest form: `0.5`, `0.03125`.
    #[default]
    Short,
    /// Long floats as in GenCAD-Code: each part is scaled by a number of nineteenths, and plane
    /// vectors carry rounding noise such as `6.123233995736766e-17`.
    Full,
}

/// The size of a cell, and the form of its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    numbers: Numbers,
    grid: f64,
    /// In `full`, the part's scale in nineteenths of its short size.
    nineteenths: f64,
}

impl Scale {
    pub(super) fn new(numbers: Numbers, grid: u32, nineteenths: u32) -> Self {
        Self { numbers, grid: f64::from(grid), nineteenths: f64::from(nineteenths) }
    }

    /// The length of a count of cells, in model units. Parsing [`Self::text`] gives exactly this.
    pub(super) fn value(&self, cells: i32) -> f64 {
        let short = f64::from(cells) / self.grid;
        match self.numbers {
            Numbers::Short => short,
            Numbers::Full => short * self.nineteenths / 19.0,
        }
    }

    /// The number as Python's `repr` writes it. Lattice numbers are far from the sizes for which
    /// `repr` uses exponents.
    pub(super) fn text(&self, cells: i32) -> String {
        format!("{:?}", self.value(cells))
    }

    /// `xDir` and normal of a plane.
    pub(super) fn plane_vectors(&self, side: Side) -> [&'static str; 2] {
        const NOISY_FRONT: [&str; 2] = [
            "1.0, 6.123233995736766e-17, -6.123233995736766e-17",
            "6.123233995736766e-17, -1.0, 6.123233995736766e-17",
        ];
        const NOISY_RIGHT: [&str; 2] =
            ["3.749399456654644e-33, 1.0, -6.123233995736766e-17", "1.0, 0.0, 6.123233995736766e-17"];
        match (side, self.numbers) {
            (Side::Top, _) => ["1.0, 0.0, 0.0", "0.0, 0.0, 1.0"],
            (Side::Front, Numbers::Short) => ["1.0, 0.0, 0.0", "0.0, -1.0, 0.0"],
            (Side::Right, Numbers::Short) => ["0.0, 1.0, 0.0", "1.0, 0.0, 0.0"],
            (Side::Front, Numbers::Full) => NOISY_FRONT,
            (Side::Right, Numbers::Full) => NOISY_RIGHT,
        }
    }
}

/// The numbers in a program, as written; digits in names do not count.
pub(super) fn numbers_in(program: &str) -> impl Iterator<Item = &str> {
    program
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')))
        .filter(|word| word.contains('.') && word.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()))
}

/// Counts words and runs of punctuation: a stand-in for a tokenizer's count.
pub(super) fn lexical_length(program: &str) -> i64 {
    let class = |c: char| match c {
        c if c.is_whitespace() => 0,
        c if c.is_ascii_alphanumeric() || c == '_' => 1,
        _ => 2,
    };
    let mut length = 0;
    let mut last = 0;
    for c in program.chars() {
        let now = class(c);
        if now != 0 && now != last {
            length += 1;
        }
        last = now;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let short = Scale::new(Numbers::Short, 32, 18);
        let texts = [0, 32, 16, -8, 1, 24].map(|cells| short.text(cells));
        assert_eq!(texts, ["0.0", "1.0", "0.5", "-0.25", "0.03125", "0.75"]);
        // By Python: 5 / 32 * 18 / 19 = 0.14802631578947367.
        assert_eq!(Scale::new(Numbers::Full, 32, 18).text(5), "0.14802631578947367");
    }

    #[test]
    fn digits_in_names_are_no_numbers() {
        let line = "loop12=wp_sketch3.moveTo(0.5, -0.25).circle(6.123233995736766e-17)";
        assert_eq!(numbers_in(line).collect::<Vec<_>>(), ["0.5", "-0.25", "6.123233995736766e-17"]);
        // loop1 = wp . moveTo ( 0 . 5 , 2 )
        assert_eq!(lexical_length("loop1=wp.moveTo(0.5, 2)"), 12);
    }
}
