//! Occupancy grids: the one place that states the voxel convention.
//!
//! # The convention
//!
//! 1. **Extent.** A grid has `n` x `n` x `n` cells and spans exactly the common bounds of the two
//!    solids, axis by axis: a cell is `extent / n` long on each axis. IoU does not change when an
//!    axis is scaled, and a thin plate keeps `n` cells across its thickness. No margin is needed,
//!    because samples lie strictly inside of their cells. A prediction that reaches much farther
//!    than the ground truth is counted on two grids, so that it cannot make the cells too coarse to
//!    distinguish parts. Two solids that occupy few cells (thin tubes, wire-like frames) are
//!    compared on a finer grid. See `frames.rs`.
//! 2. **Sample.** A cell is inside if its sample point is inside. The sample of cell `(i, j, k)` is
//!    `min + (i + u(j), j + v(i), k + w(i, j)) * cell`, with the offsets of [`offset_x`],
//!    [`offset_y`] and [`offset_z`] in (0, 1). These are cell centres shifted by a fixed
//!    low-discrepancy pattern. With plain centres, a wall thinner than a cell is missed or doubled
//!    as a whole. With the pattern, the cells along the wall sample different depths, so their
//!    count measures its thickness.
//! 3. **Inside** means a winding number of at least 1. The winding number is the number of boundary
//!    crossings into the solid minus the crossings out of it along the column. Overlapping solids
//!    of a compound form their union, and a hole subtracted twice is still a hole. An infinitesimal
//!    shift, the same for all triangles, decides coordinates exactly on an edge, so no crossing is
//!    lost or counted twice. An entry exactly at a sample counts as inside, an exit as outside.
//! 4. **Open meshes.** If a column enters more often than it leaves, the mesh has a gap there.
//!    Between the crossings of that column, the generalised winding number (solid angle / 4 pi,
//!    Jacobson et al. 2013) decides: above 1/2 is inside.
//! 5. **IoU** is `|A and B| / |A or B|` in cells, in [0, 1]; two empty grids have IoU 0.

use std::ops::Range;

use nalgebra::{Matrix3, Vector3};

use crate::csg::CsgSolid;
use crate::mesh::{Bounds, Mesh};
use crate::winding;

/// Position and size of a grid. See the [module documentation](self) for the convention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridSpec {
    /// Cells along each axis.
    pub n: usize,
    /// Lowest corner, in the solids' units.
    pub min: [f64; 3],
    /// Length of a cell along each axis, in the solids' units; 0 if the bounds are flat along that
    /// axis.
    pub cell: [f64; 3],
}

impl GridSpec {
    /// The grid over the common bounds of two solids.
    pub fn spanning(n: usize, a: &Bounds, b: &Bounds) -> Self {
        let bounds = a.union(b);
        let cell = std::array::from_fn(|axis| {
            let extent = bounds.max[axis] - bounds.min[axis];
            if extent.is_finite() && extent > 0.0 { extent / n as f64 } else { 0.0 }
        });
        let min = bounds.min.map(|m| if m.is_finite() { m } else { 0.0 });
        Self { n, min, cell }
    }

    /// The point that decides cell `(i, j, k)`, in the solids' units.
    pub fn sample(&self, i: usize, j: usize, k: usize) -> [f64; 3] {
        let local = [i as f64 + offset_x(j), j as f64 + offset_y(i), k as f64 + offset_z(i, j)];
        std::array::from_fn(|axis| self.min[axis] + local[axis] * self.cell[axis])
    }

    /// Converts a point to cell units; flat axes become 0.
    fn local(&self, point: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(
            |axis| {
                if self.cell[axis] > 0.0 { (point[axis] - self.min[axis]) / self.cell[axis] } else { 0.0 }
            },
        )
    }
}

/// Offset along x of the samples of row `j`, in cells: `frac(1/2 + j / golden ratio)`.
pub fn offset_x(j: usize) -> f64 {
    (0.5 + j as f64 * 0.618_033_988_749_894_9).fract()
}

