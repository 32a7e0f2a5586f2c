//! The labelled programs whose solids look most like a picture: material for search, since the
//! habits of a data set go with shapes.

use cadwright_rewards::{Geometry, Outcome};
use cadwright_rollout::execute_natively;
use image::imageops::{FilterType, crop_imm, resize};
use image::{GrayImage, Luma, RgbImage};
use rayon::prelude::*;

use super::draft::Draft;
use super::prior::Prior;
use crate::data::render::render_csg;

/// Side of the drawings that are compared, in pixels, before they are cut out.
const DRAWN: u32 = 112;
/// Cells along each side of a descriptor.
const CELLS: u32 = 20;

/// What the solids of a prior's programs look like.
pub struct Neighbours {
    looks: Vec<(Draft, Descriptor)>,
}

/// A picture cut out to its dark part: cells of darkness, and the ratio of its sides.
struct Descriptor {
    cells: Vec<f32>,
    aspect: f32,
}

impl Neighbours {
    /// Draws the programs of a prior that the native engine builds.
    pub fn new(prior: &Prior) -> Self {
        let look = |draft: &Draft| {
            let Ok(Outcome::Solid(solid)) = execute_natively(&draft.program(), None) else { return None };
            let Geometry::Csg(csg) = &solid.geometry else { return None };
            Some((draft.clone(), Descriptor::of(&render_csg(csg, DRAWN))))
        };
        Self { looks: prior.drafts().par_iter().filter_map(look).collect() }
    }

    /// The `count` programs that look most like a picture, the most similar first.
    pub fn nearest(&self, picture: &RgbImage, count: usize) -> Vec<Draft> {
        let wanted = Descriptor::of(picture);
        let mut found: Vec<(f32, usize)> =
            self.looks.iter().enumerate().map(|(index, (_, look))| (wanted.distance(look), index)).collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.into_iter().take(count).map(|(_, index)| self.looks[index].0.clone()).collect()
    }
}

impl Descriptor {
    fn of(picture: &RgbImage) -> Self {
        let grey = |pixel: &image::Rgb<u8>| pixel.0[0].max(pixel.0[1]);
        // The background is the tone of the corners; what is darker by a tenth belongs to the part.
        let (right, bottom) = (picture.width() - 1, picture.height() - 1);
        let corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)].map(|(x, y)| grey(picture.get_pixel(x, y)));
        let ground = corners.into_iter().max().unwrap_or(255);
        let dark = GrayImage::from_fn(picture.width(), picture.height(), |x, y| {
            Luma([ground.saturating_sub(grey(picture.get_pixel(x, y)))])
        });
        let part: Vec<(u32, u32)> =
            dark.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 25).map(|(x, y, _)| (x, y)).collect();
        let range = |of: fn(&(u32, u32)) -> u32| {
            let low = part.iter().map(of).min().unwrap_or(0);
            (low, part.iter().map(of).max().unwrap_or(0) - low + 1)
        };
        let ((left, width), (top, height)) = (range(|at| at.0), range(|at| at.1));
        let cut = crop_imm(&dark, left, top, width, height).to_image();
        let small = resize(&cut, CELLS, CELLS, FilterType::Triangle);
        let most = small.pixels().map(|pixel| pixel.0[0]).max().unwrap_or(0).max(1);
        Self {
            cells: small.pixels().map(|pixel| f32::from(pixel.0[0]) / f32::from(most)).collect(),
            aspect: (width as f32 / height as f32).ln(),
        }
    }

    fn distance(&self, other: &Self) -> f32 {
        let squares: f32 = self.cells.iter().zip(&other.cells).map(|(a, b)| (a - b) * (a - b)).sum();
        squares / self.cells.len() as f32 + 0.3 * (self.aspect - other.aspect).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::PROGRAM;
    use super::*;

    fn drawn(program: &str) -> RgbImage {
        let outcome = execute_natively(program, None).unwrap();
        let Geometry::Csg(csg) = &outcome.solid().unwrap().geometry else { panic!("a native solid") };
        render_csg(csg, 96)
    }

    #[test]
    fn the_program_that_looks_alike_comes_first() {
        let tall = PROGRAM.replace("extrude(0.25)", "extrude(2.0)");
        let near = PROGRAM.replace("0.75", "0.71875");
        let neighbours = Neighbours::new(&Prior::learn([tall.as_str(), near.as_str()]));
        let found = neighbours.nearest(&drawn(PROGRAM), 2);
        assert_eq!(found.iter().map(Draft::program).collect::<Vec<_>>(), [near, tall]);
        assert_eq!(neighbours.nearest(&RgbImage::from_pixel(1, 1, image::Rgb([255; 3])), 5).len(), 2);
    }
}
