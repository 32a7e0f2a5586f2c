//! Reads a solid from the mesh in an STL file, binary or text, and writes a mesh as a binary one.

use std::collections::{BTreeSet, HashMap};

use nalgebra::{Matrix3, Vector3};
use thiserror::Error;

use crate::mesh::{Bounds, MassProperties, Mesh};
use crate::outcome::Solid;

/// The reason why an STL file defines no solid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StlError {
    /// The file has neither of the two formats.
    #[error(
        "not an STL file: expected 84 + 50 n bytes for n triangles, or text that begins with \"solid\"; found {0} bytes"
    )]
    Format(usize),
    /// A line of the text is not what the format requires.
    #[error("STL text, line {line}: expected {expected}, found {found:?}")]
    Text {
        /// Line number, from 1.
        line: usize,
        /// The expected text.
        expected: &'static str,
        /// The text found.
        found: String,
    },
    /// A coordinate is NaN or infinite.
    #[error("STL triangle {0} has a coordinate that is not finite")]
    NotFinite(usize),
    /// Coordinates are so large that volume or moments of inertia are not finite.
    #[error("the STL mesh is too large: its volume or its moments of inertia are not finite")]
    TooLarge,
    /// The mesh encloses no volume: a plane, a line, or nothing.
    #[error("the STL mesh encloses no volume: it has {0} triangles")]
    NoVolume(usize),
}

/// Bytes before the first triangle of a binary file, and bytes per triangle.
const HEADER: usize = 84;
const TRIANGLE: usize = 50;

/// Whether `bytes` look like an STL file.
pub fn is_stl(bytes: &[u8]) -> bool {
    is_binary(bytes) || bytes.trim_ascii_start().starts_with(b"solid")
}

/// Some programs also begin the header of binary files with `solid`, so the size decides.
fn is_binary(bytes: &[u8]) -> bool {
    let count = bytes.get(HEADER - 4..HEADER).and_then(|count| count.try_into().ok()).map(u32::from_le_bytes);
    count.is_some_and(|count| bytes.len() == HEADER + TRIANGLE * count as usize)
}

/// The solid that the mesh encloses, in the file's units, with mass properties at unit density.
/// Ignores the normals in the file. Flips a mesh that is inside out as a whole. Marks a mesh that
/// is not closed as `malformed`; winding numbers decide which space it occupies.
///
/// # Errors
/// See [`StlError`].
pub fn read_stl(bytes: &[u8]) -> Result<Solid, StlError> {
    let corners = if is_binary(bytes) {
        read_binary(bytes)
    } else if is_stl(bytes) {
        read_text(&String::from_utf8_lossy(bytes))?
    } else {
        return Err(StlError::Format(bytes.len()));
    };
    let bad = |triangle: &[[f64; 3]; 3]| triangle.iter().flatten().any(|coordinate| !coordinate.is_finite());
    if let Some(triangle) = corners.iter().position(bad) {
        return Err(StlError::NotFinite(triangle));
    }
    let mut mesh = welded(&corners);
    let mut mass = mass_properties(&mesh);
    if mass.volume < 0.0 {
        mesh.triangles.iter_mut().for_each(|triangle| triangle.swap(1, 2));
        mass = mass_properties(&mesh);
    }
    let size = (0..3).map(|axis| mass.bounds.max[axis] - mass.bounds.min[axis]).fold(0.0, f64::max);
    let moments = mass.centroid.iter().chain(mass.inertia.iter().flatten());
    if !moments.chain([&mass.volume, &size.powi(3)]).all(|number| number.is_finite()) {
        return Err(StlError::TooLarge);
    }
    if mass.volume <= 1e-12 * size.powi(3) {
        return Err(StlError::NoVolume(corners.len()));
    }
    let (solids, malformed) = (components(&mesh), !is_closed(&mesh));
    Ok(Solid::meshed(mass, mesh, solids, malformed))
}