/// Offset along y of the samples of row `i`, in cells: `frac(1/2 + i * (sqrt(2) - 1))`.
pub fn offset_y(i: usize) -> f64 {
    (0.5 + i as f64 * (std::f64::consts::SQRT_2 - 1.0)).fract()
}

/// Offset along z of the samples of column `(i, j)`, in cells: `frac(1/2 + i / p + j / p^2)` with
/// the plastic ratio `p`, the two-dimensional counterpart of the golden ratio.
pub fn offset_z(i: usize, j: usize) -> f64 {
    (0.5 + i as f64 * 0.754_877_666_246_692_7 + j as f64 * 0.569_840_290_998_053_2).fract()
}

/// The set of inside cells, one bit per cell. Columns along z are contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    n: usize,
    words: Vec<u64>,
}

impl Grid {
    /// A grid of `n^3` cells, all outside.
    pub fn empty(n: usize) -> Self {
        Self { n, words: vec![0; n * n * n.div_ceil(64)] }
    }

    /// Cells along each axis.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Whether cell `(i, j, k)` is inside.
    pub fn get(&self, i: usize, j: usize, k: usize) -> bool {
        self.words[(i * self.n + j) * self.n.div_ceil(64) + k / 64] >> (k % 64) & 1 == 1
    }

    /// Number of cells inside.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The bits, column by column: cell `(i, j, k)` is bit `k % 64` of word
    /// `(i * n + j) * ceil(n / 64) + k / 64`.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Marks the cells of column `(i, j)` whose samples lie in `[enter, exit)`, in cells along z.
    pub fn fill_column(&mut self, i: usize, j: usize, enter: f64, exit: f64) {
        let offset = offset_z(i, j);
        let limit = self.n as f64;
        let first = (enter - offset).ceil().clamp(0.0, limit) as usize;
        let last = (exit - offset).ceil().clamp(0.0, limit) as usize;
        if first >= last {
            return;
        }
        let per_column = self.n.div_ceil(64);
        let column = &mut self.words[(i * self.n + j) * per_column..][..per_column];
        for (index, word) in column.iter_mut().enumerate() {
            let low = first.saturating_sub(index * 64).min(64);
            let high = last.saturating_sub(index * 64).min(64);
            if low < high {
                *word |= (u64::MAX >> (64 - (high - low))) << low;
            }
        }
    }
}

/// `|a and b| / |a or b|` in [0, 1]. Two empty grids have IoU 0: two parts that occupy nothing are
/// no evidence of similarity.
///
/// # Panics
/// If the grids have different numbers of cells.
pub fn iou(a: &Grid, b: &Grid) -> f64 {
    let (both, either) = overlap(a, b);
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

/// `|a and b|` and `|a or b|` in cells.
pub(crate) fn overlap(a: &Grid, b: &Grid) -> (u64, u64) {
    assert_eq!(a.n, b.n, "iou: grids of different size");
    let (mut both, mut either) = (0, 0);
    for (x, y) in a.words.iter().zip(&b.words) {
        both += u64::from((x & y).count_ones());
        either += u64::from((x | y).count_ones());
    }
    (both, either)
}

/// One crossing of a column with the boundary.
#[derive(Clone, Copy)]
struct Crossing {
    /// Height in cells.
    z: f64,
    /// +1 for entering the solid going up, -1 for leaving it.
    step: i32,
}

/// Returns the cells of `spec` that are inside `mesh`. See the [module documentation](self).
///
/// The mesh must pass [`Mesh::check`]; it need not be closed or manifold.
pub fn voxelise(mesh: &Mesh, spec: &GridSpec) -> Grid {
    let n = spec.n;
    let mut grid = Grid::empty(n);
    let points: Vec<[f64; 3]> = mesh.vertices.iter().map(|&v| spec.local(v)).collect();
    let mut leaks: Vec<Leak> = Vec::new();
    let affordable = MEND_BUDGET / mesh.triangles.len().max(1);
    // A few thousand stacked plates can cross a fine grid more often than fits in memory.
    let slabs = (crossings_at_most(n, &points, &mesh.triangles) / CROSSINGS_AT_ONCE + 1).min(n);
    let thickness = n.div_ceil(slabs);
    for first in (0..n).step_by(thickness) {
        let rows = first..(first + thickness).min(n);
        let columns = Columns::scan(n, rows, &points, &mesh.triangles);
        columns.fill(n, &mut grid, &mut leaks, affordable);
    }
    mend(&mut grid, &points, &mesh.triangles, &leaks);
    grid
}

/// Similarity transform that places a body: `scale * rotation * (p - center)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// The point that moves to the origin.
    pub center: Vector3<f64>,
    /// A proper rotation matrix.
    pub rotation: Matrix3<f64>,
    /// Scale factor; positive.
    pub scale: f64,
}

