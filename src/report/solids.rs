//! Solids as the page turns them: few triangles in few bytes.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cadwright_rewards::grid::Pose;
use cadwright_rewards::{Geometry, Mesh, Solid};
use nalgebra::Vector3;
use serde::Serialize;

use super::short;

/// Most triangles of a solid. A solid with more is shown with coarser corners.
const MOST_TRIANGLES: usize = 3000;

/// Steps of a coordinate along the longest side of the bounds, from fine to coarse.
const STEPS: [f64; 7] = [65_535.0, 1024.0, 512.0, 256.0, 128.0, 64.0, 32.0];

/// Faces that meet at a larger angle than this have a line between them; cosine of 30 degrees. The
/// facets of a round face meet at 11 degrees at most.
const SHARP: f64 = 0.866;

/// A solid in base64: `vertices` are x, y, z as u16, `triangles` three vertex numbers, `edges` two,
/// all little-endian u16. A coordinate is `low + step * u16`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackedSolid {
    vertices: String,
    triangles: String,
    edges: String,
    low: [f64; 3],
    step: f64,
    /// Lengths of its bounds, in the units of the frame.
    size: [f64; 3],
    /// Its volume before it was placed in the frame.
    volume: f64,
    /// Number of triangles before corners were made coarser, if they were.
    coarse: Option<usize>,
}

impl PackedSolid {
    /// Number of bytes in the page.
    pub fn bytes(&self) -> usize {
        self.vertices.len() + self.triangles.len() + self.edges.len()
    }
}

