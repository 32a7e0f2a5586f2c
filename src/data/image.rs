//! InternVL3's preprocessing of pictures: Pillow's decoding and bicubic resizing, InternVL's tiles,
//! torchvision's normalisation. `scripts/reference/images.py` compares each step with the original.

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use tch::{Kind, Tensor};
use thiserror::Error;

use super::jpeg;

/// The reason why a picture is unusable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// The bytes are not a complete picture in a known format.
    #[error("cannot decode the picture: {detail}")]
    Decode {
        /// The decoder's message.
        detail: String,
    },
}

/// ImageNet's mean of red, green and blue, in [0, 1].
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation of red, green and blue, for values in [0, 1].
pub const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Decodes PNG, JPEG or WebP, chosen by content. The pixels equal those of Pillow's
/// `Image.open(..).convert("RGB")` to the last bit:
///
/// - Grey becomes RGB, palettes are looked up, and CMYK inks are mixed. The alpha channel is
///   dropped, so the colour of a transparent pixel becomes visible.
/// - Of 16 bits, the upper 8 are taken, except in a grey picture without alpha, in which values
///   above 255 are white.
/// - The pixels stay as stored: an EXIF orientation does not rotate the picture, because `convert`
///   does not.
/// - An animation gives its first picture.
///
/// # Errors
/// [`ImageError::Decode`]: the bytes are not a complete picture in a known format.
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let picture = match ::image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes),
        Ok(format @ (ImageFormat::Png | ImageFormat::WebP)) => {
            decode_png_or_webp(bytes, format).map_err(|error| error.to_string())
        }
        Ok(other) => Err(format!("it is {other:?}; give PNG, JPEG or WebP")),
        Err(_) if bytes.is_empty() => Err("no bytes".to_owned()),
        Err(_) => Err("it is in no known format; give PNG, JPEG or WebP".to_owned()),
    };
    let picture = picture.and_then(|picture| match picture.dimensions() {
        (0, _) | (_, 0) => Err("it has no pixels".to_owned()),
        _ => Ok(picture),
    });
    picture.map_err(|detail| ImageError::Decode { detail })
}

fn decode_png_or_webp(bytes: &[u8], format: ImageFormat) -> ::image::ImageResult<RgbImage> {
    let decoder = ImageReader::with_format(std::io::Cursor::new(bytes), format).into_decoder()?;
    Limits::default().reserve(decoder.total_bytes())?;
    let picture = match DynamicImage::from_decoder(decoder)? {
        DynamicImage::ImageRgb8(picture) => return Ok(picture),
        other => other,
    };
    let (width, height, colour) = (picture.width(), picture.height(), picture.color());
    // The colour type in PNG's first chunk: grey with a transparent value decodes as grey with
    // alpha.
    let is_grey = format == ImageFormat::Png && bytes[25] == 0;
    let is_16_bit = colour.bytes_per_pixel() > colour.channel_count();
    let samples: Vec<u8> = if is_16_bit {
        let values = picture.as_bytes().chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
        values.map(|value| if is_grey { value.min(255) } else { value >> 8 } as u8).collect()
    } else {
        picture.into_bytes()
    };
    let pixels = samples.chunks_exact(colour.channel_count().into());
    let rgb = pixels.flat_map(|pixel| if colour.has_color() { [pixel[0], pixel[1], pixel[2]] } else { [pixel[0]; 3] });
    Ok(from_raw(width, height, rgb.collect()))
}

/// Columns and rows of the tile grid that InternVL chooses for a picture of `width` x `height`
/// pixels: the grid of at most `max_tiles` tiles with the nearest aspect ratio. A tie goes to a
/// larger grid if the picture has more than half of that grid's pixels.
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

/// Cuts a picture into InternVL's tiles, row by row. If there are several tiles and `use_thumbnail`
/// is set, the whole picture follows as one more tile. A square picture is one tile.
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

