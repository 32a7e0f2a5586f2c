//! The published "best IoU" between the *shells* of two parts, reproduced so that numbers can be
//! compared with published ones.
//!
//! It is not an IoU of solids: see `docs/metrics.md`. The steps, in the order of the published
//! code:
//!
//! 1. Takes CadQuery's STL export with its default tolerances (0.1 relative to an edge's size, 0.1
//!    rad). STL stores 32-bit floats.
//! 2. Translates the mesh by minus the solid's centroid and scales it by 1 / radius of gyration.
//!    Both come from the solid, not from the mesh.
//! 3. Rotates the prediction by `A_gt (A_pred D)^T`, with A the eigenvectors of the mesh's inertia
//!    by ascending eigenvalue, and D = diag(+,+,+), (+,+,-), (+,-,+), (-,+,+). If D reflects, so
//!    does the whole map. The eigenvectors have the signs of the usual solver (LAPACK); another
//!    solver would give other scores.
//! 4. Divides every triangle until no edge is longer than half of [`PITCH`]. The shell is the set
//!    of cells of the vertices: coordinates over the pitch, rounded half to even. Its inside is
//!    never filled.
//! 5. Takes the best IoU of the two sets of cells over the four D.
//!
//! If two moments of a part are equal, rounding determines its axes and so the score. The published
//! code returns a score anyway. This module does the same but marks it as undetermined.

use nalgebra::{Matrix3, Vector3};

use crate::eigh::eigh;
use crate::mesh::{MassProperties, Mesh};

/// Edge of a cell in radii of gyration.
pub const PITCH: f64 = 0.05;

/// Moments closer than this, relative to the largest, count as equal. STL's rounding moves them by
/// 1e-8. Parts of real corpora lie below 1e-7 (symmetric) or above 5e-5.
pub const EQUAL_MOMENTS: f64 = 1e-6;

/// Maximum number of halvings. The published code fails if an edge is still too long after them.
const MAX_HALVINGS: u32 = 10;

/// Maximum number of triangles made from one mesh: malformed solids can have a tiny radius of
/// gyration and so a huge shell.
const MAX_TRIANGLES: usize = 1 << 26;

/// A score of the published metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShellIou {
    /// In [0, 1].
    pub iou: f64,
    /// Whether one of the parts has moments so close that rounding decides the score.
    pub undetermined: bool,
}

/// Compares two solids given by mass properties and exported mesh. `None` if the published code
/// fails: for a solid without a radius of gyration, an empty mesh, or a mesh that is too large for
/// its radius.
pub fn shell_iou(prediction: (&MassProperties, &Mesh), ground_truth: (&MassProperties, &Mesh)) -> Option<ShellIou> {
    let (moved, fixed) = (Shell::new(prediction)?, Shell::new(ground_truth)?);
    let target = fixed.cells(&Matrix3::identity())?;
    let mut best = 0.0f64;
    for signs in [[1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]] {
        let turned = moved.axes * Matrix3::from_diagonal(&Vector3::from(signs));
        let cells = moved.cells(&(fixed.axes * turned.transpose()))?;
        best = best.max(overlap(&cells, &target));
    }
    Some(ShellIou { iou: best, undetermined: moved.undetermined || fixed.undetermined })
}

/// A normalised mesh and its principal axes.
struct Shell {
    triangles: Vec<[Vector3<f64>; 3]>,
    axes: Matrix3<f64>,
    undetermined: bool,
}

impl Shell {
    fn new((mass, mesh): (&MassProperties, &Mesh)) -> Option<Self> {
        let trace: f64 = (0..3).map(|axis| mass.inertia[axis][axis]).sum();
        // Both are negative if a solid is inside out: the published code accepts that.
        let radius = (trace / (2.0 * mass.volume)).sqrt();
        if !(radius.is_finite() && radius > 0.0) || mesh.triangles.is_empty() {
            return None;
        }
        let (center, scale) = (Vector3::from(mass.centroid), 1.0 / radius);
        let place = |index: u32| {
            let stored = mesh.vertices[index as usize].map(|coordinate| f64::from(coordinate as f32));
            (Vector3::from(stored) - center) * scale
        };
        let triangles: Vec<_> = mesh.triangles.iter().map(|corners| corners.map(place)).collect();
        let (moments, axes) = eigh(&inertia(&triangles))?;
        let gap = (moments[1] - moments[0]).min(moments[2] - moments[1]);
        Some(Self { triangles, axes, undetermined: gap <= EQUAL_MOMENTS * moments[2].abs() })
    }

    /// The cells of the rotated shell, sorted.
    fn cells(&self, turn: &Matrix3<f64>) -> Option<Vec<[i32; 3]>> {
        let mut cells = Vec::new();
        let mut left = MAX_TRIANGLES;
        let mut compacted = 1 << 20;
        // The published code skips a rotation that is almost the identity.
        let stays = (turn - Matrix3::identity()).amax() < 1e-8;
        for corners in &self.triangles {
            divide(
                corners.map(|corner| if stays { corner } else { turn * corner }),
                MAX_HALVINGS,
                &mut left,
                &mut cells,
            )?;
            if cells.len() > compacted {
                compact(&mut cells);
                compacted = (2 * cells.len()).max(1 << 20);
            }
        }
        compact(&mut cells);
        Some(cells)
    }
}

