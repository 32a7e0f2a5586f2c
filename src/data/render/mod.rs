//! Pictures of parts in the style of GenCAD-Code: isometric, flat grey, thin black edges, hidden lines removed.
//!
//! The style was measured on the data set's pictures:
//! - the viewer looks from (1, -1, 1), orthographically, with z up;
//! - the axis-aligned box around the part is centred and scaled until its projection is 400 wide or 300 high in a
//!   frame of 448 (so the picture says nothing about absolute size and position);
//! - the light comes from the viewer: the tone depends only on the angle between face and view, so the three visible
//!   sides of a box are equally grey;
//! - lines one pixel wide are drawn where faces meet, along the seam of a closed cylinder too, but not along the
//!   outline of a rounded face.
//!
//! Solids from [`csg`](cadwright_rewards::csg) are cast ray by ray ([`render_csg`]), tessellated ones go through a
//! depth buffer ([`render_mesh`]). Both fill one [`Canvas`] at about 448 pixels a side, which is then averaged down,
//! so that a small picture looks like the data set's scaled down.

mod canvas;
mod mesh;
mod raycast;

use cadwright_rewards::csg::{Bounds, Vec3};
use image::{Rgb, RgbImage};

pub use canvas::Canvas;
pub use mesh::{MeshError, render_mesh};
pub use raycast::render_csg;

/// Side of the data set's pictures, in pixels.
pub const REFERENCE_SIDE: u32 = 448;

/// Width and height that the projected box may fill, as a share of the picture's side.
const FILL: (f64, f64) = (399.0 / 448.0, 299.0 / 448.0);

/// The viewer's directions: unit vectors, right-handed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    right: Vec3,
    up: Vec3,
    /// From the part to the viewer.
    toward: Vec3,
}

impl View {
    fn isometric() -> Self {
        let toward = Vec3::new(1.0, -1.0, 1.0).normalize();
        let right = Vec3::z().cross(&toward).normalize();
        Self {
            right,
            up: toward.cross(&right),
            toward,
        }
    }
}

/// How a part is placed on a square canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Framing {
    view: View,
    /// The point of space in the middle of the picture.
    center: Vec3,
    /// Pixels per model unit.
    scale: f64,
    /// Side of the canvas in pixels.
    side: f64,
}

impl Framing {
    /// Fits a box into a canvas of `side` pixels as the data set does.
    pub fn fit(bounds: &Bounds, side: usize) -> Self {
        let view = View::isometric();
        let size = bounds.size();
        // The projection of a box is as wide as the sum of its projected edges.
        let extent = |axis: Vec3| size.dot(&axis.abs()).max(1e-9);
        let side = side as f64;
        let scale = (FILL.0 * side / extent(view.right)).min(FILL.1 * side / extent(view.up));
        Self {
            view,
            center: bounds.center(),
            scale,
            side,
        }
    }

    /// Pixel coordinates (x to the right, y down, pixel `i` reaches from `i` to `i + 1`) and distance behind the
    /// plane of the picture, in model units.
    fn project(&self, point: Vec3) -> Vec3 {
        let relative = point - self.center;
        Vec3::new(
            self.side / 2.0 + relative.dot(&self.view.right) * self.scale,
            self.side / 2.0 - relative.dot(&self.view.up) * self.scale,
            -relative.dot(&self.view.toward),
        )
    }

    /// The point of the picture's plane seen at pixel coordinates.
    fn unproject(&self, x: f64, y: f64) -> Vec3 {
        let (dx, dy) = (
            (x - self.side / 2.0) / self.scale,
            (self.side / 2.0 - y) / self.scale,
        );
        self.center + self.view.right * dx + self.view.up * dy
    }
}

/// Side of the canvas for a picture of `size` pixels: the multiple of `size` next to the data set's resolution.
fn canvas_side(size: u32) -> usize {
    (size * REFERENCE_SIDE.div_ceil(size)) as usize
}

/// Pictures in a row, on white, with a thin grey line between them: contact sheets for logs.
pub fn side_by_side(pictures: &[RgbImage]) -> RgbImage {
    const GAP: u32 = 2;
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(1);
    let width = pictures
        .iter()
        .map(|picture| picture.width() + GAP)
        .sum::<u32>()
        .saturating_sub(GAP)
        .max(1);
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
