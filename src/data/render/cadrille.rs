//! Pictures of meshes as cadrille's models see them: four views of a yellow part in one picture.
//!
//! After `CadRecodeDataset.get_img` and `mesh_to_image` in cadrille's `dataset.py`
//! (<https://github.com/col14m/cadrille>, arXiv:2505.22914), which use Open3D's `Visualizer` with its
//! default lights (`RenderOption.h`, `PhongShader`):
//! - the part's bounding box is centred, and its largest extent is 1;
//! - a pinhole camera of 60 degrees looks at the centre from the corners (-1, -1, -1), (1, 1, 1),
//!   (1, -1, 1) and (-1, 1, -1), at 0.9 times that distance; the y axis points down in the picture;
//! - every triangle is flat, in the colour (255, 255, 136), under two lights before it and two behind
//!   it, each 2 sqrt(3) away on the camera's axis, with diffuse power 0.66, specular power 0.2 and
//!   shininess 100;
//! - each view of 128 pixels has a black frame of 3; the four are put together row by row, which gives
//!   268 pixels a side.
//!
//! What differs: we average 4 x 4 samples a pixel, they scale 500 pixels down to 128 with a Gaussian
//! and quadratic interpolation; and the triangles are those of our tessellation, where theirs come
//! from CadQuery's `tessellate(0.001, 0.1)`, so that the facets of round faces lie elsewhere.

use cadwright_rewards::Mesh;
use cadwright_rewards::csg::{Aabb, Vec3};
use image::{Rgb, RgbImage};

use super::triangle::for_each_pixel;

/// Side of cadrille's pictures in pixels.
pub const CADRILLE_SIDE: u32 = 268;

/// The corners from which the part is seen, row by row.
const VIEWERS: [[f64; 3]; 4] = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]];
/// The viewer's distance from the centre, in units of the corner's coordinates.
const DISTANCE: f64 = 0.9;
/// Half of the camera's field of view, in degrees.
const HALF_FIELD_DEGREES: f64 = 30.0;
/// The frame of a view in a picture of [`CADRILLE_SIDE`] pixels.
const FRAME: u32 = 3;
/// The part's colour: red, green and blue in [0, 1].
const COLOUR: [f64; 3] = [1.0, 1.0, 136.0 / 255.0];
/// Distance of the lights from the centre.
const LIGHTS_AT: f64 = 2.0 * 1.732_050_807_568_877_2;
/// The powers of the two lights at one place together.
const DIFFUSE: f64 = 2.0 * 0.66;
const SPECULAR: f64 = 2.0 * 0.2;
const SHININESS: i32 = 100;
/// Least samples along the side of a view.
const SAMPLES: u32 = 512;

/// The four views of a mesh in one picture of `size` pixels a side, an even number. `None` for a
/// mesh that is inconsistent or has no extent.
pub fn render_cadrille(mesh: &Mesh, size: u32) -> Option<RgbImage> {
    mesh.check().ok()?;
    let points = unit_points(mesh)?;
    let tile = size / 2;
    let frame = ((FRAME * size + CADRILLE_SIDE / 2) / CADRILLE_SIDE).max(1);
    let mut picture = RgbImage::new(tile * 2, tile * 2);
    for (place, viewer) in VIEWERS.into_iter().enumerate() {
        let view = Camera::at(Vec3::from(viewer)).picture(&points, &mesh.triangles, tile - 2 * frame);
        let (column, row) = (place as u32 % 2, place as u32 / 2);
        let corner = |place: u32| i64::from(place * tile + frame);
        image::imageops::replace(&mut picture, &view, corner(column), corner(row));
    }
    Some(picture)
}

/// The vertices with their box's centre at the origin and its largest extent 1.
fn unit_points(mesh: &Mesh) -> Option<Vec<Vec3>> {
    let corners = mesh.triangles.iter().flatten().map(|vertex| Vec3::from(mesh.vertices[*vertex as usize]));
    let bounds = Aabb::of_points(corners)?;
    let extent = bounds.size().max();
    let center = bounds.center();
    (extent > 0.0).then(|| mesh.vertices.iter().map(|point| (Vec3::from(*point) - center) / extent).collect())
}

struct Camera {
    eye: Vec3,
    right: Vec3,
    up: Vec3,
    forward: Vec3,
}

/// A triangle's corner on the picture: pixels, and 1 / distance along the camera's axis.
type Corner = Vec3;

impl Camera {
    fn at(viewer: Vec3) -> Self {
        let forward = -viewer.normalize();
        let right = Vec3::y().cross(&forward).normalize();
        Self { eye: viewer * DISTANCE, right, up: right.cross(&forward), forward }
    }

    fn picture(&self, points: &[Vec3], triangles: &[[u32; 3]], size: u32) -> RgbImage {
        let step = SAMPLES.div_ceil(size).max(2);
        let side = (size * step) as usize;
        let mut samples = vec![[1.0f32; 3]; side * side];
        let mut nearest = vec![0.0f64; side * side];
        let projected: Vec<Corner> = points.iter().map(|point| self.project(*point, side as f64)).collect();
        for triangle in triangles {
            let corners = triangle.map(|vertex| points[vertex as usize]);
            let [a, b, c] = corners;
            let Some(normal) = (b - a).cross(&(c - a)).try_normalize(0.0) else { continue };
            // Open3D does not show back faces.
            if normal.dot(&(self.eye - a)) <= 0.0 {
                continue;
            }
            fill(side, triangle.map(|vertex| projected[vertex as usize]), |pixel, inverse, shares| {
                if inverse > nearest[pixel] {
                    nearest[pixel] = inverse;
                    let point = a * shares[0] + b * shares[1] + c * shares[2];
                    samples[pixel] = self.light(point, normal);
                }
            });
        }
        averaged(&samples, size, step)
    }