impl Pose {
    /// The identity: leaves the body in place.
    pub fn identity() -> Self {
        Self { center: Vector3::zeros(), rotation: Matrix3::identity(), scale: 1.0 }
    }

    /// Transforms a point of the body.
    pub fn apply(&self, point: Vector3<f64>) -> Vector3<f64> {
        self.rotation * (point - self.center) * self.scale
    }
}

/// Returns the cells of `spec` that are inside a boolean tree placed by `pose`. Exact along each
/// column.
pub fn rasterise(csg: &CsgSolid, pose: &Pose, spec: &GridSpec) -> Grid {
    let n = spec.n;
    let mut grid = Grid::empty(n);
    let back = pose.rotation.transpose();
    let mut caster = csg.caster(back.column(2).into_owned());
    for i in 0..n {
        for j in 0..n {
            let x = spec.min[0] + (i as f64 + offset_x(j)) * spec.cell[0];
            let y = spec.min[1] + (j as f64 + offset_y(i)) * spec.cell[1];
            let origin = pose.center + back * (Vector3::new(x, y, 0.0) / pose.scale);
            for span in caster.spans(origin) {
                let cells = |at: f64| (at * pose.scale - spec.min[2]) / spec.cell[2];
                grid.fill_column(i, j, cells(span.enter.at), cells(span.leave.at));
            }
        }
    }
    grid
}

/// A piece of a column between two crossings that the column's own crossings cannot decide.
struct Leak {
    i: usize,
    j: usize,
    enter: f64,
    exit: f64,
}

/// Budget of solid-angle evaluations per grid. Pieces beyond it count as outside.
const MEND_BUDGET: usize = 20_000_000;

/// Decides the undecided pieces by the generalised winding number at their midpoints.
fn mend(grid: &mut Grid, points: &[[f64; 3]], triangles: &[[u32; 3]], leaks: &[Leak]) {
    for leak in leaks {
        let middle =
            [leak.i as f64 + offset_x(leak.j), leak.j as f64 + offset_y(leak.i), 0.5 * (leak.enter + leak.exit)];
        if winding::number(points, triangles, middle) > 0.5 {
            grid.fill_column(leak.i, leak.j, leak.enter, leak.exit);
        }
    }
}

/// Maximum number of crossings held before they are converted to cells: 100 MB.
const CROSSINGS_AT_ONCE: usize = 4 << 20;

/// Upper bound on the number of crossings, from the triangles' bounding boxes.
fn crossings_at_most(n: usize, points: &[[f64; 3]], triangles: &[[u32; 3]]) -> usize {
    let boxes = triangles.iter().map(|corners| {
        let corners = corners.map(|v| points[v as usize]);
        let cells = |axis: usize| {
            let values = corners.map(|c| c[axis]);
            let low = values[0].min(values[1]).min(values[2]);
            let high = values[0].max(values[1]).max(values[2]);
            let (first, last) = cells_between(low, high, n);
            last - first
        };
        cells(0) * cells(1)
    });
    boxes.sum()
}

/// The crossings of some rows of columns, sorted by column.
struct Columns {
    /// The first column.
    first: usize,
    /// `starts[c]..starts[c + 1]` are the crossings of column `first + c`, which is `i * n + j`.
    starts: Vec<u32>,
    crossings: Vec<Crossing>,
}

