//! Pictures: the same numbers as Pillow's, the tiles of InternVL.

use std::io::Cursor;
use std::path::Path;

use cadwright::data::image::{DEVIATION, ImageError, MEAN, decode_rgb, normalise, resize_bicubic, tile_grid, tiles};
use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage, RgbaImage};

/// `picture` of scripts/reference/resize.py.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let step = if (x / 5 + y / 4) % 2 == 1 { 255 } else { 0 };
        let noise = ((x * 37 + y * 91 + x * y * 13) % 256) as u8;
        Rgb([step, noise, if x > y { 255 - step } else { 128 }])
    })
}

#[test]
fn bicubic_resizing_is_pillows() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/resize");
    for (from, to) in
        [((37, 23), (16, 16)), ((20, 30), (48, 40)), ((64, 48), (28, 28)), ((31, 50), (45, 21)), ((90, 7), (11, 7))]
    {
        let name = format!("{}x{}-{}x{}.png", from.0, from.1, to.0, to.1);
        let expected = image::open(directory.join(&name)).unwrap().into_rgb8();
        let found = resize_bicubic(&picture(from.0, from.1), to.0, to.1);
        assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
        assert_eq!(found.as_raw(), expected.as_raw(), "{name}");
    }
}

#[test]
fn the_tile_grid_follows_the_aspect_ratio_and_prefers_more_tiles_for_large_pictures() {
    // Worked out by hand from InternVL's dynamic_preprocess with image_size 448 and max_num 12.
    for (size, grid) in [
        ((448, 448), (1, 1)),
        ((896, 448), (2, 1)),
        // 2:1 again: (4, 2) has eight tiles, and the picture more than half of their pixels.
        ((1792, 896), (4, 2)),
        // 1:1: (2, 2) and (3, 3) tie with (1, 1); 800 x 800 exceeds half of 896 x 896, but not half of 1344 x 1344.
        ((800, 800), (2, 2)),
        ((448, 4480), (1, 10)),
        // Wider than any grid.
        ((9000, 448), (12, 1)),
    ] {
        assert_eq!(tile_grid(size.0, size.1, 448, 12), grid, "{size:?}");
    }
}

#[test]
fn tiles_are_cut_row_by_row_and_the_thumbnail_comes_last() {
    let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]];
    let quarters = RgbImage::from_fn(64, 64, |x, y| Rgb(colours[(y / 32 * 2 + x / 32) as usize]));
    let found = tiles(&quarters, 32, 4, true);
    assert_eq!(found.len(), 5);
    for (tile, colour) in found.iter().zip(colours) {
        assert_eq!(tile.get_pixel(16, 16), &Rgb(colour));
        assert_eq!(tile.dimensions(), (32, 32));
    }
    assert_eq!(tiles(&quarters, 32, 4, false).len(), 4);
    // One tile has no thumbnail, and a picture of the right size is not touched.
    assert_eq!(tiles(&quarters, 64, 1, true), [quarters]);
}

#[test]
fn every_kind_of_picture_becomes_rgb() {
    let encode = |picture: DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let grey = encode(GrayImage::from_pixel(4, 4, image::Luma([77])).into(), ImageFormat::Png);
    assert_eq!(decode_rgb(&grey).unwrap().get_pixel(1, 1), &Rgb([77, 77, 77]));
    // Pillow's convert("RGB") forgets the alpha channel, whatever it says.
    let clear = encode(RgbaImage::from_pixel(4, 4, image::Rgba([10, 20, 30, 0])).into(), ImageFormat::Png);
    assert_eq!(decode_rgb(&clear).unwrap().get_pixel(1, 1), &Rgb([10, 20, 30]));
    let webp = encode(RgbImage::from_pixel(4, 4, Rgb([1, 2, 3])).into(), ImageFormat::WebP);
    assert_eq!(decode_rgb(&webp).unwrap().get_pixel(1, 1), &Rgb([1, 2, 3]));
    let jpeg = encode(RgbImage::from_pixel(8, 8, Rgb([100, 100, 100])).into(), ImageFormat::Jpeg);
    assert!(decode_rgb(&jpeg).unwrap().get_pixel(1, 1)[0].abs_diff(100) <= 1);
}

#[test]
fn what_is_no_picture_is_an_error_that_says_so() {
    let mut png = Cursor::new(Vec::new());
    picture(20, 20).write_to(&mut png, ImageFormat::Png).unwrap();
    let png = png.into_inner();
    for bytes in [&b""[..], b"hello", &png[..png.len() / 2], &png[..8]] {
        assert!(matches!(decode_rgb(bytes), Err(ImageError::Decode { .. })));
    }
}

#[test]
fn normalised_planes_are_channel_first() {
    let two = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([255, 0, 51]) } else { Rgb([0, 255, 0]) });
    let mut planes = [0.0; 6];
    normalise(&two, &mut planes);
    // By hand: (1 - 0.485) / 0.229 = 2.2489, (0 - 0.485) / 0.229 = -2.1179, (0.2 - 0.406) / 0.225 = -0.9156.
    for (found, expected) in planes.iter().zip([2.2489, -2.1179, -2.0357, 2.4286, -0.9156, -1.8044]) {
        assert!((found - expected).abs() < 1e-4, "{planes:?}");
    }
    assert_eq!((MEAN[0], DEVIATION[2]), (0.485, 0.225));
}
