//! Seeds. Every random choice has a seed of its own, so that no result depends on the order of
//! draws.

/// The seed of one random choice, derived from the run's seed and the numbers that identify the
/// choice: stage, step, prompt, sample. The mixing function is that of SplitMix64 (Steele et al.
/// 2014, doi:10.1145/2660193.2660195).
pub fn seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A number for a name, to be a part of a [`seed`].
pub fn number_of(name: &str) -> u64 {
    seed(&name.bytes().map(u64::from).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_every_part() {
        let seeds = [seed(&[1, 2, 3]), seed(&[1, 3, 2]), seed(&[2, 2, 3]), seed(&[1, 2])];
        for (i, a) in seeds.iter().enumerate() {
            assert!(seeds[i + 1..].iter().all(|b| a != b));
        }
    }
}
