//! The canvas: tones, and their conversion to a picture.

use std::sync::LazyLock;

use image::{Rgb, RgbImage};

/// A square canvas of tones, one byte a pixel, at full resolution.
#[derive(Debug, Clone)]
pub struct Canvas {
    side: usize,
    tones: Vec<u8>,
}

/// The tone of a line.
const LINE: u8 = 0;
/// The tone of the background.
const GROUND: u8 = 255;
/// Tones of faces lie between: `1 + FACES * facing`, with `facing` the cosine between normal and
/// view.
const FACES: f64 = 253.0;

/// Red (equal to green) and blue of each tone. Light adds linearly, so the fit to the data set's
/// pictures is linear in light, `ambient + diffuse * facing`, followed by the sRGB curve.
static COLOURS: LazyLock<[[u8; 2]; 256]> = LazyLock::new(|| {
    let srgb = |linear: f64| (255.0 * (1.055 * linear.powf(1.0 / 2.4) - 0.055)).round() as u8;
    std::array::from_fn(|tone| match tone as u8 {
        LINE => [0, 0],
        GROUND => [255, 255],
        tone => {
            let facing = f64::from(tone - 1) / FACES;
            [srgb(0.0582 + 0.3590 * facing), srgb(0.0488 + 0.3574 * facing)]
        }
    })
});

/// The tone of a face seen at the cosine `facing`.
pub(super) fn face_tone(facing: f64) -> u8 {
    1 + (FACES * facing.clamp(0.0, 1.0) + 0.5) as u8
}

impl Canvas {
    /// A canvas of background tone, `side` pixels a side.
    pub fn new(side: usize) -> Self {
        Self { side, tones: vec![GROUND; side * side] }
    }

    /// Side in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    pub(super) fn set(&mut self, x: usize, y: usize, tone: u8) {
        self.tones[y * self.side + x] = tone;
    }

    pub(super) fn draw(&mut self, x: usize, y: usize) {
        self.set(x, y, LINE);
    }

    /// Averages squares of tones to a picture of `size` pixels a side. The canvas's side is a
    /// multiple of `size`.
    pub fn to_picture(&self, size: u32) -> RgbImage {
        let step = self.side / size as usize;
        let half = (step * step / 2) as u32;
        RgbImage::from_fn(size, size, |x, y| {
            let (left, top) = (x as usize * step, y as usize * step);
            let row = |row: usize| &self.tones[row * self.side + left..][..step];
            let first = row(top)[0];
            if (top..top + step).all(|at| row(at).iter().all(|tone| *tone == first)) {
                let [grey, blue] = COLOURS[usize::from(first)];
                return Rgb([grey, grey, blue]);
            }
            let mut sum = [0u32; 2];
            for at in top..top + step {
                for tone in row(at) {
                    let colour = COLOURS[usize::from(*tone)];
                    sum[0] += u32::from(colour[0]);
                    sum[1] += u32::from(colour[1]);
                }
            }
            let [grey, blue] = sum.map(|sum| ((sum + half) / (step * step) as u32) as u8);
            Rgb([grey, grey, blue])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_sides_of_a_box_have_the_data_sets_grey() {
        // The cosine between each side's normal and the isometric view is 1 / sqrt(3); the data set
        // shows (141, 141, 138).
        let tone = face_tone(1.0 / 3.0_f64.sqrt());
        assert_eq!(COLOURS[usize::from(tone)], [141, 138]);
    }

    #[test]
    fn scaling_down_averages() {
        let mut canvas = Canvas::new(4);
        canvas.draw(0, 0);
        let picture = canvas.to_picture(2);
        // One black and three white pixels: 3 * 255 / 4 = 191.25.
        assert_eq!(picture.get_pixel(0, 0), &Rgb([191, 191, 191]));
        assert_eq!(picture.get_pixel(1, 1), &Rgb([255, 255, 255]));
    }
}
