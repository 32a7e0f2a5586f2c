//! What a picture shows: the part's silhouette, the tones of its faces, and its lines.

use image::RgbImage;

use super::fit::Placement;
use super::map::{Map, grey};

/// The side at which pictures are compared.
pub const SIDE: usize = 112;

/// Radius of the squares that separate lines from faces: what is darker than its surroundings and
/// thinner than `2 * LINE_RADIUS + 1` places is a line.
const LINE_RADIUS: usize = 2;

/// Deviation of the blur that gives lines a tolerance, in places of each of the two maps.
const TOLERANCE: f32 = 1.0;

/// A picture, taken apart. All maps but the coarse ones have [`SIDE`] x [`SIDE`] places.
#[derive(Debug, Clone)]
pub struct Features {
    /// 1 on the part, 0 on the background, between them where the outline cuts a place.
    pub silhouette: Map,
    /// Darkness without lines, in the picture's own tones.
    pub tone: Map,
    /// How much darker lines are than their surroundings, blurred: at [`SIDE`], and at half of it.
    pub lines: [Map; 2],
    /// Silhouette and lines at half the side, blurred: what zoom and shift are fitted to.
    pub coarse: [Map; 2],
}

impl Features {
    /// Takes a picture apart.
    pub fn of_picture(picture: &RgbImage) -> Self {
        Self::of_darkness(&Map::of_picture(picture, background(picture), SIDE))
    }

    /// Takes a map of darkness apart: 0 is the background, 1 is black.
    pub fn of_darkness(darkness: &Map) -> Self {
        let tone = darkness.lowest(LINE_RADIUS).highest(LINE_RADIUS);
        let face = face_level(darkness, &tone);
        // Half the face's tone is the outline, however blurred.
        let silhouette = darkness.map(|value| ((value / face - 0.25) * 2.0).clamp(0.0, 1.0));
        // Outlines are in the silhouette already; as lines they depend on how wide lines are drawn.
        let inside = silhouette.lowest(1);
        let sharp = darkness.zip(&tone, |value, tone| value - tone).zip(&inside, |line, inside| line * inside);
        let fine = sharp.blurred(TOLERANCE);
        let rough = sharp.halved().blurred(TOLERANCE);
        let coarse = [silhouette.halved().blurred(TOLERANCE), rough.clone()];
        Self { silhouette, tone, lines: [fine, rough], coarse }
    }

    /// The features after the picture was enlarged and shifted; the coarse maps stay as they are.
    /// What leaves the picture is cut off.
    pub fn moved(&self, placement: &Placement) -> Self {
        let moved = |map: &Map| map.moved(placement.zoom as f32, placement.shift.map(|share| share as f32));
        Self {
            silhouette: moved(&self.silhouette),
            tone: moved(&self.tone),
            lines: self.lines.each_ref().map(moved),
            coarse: self.coarse.clone(),
        }
    }

    /// Whether the picture shows no part.
    pub fn is_empty(&self) -> bool {
        self.silhouette.values().iter().all(|value| *value == 0.0)
    }
}

/// The brightness of a picture's background: the median of its border.
fn background(picture: &RgbImage) -> f32 {
    let (width, height) = picture.dimensions();
    let is_border = |x: u32, y: u32| x == 0 || y == 0 || x + 1 == width || y + 1 == height;
    let border = picture.enumerate_pixels().filter(|(x, y, _)| is_border(*x, *y));
    Map::quantile(border.map(|(_, _, pixel)| grey(pixel.0)).collect(), 0.5).unwrap_or(0.0)
}

/// The darkness of the part's lightest faces; of all of the part if no face is wide enough to have
/// a tone of its own. Infinite if nothing is darker than the background.
fn face_level(darkness: &Map, tone: &Map) -> f32 {
    /// What is not darker than this is noise.
    const NOISE: f32 = 0.08;
    let above = |map: &Map, least: f32| -> Vec<f32> { map.values().iter().copied().filter(|v| *v > least).collect() };
    let level = |map: &Map| {
        let dark = Map::quantile(above(map, NOISE), 0.9)?;
        Map::quantile(above(map, NOISE.max(0.4 * dark)), 0.2)
    };
    level(tone).or_else(|| level(darkness)).unwrap_or(f32::INFINITY)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A grey square of 56 places with a black frame 10 places within it, on white: 112 pixels a
    /// side.
    fn framed(gain: f32, offset: f32) -> RgbImage {
        let tone = |value: f32| Rgb([(gain * value + offset).round() as u8; 3]);
        RgbImage::from_fn(112, 112, |x, y| {
            let (x, y) = (x as i32 - 28, y as i32 - 28);
            let out = x.min(y).min(55 - x).min(55 - y);
            tone(if out < 0 {
                255.0
            } else if out == 10 {
                0.0
            } else {
                140.0
            })
        })
    }

    #[test]
    fn silhouette_faces_and_lines_are_told_apart() {
        for (gain, offset) in [(1.0, 0.0), (0.7, 20.0)] {
            let features = Features::of_picture(&framed(gain, offset));
            assert_eq!(features.silhouette.values().iter().sum::<f32>(), 56.0 * 56.0);
            let background = gain * 255.0 + offset;
            let face = 1.0 - (gain * 140.0 + offset).round() / background.round();
            assert!((features.tone.values()[56 * 112 + 56] - face).abs() < 1e-5);
            // The frame is one place wide and darker than its face; blurred, its sum stays.
            let line = 1.0 - offset / background.round() - face;
            let sum: f32 = features.lines[0].values().iter().sum();
            assert!((sum / (4.0 * 35.0 * line) - 1.0).abs() < 0.02, "{sum}");
        }
    }

    #[test]
    fn pictures_of_nothing_are_empty() {
        for level in [0, 128, 255] {
            assert!(Features::of_picture(&RgbImage::from_pixel(50, 30, Rgb([level; 3]))).is_empty());
        }
        assert!(Features::of_picture(&RgbImage::new(0, 0)).is_empty());
    }
}
