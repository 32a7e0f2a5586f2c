//! Normals and feature edges of a mesh that does not say to which faces its triangles belong.

use cadwright_rewards::csg::Vec3;

/// The angle between the normals of neighbouring triangles, in degrees, above which the edge between
/// them is a crease: that of VTK's `vtkFeatureEdges`.
pub const CREASE_DEGREES: f64 = 30.0;

/// Where more triangles meet than this, each has its own normal.
const MOST_AROUND: usize = 256;

/// Twice the area of a triangle without an area, as a share of its longest side squared.
const NO_AREA: f64 = 1e-9;

/// For each corner of each triangle its normal, of any length; and the edges that are creases,
/// borders, or shared by more than two triangles.
///
/// The normal at a corner is the sum over the triangles there whose normals differ by no more than
/// [`CREASE_DEGREES`], weighted by area.
pub(super) fn creased(points: &[Vec3], triangles: &[[u32; 3]]) -> (Vec<[Vec3; 3]>, Vec<[u32; 2]>) {
    let sides = Sides::of(triangles);
    let areas: Vec<Vec3> = triangles.iter().map(|triangle| area(points, triangle)).collect();
    let units = unit_normals(points, triangles, &areas, &sides);
    let smooth = CREASE_DEGREES.to_radians().cos() - 1e-6;
    let lines = sides.edges().filter(|edge| is_line(edge, &units, smooth)).map(|edge| edge[0].ends).collect();
    let mut around: Vec<Vec<u32>> = vec![Vec::new(); points.len()];
    for (triangle, corners) in triangles.iter().enumerate() {
        corners.iter().for_each(|vertex| around[*vertex as usize].push(triangle as u32));
    }
    let normal = |triangle: usize, vertex: u32| {
        let around = &around[vertex as usize];
        if around.len() > MOST_AROUND {
            return units[triangle];
        }
        let is_smooth = |other: &&u32| units[**other as usize].dot(&units[triangle]) >= smooth;
        let sum: Vec3 = around.iter().filter(is_smooth).map(|other| areas[*other as usize]).sum();
        if sum.norm() > 0.0 { sum } else { units[triangle] }
    };
    let normals =
        triangles.iter().enumerate().map(|(triangle, corners)| corners.map(|vertex| normal(triangle, vertex)));
    (normals.collect(), lines)
}

/// The normal of a triangle, as long as twice its area; zero if it has none.
fn area(points: &[Vec3], triangle: &[u32; 3]) -> Vec3 {
    let [a, b, c] = triangle.map(|vertex| points[vertex as usize]);
    let normal = (b - a).cross(&(c - a));
    let longest = (b - a).norm_squared().max((c - b).norm_squared()).max((a - c).norm_squared());
    if normal.norm() > NO_AREA * longest { normal } else { Vec3::zeros() }
}

/// The unit normal of each triangle. One without an area has the normal of its neighbour across its
/// longest side, of which it is a part.
fn unit_normals(points: &[Vec3], triangles: &[[u32; 3]], areas: &[Vec3], sides: &Sides) -> Vec<Vec3> {
    let unit = |area: &Vec3| area.try_normalize(0.0);
    let longest = |corners: &[u32; 3]| {
        let length = |ends: &[u32; 2]| (points[ends[0] as usize] - points[ends[1] as usize]).norm_squared();
        let all = (0..3).map(|side| ends(corners, side));
        all.max_by(|a, b| length(a).total_cmp(&length(b))).unwrap_or_default()
    };
    let borrowed = |triangle: usize, corners: &[u32; 3]| {
        let beside = sides.along(longest(corners)).iter().filter(|side| side.triangle as usize != triangle);
        beside.filter_map(|side| unit(&areas[side.triangle as usize])).next().unwrap_or_else(Vec3::zeros)
    };
    let normal = |(triangle, corners)| unit(&areas[triangle]).unwrap_or_else(|| borrowed(triangle, corners));
    triangles.iter().enumerate().map(normal).collect()
}

fn is_line(edge: &[Side], units: &[Vec3], smooth: f64) -> bool {
    let [a, b] = edge else { return true };
    let cosine = units[a.triangle as usize].dot(&units[b.triangle as usize]);
    // Two triangles that run along their common edge in one direction do not agree on the outside.
    let cosine = if a.ascends == b.ascends { -cosine } else { cosine };
    cosine < smooth
}

/// A side of a triangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    /// Its ends, the lower index first.
    ends: [u32; 2],
    triangle: u32,
    /// Whether the triangle runs from the lower index to the higher.
    ascends: bool,
}

/// All sides, sorted by their ends.
struct Sides(Vec<Side>);

