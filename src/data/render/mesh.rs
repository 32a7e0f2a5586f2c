//! Renders tessellated solids with a depth buffer.

use std::collections::HashMap;

use cadwright_rewards::csg::{Aabb, Vec3};
use image::RgbImage;
use thiserror::Error;

use super::canvas::face_tone;
use super::creases::creased;
use super::triangle::for_each_pixel;
use super::{Canvas, Framing, View, canvas_side};

/// The reason why a tessellation cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeshError {
    /// The number of face numbers differs from the number of triangles.
    #[error("mesh: {triangles} triangles, but {faces} face numbers")]
    FaceCount {
        /// Number of triangles.
        triangles: usize,
        /// Number of face numbers.
        faces: usize,
    },
    /// A triangle names a vertex that does not exist.
    #[error("mesh: triangle {triangle} names vertex {vertex}, but there are {vertices}")]
    Vertex {
        /// Index of the triangle.
        triangle: usize,
        /// The vertex that it names.
        vertex: u32,
        /// Number of vertices.
        vertices: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("mesh: vertex {vertex} is not finite")]
    NotFinite {
        /// Index of the vertex.
        vertex: usize,
    },
}

/// Renders a tessellation, `size` pixels a side. `faces` gives the face of each triangle: shading
/// is smooth within a face, and lines run around faces. If triangles share vertices only within
/// their face, a cylinder's seam is drawn too.
///
/// # Errors
/// See [`MeshError`].
pub fn render_mesh(
    vertices: &[[f64; 3]],
    triangles: &[[u32; 3]],
    faces: &[u32],
    size: u32,
) -> Result<RgbImage, MeshError> {
    Ok(Facets::with_faces(vertices, triangles, faces)?.picture(View::isometric(), size))
}

/// Draws a tessellation on a canvas of the framing's side; see [`render_mesh`]. What lies outside
/// of the canvas is cut off.
///
/// # Errors
/// See [`MeshError`].
pub fn draw_mesh(
    vertices: &[[f64; 3]],
    triangles: &[[u32; 3]],
    faces: &[u32],
    framing: Framing,
) -> Result<Canvas, MeshError> {
    Ok(Facets::with_faces(vertices, triangles, faces)?.draw(framing))
}

/// A tessellation that is ready to be drawn from any direction.
pub struct Facets<'a> {
    points: Vec<Vec3>,
    triangles: &'a [[u32; 3]],
    /// The normal at each corner of each triangle, of any length; zero if it is not defined.
    normals: Vec<[Vec3; 3]>,
    /// The edges that are drawn.
    lines: Vec<[u32; 2]>,
}

impl<'a> Facets<'a> {
    /// A tessellation whose faces are known: see [`render_mesh`].
    ///
    /// # Errors
    /// See [`MeshError`].
    pub fn with_faces(vertices: &[[f64; 3]], triangles: &'a [[u32; 3]], faces: &[u32]) -> Result<Self, MeshError> {
        check(vertices, triangles, faces)?;
        let points: Vec<Vec3> = vertices.iter().map(|point| Vec3::from(*point)).collect();
        let normals = face_normals(&points, triangles, faces);
        Ok(Self { points, triangles, normals, lines: face_borders(triangles, faces) })
    }

    /// A mesh whose faces are not known, such as that of an STL file: lines run along edges between
    /// triangles whose normals differ by more than [`CREASE_DEGREES`](super::CREASE_DEGREES), and
    /// shading is smooth elsewhere. Neighbouring triangles must share vertices.
    ///
    /// # Errors
    /// See [`MeshError`].
    pub fn with_creases(vertices: &[[f64; 3]], triangles: &'a [[u32; 3]]) -> Result<Self, MeshError> {
        check_geometry(vertices, triangles)?;
        let points: Vec<Vec3> = vertices.iter().map(|point| Vec3::from(*point)).collect();
        let (normals, lines) = creased(&points, triangles);
        Ok(Self { points, triangles, normals, lines })
    }

    /// The picture in a view, `size` pixels a side; white without triangles.
    pub fn picture(&self, view: View, size: u32) -> RgbImage {
        let side = canvas_side(size);
        let corners = self.triangles.iter().flatten().map(|vertex| self.points[*vertex as usize]);
        let canvas = match Aabb::of_points(corners) {
            Some(bounds) => self.draw(Framing::fit(&bounds, view, side)),
            None => Canvas::new(side),
        };
        canvas.to_picture(size)
    }

    /// Draws it on a canvas of the framing's side. What lies outside of the canvas is cut off.
    pub fn draw(&self, framing: Framing) -> Canvas {
        let side = framing.side as usize;
        let mut canvas = Canvas::new(side);
        let projected: Vec<Vec3> = self.points.iter().map(|point| framing.project(*point)).collect();
        let toward = framing.view.toward;
        // Faces seen from behind (in open meshes) are lit like faces seen from the front.
        let facing = |normal: Vec3| match normal.norm() {
            length if length > 0.0 => (normal.dot(&toward) / length).abs(),
            _ => 0.0,
        };
        let mut depths = DepthBuffer { side, nearest: vec![f64::INFINITY; side * side] };
        for (triangle, normals) in self.triangles.iter().zip(&self.normals) {
            let corners = triangle.map(|vertex| projected[vertex as usize]);
            depths.fill(corners, normals.map(facing), &mut canvas);
        }
        // Half a pixel of slack for rounding.
        let slack = 0.5 / framing.scale;
        for [a, b] in &self.lines {
            depths.draw_line(projected[*a as usize], projected[*b as usize], slack, &mut canvas);
        }
        canvas
    }
}