/// Packs a solid that has triangles, placed by `pose`. `None` if there is nothing to show.
pub fn packed(solid: &Solid, pose: &Pose) -> Option<PackedSolid> {
    let Geometry::Mesh(mesh) = &solid.geometry else { return None };
    let mesh = mesh.mapped(|point| pose.apply(Vector3::from(point)).into());
    mesh.check().ok()?;
    let bounds = mesh.bounds();
    let size: [f64; 3] = std::array::from_fn(|axis| bounds.max[axis] - bounds.min[axis]);
    let longest = size.into_iter().fold(0.0, f64::max);
    if mesh.triangles.is_empty() || !(longest.is_finite() && longest > 0.0) {
        return None;
    }
    let (step, welded) = STEPS.iter().find_map(|steps| {
        let step = longest / steps;
        let welded = Welded::of(&mesh, bounds.min, step);
        (welded.triangles.len() <= MOST_TRIANGLES).then_some((step, welded))
    })?;
    let pack = |numbers: &mut dyn Iterator<Item = u16>| {
        STANDARD.encode(numbers.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
    };
    Some(PackedSolid {
        vertices: pack(&mut welded.vertices.iter().flatten().copied()),
        triangles: pack(&mut welded.triangles.iter().flatten().copied()),
        edges: pack(&mut welded.edges().iter().flatten().copied()),
        low: bounds.min.map(short),
        step,
        size: size.map(short),
        volume: short(solid.mass().volume),
        coarse: (step > longest / STEPS[0]).then_some(mesh.triangles.len()),
    })
}

/// A mesh whose neighbouring faces share vertices.
struct Welded {
    vertices: Vec<[u16; 3]>,
    triangles: Vec<[u16; 3]>,
}

impl Welded {
    /// Rounds vertices to multiples of `step` from `low` and joins those that become equal.
    /// Triangles without an area are left out. A mesh with too many vertices for u16 has more than
    /// [`MOST_TRIANGLES`] triangles, whatever is left of it.
    fn of(mesh: &Mesh, low: [f64; 3], step: f64) -> Self {
        let mut numbers: HashMap<[u16; 3], u16> = HashMap::new();
        let mut vertices = Vec::new();
        let mut triangles = Vec::new();
        for corners in &mesh.triangles {
            let corners = corners.map(|corner| {
                let point = mesh.vertices[corner as usize];
                let place: [u16; 3] = std::array::from_fn(|axis| ((point[axis] - low[axis]) / step).round() as u16);
                *numbers.entry(place).or_insert_with(|| {
                    vertices.push(place);
                    (vertices.len() - 1) as u16
                })
            });
            if corners[0] != corners[1] && corners[1] != corners[2] && corners[2] != corners[0] {
                triangles.push(corners);
            }
            if triangles.len() > MOST_TRIANGLES {
                break;
            }
        }
        Self { vertices, triangles }
    }

    /// Pairs of vertices between which a line is drawn: where two triangles meet at an angle, or not
    /// exactly two meet.
    fn edges(&self) -> Vec<[u16; 2]> {
        let point = |corner: u16| Vector3::from(self.vertices[usize::from(corner)].map(f64::from));
        let mut sides: HashMap<[u16; 2], Vec<Vector3<f64>>> = HashMap::new();
        for &[a, b, c] in &self.triangles {
            let normal = (point(b) - point(a)).cross(&(point(c) - point(a)));
            let normal = normal.try_normalize(0.0).unwrap_or_else(Vector3::zeros);
            for [from, to] in [[a, b], [b, c], [c, a]] {
                sides.entry([from.min(to), from.max(to)]).or_default().push(normal);
            }
        }
        let is_drawn = |normals: &[Vector3<f64>]| !matches!(normals, [a, b] if a.dot(b) > SHARP);
        let mut edges: Vec<[u16; 2]> =
            sides.into_iter().filter(|(_, normals)| is_drawn(normals)).map(|(edge, _)| edge).collect();
        edges.sort_unstable();
        edges
    }
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::samples::{block_mass, block_mesh};

    use super::*;

    fn block(low: [f64; 3], high: [f64; 3]) -> Solid {
        Solid::meshed(block_mass(low, high), block_mesh(low, high), 1, false)
    }

    fn numbers(text: &str) -> Vec<u16> {
        let bytes = STANDARD.decode(text).unwrap();
        bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn a_block_has_eight_corners_and_twelve_edges() {
        let packed = packed(&block([-1.0, 0.0, 2.0], [1.0, 4.0, 3.0]), &Pose::identity()).unwrap();
        let vertices = numbers(&packed.vertices);
        assert_eq!((vertices.len(), numbers(&packed.triangles).len(), numbers(&packed.edges).len()), (24, 36, 24));
        assert_eq!(
            (packed.low, packed.size, packed.volume, packed.coarse),
            ([-1.0, 0.0, 2.0], [2.0, 4.0, 1.0], 8.0, None)
        );
        let mut corners: Vec<[f64; 3]> = vertices
            .chunks(3)
            .map(|place| std::array::from_fn(|axis| (packed.low[axis] + packed.step * f64::from(place[axis])).round()))
            .collect();
        corners.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!((corners[0], corners[7]), ([-1.0, 0.0, 2.0], [1.0, 4.0, 3.0]));
    }

    #[test]
    fn a_pose_moves_and_scales() {
        let pose = Pose { center: Vector3::new(1.0, 1.0, 1.0), scale: 2.0, ..Pose::identity() };
        let packed = packed(&block([0.0; 3], [2.0; 3]), &pose).unwrap();
        assert_eq!((packed.low, packed.size, packed.volume), ([-2.0; 3], [4.0; 3], 8.0));
    }

    #[test]
    fn a_mesh_of_many_triangles_becomes_coarser_and_keeps_its_size() {
        // A sheet of 100 x 100 squares.
        let n = 100;
        let at = |i: usize, j: usize| (i * (n + 1) + j) as u32;
        let vertices = (0..=n).flat_map(|i| (0..=n).map(move |j| [i as f64, j as f64, 0.0])).collect();
        let squares = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        let triangles: Vec<[u32; 3]> = squares
            .flat_map(|(i, j)| [[at(i, j), at(i + 1, j), at(i, j + 1)], [at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)]])
            .collect();
        let mesh = Mesh { faces: vec![0; triangles.len()], vertices, triangles };
        let solid = Solid::meshed(block_mass([0.0; 3], [100.0, 100.0, 1.0]), mesh, 1, false);
        let packed = packed(&solid, &Pose::identity()).unwrap();
        assert!(numbers(&packed.triangles).len() <= 3 * MOST_TRIANGLES);
        assert_eq!((packed.coarse, packed.size), (Some(20_000), [100.0, 100.0, 0.0]));
    }

    #[test]
    fn nothing_is_not_shown() {
        let empty = Solid::meshed(block_mass([0.0; 3], [1.0; 3]), Mesh::default(), 1, false);
        assert_eq!(packed(&empty, &Pose::identity()), None);
        let mut mesh = block_mesh([0.0; 3], [1.0; 3]);
        mesh.vertices[0][0] = f64::NAN;
        assert_eq!(packed(&Solid::meshed(block_mass([0.0; 3], [1.0; 3]), mesh, 1, false), &Pose::identity()), None);
    }
}