    fn project(&self, point: Vec3, side: f64) -> Corner {
        let relative = point - self.eye;
        let depth = relative.dot(&self.forward);
        let focal = 0.5 * side / HALF_FIELD_DEGREES.to_radians().tan();
        let across = focal * relative.dot(&self.right) / depth;
        let upward = focal * relative.dot(&self.up) / depth;
        Vec3::new(0.5 * side + across, 0.5 * side - upward, 1.0 / depth)
    }

    /// Phong's model of the light that a point of a face sends to the eye: red, green and blue in
    /// [0, 1].
    fn light(&self, point: Vec3, normal: Vec3) -> [f32; 3] {
        let eye = (self.eye - point).normalize();
        let (mut diffuse, mut specular) = (0.0, 0.0);
        for side in [-LIGHTS_AT, LIGHTS_AT] {
            let light = (self.forward * side - point).normalize();
            let cosine = normal.dot(&light);
            diffuse += DIFFUSE * cosine.clamp(0.0, 1.0);
            let mirrored = normal * (2.0 * cosine) - light;
            specular += SPECULAR * eye.dot(&mirrored).clamp(0.0, 1.0).powi(SHININESS);
        }
        COLOUR.map(|colour| (colour * diffuse + specular).min(1.0) as f32)
    }
}

/// Calls `paint` for every pixel whose centre lies in a triangle, with the pixel, 1 / its distance,
/// and the shares of the corners in the point of space there.
fn fill(side: usize, corners: [Corner; 3], mut paint: impl FnMut(usize, f64, [f64; 3])) {
    for_each_pixel(side, corners.map(|corner| [corner.x, corner.y]), |x, y, shares| {
        // In perspective, 1 / distance and point / distance are linear on the picture.
        let shares = [0, 1, 2].map(|corner| shares[corner] * corners[corner].z);
        let inverse: f64 = shares.iter().sum();
        paint(y * side + x, inverse, shares.map(|share| share / inverse));
    });
}

fn averaged(samples: &[[f32; 3]], size: u32, step: u32) -> RgbImage {
    let side = (size * step) as usize;
    let step = step as usize;
    RgbImage::from_fn(size, size, |x, y| {
        let mut sums = [0.0f32; 3];
        for row in 0..step {
            let start = (y as usize * step + row) * side + x as usize * step;
            for sample in &samples[start..start + step] {
                (0..3).for_each(|channel| sums[channel] += sample[channel]);
            }
        }
        Rgb(sums.map(|sum| (255.0 * sum / (step * step) as f32).round() as u8))
    })
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::samples::block_mesh;

    use super::*;

    #[test]
    fn four_framed_views_of_a_cube_stand_in_one_picture() {
        let picture = render_cadrille(&block_mesh([3.0; 3], [5.0; 3]), CADRILLE_SIDE).unwrap();
        assert_eq!(picture.dimensions(), (268, 268));
        // The frames are black, the background is white, and the middle of each view is lit: of the
        // three sides of a cube that meet there, each is turned away by acos(1 / sqrt(3)), so that
        // with 1.32 times the colour it has at least 1.32 / sqrt(3) = 0.76 of it.
        for (x, y) in [(0, 0), (2, 100), (133, 20), (134, 20), (267, 267), (20, 132)] {
            assert_eq!(picture.get_pixel(x, y), &Rgb([0; 3]), "frame at {x}, {y}");
        }
        for (left, top) in [(3, 3), (137, 3), (3, 137), (137, 137)] {
            assert_eq!(picture.get_pixel(left + 2, top + 2), &Rgb([255; 3]));
            let Rgb([red, green, blue]) = *picture.get_pixel(left + 60, top + 70);
            assert!(red == green && (185..=225).contains(&red) && blue < red, "{red} {green} {blue}");
        }
    }

    #[test]
    fn a_cube_is_as_large_as_the_camera_makes_it() {
        // The corner that is farthest from the camera's axis, seen from (1, 1, 1): (1, -1, 1) / 2 has
        // the distance sqrt(0.75 - 1 / 12) = 0.8165 from the axis and lies 0.2887 before the centre.
        // It is 0.8165 / (0.9 sqrt(3) - 0.2887) / tan(30) = 1.113 half sides from the middle, so that
        // the picture cuts some corners of a cube off, as cadrille's does.
        let camera = Camera::at(Vec3::repeat(1.0));
        let corner = camera.project(Vec3::new(0.5, -0.5, 0.5), 2.0);
        let off = (corner.x - 1.0).hypot(corner.y - 1.0);
        assert!((off - 1.1134).abs() < 1e-3, "{off}");
        // The y axis points down in the picture.
        assert!(camera.project(Vec3::new(0.0, 0.4, 0.0), 2.0).y > 1.0);
    }

    #[test]
    fn a_mesh_without_extent_has_no_picture() {
        let flat = Mesh { vertices: vec![[1.0; 3]; 3], triangles: vec![[0, 1, 2]], faces: vec![0] };
        assert_eq!(render_cadrille(&flat, 64), None);
        assert_eq!(render_cadrille(&Mesh::default(), 64), None);
    }
}
