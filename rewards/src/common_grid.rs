//! One grid for many solids, in their own coordinates, to compare each of them with each other one:
//! n solids cost n rasterisations, where [`frame_iou`](crate::frame_iou) would need one for each
//! pair.
//!
//! The grid follows the convention of [`grid`](crate::grid). Its resolution is that of the whole
//! set, so the IoU of two small solids among large ones is coarser than in a frame of their own.

use crate::frames::{count_beyond, occupied};
use crate::grid::{Grid, GridSpec, Pose, overlap};
use crate::mesh::Bounds;
use crate::outcome::Solid;

/// A grid for several solids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommonGrid {
    spec: GridSpec,
    bounds: Bounds,
}

/// The cells of a [`CommonGrid`] that a solid occupies.
#[derive(Debug, Clone, PartialEq)]
pub struct Occupied {
    grid: Grid,
    /// Occupied cells.
    cells: f64,
    /// Volume outside of the grid, in its cells.
    beyond: f64,
}

impl CommonGrid {
    /// A grid of `n^3` cells for solids with these bounds. It spans all of them, but along each axis
    /// at most three times the distance between the median lower and the median upper bound. A few
    /// far-reaching solids therefore do not make the cells too coarse for all others.
    pub fn new(n: usize, bounds: &[Bounds]) -> Self {
        let mut all = Bounds::EMPTY;
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
            all.min[axis] = first.max(low - margin);
            all.max[axis] = last.min(high + margin);
        }
        Self { spec: GridSpec::spanning(n, &all, &all), bounds: all }
    }

    /// What `solid` occupies. What lies outside of the grid is counted on a grid of the solid's own.
    pub fn occupied(&self, solid: &Solid) -> Occupied {
        let in_place = (solid, &Pose::identity());
        let grid = occupied(in_place, &self.spec);
        let own = solid.bounds();
        let reaches_out =
            (0..3).any(|axis| own.min[axis] < self.bounds.min[axis] || own.max[axis] > self.bounds.max[axis]);
        let cell: f64 = self.spec.cell.iter().product();
        let mut beyond = 0.0;
        if reaches_out && cell > 0.0 {
            let wide = GridSpec::spanning(self.spec.n, own, own);
            let cells = count_beyond(&occupied(in_place, &wide), &wide, &self.bounds) as f64;
            beyond = cells * wide.cell.iter().product::<f64>() / cell;
        }
        Occupied { cells: grid.count() as f64, grid, beyond }
    }
}

impl Occupied {
    /// IoU with another solid on the same grid, in [0, 1]; 0 if both occupy nothing. Counts volume
    /// outside of the grid as not shared.
    ///
    /// # Panics
    /// If the grids have different numbers of cells.
    pub fn iou(&self, other: &Self) -> f64 {
        let both = overlap(&self.grid, &other.grid).0 as f64;
        let either = self.cells + other.cells - both + self.beyond + other.beyond;
        if either > 0.0 { both / either } else { 0.0 }
    }
}