fn compact(cells: &mut Vec<[i32; 3]>) {
    cells.sort_unstable();
    cells.dedup();
}

/// Repeatedly splits a triangle at the midpoint of each edge that is too long, and records the
/// cells of all corners.
fn divide(corners: [Vector3<f64>; 3], halvings: u32, left: &mut usize, cells: &mut Vec<[i32; 3]>) -> Option<()> {
    *left = left.checked_sub(1)?;
    let [a, b, c] = corners;
    let is_long = |from: &Vector3<f64>, to: &Vector3<f64>| (to - from).norm() > PITCH / 2.0;
    let long = [is_long(&a, &b), is_long(&b, &c), is_long(&c, &a)];
    if long == [false; 3] {
        for corner in corners {
            let cell = corner.map(|coordinate| (coordinate / PITCH).round_ties_even() as i32).into();
            if cells.last() != Some(&cell) {
                cells.push(cell);
            }
        }
        return Some(());
    }
    let halvings = halvings.checked_sub(1)?;
    let middle = |from: Vector3<f64>, to: Vector3<f64>| (from + to) / 2.0;
    let mut go = |corners| divide(corners, halvings, left, cells);
    // Rotates the corners so that one template serves every edge.
    match long {
        [true, true, true] => {
            let (p, q, r) = (middle(a, b), middle(b, c), middle(c, a));
            go([a, p, r])?;
            go([p, b, q])?;
            go([q, c, r])?;
            go([p, q, r])
        }
        [true, false, false] => halve(a, b, c, &mut go),
        [false, true, false] => halve(b, c, a, &mut go),
        [false, false, true] => halve(c, a, b, &mut go),
        [true, true, false] => cut_corner(a, b, c, &mut go),
        [false, true, true] => cut_corner(b, c, a, &mut go),
        [true, false, true] => cut_corner(c, a, b, &mut go),
        [false, false, false] => Some(()),
    }
}

type Corners = [Vector3<f64>; 3];

/// Splits a triangle whose edge from `a` to `b` is too long.
fn halve(a: Vector3<f64>, b: Vector3<f64>, c: Vector3<f64>, go: &mut impl FnMut(Corners) -> Option<()>) -> Option<()> {
    let p = (a + b) / 2.0;
    go([a, p, c])?;
    go([p, b, c])
}

/// Splits a triangle whose two edges at `b` are too long: a corner, and a quadrilateral cut along
/// its shorter diagonal.
fn cut_corner(
    a: Vector3<f64>,
    b: Vector3<f64>,
    c: Vector3<f64>,
    go: &mut impl FnMut(Corners) -> Option<()>,
) -> Option<()> {
    let (p, q) = ((a + b) / 2.0, (b + c) / 2.0);
    go([p, b, q])?;
    if (a - q).norm_squared() <= (p - c).norm_squared() {
        go([a, p, q])?;
        go([a, q, c])
    } else {
        go([a, p, c])?;
        go([p, q, c])
    }
}

/// Inertia about the centre of mass of the volume that the triangles enclose, at unit density
/// (Eberly, "Polyhedral Mass Properties").
///
/// Computes products and sums in the order of the published code. If a part is aligned with the
/// axes, its products of inertia are 0 except for rounding, and this rounding determines the signs
/// of its eigenvectors.
fn inertia(triangles: &[[Vector3<f64>; 3]]) -> Matrix3<f64> {
    let mut terms: [Vec<f64>; 10] = std::array::from_fn(|_| Vec::with_capacity(triangles.len()));
    for [p, q, r] in triangles {
        let (u, v) = (q - p, r - q);
        let cross = [u.y * v.z - u.z * v.y, u.z * v.x - u.x * v.z, u.x * v.y - u.y * v.x];
        for axis in 0..3 {
            let (a, b, c) = (p[axis], q[axis], r[axis]);
            let f1 = a + b + c;
            let f2 = a * a + b * b + a * b + c * f1;
            let f3 = a.powf(3.0) + a * a * b + a * (b * b) + b.powf(3.0) + c * f2;
            let g = [a, b, c].map(|corner| f2 + (corner + f1) * corner);
            let next = (axis + 1) % 3;
            if axis == 0 {
                terms[0].push(cross[0] * f1);
            }
            terms[1 + axis].push(cross[axis] * f2);
            terms[4 + axis].push(cross[axis] * f3);
            terms[7 + axis].push(cross[axis] * (p[next] * g[0] + q[next] * g[1] + r[next] * g[2]));
        }
    }
    let sums: [f64; 10] = std::array::from_fn(|k| pairwise_sum(&terms[k]));
    let volume = sums[0] / 6.0;
    let center = [1, 2, 3].map(|k| sums[k] / 24.0 / volume);
    let squares = [4, 5, 6].map(|k| sums[k] / 60.0);
    let products = [7, 8, 9].map(|k| sums[k] / 120.0);
    let diagonal =
        |i: usize, j: usize| squares[i] + squares[j] - volume * (center[i] * center[i] + center[j] * center[j]);
    let off = |k: usize, i: usize, j: usize| -(products[k] - volume * (center[i] * center[j]));
    let (xy, yz, xz) = (off(0, 0, 1), off(1, 1, 2), off(2, 0, 2));
    Matrix3::new(diagonal(1, 2), xy, xz, xy, diagonal(0, 2), yz, xz, yz, diagonal(0, 1))
}

