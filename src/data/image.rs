//! Pictures: decoding, resizing as Pillow does, InternVL's tiles, normalisation.

use ::image::{ImageReader, RgbImage};
use thiserror::Error;

/// Why a picture is unusable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The bytes are no picture in a known format, or not all of it.
    #[error("cannot decode the picture: {detail}")]
    Decode {
        /// What the decoder says.
        detail: String,
    },
}

/// ImageNet's mean of red, green and blue, of 1.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation of red, green and blue.
pub const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Decodes PNG, JPEG or WebP, by content. Grey becomes RGB, palettes are looked up, and an alpha channel is dropped, as
/// Pillow's `convert("RGB")` does.
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let fail = |detail: String| ImageError::Decode { detail };
    if bytes.is_empty() {
        return Err(fail("no bytes".to_owned()));
    }
    let reader = ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| fail(source.to_string()))?;
    reader.decode().map(|picture| picture.into_rgb8()).map_err(|source| fail(source.to_string()))
}

/// Columns and rows of the tile grid InternVL chooses for a picture of `width` x `height`: of all grids of at most
/// `max_tiles`, the one with the nearest aspect ratio; of several, a larger one if the picture has more than half of its
/// pixels.
pub fn tile_grid(width: u32, height: u32, tile_size: u32, max_tiles: u32) -> (u32, u32) {
    let mut grids: Vec<(u32, u32)> =
        (1..=max_tiles).flat_map(|columns| (1..=max_tiles / columns).map(move |rows| (columns, rows))).collect();
    grids.sort_by_key(|(columns, rows)| (columns * rows, *columns));
    let aspect = f64::from(width) / f64::from(height);
    let area = f64::from(width) * f64::from(height);
    let mut best = (1, 1);
    let mut least = f64::INFINITY;
    for (columns, rows) in grids {
        let difference = (aspect - f64::from(columns) / f64::from(rows)).abs();
        let pixels = f64::from(tile_size) * f64::from(tile_size) * f64::from(columns * rows);
        if difference < least || (difference == least && area > 0.5 * pixels) {
            best = (columns, rows);
            least = difference;
        }
    }
    best
}

/// InternVL's tiles, row by row, and, if there is more than one and `use_thumbnail`, the whole picture at the end. A
/// square picture is one tile.
pub fn tiles(picture: &RgbImage, tile_size: u32, max_tiles: u32, use_thumbnail: bool) -> Vec<RgbImage> {
    let (columns, rows) = tile_grid(picture.width(), picture.height(), tile_size, max_tiles);
    let resized = resize_bicubic(picture, columns * tile_size, rows * tile_size);
    let mut tiles: Vec<RgbImage> = (0..columns * rows)
        .map(|tile| {
            let (left, top) = (tile % columns * tile_size, tile / columns * tile_size);
            ::image::imageops::crop_imm(&resized, left, top, tile_size, tile_size).to_image()
        })
        .collect();
    if use_thumbnail && tiles.len() > 1 {
        tiles.push(resize_bicubic(picture, tile_size, tile_size));
    }
    tiles
}

/// Writes a picture as normalised planes, `[channel, height, width]`, into `planes`.
///
/// # Panics
/// If `planes` does not have exactly `3 * width * height` numbers.
pub fn normalise(picture: &RgbImage, planes: &mut [f32]) {
    let pixels = (picture.width() * picture.height()) as usize;
    assert_eq!(planes.len(), 3 * pixels, "normalise: expected 3 x {} x {}", picture.height(), picture.width());
    for (channel, plane) in planes.chunks_exact_mut(pixels.max(1)).enumerate() {
        // One value per byte: exact, and cheaper than arithmetic per pixel.
        let table: [f32; 256] =
            std::array::from_fn(|value| (value as f32 / 255.0 - MEAN[channel]) / DEVIATION[channel]);
        for (number, pixel) in plane.iter_mut().zip(picture.as_raw().chunks_exact(3)) {
            *number = table[usize::from(pixel[channel])];
        }
    }
}

/// Bits after the point in Pillow's weights for 8-bit pictures.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one output pixel: the first input pixel, and a weight for it and those after it.
struct Weights {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes as Pillow's `resize((width, height), BICUBIC)`, to the last bit: antialiased when shrinking, first along
/// rows, then along columns, rounded to 8 bits between. (Pillow 13 takes columns first where the height shrinks much more
/// than the width; the models were trained with Pillow's older order.)
pub fn resize_bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = picture.dimensions();
    let mut current = picture.clone();
    if width != from_width {
        let weights = bicubic_weights(from_width as usize, width as usize);
        let source = current.as_raw();
        let mut rows = vec![0; (width * from_height * 3) as usize];
        for y in 0..from_height as usize {
            let row = &source[y * from_width as usize * 3..][..from_width as usize * 3];
            for (x, Weights { first, weights }) in weights.iter().enumerate() {
                let target = (y * width as usize + x) * 3;
                for channel in 0..3 {
                    let values = row[first * 3 + channel..].iter().step_by(3);
                    rows[target + channel] = weigh(values, weights);
                }
            }
        }
        current = from_raw(width, from_height, rows);
    }
    if height != from_height {
        let weights = bicubic_weights(from_height as usize, height as usize);
        let source = current.as_raw();
        let stride = width as usize * 3;
        let mut rows = vec![0; stride * height as usize];
        for (y, Weights { first, weights }) in weights.iter().enumerate() {
            for x in 0..stride {
                let values = source[first * stride + x..].iter().step_by(stride);
                rows[y * stride + x] = weigh(values, weights);
            }
        }
        current = from_raw(width, height, rows);
    }
    current
}

fn from_raw(width: u32, height: u32, bytes: Vec<u8>) -> RgbImage {
    RgbImage::from_raw(width, height, bytes).unwrap_or_else(|| RgbImage::new(width, height))
}

fn weigh<'a>(values: impl Iterator<Item = &'a u8>, weights: &[i32]) -> u8 {
    let sum: i32 = values.zip(weights).map(|(value, weight)| i32::from(*value) * weight).sum();
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` (src/libImaging/Resample.c).
fn bicubic_weights(from: usize, to: usize) -> Vec<Weights> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..to)
        .map(|pixel| {
            let center = (pixel as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (first..end).map(|x| bicubic((x as f64 - center + 0.5) * (1.0 / stretch))).collect();
            let total: f64 = raw.iter().sum();
            let weights =
                raw.iter().map(|weight| (weight / total * f64::from(1 << PRECISION)).round() as i32).collect();
            Weights { first, weights }
        })
        .collect()
}

/// Keys' cubic with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}
