//! Seeds: one for each thing that is random, so that nothing depends on the order of draws.

/// A seed for one thing that is random, from the run's seed and what the thing is: stage, step, prompt, sample. The
/// mixing function is SplitMix64's (Steele et al. 2014).
pub fn seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
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