impl Columns {
    /// Intersects every column of `rows` with every triangle (corners in cells).
    fn scan(n: usize, rows: Range<usize>, points: &[[f64; 3]], triangles: &[[u32; 3]]) -> Self {
        let x_of: Vec<f64> = (0..n).map(offset_x).collect();
        let y_of: Vec<f64> = (0..n).map(offset_y).collect();
        let first = rows.start * n;
        let mut found: Vec<(u32, Crossing)> = Vec::new();
        let mut starts = vec![0u32; rows.len() * n + 1];
        for triangle in triangles {
            let corners = triangle.map(|v| points[v as usize]);
            let Some(shadow) = Shadow::new(corners) else {
                continue;
            };
            let (i_low, i_high) = cells_between(shadow.low[0], shadow.high[0], n);
            for i in i_low.max(rows.start)..i_high.min(rows.end) {
                let (y_low, y_high) = shadow.y_over(i as f64, i as f64 + 1.0);
                let (j_low, j_high) = cells_between(y_low, y_high, n);
                for j in j_low..j_high {
                    let point = [i as f64 + x_of[j], j as f64 + y_of[i]];
                    if let Some(crossing) = shadow.cross(point) {
                        let column = i * n + j - first;
                        starts[column + 1] += 1;
                        found.push((column as u32, crossing));
                    }
                }
            }
        }
        for column in 1..starts.len() {
            starts[column] += starts[column - 1];
        }
        let mut next = starts.clone();
        let mut crossings = vec![Crossing { z: 0.0, step: 0 }; found.len()];
        for (column, crossing) in found {
            let slot = &mut next[column as usize];
            crossings[*slot as usize] = crossing;
            *slot += 1;
        }
        Self { first, starts, crossings }
    }

    /// Marks the cells between entries and exits. Appends columns with a gap to `leaks` while it
    /// holds fewer than `affordable`.
    fn fill(mut self, n: usize, grid: &mut Grid, leaks: &mut Vec<Leak>, affordable: usize) {
        for (column, bounds) in self.starts.windows(2).enumerate() {
            let crossings = &mut self.crossings[bounds[0] as usize..bounds[1] as usize];
            if crossings.is_empty() {
                continue;
            }
            crossings.sort_unstable_by(|a, b| a.z.total_cmp(&b.z));
            let (i, j) = ((self.first + column) / n, (self.first + column) % n);
            if crossings.iter().map(|c| c.step).sum::<i32>() == 0 {
                let mut winding = 0;
                for pair in crossings.windows(2) {
                    winding += pair[0].step;
                    if winding >= 1 {
                        grid.fill_column(i, j, pair[0].z, pair[1].z);
                    }
                }
            } else {
                let mut enter = 0.0;
                for exit in crossings.iter().map(|c| c.z).chain([n as f64]) {
                    if exit > enter && leaks.len() < affordable {
                        leaks.push(Leak { i, j, enter, exit });
                        enter = exit;
                    }
                }
            }
        }
    }
}

/// The half-open range of cells that the closed interval touches.
fn cells_between(low: f64, high: f64, n: usize) -> (usize, usize) {
    let limit = n as f64;
    let first = low.floor().clamp(0.0, limit) as usize;
    let last = (high.floor() + 1.0).clamp(0.0, limit) as usize;
    (first, last.max(first))
}

/// A triangle projected along z.
struct Shadow {
    corners: [[f64; 3]; 3],
    edges: [TriangleEdge; 3],
    low: [f64; 2],
    high: [f64; 2],
}

/// One side of a projected triangle, stored from its lexicographically smaller end, so that both
/// triangles that share it compute exactly the same number.
#[derive(Clone, Copy)]
struct TriangleEdge {
    from: [f64; 2],
    along: [f64; 2],
    /// Whether the triangle traverses the edge in the other direction.
    reversed: bool,
}

impl TriangleEdge {
    fn new(a: [f64; 3], b: [f64; 3]) -> Self {
        let (a, b) = ([a[0], a[1]], [b[0], b[1]]);
        let reversed = (b[0], b[1]) < (a[0], a[1]);
        let (from, to) = if reversed { (b, a) } else { (a, b) };
        Self { from, along: [to[0] - from[0], to[1] - from[1]], reversed }
    }

