//! Renders parts in the style of GenCAD-Code: isometric, flat grey, thin black edges, hidden lines
//! removed. The same style from other directions: [`View`].
//!
//! The style was measured on the data set's pictures:
//! - the viewer looks from (1, -1, 1), orthographically, with z up;
//! - the axis-aligned box around the part is centred and scaled until its projection fills 8/9 of
//!   the picture's width or 2/3 of its height (so the picture does not show absolute size or
//!   position);
//! - the light comes from the viewer: the tone depends only on the angle between face and view, so
//!   the three visible sides of a box are equally grey;
//! - lines one pixel wide are drawn where faces meet, also along the seam of a closed cylinder, but
//!   not along the outline of a rounded face.
//!
//! [`render_csg`] casts rays at solids from [`csg`](cadwright_rewards::csg), [`render_mesh`] draws
//! tessellated solids with a depth buffer. [`draw_csg`] and [`draw_mesh`] do so in any [`Framing`].
//! [`Facets`] also finds the edges of meshes that have no faces; [`Views`] draws several views.
//! All fill a [`Canvas`] at about 448 pixels a side, which is then averaged down. So a small picture
//! looks like a scaled-down picture of the data set.
//!
//! [`render_cadrille`] has another style, that of cadrille.

mod cadrille;
mod canvas;
mod creases;
mod layout;
mod mesh;
mod raycast;
mod triangle;
mod view;

use cadwright_rewards::csg::{Aabb, Vec3};
use cadwright_rewards::{Geometry, Solid};
use image::{Rgb, RgbImage};

pub use cadrille::{CADRILLE_SIDE, render_cadrille};
pub use canvas::Canvas;
pub use creases::CREASE_DEGREES;
pub use layout::{Views, ViewsError};
pub use mesh::{Facets, MeshError, draw_mesh, render_mesh};
pub use raycast::{draw_csg, render_csg};
pub use view::{View, ViewError};

/// Side of the data set's pictures, in pixels.
pub const REFERENCE_SIDE: u32 = 448;

/// The shares of the picture's side that the projected box may fill, in width and height.
const FILL: (f64, f64) = (8.0 / 9.0, 2.0 / 3.0);

/// The placement of a part on a square canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Framing {
    view: View,
    /// The point of space at the centre of the picture.
    center: Vec3,
    /// Pixels per model unit.
    scale: f64,
    /// Side of the canvas in pixels.
    side: f64,
}

impl Framing {
    /// Fits a box into a canvas of `side` pixels: in the isometric view, as in the data set; in any
    /// other view, by the same rule.
    pub fn fit(bounds: &Aabb, view: View, side: usize) -> Self {
        let size = bounds.size();
        // The width of a box's projection is the sum of its projected edges.
        let extent = |axis: Vec3| size.dot(&axis.abs()).max(1e-9);
        let side = side as f64;
        let scale = (FILL.0 * side / extent(view.right)).min(FILL.1 * side / extent(view.up));
        Self { view, center: bounds.center(), scale, side }
    }

    /// Enlarges the picture around its centre by the factor `zoom`, then moves it by `shift`, in
    /// pixels of the canvas to the right and down.
    #[must_use]
    pub fn moved(self, zoom: f64, shift: [f64; 2]) -> Self {
        let scale = self.scale * zoom;
        let center = self.center + (self.view.up * shift[1] - self.view.right * shift[0]) / scale;
        Self { center, scale, ..self }
    }

    /// Projects a point to pixel coordinates (x to the right, y down, pixel `i` reaches from `i` to
    /// `i + 1`) and its distance behind the picture's plane, in model units.
    fn project(&self, point: Vec3) -> Vec3 {
        let relative = point - self.center;
        Vec3::new(
            self.side / 2.0 + relative.dot(&self.view.right) * self.scale,
            self.side / 2.0 - relative.dot(&self.view.up) * self.scale,
            -relative.dot(&self.view.toward),
        )
    }

    /// The point of the picture's plane at these pixel coordinates.
    fn unproject(&self, x: f64, y: f64) -> Vec3 {
        let (dx, dy) = ((x - self.side / 2.0) / self.scale, (self.side / 2.0 - y) / self.scale);
        self.center + self.view.right * dx + self.view.up * dy
    }
}

/// The canvas's side for a picture of `size` pixels: the multiple of `size` nearest to the data
/// set's resolution.
pub fn canvas_side(size: u32) -> usize {
    (size * REFERENCE_SIDE.div_ceil(size)) as usize
}

/// Draws a solid of either engine, `size` pixels a side. `None` for a mesh that cannot be drawn.
pub fn render_solid(solid: &Solid, size: u32) -> Option<RgbImage> {
    match &solid.geometry {
        Geometry::Mesh(mesh) => render_mesh(&mesh.vertices, &mesh.triangles, &mesh.faces, size).ok(),
        Geometry::Csg(csg) => Some(render_csg(csg, size)),
    }
}

