//! The parts of a step's time, as pure functions.

use crate::model::BUCKET_BYTES;

use super::device::Device;

/// The lengths of completions: none is shorter than `shortest`, the rest is exponential with the
/// given mean, and a share does not end before `longest`.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    /// Tokens of the shortest completion.
    pub shortest: f64,
    /// Mean tokens of completions that end by themselves.
    pub mean: f64,
    /// Tokens at which a completion is cut off.
    pub longest: f64,
    /// Share that is cut off.
    pub truncated: f64,
}

impl Lengths {
    /// The share of completions with more than `tokens` tokens.
    pub fn share_above(&self, tokens: f64) -> f64 {
        let Self { shortest, mean, longest, truncated } = *self;
        if tokens >= longest {
            return 0.0;
        }
        let ended = if tokens <= shortest { 1.0 } else { (-(tokens - shortest) / (mean - shortest).max(1e-9)).exp() };
        truncated + (1.0 - truncated) * ended
    }

    /// The expected length of the longest of `n` completions. Without those that are cut off it is
    /// that of `n` exponentials: the mean times the harmonic number of `n`.
    pub fn longest_of(&self, n: u64) -> f64 {
        let Self { shortest, mean, longest, truncated } = *self;
        let ended = (shortest + (mean - shortest) * harmonic(n)).min(longest);
        let all_end = (1.0 - truncated).powf(n as f64);
        all_end * ended + (1.0 - all_end) * longest
    }
}

/// 1 + 1/2 + .. + 1/n.
fn harmonic(n: u64) -> f64 {
    (1..=n).map(|i| 1.0 / i as f64).sum()
}

/// Seconds of an all-reduce of `bytes` by `world` ranks in a ring of `bandwidth` bytes a second:
/// each rank sends 2 (N - 1) / N of them (Patarasuk & Yuan 2009). `latency_s` is added for each
/// doubling of the ranks and each bucket.
pub fn all_reduce_seconds(bytes: f64, world: u64, bandwidth: f64, latency_s: f64) -> f64 {
    if world <= 1 {
        return 0.0;
    }
    let n = world as f64;
    let buckets = (bytes / BUCKET_BYTES as f64).ceil().max(1.0);
    2.0 * (n - 1.0) / n * bytes / bandwidth + buckets * n.log2().ceil() * latency_s
}

/// Seconds of an all-gather after which each of `world` ranks has `bytes`.
pub fn all_gather_seconds(bytes: f64, world: u64, bandwidth: f64, latency_s: f64) -> f64 {
    if world <= 1 {
        return 0.0;
    }
    let n = world as f64;
    (n - 1.0) / n * bytes / bandwidth + n.log2().ceil() * latency_s
}

/// Bytes a second around a ring of `world` ranks. Within a node it is the link's; between nodes all
/// GPUs of a node send at the same time, each through its own port.
pub fn ring_bandwidth(device: &Device, world: u64, gpus_per_node: u64, link_share: f64) -> f64 {
    let bandwidth = if world <= gpus_per_node {
        device.link_bandwidth
    } else {
        device.link_bandwidth.min(device.network_bandwidth * gpus_per_node as f64)
    };
    bandwidth * link_share
}

/// The cost of decoding one token in each of some rows.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    /// Bytes of weights that a step reads.
    pub weight_bytes: f64,
    /// Bytes of keys and values of one position.
    pub cache_bytes: f64,
    /// Operations for a row without attention.
    pub row_flops: f64,
    /// Operations of attention for each position that a row sees.
    pub position_flops: f64,
    /// Bytes a second that are reached.
    pub bandwidth: f64,
    /// Operations a second that are reached.
    pub flops: f64,
    /// Least seconds of a step: the host's time to issue it.
    pub least_s: f64,
}

impl Decoding {
    /// Seconds of one step with `rows` rows of `length` positions: that of the slowest of reading
    /// memory, computing, and issuing kernels.
    pub fn step_seconds(&self, rows: f64, length: f64) -> f64 {
        let memory = (self.weight_bytes + rows * length * self.cache_bytes) / self.bandwidth;
        let compute = rows * (self.row_flops + length * self.position_flops) / self.flops;
        memory.max(compute).max(self.least_s)
    }

