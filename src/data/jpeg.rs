//! Decodes JPEG as libjpeg-turbo, and therefore Pillow, does, to the last bit.
//!
//! The decoder is MozJPEG's, which is libjpeg-turbo's: it has the same inverse cosine transform and
//! the same smooth upsampling of chroma. zune-jpeg, the usual choice in Rust, upsamples
//! differently: it is 3 levels of 255 off without chroma subsampling, and up to 105 on sharp edges
//! with it.

use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use mozjpeg::{Decompress, Format};

/// The maximum number of pixels of a picture, as in Pillow: half a GiB in RGB.
const MOST_PIXELS: usize = 178_956_970;

/// The most scans of a picture. Each takes time for all of its pixels, however short it is; a
/// progressive picture has some 10.
const MOST_SCANS: usize = 500;

/// Decodes a JPEG to RGB; if it cannot be decoded, returns the detail of the error. An EXIF
/// orientation has no effect, as in Pillow.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    // libjpeg cannot return an error: the binding unwinds, without a panic message.
    catch_unwind(AssertUnwindSafe(|| read(bytes))).unwrap_or_else(|thrown| {
        let detail = thrown.downcast::<String>().map_or_else(|_| "libjpeg gave up".to_owned(), |text| *text);
        Err(detail)
    })
}

fn read(bytes: &[u8]) -> Result<RgbImage, String> {
    let fail = |error: io::Error| error.to_string();
    let header = Decompress::builder().from_reader(Whole(bytes)).map_err(fail)?;
    let (width, height) = header.size();
    if width * height > MOST_PIXELS {
        return Err(format!("{width} x {height} pixels are more than {MOST_PIXELS}"));
    }
    // These bytes do not occur within the data of a scan.
    if bytes.windows(2).filter(|pair| pair == b"\xff\xda").count() > MOST_SCANS {
        return Err(format!("it has more than {MOST_SCANS} scans"));
    }
    let (mut picture, channels) = match header.image().map_err(fail)? {
        Format::Gray(picture) => (picture, 1),
        Format::RGB(picture) => (picture, 3),
        Format::CMYK(picture) => (picture, 4),
    };
    let values = picture.read_scanlines::<u8>().map_err(fail)?;
    picture.finish().map_err(fail)?;
    let rgb = match channels {
        1 => values.iter().flat_map(|grey| [*grey; 3]).collect(),
        4 => values.chunks_exact(4).flat_map(inverted_cmyk_to_rgb).collect(),
        _ => values,
    };
    RgbImage::from_raw(width as u32, height as u32, rgb).ok_or_else(|| format!("fewer pixels than {width} x {height}"))
}

/// Pillow's `cmyk2rgb` (src/libImaging/Convert.c). It takes all JPEG inks as inverted, 255 for
/// none, as Adobe's programs write them, with or without Adobe's marker.
fn inverted_cmyk_to_rgb(inks: &[u8]) -> [u8; 3] {
    let white = u32::from(inks[3]);
    std::array::from_fn(|channel| {
        let ink = 255 - u32::from(inks[channel]);
        // ink * white / 255, rounded.
        let product = ink * white + 128;
        white.saturating_sub((product + (product >> 8)) >> 8) as u8
    })
}

/// Bytes whose end is an error: libjpeg asks for more only if a picture is cut off,
/// and would make up the rest of it.
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Whole<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() { Err(io::Error::other("the JPEG ends too early")) } else { Ok(self.0) }
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}
