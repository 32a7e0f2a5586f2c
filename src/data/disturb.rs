//! Pictures as others make them: enlarged or made smaller, shifted, blurred, in other tones of grey,
//! and stored as JPEG. They test what an evaluation owes to pictures that this renderer drew itself.

use image::imageops::{FilterType, blur, overlay, resize};
use image::{Rgb, RgbImage};
use mozjpeg::{ColorSpace, Compress};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What is done to a picture. Lengths are shares of its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disturbance {
    /// Factor of the size.
    pub zoom: f64,
    /// To the right and down.
    pub shift: [f64; 2],
    /// Standard deviation of the blur.
    pub blur: f64,
    /// Tones become `gain * tone + offset`, in [0, 1].
    pub gain: f64,
    /// See `gain`.
    pub offset: f64,
    /// JPEG's quality, 1 to 100.
    pub quality: f32,
}

impl Disturbance {
    /// Draws one: zoom 0.95 to 1.07, shift up to 3 % each way, blur up to 0.7 % (0.8 pixels of 112),
    /// contrast 0.65 to 1, JPEG quality 60 to 95.
    pub fn draw(seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let gain = dice.random_range(0.65..1.0);
        Self {
            zoom: dice.random_range(0.95..1.07),
            shift: [dice.random_range(-0.03..0.03), dice.random_range(-0.03..0.03)],
            blur: dice.random_range(0.0..0.007),
            gain,
            offset: dice.random_range(0.0..1.0 - gain),
            quality: dice.random_range(60.0..95.0),
        }
    }

    /// The disturbed picture, of the same size, as a JPEG file.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn apply(&self, picture: &RgbImage) -> std::io::Result<Vec<u8>> {
        let [width, height] = [picture.width(), picture.height()].map(f64::from);
        let scaled = |side: f64| (side * self.zoom).round().max(1.0);
        let zoomed = resize(picture, scaled(width) as u32, scaled(height) as u32, FilterType::Triangle);
        let place = |side: f64, shift: f64| ((side - scaled(side)) / 2.0 + shift * side).round() as i64;
        let mut taken = RgbImage::from_pixel(picture.width(), picture.height(), Rgb([255; 3]));
        overlay(&mut taken, &zoomed, place(width, self.shift[0]), place(height, self.shift[1]));
        let sigma = self.blur * width;
        if sigma > 0.05 {
            taken = blur(&taken, sigma as f32);
        }
        let tone =
            |value: u8| (255.0 * (self.gain * f64::from(value) / 255.0 + self.offset)).round().clamp(0.0, 255.0) as u8;
        taken.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(tone));
        let mut encoder = Compress::new(ColorSpace::JCS_RGB);
        encoder.set_size(taken.width() as usize, taken.height() as usize);
        encoder.set_quality(self.quality);
        let mut encoder = encoder.start_compress(Vec::new())?;
        encoder.write_scanlines(taken.as_raw())?;
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode_rgb;

    #[test]
    fn a_disturbed_picture_keeps_its_size_and_little_else() {
        let picture = RgbImage::from_fn(112, 112, |x, y| {
            Rgb([if (30..80).contains(&x) && (40..70).contains(&y) { 120 } else { 255 }; 3])
        });
        let shifted = Disturbance { zoom: 1.0, shift: [0.1, 0.0], blur: 0.0, gain: 1.0, offset: 0.0, quality: 95.0 };
        let taken = decode_rgb(&shifted.apply(&picture).unwrap()).unwrap();
        assert_eq!(taken.dimensions(), (112, 112));
        // 11 pixels to the right.
        assert!(taken.get_pixel(36, 55).0[0] > 240 && taken.get_pixel(86, 55).0[0] < 140);
        let dark = Disturbance { gain: 0.5, shift: [0.0; 2], ..shifted };
        assert!(decode_rgb(&dark.apply(&picture).unwrap()).unwrap().get_pixel(3, 3).0[0] < 135);
        assert_eq!(Disturbance::draw(3), Disturbance::draw(3));
        assert_ne!(Disturbance::draw(3), Disturbance::draw(4));
    }
}