/// Puts pictures in a row, on white, with a thin grey line between them: contact sheets for logs.
pub fn side_by_side(pictures: &[RgbImage]) -> RgbImage {
    const GAP: u32 = 2;
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(1);
    let width = pictures.iter().map(|picture| picture.width() + GAP).sum::<u32>().saturating_sub(GAP).max(1);
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut left = 0;
    for (number, picture) in pictures.iter().enumerate() {
        if number > 0 {
            for y in 0..height {
                for x in left - GAP..left {
                    sheet.put_pixel(x, y, Rgb([160; 3]));
                }
            }
        }
        image::imageops::replace(&mut sheet, picture, i64::from(left), 0);
        left += picture.width() + GAP;
    }
    sheet
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::csg::Operation;
    use cadwright_rewards::samples::block;

    use super::*;

    fn dark_share(picture: &RgbImage) -> f64 {
        let dark = picture.pixels().filter(|pixel| pixel.0[0] < 60).count();
        dark as f64 / f64::from(picture.width() * picture.height())
    }

    #[test]
    fn a_cube_stands_in_the_middle_and_fills_two_thirds_of_the_height() {
        let picture = render_csg(&block(Vec3::new(5.0, 5.0, 5.0), Vec3::repeat(0.3)), 448);
        let rows: Vec<u32> = (0..448).filter(|y| (0..448).any(|x| picture.get_pixel(x, *y).0[0] < 250)).collect();
        let columns: Vec<u32> = (0..448).filter(|x| (0..448).any(|y| picture.get_pixel(*x, y).0[0] < 250)).collect();
        // A cube is 4 / sqrt(6) high and sqrt(2) wide: 298.7 and 258.6 pixels around the centre,
        // which is at 224.
        assert!(rows[0].abs_diff(75) <= 1 && rows[rows.len() - 1].abs_diff(373) <= 1, "{rows:?}");
        assert!(columns[0].abs_diff(95) <= 1 && columns[columns.len() - 1].abs_diff(353) <= 1, "{columns:?}");
        // The three visible sides have one grey, and the corner between them is black.
        for (x, y) in [(224, 140), (150, 260), (300, 260)] {
            assert_eq!(picture.get_pixel(x, y), &Rgb([141, 141, 138]));
        }
        assert!((222..=226).any(|x| (222..=226).any(|y| picture.get_pixel(x, y).0[0] == 0)));
    }

    #[test]
    fn flush_faces_have_no_line_between_them() {
        let one = block(Vec3::zeros(), Vec3::new(2.0, 1.0, 1.0));
        let two =
            block(Vec3::zeros(), Vec3::repeat(1.0)).combine(Operation::Union, block(Vec3::x(), Vec3::repeat(1.0)));
        assert_eq!(render_csg(&one, 112), render_csg(&two, 112));
    }

    #[test]
    fn a_mesh_looks_like_the_solid_it_came_from() {
        // A unit cube; each face has its own vertices.
        let solid = block(Vec3::zeros(), Vec3::repeat(1.0));
        let quads: [[[f64; 3]; 4]; 6] = [
            [[0., 0., 0.], [0., 1., 0.], [1., 1., 0.], [1., 0., 0.]],
            [[0., 0., 1.], [1., 0., 1.], [1., 1., 1.], [0., 1., 1.]],
            [[0., 0., 0.], [1., 0., 0.], [1., 0., 1.], [0., 0., 1.]],
            [[0., 1., 0.], [0., 1., 1.], [1., 1., 1.], [1., 1., 0.]],
            [[0., 0., 0.], [0., 0., 1.], [0., 1., 1.], [0., 1., 0.]],
            [[1., 0., 0.], [1., 1., 0.], [1., 1., 1.], [1., 0., 1.]],
        ];
        let vertices: Vec<[f64; 3]> = quads.iter().flatten().copied().collect();
        let triangles: Vec<[u32; 3]> =
            (0..6).flat_map(|face| [[0, 1, 2], [0, 2, 3]].map(|t: [u32; 3]| t.map(|i| 4 * face + i))).collect();
        let faces: Vec<u32> = (0..12).map(|triangle| triangle / 2).collect();
        for size in [112, 224] {
            let (a, b) = (render_csg(&solid, size), render_mesh(&vertices, &triangles, &faces, size).unwrap());
            let difference: f64 =
                a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
            // Lines may differ by half a canvas pixel; nothing else differs.
            assert!(difference / (a.as_raw().len() as f64) < 2.0, "{size}: {difference}");
        }
        assert!(dark_share(&render_csg(&solid, 448)) < 0.01);
        // An open mesh of five faces is drawn too.
        assert!(render_mesh(&vertices, &triangles[2..], &faces[2..], 112).is_ok());
    }

    #[test]
    fn a_broken_mesh_is_refused_and_an_empty_one_is_white() {
        let vertices = [[0.0; 3], [1.0, 0.0, 0.0], [0.0, f64::NAN, 0.0]];
        assert!(matches!(render_mesh(&vertices, &[[0, 1, 3]], &[0], 32), Err(MeshError::Vertex { vertex: 3, .. })));
        assert!(matches!(render_mesh(&vertices, &[[0, 1, 2]], &[0], 32), Err(MeshError::NotFinite { vertex: 2 })));
        assert!(matches!(render_mesh(&vertices, &[[0, 1, 1]], &[], 32), Err(MeshError::FaceCount { .. })));
        let empty = render_mesh(&[], &[], &[], 32).unwrap();
        assert!(empty.pixels().all(|pixel| pixel.0 == [255; 3]));
    }

    #[test]
    fn contact_sheets_hold_their_pictures_side_by_side() {
        let pictures = [10u8, 20, 30].map(|grey| RgbImage::from_pixel(8, 6, Rgb([grey; 3])));
        let sheet = side_by_side(&pictures);
        assert_eq!(sheet.dimensions(), (28, 6));
        assert_eq!(
            (sheet.get_pixel(0, 0).0[0], sheet.get_pixel(10, 5).0[0], sheet.get_pixel(27, 3).0[0]),
            (10, 20, 30)
        );
        assert_eq!(side_by_side(&[]).dimensions(), (1, 1));
    }
}