/// Sums in numpy's order: eight running sums in blocks of at most 128, then blocks in pairs.
fn pairwise_sum(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 8 {
        return values.iter().sum();
    }
    if n > 128 {
        let half = n / 2 - n / 2 % 8;
        return pairwise_sum(&values[..half]) + pairwise_sum(&values[half..]);
    }
    let mut running = [0.0; 8];
    let blocks = values.chunks_exact(8);
    let rest = blocks.remainder();
    for (index, block) in blocks.enumerate() {
        for (sum, value) in running.iter_mut().zip(block) {
            *sum = if index == 0 { *value } else { *sum + value };
        }
    }
    let [a, b, c, d, e, f, g, h] = running;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
}

/// IoU of two sorted sets; 0 for two empty sets.
fn overlap(a: &[[i32; 3]], b: &[[i32; 3]]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let union = a.len() + b.len() - common;
    if union == 0 { 0.0 } else { common as f64 / union as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{block_mass, block_mesh};

    /// A block with one corner at the origin.
    fn block(size: [f64; 3]) -> (MassProperties, Mesh) {
        (block_mass([0.0; 3], size), block_mesh([0.0; 3], size))
    }

    fn shell(a: &(MassProperties, Mesh), b: &(MassProperties, Mesh)) -> Option<ShellIou> {
        shell_iou((&a.0, &a.1), (&b.0, &b.1))
    }

    #[test]
    fn inertia_is_that_of_the_closed_form() {
        let (mass, mesh) = block([1.0, 2.0, 3.0]);
        let triangles: Vec<_> =
            mesh.triangles.iter().map(|t| t.map(|k| Vector3::from(mesh.vertices[k as usize]))).collect();
        let found = inertia(&triangles);
        assert!((found - Matrix3::from_fn(|row, column| mass.inertia[row][column])).amax() < 1e-12, "{found}");
    }

    #[test]
    fn pairwise_sums_are_sums() {
        for n in [0, 1, 7, 8, 9, 127, 128, 129, 1000, 4097] {
            let values: Vec<f64> = (0..n).map(f64::from).collect();
            assert_eq!(pairwise_sum(&values), f64::from(n) * (f64::from(n) - 1.0) / 2.0);
        }
    }

    #[test]
    fn a_part_equals_itself_at_any_size_and_not_a_slightly_longer_one() {
        let part = block([1.0, 2.0, 3.0]);
        assert_eq!(shell(&part, &part), Some(ShellIou { iou: 1.0, undetermined: false }));
        let twice = shell(&block([2.0, 4.0, 6.0]), &part).unwrap();
        assert!(twice.iou > 0.99, "{twice:?}");
        let longer = shell(&block([1.0, 2.0, 3.3]), &part).unwrap();
        assert!(longer.iou < 0.5, "{longer:?}");
    }

    #[test]
    fn equal_moments_are_said() {
        assert!(shell(&block([1.0, 1.0, 3.0]), &block([1.0, 2.0, 3.0])).unwrap().undetermined);
    }

    #[test]
    fn the_shell_of_a_box_is_hollow() {
        // r_g^2 = 3 (4 + 4) / 12 / 2 = 1, so that coordinates go from -1 to 1: cells -20 to 20.
        let cube = block([2.0, 2.0, 2.0]);
        let cells = Shell::new((&cube.0, &cube.1)).unwrap().cells(&Matrix3::identity()).unwrap();
        let side =
            cells.iter().map(|cell| cell[0]).max().unwrap() - cells.iter().map(|cell| cell[0]).min().unwrap() + 1;
        assert_eq!(side, 41);
        assert_eq!(cells.len(), 41usize.pow(3) - 39usize.pow(3));
    }

    #[test]
    fn what_the_published_code_cannot_score_has_none() {
        let part = block([1.0, 2.0, 3.0]);
        let empty = (part.0, Mesh::default());
        assert_eq!(shell(&empty, &part), None);
        let flat = (MassProperties { volume: 0.0, ..part.0 }, part.1.clone());
        assert_eq!(shell(&flat, &part), None);
        // An edge 1000 radii of gyration long takes more than ten halvings.
        let tiny = part.0.inertia.map(|row| row.map(|entry| entry * 1e-6));
        let far = (MassProperties { inertia: tiny, ..part.0 }, part.1.clone());
        assert_eq!(shell(&far, &part), None);
    }
}