    /// Seconds to complete `rows` prompts of `prompt` tokens, of which the longest takes `steps`
    /// steps. Rows that have ended cost nothing.
    pub fn seconds(&self, rows: u64, prompt: f64, steps: f64, lengths: &Lengths) -> f64 {
        let step = |t: f64| self.step_seconds((rows as f64 * lengths.share_above(t)).max(1.0), prompt + t + 1.0);
        let whole = steps.floor() as u64;
        (0..whole).map(|t| step(t as f64)).sum::<f64>() + (steps - steps.floor()) * step(steps.floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    const LENGTHS: Lengths = Lengths { shortest: 100.0, mean: 300.0, longest: 1000.0, truncated: 0.0 };

    /// 100 + 200 (1 + 1/2 + 1/3 + 1/4) = 100 + 200 * 25 / 12. Of very many, one is cut off at 1000.
    #[test]
    fn the_longest_of_n_exponentials_is_a_harmonic_number() {
        assert_close(LENGTHS.longest_of(1), 300.0);
        assert_close(LENGTHS.longest_of(4), 100.0 + 200.0 * 25.0 / 12.0);
        assert_eq!(LENGTHS.longest_of(10_000), 1000.0);
        // Half are cut off: of two, 3 of 4 times the longest is; else 100 + 200 * 1.5.
        let half = Lengths { truncated: 0.5, ..LENGTHS };
        assert_close(half.longest_of(2), 0.75 * 1000.0 + 0.25 * 400.0);
    }

    #[test]
    fn completions_end_between_the_shortest_and_the_longest() {
        assert_eq!((LENGTHS.share_above(99.0), LENGTHS.share_above(1000.0)), (1.0, 0.0));
        assert_close(LENGTHS.share_above(300.0), (-1.0f64).exp());
        let half = Lengths { truncated: 0.5, ..LENGTHS };
        assert_close(half.share_above(300.0), 0.5 + 0.5 * (-1.0f64).exp());
    }

    /// The longest of n by its definition: the integral of the chance that it exceeds t.
    #[test]
    fn the_expected_longest_is_the_integral_of_its_distribution() {
        let lengths = Lengths { shortest: 50.0, mean: 90.0, longest: 4000.0, truncated: 0.01 };
        for n in [1, 3, 64] {
            let chance = |t: f64| 1.0 - (1.0 - lengths.share_above(t)).powf(n as f64);
            let integral: f64 = (0..40_000).map(|i| 0.1 * chance(0.1 * (f64::from(i) + 0.5))).sum();
            let found = lengths.longest_of(n);
            assert!((found / integral - 1.0).abs() < 0.01, "{found} is not {integral} for {n}");
        }
    }

    /// 8 ranks send 2 * 7 / 8 * 800 MB = 1.4 GB at 10 GB/s: 0.14 s, in 3 buckets of 256 MiB with 3
    /// doublings of 1 ms each: 0.009 s.
    #[test]
    fn a_ring_sends_nearly_twice_the_bytes() {
        assert_close(all_reduce_seconds(800e6, 8, 10e9, 1e-3), 0.14 + 0.009);
        assert_eq!(all_reduce_seconds(800e6, 1, 10e9, 1e-3), 0.0);
        // Of 800 MB, 100 are a rank's own: 0.07 s, and 0.003 s.
        assert_close(all_gather_seconds(800e6, 8, 10e9, 1e-3), 0.07 + 0.003);
        assert_eq!(all_gather_seconds(800e6, 1, 10e9, 1e-3), 0.0);
    }

    #[test]
    fn between_nodes_the_ports_of_a_node_limit_the_ring() {
        let h100: Device = "h100".parse().unwrap();
        assert_close(ring_bandwidth(&h100, 8, 8, 0.5), 225e9);
        assert_close(ring_bandwidth(&h100, 16, 8, 0.5), 200e9);
        assert_close(ring_bandwidth(&h100, 16, 1, 1.0), 50e9);
    }

    /// Reading: (1000 + rows * length * 10) / 100 s. Computing: rows * (500 + length) / 1000 s.
    #[test]
    fn a_decoding_step_takes_the_time_of_its_slowest_resource() {
        let decoding = Decoding {
            weight_bytes: 1000.0,
            cache_bytes: 10.0,
            row_flops: 500.0,
            position_flops: 1.0,
            bandwidth: 100.0,
            flops: 1000.0,
            least_s: 2.0,
        };
        assert_close(decoding.step_seconds(1.0, 10.0), 11.0);
        assert_close(Decoding { cache_bytes: 0.0, ..decoding }.step_seconds(100.0, 10.0), 51.0);
        assert_close(Decoding { cache_bytes: 0.0, weight_bytes: 0.0, ..decoding }.step_seconds(1.0, 10.0), 2.0);
        // Two rows, one of which ends before the second step, of positions 5 + 1 and 5 + 2; half a
        // third step of 5 + 3.
        let lengths = Lengths { shortest: 0.0, mean: 1e-9, longest: 10.0, truncated: 0.0 };
        let found = decoding.seconds(2, 5.0, 2.5, &lengths);
        assert_close(found, (1000.0 + 120.0) / 100.0 + (1000.0 + 70.0) / 100.0 + 0.5 * (1000.0 + 80.0) / 100.0);
    }
}
