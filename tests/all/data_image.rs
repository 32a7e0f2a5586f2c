//! Pictures give the pixels and tiles that Pillow and torchvision give
//! (scripts/reference/images.py).

use std::collections::BTreeSet;
use std::path::PathBuf;

use cadwright::data::image::{ImageError, decode_rgb, normalise, tile_grid, tiles, to_tensor};
use image::{Rgb, RgbImage};
use tch::{Kind, Tensor};

const PNG: [&str; 14] = [
    "rgb.png",
    "grey.png",
    "bilevel.png",
    "grey-2-bits.png",
    "grey-16-bits.png",
    "grey-16-bits-transparent.png",
    "grey-alpha.png",
    "grey-alpha-16-bits.png",
    "rgb-16-bits.png",
    "rgba.png",
    "rgba-16-bits.png",
    "palette.png",
    "palette-4-bits.png",
    "palette-transparent.png",
];
const JPEG: [&str; 8] = [
    "444.jpg",
    "422.jpg",
    "420.jpg",
    "420-restarts.jpg",
    "progressive.jpg",
    "rgb.jpg",
    "grey.jpg",
    // Pixels stay as stored: Pillow's `convert` does not rotate them either.
    "exif-rotated.jpg",
];
const JPEG_OF_INKS: [&str; 3] = ["cmyk-adobe.jpg", "cmyk-plain.jpg", "ycck.jpg"];
const WEBP: [&str; 5] = ["lossy.webp", "lossless.webp", "lossy-alpha.webp", "lossless-alpha.webp", "animated.webp"];
const SHAPES: [&str; 7] = ["square.png", "wide.png", "tall.png", "dot.png", "needle.png", "tile.png", "huge.png"];

/// The tile size of the fixture.
const SIZE: u32 = 14;

fn fixture(name: &str) -> PathBuf {
    crate::harness::fixture("images").join(name)
}