fn check(vertices: &[[f64; 3]], triangles: &[[u32; 3]], faces: &[u32]) -> Result<(), MeshError> {
    if triangles.len() != faces.len() {
        return Err(MeshError::FaceCount { triangles: triangles.len(), faces: faces.len() });
    }
    check_geometry(vertices, triangles)
}

fn check_geometry(vertices: &[[f64; 3]], triangles: &[[u32; 3]]) -> Result<(), MeshError> {
    for (triangle, corners) in triangles.iter().enumerate() {
        if let Some(vertex) = corners.iter().copied().find(|vertex| *vertex as usize >= vertices.len()) {
            return Err(MeshError::Vertex { triangle, vertex, vertices: vertices.len() });
        }
    }
    match vertices.iter().position(|point| !point.iter().all(|coordinate| coordinate.is_finite())) {
        Some(vertex) => Err(MeshError::NotFinite { vertex }),
        None => Ok(()),
    }
}

/// For each corner of each triangle, the face's normal there: the sum over the face's triangles
/// around that vertex, weighted by area.
fn face_normals(points: &[Vec3], triangles: &[[u32; 3]], faces: &[u32]) -> Vec<[Vec3; 3]> {
    let mut sums: HashMap<(u32, u32), Vec3> = HashMap::new();
    for (corners, face) in triangles.iter().zip(faces) {
        let [a, b, c] = corners.map(|vertex| points[vertex as usize]);
        let normal = (b - a).cross(&(c - a));
        for vertex in corners {
            *sums.entry((*face, *vertex)).or_insert_with(Vec3::zeros) += normal;
        }
    }
    triangles.iter().zip(faces).map(|(corners, face)| corners.map(|vertex| sums[&(*face, vertex)])).collect()
}

/// Triangle edges that no other triangle of the same face shares, in a fixed order.
fn face_borders(triangles: &[[u32; 3]], faces: &[u32]) -> Vec<[u32; 2]> {
    let mut edges: Vec<(u32, [u32; 2])> = Vec::with_capacity(triangles.len() * 3);
    for (corners, face) in triangles.iter().zip(faces) {
        for i in 0..3 {
            let (a, b) = (corners[i], corners[(i + 1) % 3]);
            edges.push((*face, [a.min(b), a.max(b)]));
        }
    }
    edges.sort_unstable();
    edges.chunk_by(|a, b| a == b).filter(|same| same.len() == 1).map(|same| same[0].1).collect()
}

struct DepthBuffer {
    side: usize,
    nearest: Vec<f64>,
}

impl DepthBuffer {
    /// Fills the pixels whose centres lie in the triangle of these projected corners.
    fn fill(&mut self, corners: [Vec3; 3], facing: [f64; 3], canvas: &mut Canvas) {
        let side = self.side;
        for_each_pixel(side, corners.map(|corner| [corner.x, corner.y]), |x, y, shares| {
            let mixed = |values: [f64; 3]| (0..3).map(|corner| shares[corner] * values[corner]).sum::<f64>();
            let depth = mixed(corners.map(|corner| corner.z));
            let nearest = &mut self.nearest[y * side + x];
            if depth < *nearest {
                *nearest = depth;
                canvas.set(x, y, face_tone(mixed(facing)));
            }
        });
    }

    /// Draws the visible pixels of a line one pixel wide.
    fn draw_line(&self, from: Vec3, to: Vec3, slack: f64, canvas: &mut Canvas) {
        let step = to - from;
        let count = step.x.abs().max(step.y.abs()).ceil().max(1.0);
        for i in 0..=count as usize {
            let point = from + step * (i as f64 / count);
            if point.x < 0.0 || point.y < 0.0 {
                continue;
            }
            let (x, y) = (point.x as usize, point.y as usize);
            if x < self.side && y < self.side && point.z <= self.farthest_around(x, y) + slack {
                canvas.draw(x, y);
            }
        }
    }

    /// The greatest depth at a pixel and its four neighbours: a face that ends here, or meets the
    /// line at a steep angle, does not hide the line.
    fn farthest_around(&self, x: usize, y: usize) -> f64 {
        let at = |x: usize, y: usize| self.nearest[y * self.side + x];
        let last = self.side - 1;
        [(x, y), (x.saturating_sub(1), y), ((x + 1).min(last), y), (x, y.saturating_sub(1)), (x, (y + 1).min(last))]
            .into_iter()
            .map(|(x, y)| at(x, y))
            .fold(f64::NEG_INFINITY, f64::max)
    }
}
