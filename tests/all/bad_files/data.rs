//! Pictures and parquet files.

use cadwright::data::image::{decode_rgb, tiles, to_tensor};
use cadwright::data::parquet::{Row, ShardWriter};
use cadwright::data::{DataSource, Dataset, Place, Split, encode_png};

use super::{check_message, fixture, with_bad_file};
use crate::damage::read_bad_files;

const PICTURES: [&str; 15] = [
    "rgb.png",
    "bilevel.png",
    "grey-16-bits-transparent.png",
    "grey-alpha-16-bits.png",
    "rgba-16-bits.png",
    "palette-4-bits.png",
    "palette-transparent.png",
    "420-restarts.jpg",
    "progressive.jpg",
    "grey.jpg",
    "ycck.jpg",
    "lossy.webp",
    "lossless.webp",
    "lossy-alpha.webp",
    "animated.webp",
];

#[test]
fn damaged_pictures_are_refused_or_can_be_shown_to_the_model() {
    let samples = PICTURES.map(|name| fixture(&format!("images/{name}")));
    read_bad_files("pictures", 1200, samples.to_vec(), |bytes| match decode_rgb(bytes) {
        Ok(picture) if picture.width().max(picture.height()) <= 2000 => {
            let tiles = tiles(&picture, 14, 4, true);
            assert_eq!(to_tensor(&tiles).size(), [tiles.len() as i64, 3, 14, 14]);
        }
        // Resizing one takes seconds without optimisation.
        Ok(picture) => assert!(picture.width() > 0 && picture.height() > 0),
        Err(error) => check_message("cannot decode the picture", &error),
    });
}

/// Every scan of a progressive JPEG takes time for all of its pixels. Thousands of scans of a few
/// bytes each would take hours for a large picture.
#[test]
fn a_jpeg_with_thousands_of_scans_is_refused() {
    let mut bytes = fixture("images/progressive.jpg");
    let scan = bytes.windows(2).rposition(|pair| pair == b"\xff\xda").unwrap();
    let end = bytes.len() - 2;
    let last = bytes[scan..end].to_vec();
    bytes.splice(end..end, last.repeat(1000));
    check_message("more than 500 scans", &decode_rgb(&bytes).unwrap_err());
}

/// Header chunk of a PNG, by width and height, with a right checksum.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encode_png(&image::RgbImage::new(1, 1)).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = bytes[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn a_picture_that_claims_to_be_huge_costs_nothing() {
    for (width, height) in [(u32::MAX >> 1, u32::MAX >> 1), (1 << 20, 1 << 20), (100_000, 100_000), (0, 5), (5, 0)] {
        check_message("cannot decode the picture", &decode_rgb(&png_header(width, height)).unwrap_err());
    }
    let mut jpeg = fixture("images/rgb.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == b"\xff\xc0").unwrap();
    jpeg[frame + 5..frame + 9].fill(255);
    check_message("65500 pixels", &decode_rgb(&jpeg).unwrap_err());
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xf0, 0, 0xf0, 0]);
    check_message("61440 x 61440 pixels are more than", &decode_rgb(&jpeg).unwrap_err());
}

/// A file of two row groups.
fn parquet_file() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(directory.path(), Split::Train).unwrap();
    for group in 0..2 {
        let row = |part: usize| Row {
            id: format!("part-{group}-{part}"),
            image: encode_png(&image::RgbImage::from_pixel(3, 2, image::Rgb([part as u8; 3]))).unwrap(),
            image_path: format!("{part}.png"),
            program: "solid = cq.Workplane().box(1, 1, 1)\n".repeat(part + 1),
            token_count: 7,
            prompt: "Write it.".to_owned(),
            hundred_subset: part == 0,
        };
        writer.write(&(0..5).map(row).collect::<Vec<_>>()).unwrap();
    }
    std::fs::read(writer.close().unwrap().publish().unwrap()).unwrap()
}

fn open(path: &std::path::Path) -> Result<Dataset, cadwright::data::DataError> {
    Dataset::open(&DataSource::path(path.to_owned()), Split::Train, None)
}

#[test]
fn damaged_parquet_files_are_refused_or_give_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train-00000-of-00001.parquet");
    with_bad_file(
        "parquet",
        1500,
        vec![parquet_file()],
        directory.path(),
        "train-00000-of-00001.parquet",
        || match open(&path) {
            Ok(dataset) => assert!(!dataset.is_empty() && dataset.len() + dataset.skipped.len() <= 10_000),
            Err(error) => check_message("train-00000-of-00001.parquet", &error),
        },
    );
}

#[test]
fn damaged_jsonl_files_are_refused_or_give_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.jsonl");
    // A PNG of 1 x 1 pixel.
    let picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let row =
        |id: usize| serde_json::json!({"id": id, "image": picture, "program": "x = 1", "shape": null, "label": "a"});
    let good: String = (0..3).map(|id| format!("{}\n", row(id))).collect();
    let source = DataSource::new(Place::Jsonl(path));
    with_bad_file("jsonl", 600, vec![good.into_bytes()], directory.path(), "train.jsonl", || {
        match Dataset::open(&source, Split::Train, None) {
            Ok(dataset) => assert!(!dataset.is_empty() && dataset.len() + dataset.skipped.len() <= 10_000),
            Err(error) => check_message("train.jsonl", &error),
        }
    });
}

/// The parquet crate reserves memory for all row groups that the footer claims: 2^31 of them.
#[test]
fn a_footer_that_claims_many_row_groups_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train-00000-of-00001.parquet");
    let mut bytes = parquet_file();
    let end = bytes.len() - 8;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap());
    // A list of two structures.
    let list = (end - length as usize..end).find(|&i| bytes[i..].starts_with(&[0x19, 0x2c])).unwrap() + 1;
    bytes.splice(list..list + 1, [0xfc, 255, 255, 255, 255, 7]);
    let end = bytes.len() - 8;
    bytes[end..end + 4].copy_from_slice(&(length + 5).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    check_message("longer than the footer", &open(&path).unwrap_err());
}