/// Tiles of equal size to a tensor `[tiles, 3, size, size] u8`.
pub fn to_tensor(tiles: &[RgbImage]) -> Tensor {
    let side = tiles.first().map_or(0, |tile| i64::from(tile.width()));
    let bytes: Vec<u8> = tiles.iter().flat_map(|tile| tile.as_raw().iter().copied()).collect();
    Tensor::from_slice(&bytes).view([tiles.len() as i64, side, side, 3]).permute([0, 3, 1, 2]).contiguous()
}

/// Normalises pixels for the model: `[.., 3, height, width] u8` to `f32` of the same shape, as
/// torchvision's `ToTensor` and `Normalize` do with ImageNet's mean and deviation. 0 to 255 becomes
/// -2.118 to 2.249 in red, -2.036 to 2.429 in green and -1.804 to 2.640 in blue.
pub fn normalise(pixels: &Tensor) -> Tensor {
    let constant = |values: [f32; 3]| Tensor::from_slice(&values).to_device(pixels.device()).view([3, 1, 1]);
    (pixels.to_kind(Kind::Float) / 255.0 - constant(MEAN)) / constant(DEVIATION)
}

/// Fractional bits of Pillow's weights for 8-bit pictures.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one output pixel: the first input pixel, and the weights of it and of the pixels
/// after it.
struct ResampleWeights {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes like Pillow's `resize((width, height), BICUBIC)`, to the last bit: antialiased when
/// shrinking, one pass along rows and one along columns, rounded to 8 bits between them.
///
/// The pass along rows comes first, except in pictures that lose more than twice as many rows as
/// columns: since Pillow 13 the pass along columns comes first there (python-pillow/Pillow#9549).
/// Only thumbnails of upright pictures are affected. Sharp edges then differ by a few levels of 255
/// from older versions of Pillow.
fn resize_bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (columns, rows) = (lost(picture.width(), width), lost(picture.height(), height));
    if rows > 0 && rows > 2 * columns {
        resample_rows(resample_columns(picture.clone(), height), width)
    } else {
        resample_columns(resample_rows(picture.clone(), width), height)
    }
}

/// Resamples the rows of a picture to `width` pixels.
fn resample_rows(picture: RgbImage, width: u32) -> RgbImage {
    let (from_width, height) = picture.dimensions();
    if width == from_width {
        return picture;
    }
    let weights = bicubic_weights(from_width as usize, width as usize);
    let mut bytes = vec![0; width as usize * height as usize * 3];
    for (row, target) in picture.chunks_exact(from_width as usize * 3).zip(bytes.chunks_exact_mut(width as usize * 3)) {
        for (ResampleWeights { first, weights }, pixel) in weights.iter().zip(target.chunks_exact_mut(3)) {
            for (channel, byte) in pixel.iter_mut().enumerate() {
                *byte = weigh(row[first * 3 + channel..].iter().step_by(3), weights);
            }
        }
    }
    from_raw(width, height, bytes)
}

/// Resamples the columns of a picture to `height` pixels.
fn resample_columns(picture: RgbImage, height: u32) -> RgbImage {
    let (width, from_height) = picture.dimensions();
    if height == from_height {
        return picture;
    }
    let weights = bicubic_weights(from_height as usize, height as usize);
    let stride = width as usize * 3;
    let mut bytes = vec![0; stride * height as usize];
    for (ResampleWeights { first, weights }, target) in weights.iter().zip(bytes.chunks_exact_mut(stride)) {
        for (x, byte) in target.iter_mut().enumerate() {
            *byte = weigh(picture.as_raw()[first * stride + x..].iter().step_by(stride), weights);
        }
    }
    from_raw(width, height, bytes)
}

fn from_raw(width: u32, height: u32, bytes: Vec<u8>) -> RgbImage {
    RgbImage::from_raw(width, height, bytes).unwrap_or_else(|| RgbImage::new(width, height))
}

fn weigh<'a>(values: impl Iterator<Item = &'a u8>, weights: &[i32]) -> u8 {
    let sum: i32 = values.zip(weights).map(|(value, weight)| i32::from(*value) * weight).sum();
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` (src/libImaging/Resample.c).
fn bicubic_weights(from: usize, to: usize) -> Vec<ResampleWeights> {
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
            ResampleWeights { first, weights }
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