    /// Twice the signed area of the edge and the point, in the triangle's direction, and whether
    /// the point is to the left. A point on the edge's line is treated as shifted by (e^2, -e).
    fn side(&self, point: [f64; 2]) -> (f64, bool) {
        let area = self.along[0] * (point[1] - self.from[1]) - self.along[1] * (point[0] - self.from[0]);
        // The shift adds -along.x e - along.y e^2 < 0, because `along` is lexicographically
        // positive.
        let left = area > 0.0;
        if self.reversed { (-area, !left) } else { (area, left) }
    }
}

impl Shadow {
    fn new(corners: [[f64; 3]; 3]) -> Option<Self> {
        let [a, b, c] = corners;
        let low = [a[0].min(b[0]).min(c[0]), a[1].min(b[1]).min(c[1])];
        let high = [a[0].max(b[0]).max(c[0]), a[1].max(b[1]).max(c[1])];
        let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        if area == 0.0 {
            return None;
        }
        Some(Self {
            corners,
            edges: [TriangleEdge::new(b, c), TriangleEdge::new(c, a), TriangleEdge::new(a, b)],
            low,
            high,
        })
    }

    /// Range of y of the projected triangle over x in `[from, to]`, widened for rounding.
    fn y_over(&self, from: f64, to: f64) -> (f64, f64) {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for edge in &self.edges {
            let (x0, x1) = (edge.from[0], edge.from[0] + edge.along[0]);
            if x1 < from || x0 > to {
                continue;
            }
            let y_at = |x: f64| {
                if edge.along[0] > 0.0 {
                    let t = ((x - x0) / edge.along[0]).clamp(0.0, 1.0);
                    edge.from[1] + t * edge.along[1]
                } else {
                    edge.from[1]
                }
            };
            let ends =
                if edge.along[0] > 0.0 { [y_at(from), y_at(to)] } else { [edge.from[1], edge.from[1] + edge.along[1]] };
            low = low.min(ends[0]).min(ends[1]);
            high = high.max(ends[0]).max(ends[1]);
        }
        let slack = 1e-9;
        ((low - slack).max(self.low[1]), (high + slack).min(self.high[1]))
    }

    /// Returns the crossing of the column through `point` with the triangle.
    fn cross(&self, point: [f64; 2]) -> Option<Crossing> {
        let (a0, left0) = self.edges[0].side(point);
        let (a1, left1) = self.edges[1].side(point);
        if left0 != left1 {
            return None;
        }
        let (a2, left2) = self.edges[2].side(point);
        if left1 != left2 {
            return None;
        }
        let heights = self.corners.map(|c| c[2]);
        let total = a0 + a1 + a2;
        let z = if total == 0.0 { heights[0] } else { (a0 * heights[0] + a1 * heights[1] + a2 * heights[2]) / total };
        let low = heights[0].min(heights[1]).min(heights[2]);
        let high = heights[0].max(heights[1]).max(heights[2]);
        // Counter-clockwise from above: the outside is above, so a rising column leaves the solid.
        Some(Crossing { z: z.clamp(low, high), step: if left0 { -1 } else { 1 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_through_a_shared_corner_crosses_exactly_one_triangle() {
        // A fan of triangles around a hub, with a column exactly through the hub.
        let hub = [0.5, 0.25, 1.0];
        for spokes in [3, 4, 5, 8, 12] {
            let rim = |step: usize| {
                let angle = 2.0 * std::f64::consts::PI * (step % spokes) as f64 / spokes as f64;
                [hub[0] + angle.cos(), hub[1] + angle.sin(), 1.0]
            };
            let crossed = (0..spokes)
                .filter_map(|step| Shadow::new([hub, rim(step), rim(step + 1)]))
                .filter(|shadow| shadow.cross([hub[0], hub[1]]).is_some())
                .count();
            assert_eq!(crossed, 1, "{spokes} spokes");
        }
    }
}
