//! A contact sheet: pictures of a data set in one.

use image::imageops::{replace, thumbnail};
use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::super::image::decode_rgb;
use super::super::{Dataset, Split};

/// Pictures in a row.
const COLUMNS: usize = 12;
/// Side of a picture, and the gap between two, in pixels.
const SIDE: u32 = 112;
const GAP: u32 = 4;
/// The gap and, between two splits, a line in it.
const WHITE: Rgb<u8> = Rgb([255; 3]);
const LINE: Rgb<u8> = Rgb([120; 3]);

/// Up to `count` pictures of each split, evenly spaced over its rows, in rows of twelve. The splits
/// follow each other, with a grey line between them. A part with several pictures shows the first.
pub fn contact_sheet(splits: &[(Split, Dataset)], count: usize) -> RgbImage {
    let chosen: Vec<Vec<RgbImage>> = splits.iter().map(|(_, dataset)| chosen(dataset, count)).collect();
    let rows: usize = chosen.iter().map(|pictures| pictures.len().div_ceil(COLUMNS)).sum();
    let at = |place: usize| GAP + place as u32 * (SIDE + GAP);
    let mut sheet = RgbImage::from_pixel(at(COLUMNS), at(rows.max(1)), WHITE);
    let mut row = 0;
    for pictures in chosen.iter().filter(|pictures| !pictures.is_empty()) {
        if row > 0 {
            for (x, y) in (0..sheet.width()).flat_map(|x| [(x, at(row) - GAP / 2), (x, at(row) - GAP / 2 - 1)]) {
                sheet.put_pixel(x, y, LINE);
            }
        }
        for (place, picture) in pictures.iter().enumerate() {
            let (left, top) = (at(place % COLUMNS), at(row + place / COLUMNS));
            replace(&mut sheet, picture, i64::from(left), i64::from(top));
        }
        row += pictures.len().div_ceil(COLUMNS);
    }
    sheet
}

/// Pictures of evenly spaced rows, made to fit.
fn chosen(dataset: &Dataset, count: usize) -> Vec<RgbImage> {
    let count = count.min(dataset.len());
    (0..count)
        .into_par_iter()
        .map(|place| &dataset.examples()[place * dataset.len() / count])
        .filter_map(|example| decode_rgb(&example.image).ok())
        .map(|picture| fitted(&picture))
        .collect()
}

/// The picture in the middle of a white square.
fn fitted(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    let scaled = |side: u32| ((side * SIDE + longest / 2) / longest).max(1);
    let small = thumbnail(picture, scaled(width), scaled(height));
    let mut square = RgbImage::from_pixel(SIDE, SIDE, WHITE);
    let middle = |side: u32| i64::from((SIDE - side) / 2);
    replace(&mut square, &small, middle(small.width()), middle(small.height()));
    square
}

#[cfg(test)]
mod tests {
    use super::super::super::{Example, encode_png};
    use super::*;

    fn dataset(colours: &[u8]) -> Dataset {
        let example = |colour: &u8| Example {
            id: String::new(),
            image: encode_png(&RgbImage::from_pixel(224, 112, Rgb([*colour, 0, 0]))).unwrap().into(),
            further: Vec::new(),
            program: None,
            ground_truth: "".into(),
            label: None,
            hundred_subset: false,
        };
        Dataset::of_examples(colours.iter().map(example).collect()).unwrap()
    }

    #[test]
    fn splits_begin_new_rows_and_pictures_are_evenly_spaced() {
        let splits = [(Split::Train, dataset(&[10, 20, 30, 40])), (Split::Test, dataset(&[50]))];
        let sheet = contact_sheet(&splits, 2);
        assert_eq!(sheet.dimensions(), (4 + 12 * 116, 4 + 2 * 116));
        let middle = |column: u32, row: u32| sheet.get_pixel(60 + 116 * column, 60 + 116 * row).0;
        assert_eq!((middle(0, 0), middle(1, 0)), ([10, 0, 0], [30, 0, 0]));
        assert_eq!((middle(2, 0), middle(0, 1)), ([255; 3], [50, 0, 0]));
        // A wide picture is 112 x 56 in the middle of its square.
        assert_eq!((sheet.get_pixel(60, 20).0, sheet.get_pixel(60, 40).0), ([255; 3], [10, 0, 0]));
        assert_eq!(sheet.get_pixel(0, 118).0, [120; 3]);
    }
}