fn fixture_bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Each of these, decoded and tiled with a thumbnail, equals the reference bit by bit.
#[track_caller]
fn assert_reference(names: &[&str]) {
    for name in names {
        let expected = decode_rgb(&fixture_bytes(&format!("{name}.tiles.png"))).unwrap();
        let picture = decode_rgb(&fixture_bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = tiles(&picture, SIZE, 12, true);
        assert_eq!(found.len() as u32 * SIZE, expected.height(), "{name}: number of tiles");
        let found: Vec<u8> = found.iter().flat_map(|tile| tile.as_raw().iter().copied()).collect();
        let worst = found.iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(worst, Some(0), "{name}: the largest difference of 255");
    }
}

#[test]
fn every_fixture_is_compared() {
    let compared: BTreeSet<String> =
        [&PNG[..], &JPEG, &JPEG_OF_INKS, &WEBP, &SHAPES].concat().into_iter().map(str::to_owned).collect();
    let names = std::fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = names.filter_map(|name| Some(name.strip_suffix(".tiles.png")?.to_owned())).collect();
    assert_eq!(there, compared);
}

#[test]
fn png_of_every_colour_type_is_pillows() {
    assert_reference(&PNG);
}

#[test]
fn jpeg_is_pillows_with_any_subsampling_and_order() {
    assert_reference(&JPEG);
}

#[test]
fn jpeg_of_inks_is_pillows_with_and_without_adobes_marker() {
    assert_reference(&JPEG_OF_INKS);
}

#[test]
fn webp_is_pillows_and_transparent_pixels_keep_their_colour() {
    assert_reference(&WEBP);
}

#[test]
fn pictures_of_every_shape_are_resized_and_cut_as_by_the_reference() {
    assert_reference(&SHAPES);
}

#[test]
fn the_tile_grid_is_the_references_for_every_small_picture() {
    // One line for each height; two hexadecimal digits, columns and rows, for each width. Tiles
    // have side 7.
    let table = String::from_utf8(fixture_bytes("grids.txt")).unwrap();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap();
    let mut compared = 0;
    for (line, height) in table.lines().zip(1..) {
        for (grid, width) in line.as_bytes().chunks_exact(2).zip(1..) {
            assert_eq!(tile_grid(width, height, 7, 12), (digit(grid[0]), digit(grid[1])), "{width} x {height}");
            compared += 1;
        }
    }
    assert_eq!(compared, 64 * 64);
}

#[test]
fn the_tile_grid_follows_the_aspect_ratio_and_prefers_more_tiles_for_large_pictures() {
    // Computed by hand from InternVL's dynamic_preprocess with image_size 448 and max_num 12.
    for (size, grid) in [
        ((448, 448), (1, 1)),
        ((896, 448), (2, 1)),
        // 2:1 again: (4, 2) has eight tiles, and the picture more than half of their pixels.
        ((1792, 896), (4, 2)),
        // 1:1: (2, 2) and (3, 3) tie with (1, 1); 800 x 800 exceeds half of 896 x 896, but not half
        // of 1344 x 1344.
        ((800, 800), (2, 2)),
        ((448, 4480), (1, 10)),
        // Wider than every grid.
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
    // A single tile has no thumbnail, and a picture of the right size is not resized.
    assert_eq!(tiles(&quarters, 64, 1, true), [quarters]);
}

#[test]
fn what_is_no_picture_is_an_error_that_says_so() {
    let assert_cut_off = |name: &str, whole: &[u8], length: usize| {
        let found = decode_rgb(&whole[..length]);
        assert!(matches!(found, Err(ImageError::Decode { .. })), "{name}: {length} of {} bytes", whole.len());
    };
    for name in ["rgb.png", "420.jpg", "progressive.jpg", "lossy.webp", "lossless.webp"] {
        let whole = fixture_bytes(name);
        assert_cut_off(name, &whole, 8);
        assert_cut_off(name, &whole, whole.len() / 2);
        // Pillow also refuses a JPEG without its last byte; most decoders invent the rest.
        if name.ends_with("jpg") {
            assert_cut_off(name, &whole, whole.len() - 1);
        }
    }
    let other: [&[u8]; 3] = [b"", b"hello", b"\xff\xd8\xff\xd9"];
    for bytes in other {
        assert!(matches!(decode_rgb(bytes), Err(ImageError::Decode { .. })), "{bytes:?}");
    }
}

#[test]
fn a_format_that_is_not_read_is_named_with_those_that_are() {
    let cases: [(&[u8], &str); 3] = [(b"GIF89a", "Gif"), (b"BM______", "Bmp"), (b"II*\0____", "Tiff")];
    for (bytes, name) in cases {
        let message = decode_rgb(bytes).unwrap_err().to_string();
        for word in [name, "PNG", "JPEG", "WebP"] {
            assert!(message.contains(word), "{message}");
        }
    }
}

#[test]
fn a_jpeg_that_claims_to_be_enormous_is_refused_before_memory_is_taken() {
    let mut jpeg = fixture_bytes("grey.jpg");
    let start = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("the frame header");
    // Height and width follow length and precision.
    jpeg[start + 5..start + 9].copy_from_slice(&[0x10, 0x00, 0xff, 0x00]);
    let message = decode_rgb(&jpeg).unwrap_err().to_string();
    assert!(message.contains("65280 x 4096 pixels are more than"), "{message}");
}

#[test]
fn normalised_pixels_are_torchvisions_for_every_byte() {
    let tensors = Tensor::read_safetensors(fixture("normalised.safetensors")).unwrap();
    let named = |wanted: &str| &tensors.iter().find(|(name, _)| name == wanted).unwrap().1;
    let found = normalise(named("pixels"));
    assert_eq!((found.size(), found.kind()), (vec![1, 3, 16, 16], Kind::Float));
    let worst = (found - named("normalised")).abs().max().double_value(&[]);
    assert!(worst <= 1e-6, "{worst}");
}

#[test]
fn tiles_become_planes_one_after_another() {
    let tile = |first: u8| RgbImage::from_fn(2, 2, |x, y| Rgb([0, 10, 20].map(|c| first + c + (y * 2 + x) as u8)));
    let tensor = to_tensor(&[tile(0), tile(100)]);
    assert_eq!((tensor.size(), tensor.kind()), (vec![2, 3, 2, 2], Kind::Uint8));
    let values = Vec::<u8>::try_from(tensor.view(-1)).unwrap();
    let planes = [0, 10, 20, 100, 110, 120].map(|first| [first, first + 1, first + 2, first + 3]);
    assert_eq!(values, planes.concat());
}
