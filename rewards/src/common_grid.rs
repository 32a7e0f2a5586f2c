//! One grid for many solids, in their own coordinates, to compare each of them with each other one:
//! n solids cost n rasterisations, where [`frame_iou`](crate::frame_iou) would need two for each
//! pair.
//!
//! The grid follows the convention of [`grid`](crate::grid). Its resolution is that of the whole
//! set, so the IoU of two small solids among large ones is coarser than in a frame of their own.

use crate::frames::occupied;
use crate::grid::{GridSpec, Pose};
use crate::mesh::Bounds;
use crate::outcome::Solid;

/// A grid for several solids.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonGrid {
    near: GridSpec,
    /// The grid for solids that reach out of `near`, if there are any.
    wide: Option<Wide>,
    /// Bounds of `near`.
    bounds: Bounds,
}

/// A grid over all solids, of which only the cells outside of the near grid count.
#[derive(Debug, Clone, PartialEq)]
struct Wide {
    spec: GridSpec,
    /// The cells that count, as bits in the order of [`Grid::words`](crate::Grid::words).
    counts: Vec<u64>,
    /// Volume of a cell, in cells of the near grid.
    cell: f64,
}

/// The cells of a [`CommonGrid`] that a solid occupies.
#[derive(Debug, Clone, PartialEq)]
pub struct Occupied {
    near: Vec<u64>,
    /// Empty if the solid does not reach out of the near grid.
    wide: Vec<u64>,
    /// Volume of a cell of `wide`, in cells of `near`.
    wide_cell: f64,
    /// Occupied volume in cells of `near`.
    volume: f64,
}

impl CommonGrid {
    /// A grid of `n^3` cells for solids with these bounds. Along each axis it spans at most three
    /// times the distance between the median lower and the median upper bound, so that a few
    /// far-reaching solids do not make the cells too coarse for all others. What lies outside is
    /// counted on a second grid of `n^3` cells over all bounds.
    pub fn new(n: usize, bounds: &[Bounds]) -> Self {
        let (mut all, mut near) = (Bounds::EMPTY, Bounds::EMPTY);
        for axis in 0..3 {
            let sorted = |end: &dyn Fn(&Bounds) -> f64| {
                let mut ends: Vec<f64> = bounds.iter().map(end).filter(|end| end.is_finite()).collect();
                ends.sort_by(f64::total_cmp);
                ends
            };
            let (low, high) = (sorted(&|bounds| bounds.min[axis]), sorted(&|bounds| bounds.max[axis]));
            let (Some(&first), Some(&last)) = (low.first(), high.last()) else { continue };
            let (low, high) = (low[low.len() / 2], high[high.len() / 2]);
            let margin = if high > low { high - low } else { f64::INFINITY };
            (all.min[axis], all.max[axis]) = (first, last);
            (near.min[axis], near.max[axis]) = (first.max(low - margin), last.min(high + margin));
        }
        let spec = GridSpec::spanning(n, &near, &near);
        let wide = (all != near).then(|| Wide::new(GridSpec::spanning(n, &all, &all), &spec, &near));
        Self { near: spec, wide, bounds: near }
    }

    /// What `solid` occupies.
    pub fn occupied(&self, solid: &Solid) -> Occupied {
        let in_place = (solid, &Pose::identity());
        let near = occupied(in_place, &self.near).words().to_vec();
        let own = solid.bounds();
        let reaches_out =
            (0..3).any(|axis| own.min[axis] < self.bounds.min[axis] || own.max[axis] > self.bounds.max[axis]);
        let (mut wide, mut wide_cell) = (Vec::new(), 0.0);
        if let Some(outside) = self.wide.as_ref().filter(|_| reaches_out) {
            let grid = occupied(in_place, &outside.spec);
            wide = grid.words().iter().zip(&outside.counts).map(|(word, counts)| word & counts).collect();
            wide_cell = outside.cell;
        }
        let volume = shared(&near, &near) + wide_cell * shared(&wide, &wide);
        Occupied { near, wide, wide_cell, volume }
    }
}

impl Wide {
    fn new(spec: GridSpec, near: &GridSpec, bounds: &Bounds) -> Self {
        let per_column = spec.n.div_ceil(64);
        let mut counts = vec![0; spec.n * spec.n * per_column];
        for (column, words) in counts.chunks_mut(per_column).enumerate() {
            for k in 0..spec.n {
                let sample = spec.sample(column / spec.n, column % spec.n, k);
                let is_outside = (0..3).any(|axis| sample[axis] < bounds.min[axis] || sample[axis] > bounds.max[axis]);
                words[k / 64] |= u64::from(is_outside) << (k % 64);
            }
        }
        let cell = (0..3).map(|axis| spec.cell[axis] / near.cell[axis]).product::<f64>();
        Self { spec, counts, cell: if cell.is_finite() { cell } else { 0.0 } }
    }
}

impl Occupied {
    /// IoU with another solid on the same grid, in [0, 1]; 0 if both occupy nothing.
    pub fn iou(&self, other: &Self) -> f64 {
        let both = shared(&self.near, &other.near) + self.wide_cell * shared(&self.wide, &other.wide);
        let either = self.volume + other.volume - both;
        if either > 0.0 { both / either } else { 0.0 }
    }
}

/// Number of bits that are set in both; 0 if one is empty.
fn shared(a: &[u64], b: &[u64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a & b).count_ones())).sum()
}
