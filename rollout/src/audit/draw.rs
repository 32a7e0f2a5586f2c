//! The random numbers of the generators.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The set from which the numbers of a program are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grain {
    /// Multiples of this step, so that faces often coincide and touch.
    Lattice(f64),
    /// All numbers, rounded to this many decimals.
    Continuous(i32),
}

/// The random number generator of one program.
pub struct Draw {
    rng: ChaCha8Rng,
    /// The set from which [`Draw::number`] draws.
    pub grain: Grain,
}

impl Draw {
    /// Stream `(style, index)` of a seed. `style` is at most 255.
    pub fn new(seed: u64, style: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index << 8 | style);
        Self { rng, grain: Grain::Continuous(3) }
    }

    /// An integer below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    /// An integer from `low` to `high`, both included.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        self.rng.random_range(low..=high)
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.rng.random::<f64>()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random::<f64>() < probability
    }

    /// One element of `from`, all with the same probability. `from` must not be empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.rng).expect("something to pick from")
    }

    /// One element of `from`, with a probability proportional to its weight. The weights must not
    /// all be 0.
    pub fn weighted<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut left = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, thing) in from {
            match left.checked_sub(*weight) {
                None => return *thing,
                Some(rest) => left = rest,
            }
        }
        from[0].1
    }

    /// A number from `low` to `high` in [`Draw::grain`], or any number between if it has none
    /// there.
    pub fn number(&mut self, low: f64, high: f64) -> f64 {
        match self.grain {
            Grain::Lattice(step) if (high / step + 1e-9).floor() >= (low / step - 1e-9).ceil() => {
                let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
                rounded(step * self.int(first as i64, last as i64) as f64, 9)
            }
            Grain::Lattice(_) => rounded(self.between(low, high), 3),
            Grain::Continuous(decimals) => {
                let number = rounded(self.between(low, high), decimals);
                if (low..=high).contains(&number) { number } else { rounded(self.between(low, high), 6) }
            }
        }
    }

    /// A number from `-reach` to `reach` in [`Draw::grain`].
    pub fn signed(&mut self, reach: f64) -> f64 {
        self.number(-reach, reach)
    }
}

/// `number` rounded to this many decimals; negative zero becomes zero.
pub fn rounded(number: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (number * scale).round() / scale + 0.0
}

/// A number as Python writes a float, for example `2.0`.
pub fn float(number: f64) -> String {
    format!("{number:?}")
}

/// A number as people write it: a whole number has no fraction, for example `2`.
pub fn plain(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { float(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_where_they_should() {
        let mut draw = Draw::new(1, 2, 3);
        draw.grain = Grain::Lattice(0.25);
        let numbers: Vec<f64> = (0..200).map(|_| draw.number(-1.0, 1.0)).collect();
        assert!(numbers.iter().all(|number| number.abs() <= 1.0 && (number * 4.0).fract() == 0.0));
        assert!(numbers.contains(&-1.0) && numbers.contains(&1.0));
        // No multiple of the step lies between these, so any number between them is drawn.
        assert!((0.1..=0.2).contains(&draw.number(0.1, 0.2)));
        draw.grain = Grain::Continuous(1);
        assert!((0..200).all(|_| (0.42..=0.47).contains(&draw.number(0.42, 0.47))));
    }

    #[test]
    fn weights_count() {
        let mut draw = Draw::new(0, 0, 0);
        let heads = (0..4000).filter(|_| draw.weighted(&[(3, true), (1, false)])).count();
        // Binomial: mean 3000, standard deviation 27.
        assert!((2865..=3135).contains(&heads), "{heads}");
    }

    #[test]
    fn numbers_are_written_as_python_reads_them() {
        assert_eq!([float(2.0), float(-0.5), float(6.1e-17)], ["2.0", "-0.5", "6.1e-17"]);
        assert_eq!([plain(2.0), plain(-3.0), plain(0.25), plain(-0.0 + 0.0)], ["2", "-3", "0.25", "0"]);
    }
}
