//! How fast the ranks sum tensors, for `cadwright doctor`.

use std::time::Instant;

use anyhow::{Result, ensure};
use tch::{Cuda, Device, Kind, Tensor};

use super::World;

/// The smallest message, whose time is the latency.
const SMALL: usize = 8;

/// Sizes of the messages, in bytes, and how often each is sent.
const MESSAGES: [(usize, usize); 4] = [(SMALL, 101), (1 << 20, 21), (16 << 20, 7), (64 << 20, 5)];

/// Messages that are not timed, before those that are.
const WARM_UP: usize = 2;

/// What was measured.
pub struct AllReduces {
    /// Bytes of a message, and the median of its seconds on this rank.
    pub seconds: Vec<(usize, f64)>,
    ranks: usize,
}

impl AllReduces {
    /// Times all-reduces of tensors on `device`; all ranks call it together.
    ///
    /// # Errors
    /// A sum is wrong, or a rank is gone.
    pub fn measure(world: &World, device: Device) -> Result<Self> {
        let ones = Tensor::ones([1 << 10], (Kind::Float, device));
        world.all_reduce("the test of a sum", &ones)?;
        let (least, most) = (ones.min().double_value(&[]), ones.max().double_value(&[]));
        ensure!(
            least == world.size() as f64 && most == least,
            "the sum of {} ones is from {least} to {most}",
            world.size()
        );
        let mut seconds = Vec::new();
        for (bytes, count) in MESSAGES {
            // Of zeros, the sum of sums stays finite.
            let tensor = Tensor::zeros([(bytes / size_of::<f32>()) as i64], (Kind::Float, device));
            let mut times = Vec::new();
            for round in 0..WARM_UP + count {
                finish(device);
                let started = Instant::now();
                world.all_reduce("the test of speed", &tensor)?;
                finish(device);
                if round >= WARM_UP {
                    times.push(started.elapsed().as_secs_f64());
                }
            }
            seconds.push((bytes, median(&mut times)));
        }
        Ok(Self { seconds, ranks: world.size() })
    }

    /// Bytes a second of a message by a ring's count: `2 (N - 1) / N * bytes / seconds`.
    pub fn bandwidth(&self, bytes: usize, seconds: f64) -> f64 {
        ring_bytes(self.ranks, bytes) / seconds
    }

    /// Seconds of latency and bytes a second that fit all messages, by least relative squares.
    pub fn fitted(&self) -> (f64, f64) {
        let points: Vec<(f64, f64)> =
            self.seconds.iter().map(|(bytes, seconds)| (ring_bytes(self.ranks, *bytes), *seconds)).collect();
        fit(&points)
    }
}

/// Bytes that each of `ranks` sends in a ring's all-reduce of `bytes` (Patarasuk & Yuan 2009).
fn ring_bytes(ranks: usize, bytes: usize) -> f64 {
    2.0 * (ranks as f64 - 1.0) / ranks as f64 * bytes as f64
}

/// Waits for what has been queued on a GPU.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// The middle one of an odd number of times.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Fits `seconds = latency + bytes / bandwidth` to points `(bytes, seconds)`, so that the sum of
/// squared relative errors is least. Returns latency in seconds and bandwidth in bytes a second.
fn fit(points: &[(f64, f64)]) -> (f64, f64) {
    // Weighted least squares with weights 1 / seconds^2.
    let mut sums = [0.0; 5];
    for (bytes, seconds) in points {
        let weight = 1.0 / (seconds * seconds);
        for (sum, term) in sums.iter_mut().zip([1.0, *bytes, *seconds, bytes * bytes, bytes * seconds]) {
            *sum += weight * term;
        }
    }
    let [w, x, y, xx, xy] = sums;
    let slope = (w * xy - x * y) / (w * xx - x * x);
    ((y - slope * x) / w, 1.0 / slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_sends_each_byte_nearly_twice() {
        assert_eq!((ring_bytes(2, 100), ring_bytes(4, 100)), (100.0, 150.0));
        let reduces = AllReduces { seconds: Vec::new(), ranks: 4 };
        assert_eq!(reduces.bandwidth(1000, 0.5), 3000.0);
    }

    #[test]
    fn the_middle_time_counts() {
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn latency_and_bandwidth_are_found_again() {
        let (latency, bandwidth) = (50e-6, 2e9);
        let reduces = AllReduces {
            seconds: MESSAGES.map(|(bytes, _)| (bytes, latency + 1.5 * bytes as f64 / bandwidth)).into(),
            ranks: 4,
        };
        let (found_latency, found_bandwidth) = reduces.fitted();
        assert!((found_latency / latency - 1.0).abs() < 1e-6, "{found_latency}");
        assert!((found_bandwidth / bandwidth - 1.0).abs() < 1e-6, "{found_bandwidth}");
    }

    #[test]
    fn the_fit_weighs_relative_errors() {
        // The normal equations with weights 1, 1/9 and 1/160000, solved in exact fractions. Without
        // weights, the slope would be 4.01.
        let (latency, bandwidth) = fit(&[(0.0, 1.0), (2.0, 3.0), (100.0, 400.0)]);
        let slope = 1.0 / bandwidth;
        assert!((latency - 0.920_763).abs() < 1e-6 && (slope - 1.403_462).abs() < 1e-6, "{latency} {slope}");
    }
}