/// A binary STL file of the triangles, with unit normals that point outwards. Rounds coordinates to
/// f32. A triangle without an area has the normal zero.
pub fn write_stl(mesh: &Mesh) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + TRIANGLE * mesh.triangles.len());
    // The text must not begin with "solid", which some programs take for the text format.
    bytes.extend_from_slice(b"binary STL, written by cadwright");
    bytes.resize(HEADER - 4, 0);
    bytes.extend_from_slice(&(mesh.triangles.len() as u32).to_le_bytes());
    for triangle in &mesh.triangles {
        let [a, b, c] = triangle.map(|vertex| Vector3::from(mesh.vertices[vertex as usize]));
        let normal = (b - a).cross(&(c - a)).try_normalize(0.0).unwrap_or_else(Vector3::zeros);
        for number in [normal, a, b, c].iter().flatten() {
            bytes.extend_from_slice(&(*number as f32).to_le_bytes());
        }
        // No attributes.
        bytes.extend_from_slice(&[0; 2]);
    }
    bytes
}

fn read_binary(bytes: &[u8]) -> Vec<[[f64; 3]; 3]> {
    let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")));
    let triangle = |bytes: &[u8]| {
        // A normal of twelve bytes comes first.
        let numbers: Vec<f64> = bytes[12..48].chunks_exact(4).map(number).collect();
        [0, 1, 2].map(|corner| [0, 1, 2].map(|axis| numbers[3 * corner + axis]))
    };
    bytes[HEADER..].chunks_exact(TRIANGLE).map(triangle).collect()
}

fn read_text(text: &str) -> Result<Vec<[[f64; 3]; 3]>, StlError> {
    let mut points = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        if words.next() != Some("vertex") {
            continue;
        }
        let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        let point = <[f64; 3]>::try_from(numbers).map_err(|_| StlError::Text {
            line: index + 1,
            expected: "three numbers after \"vertex\"",
            found: line.trim().chars().take(80).collect(),
        })?;
        points.push(point);
    }
    if points.len() % 3 != 0 {
        return Err(StlError::Text {
            line: text.lines().count(),
            expected: "three vertices for each facet",
            found: format!("{} vertices in all", points.len()),
        });
    }
    Ok(points.chunks_exact(3).map(|points| [points[0], points[1], points[2]]).collect())
}

/// Merges corners at the same position into one vertex. Drops triangles of which two corners
/// coincide.
fn welded(corners: &[[[f64; 3]; 3]]) -> Mesh {
    let mut known: HashMap<[u64; 3], u32> = HashMap::new();
    let mut mesh = Mesh::default();
    for triangle in corners {
        let triangle = triangle.map(|point| {
            // Zero has two signs.
            *known.entry(point.map(|c| (c + 0.0).to_bits())).or_insert_with(|| {
                mesh.vertices.push(point);
                mesh.vertices.len() as u32 - 1
            })
        });
        if triangle[0] != triangle[1] && triangle[1] != triangle[2] && triangle[2] != triangle[0] {
            mesh.faces.push(mesh.triangles.len() as u32);
            mesh.triangles.push(triangle);
        }
    }
    mesh
}

/// Whether every edge is traversed equally often in both directions.
fn is_closed(mesh: &Mesh) -> bool {
    let mut edges: HashMap<(u32, u32), i32> = HashMap::new();
    for &[a, b, c] in &mesh.triangles {
        for (from, to) in [(a, b), (b, c), (c, a)] {
            *edges.entry((from.min(to), from.max(to))).or_default() += if from < to { 1 } else { -1 };
        }
    }
    edges.values().all(|balance| *balance == 0)
}

/// Number of components that share no vertex.
fn components(mesh: &Mesh) -> u32 {
    let mut parent: Vec<u32> = (0..mesh.vertices.len() as u32).collect();
    fn root(parent: &mut [u32], mut vertex: u32) -> u32 {
        while parent[vertex as usize] != vertex {
            parent[vertex as usize] = parent[parent[vertex as usize] as usize];
            vertex = parent[vertex as usize];
        }
        vertex
    }
    for &[a, b, c] in &mesh.triangles {
        let a = root(&mut parent, a);
        for other in [b, c] {
            let other = root(&mut parent, other);
            parent[other as usize] = a;
        }
    }
    let roots: BTreeSet<u32> = mesh.triangles.iter().map(|triangle| root(&mut parent, triangle[0])).collect();
    roots.len() as u32
}

