//! A part as filled cells, to check whether there is room for a feature.

use cadwright_rewards::csg::{CsgSolid, Vec3};

use super::part::Cell3;

/// The cells of a box whose centres are inside a solid.
#[derive(Debug)]
pub(super) struct Cells {
    min: Cell3,
    size: [i32; 3],
    filled: Vec<bool>,
}

/// A box of cells, from `min` to below `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellBox {
    pub(super) min: Cell3,
    pub(super) max: Cell3,
}

impl CellBox {
    /// The box between two opposite corners, in any order.
    pub(super) fn between(a: Cell3, b: Cell3) -> Self {
        Self {
            min: std::array::from_fn(|axis| a[axis].min(b[axis])),
            max: std::array::from_fn(|axis| a[axis].max(b[axis])),
        }
    }
}

impl Cells {
    /// Fills the cells of a solid on a lattice with cells of `cell` units.
    pub(super) fn new(solid: &CsgSolid, cell: f64) -> Self {
        let Some(bounds) = solid.bounds() else {
            return Self { min: [0; 3], size: [0; 3], filled: vec![] };
        };
        let lattice = |value: f64| value / cell;
        let min: Cell3 = std::array::from_fn(|axis| (lattice(bounds.min[axis]) + 1e-6).floor() as i32);
        let max: Cell3 = std::array::from_fn(|axis| (lattice(bounds.max[axis]) - 1e-6).ceil() as i32);
        let size: [i32; 3] = std::array::from_fn(|axis| max[axis] - min[axis]);
        let mut filled = vec![false; size.iter().product::<i32>() as usize];
        let mut caster = solid.caster(Vec3::x());
        for z in 0..size[2] {
            for y in 0..size[1] {
                let center = |index: i32, axis: usize| (f64::from(min[axis] + index) + 0.5) * cell;
                let row = ((z * size[1] + y) * size[0]) as usize;
                for span in caster.spans(Vec3::new(0.0, center(y, 1), center(z, 2))) {
                    let index = |at: f64| (lattice(at) - 0.5 - f64::from(min[0])).ceil().clamp(0.0, f64::from(size[0]));
                    filled[row + index(span.enter.at) as usize..row + index(span.leave.at) as usize].fill(true);
                }
            }
        }
        Self { min, size, filled }
    }

    /// The box of the solid's bounds.
    pub(super) fn extent(&self) -> CellBox {
        CellBox { min: self.min, max: std::array::from_fn(|axis| self.min[axis] + self.size[axis]) }
    }

    fn is_filled(&self, cell: Cell3) -> bool {
        let index: [i32; 3] = std::array::from_fn(|axis| cell[axis] - self.min[axis]);
        (0..3).all(|axis| (0..self.size[axis]).contains(&index[axis]))
            && self.filled[((index[2] * self.size[1] + index[1]) * self.size[0] + index[0]) as usize]
    }

    /// Whether every cell of a box is filled (`filled`) or empty (not `filled`).
    pub(super) fn all(&self, range: CellBox, filled: bool) -> bool {
        (range.min[2]..range.max[2]).all(|z| {
            (range.min[1]..range.max[1])
                .all(|y| (range.min[0]..range.max[0]).all(|x| self.is_filled([x, y, z]) == filled))
        })
    }
}