impl Sides {
    fn of(triangles: &[[u32; 3]]) -> Self {
        let sides_of = |(triangle, corners): (usize, &[u32; 3])| {
            let corners = *corners;
            (0..3).map(move |side| Side {
                ends: ends(&corners, side),
                triangle: triangle as u32,
                ascends: corners[side] < corners[(side + 1) % 3],
            })
        };
        let mut sides: Vec<Side> = triangles.iter().enumerate().flat_map(sides_of).collect();
        sides.sort_unstable();
        Self(sides)
    }

    /// The sides of each edge.
    fn edges(&self) -> impl Iterator<Item = &[Side]> {
        self.0.chunk_by(|a, b| a.ends == b.ends)
    }

    /// The sides with these ends.
    fn along(&self, ends: [u32; 2]) -> &[Side] {
        let start = self.0.partition_point(|side| side.ends < ends);
        let count = self.0[start..].iter().take_while(|side| side.ends == ends).count();
        &self.0[start..start + count]
    }
}

/// The ends of a side, the lower index first.
fn ends(corners: &[u32; 3], side: usize) -> [u32; 2] {
    let (a, b) = (corners[side], corners[(side + 1) % 3]);
    [a.min(b), a.max(b)]
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::samples::block_mesh;

    use super::*;

    fn of(vertices: &[[f64; 3]], triangles: &[[u32; 3]]) -> (Vec<[Vec3; 3]>, Vec<[u32; 2]>) {
        let points: Vec<Vec3> = vertices.iter().map(|point| Vec3::from(*point)).collect();
        creased(&points, triangles)
    }

    /// A prism over a regular polygon of `sides` corners, between z = 0 and 1: its sides alone.
    fn tube(sides: u32) -> (Vec<[f64; 3]>, Vec<[u32; 3]>) {
        let angle = |corner: u32| f64::from(corner) / f64::from(sides) * std::f64::consts::TAU;
        let ring = |z: f64| (0..sides).map(move |corner| [angle(corner).cos(), angle(corner).sin(), z]);
        let quad = |corner: u32| {
            let next = (corner + 1) % sides;
            [[corner, next, sides + next], [corner, sides + next, sides + corner]]
        };
        (ring(0.0).chain(ring(1.0)).collect(), (0..sides).flat_map(quad).collect())
    }

    #[test]
    fn a_block_has_its_twelve_edges_and_flat_faces() {
        let mesh = block_mesh([0.0; 3], [1.0, 2.0, 3.0]);
        let (normals, lines) = of(&mesh.vertices, &mesh.triangles);
        assert_eq!(lines.len(), 12);
        for [a, b] in lines {
            let (a, b) = (mesh.vertices[a as usize], mesh.vertices[b as usize]);
            assert_eq!((0..3).filter(|axis| a[*axis] != b[*axis]).count(), 1, "a diagonal is no edge");
        }
        for corners in normals {
            assert!(corners.iter().all(|normal| (normal.normalize() - corners[0].normalize()).norm() < 1e-12));
        }
    }

    #[test]
    fn the_side_of_a_cylinder_is_smooth_and_that_of_an_octagon_is_not() {
        // 24 corners turn by 15 degrees each, 8 by 45. The open ends are borders in both.
        let (vertices, triangles) = tube(24);
        let (normals, lines) = of(&vertices, &triangles);
        assert_eq!(lines.len(), 2 * 24);
        // At a corner the normal points away from the axis: it is the mean of both sides.
        let corner = triangles[0][0] as usize;
        let expected = Vec3::new(vertices[corner][0], vertices[corner][1], 0.0);
        assert!((normals[0][0].normalize() - expected).norm() < 0.05, "{:?}", normals[0][0]);
        let (vertices, triangles) = tube(8);
        assert_eq!(of(&vertices, &triangles).1.len(), 3 * 8);
    }

    #[test]
    fn a_triangle_without_area_adds_no_line() {
        // A square of two triangles, and one flat triangle in the middle of its diagonal.
        let vertices = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]];
        let triangles = [[0, 1, 2], [0, 2, 4], [0, 4, 3], [4, 2, 3]];
        let (_, lines) = of(&vertices, &triangles);
        assert_eq!(lines, [[0, 1], [0, 3], [1, 2], [2, 3]]);
    }

    #[test]
    fn neighbours_that_disagree_on_the_outside_are_still_smooth() {
        let vertices = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]];
        let (_, lines) = of(&vertices, &[[0, 1, 2], [0, 3, 2]]);
        assert_eq!(lines, [[0, 1], [0, 3], [1, 2], [2, 3]]);
    }
}