/// Mass properties by the divergence theorem: sums over the tetrahedra between each triangle and
/// the centre of the bounds.
fn mass_properties(mesh: &Mesh) -> MassProperties {
    let bounds = if mesh.vertices.is_empty() { MassProperties::NOTHING.bounds } else { Bounds::of(&mesh.vertices) };
    let center = Vector3::from(bounds.min).lerp(&Vector3::from(bounds.max), 0.5);
    let (mut volume, mut first, mut second) = (0.0, Vector3::zeros(), Matrix3::zeros());
    for triangle in &mesh.triangles {
        let [a, b, c] = triangle.map(|vertex| Vector3::from(mesh.vertices[vertex as usize]) - center);
        let (six_volumes, sum) = (a.dot(&b.cross(&c)), a + b + c);
        volume += six_volumes / 6.0;
        first += sum * (six_volumes / 24.0);
        second +=
            (a * a.transpose() + b * b.transpose() + c * c.transpose() + sum * sum.transpose()) * (six_volumes / 120.0);
    }
    if volume == 0.0 {
        return MassProperties { bounds, ..MassProperties::NOTHING };
    }
    let centroid = first / volume;
    let second = second - centroid * centroid.transpose() * volume;
    let inertia = Matrix3::identity() * second.trace() - second;
    MassProperties {
        volume,
        centroid: (center + centroid).into(),
        inertia: [0, 1, 2].map(|row| [0, 1, 2].map(|column| inertia[(row, column)])),
        bounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Geometry;
    use crate::samples::block_mesh;

    /// The triangles of a block with one corner at the origin.
    fn block(size: [f64; 3]) -> Vec<[[f64; 3]; 3]> {
        let mesh = block_mesh([0.0; 3], size);
        mesh.triangles.iter().map(|triangle| triangle.map(|index| mesh.vertices[index as usize])).collect()
    }

    fn binary(triangles: &[[[f64; 3]; 3]]) -> Vec<u8> {
        let mut bytes = b"solid in spite of its name".to_vec();
        bytes.resize(80, 0);
        bytes.extend((triangles.len() as u32).to_le_bytes());
        for triangle in triangles {
            bytes.extend([0; 12]);
            bytes.extend(triangle.iter().flatten().flat_map(|&c| (c as f32).to_le_bytes()));
            bytes.extend([0; 2]);
        }
        bytes
    }

    fn text(triangles: &[[[f64; 3]; 3]]) -> String {
        let facet = |triangle: &[[f64; 3]; 3]| {
            let vertices: String = triangle.iter().map(|[x, y, z]| format!("    vertex {x:e} {y} {z}\n")).collect();
            format!("facet normal 0 0 0\n  outer loop\n{vertices}  endloop\nendfacet\n")
        };
        format!("solid block\n{}endsolid block\n", triangles.iter().map(facet).collect::<String>())
    }

    #[test]
    fn both_formats_give_a_block_by_closed_form() {
        let triangles = block([2.0, 3.0, 4.0]);
        for bytes in [binary(&triangles), text(&triangles).into_bytes()] {
            let solid = read_stl(&bytes).unwrap();
            let mass = solid.mass();
            assert!((mass.volume - 24.0).abs() < 1e-12);
            assert_eq!(mass.centroid, [1.0, 1.5, 2.0]);
            let expected = [24.0 / 12.0 * (9.0 + 16.0), 24.0 / 12.0 * (4.0 + 16.0), 24.0 / 12.0 * (4.0 + 9.0)];
            for row in 0..3 {
                for column in 0..3 {
                    let expected = if row == column { expected[row] } else { 0.0 };
                    assert!((mass.inertia[row][column] - expected).abs() < 1e-9, "{:?}", mass.inertia);
                }
            }
            assert_eq!((solid.solids(), solid.malformed), (Some(1), false));
            let Geometry::Mesh(mesh) = &solid.geometry else { panic!("an STL file gives a mesh") };
            assert_eq!((mesh.vertices.len(), mesh.triangles.len()), (8, 12));
            mesh.check().unwrap();
        }
    }

    #[test]
    fn a_written_mesh_is_read_back_and_its_normals_point_outwards() {
        let mesh = block_mesh([1.0, 2.0, 3.0], [3.0, 5.0, 7.0]);
        let bytes = write_stl(&mesh);
        assert_eq!(bytes.len(), 84 + 50 * 12);
        assert_eq!(bytes[80..84], [12, 0, 0, 0]);
        let solid = read_stl(&bytes).unwrap();
        let mass = solid.mass();
        let size: f64 = (0..3).map(|axis| mass.bounds.max[axis] - mass.bounds.min[axis]).product();
        assert!((mass.volume - size).abs() < 1e-12 && (mass.volume - 24.0).abs() < 1e-12, "{mass:?}");
        assert_eq!((mass.bounds.min, solid.malformed), ([1.0, 2.0, 3.0], false));
        for triangle in bytes[84..].chunks_exact(50) {
            let numbers: Vec<f32> =
                triangle[..48].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            // One axis, by one unit: towards the side of the block on which all three corners are.
            let axis = numbers[..3].iter().position(|&n| n != 0.0).unwrap();
            let level = numbers[3 + axis];
            let side = if f64::from(level) == mass.bounds.max[axis] { 1.0 } else { -1.0 };
            assert_eq!(numbers[..3], [0, 1, 2].map(|k| if k == axis { side } else { 0.0 }));
            assert!((0..3).all(|corner| numbers[3 + 3 * corner + axis] == level), "{numbers:?}");
        }
    }

    #[test]
    fn a_triangle_without_area_has_the_normal_zero() {
        let mesh = Mesh { vertices: vec![[0.0; 3], [1.0, 1.0, 1.0]], triangles: vec![[0, 1, 1]], faces: vec![0] };
        assert_eq!(write_stl(&mesh)[84..96], [0; 12]);
    }

    #[test]
    fn an_inverted_mesh_is_turned_and_an_open_one_is_malformed() {
        let mut triangles = block([1.0; 3]);
        triangles.iter_mut().for_each(|triangle| triangle.swap(0, 1));
        let solid = read_stl(&binary(&triangles)).unwrap();
        assert!((solid.mass().volume - 1.0).abs() < 1e-12 && !solid.malformed);
        triangles.pop();
        assert!(read_stl(&binary(&triangles)).unwrap().malformed);
    }

    #[test]
    fn two_blocks_are_two_solids() {
        let far = block([1.0; 3]).into_iter().map(|t| t.map(|[x, y, z]| [x + 5.0, y, z]));
        let triangles: Vec<_> = block([1.0; 3]).into_iter().chain(far).collect();
        let solid = read_stl(&binary(&triangles)).unwrap();
        assert_eq!((solid.solids(), solid.mass().volume.round()), (Some(2), 2.0));
    }

    #[test]
    fn what_is_no_solid_says_why() {
        let error = |bytes: &[u8]| read_stl(bytes).unwrap_err().to_string();
        assert!(error(b"PK\x03\x04").starts_with("not an STL file: expected 84 + 50 n bytes"));
        assert!(error(b"solid nothing\nendsolid\n").contains("0 triangles"));
        assert!(error(&binary(&block([1.0, 1.0, 0.0]))).contains("no volume"));
        assert!(error(b"solid\nvertex 1 2\n").contains("line 2: expected three numbers"));
        assert!(error(b"solid\nvertex 1 2 3\n").contains("three vertices for each facet"));
        let mut triangles = block([1.0; 3]);
        triangles[3][1][2] = f64::NAN;
        assert!(error(&binary(&triangles)).contains("triangle 3"));
    }
}
