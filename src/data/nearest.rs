//! The labelled parts whose pictures are most like a given one.

use std::sync::Arc;

use image::imageops::thumbnail;
use rayon::prelude::*;

use super::dataset::{Dataset, Example};
use super::error::DataError;
use super::image::decode_rgb;
use super::{DataSource, Split};

/// Side of the grey pictures that are compared, in pixels.
const SIDE: u32 = 16;

/// A picture, small and grey: rows of brightness.
type Descriptor = [u8; (SIDE * SIDE) as usize];

/// Labelled parts with a descriptor of each picture.
#[derive(Debug)]
pub struct Library {
    parts: Dataset,
    /// Indices of the parts that have programs.
    labelled: Vec<usize>,
    /// Their descriptors.
    descriptors: Vec<Descriptor>,
}

impl Library {
    /// The first `rows` training rows of `source` (0: all), of which the first `labelled` show
    /// their programs (0: all).
    ///
    /// # Errors
    /// See [`Dataset::open_selection`].
    pub fn open(source: &DataSource, rows: usize, labelled: usize) -> Result<Self, DataError> {
        let mut parts = Dataset::open(source, Split::Train, (rows > 0).then_some(rows))?;
        if labelled > 0 {
            parts.keep_programs(labelled);
        }
        Ok(Self::new(parts))
    }

    /// The rows of `parts` that have programs.
    pub fn new(parts: Dataset) -> Self {
        let examples = parts.examples();
        let labelled: Vec<usize> = (0..examples.len()).filter(|&index| examples[index].program.is_some()).collect();
        let descriptors = labelled.par_iter().map(|&index| descriptor(&examples[index])).collect();
        Self { parts, labelled, descriptors }
    }

    /// All its parts.
    pub fn parts(&self) -> &Dataset {
        &self.parts
    }

    /// Number of parts that have programs.
    pub fn len(&self) -> usize {
        self.labelled.len()
    }

    /// Whether no part has a program.
    pub fn is_empty(&self) -> bool {
        self.labelled.is_empty()
    }

    /// The `count` labelled parts whose pictures are nearest to that of `example`, as indices into
    /// [`Self::parts`], the nearest last: beside the request. Distances are those of the grey
    /// pictures of 16 x 16 pixels; of equal ones, the part in the earlier row is nearer. The part
    /// itself, known by its id or its picture, is left out. There are fewer if the library has
    /// fewer.
    pub fn nearest(&self, example: &Example, count: usize) -> Vec<usize> {
        let wanted = descriptor(example);
        let is_other = |&index: &usize| {
            let part = &self.parts.examples()[index];
            part.id != example.id && part.image != example.image
        };
        let mut found: Vec<(u32, usize)> = self
            .labelled
            .iter()
            .zip(&self.descriptors)
            .filter(|(index, _)| is_other(index))
            .map(|(&index, descriptor)| (distance(&wanted, descriptor), index))
            .collect();
        found.sort_unstable();
        found.truncate(count);
        found.iter().rev().map(|(_, index)| *index).collect()
    }
}

/// For each row of a data set, the parts of a library that are shown as examples.
#[derive(Debug, Clone)]
pub struct Examples {
    labelled: Arc<Library>,
    /// By row: indices into the parts of the library, the nearest last.
    nearest: Vec<Vec<usize>>,
}

impl Examples {
    /// Finds `count` examples for each row of `dataset`.
    ///
    /// # Errors
    /// The library has fewer parts besides that of a row.
    pub fn of(dataset: &Dataset, library: Arc<Library>, count: usize) -> Result<Self, DataError> {
        let nearest: Vec<Vec<usize>> =
            dataset.examples().par_iter().map(|example| library.nearest(example, count)).collect();
        match nearest.iter().map(Vec::len).min() {
            Some(found) if found < count => Err(DataError::Examples { wanted: count, found }),
            _ => Ok(Self { labelled: library, nearest }),
        }
    }

    /// The examples for a row, the nearest last.
    pub fn of_row(&self, row: usize) -> impl Iterator<Item = &Example> {
        self.nearest[row].iter().map(|&index| &self.labelled.parts().examples()[index])
    }
}

/// The brightness of the picture, averaged over the cells of a grid.
fn descriptor(example: &Example) -> Descriptor {
    let picture = decode_rgb(&example.image).expect("a dataset holds only pictures that decode");
    let small = image::DynamicImage::ImageRgb8(thumbnail(&picture, SIDE, SIDE)).into_luma8();
    let mut descriptor = [0; (SIDE * SIDE) as usize];
    descriptor.copy_from_slice(small.as_raw());
    descriptor
}

/// The sum of squared differences.
fn distance(a: &Descriptor, b: &Descriptor) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::super::encode_png;
    use super::*;

    /// A white picture of 32 x 32 pixels with a black square of `side` pixels at (x, y).
    fn part(id: &str, [x, y, side]: [u32; 3], program: Option<&str>) -> Example {
        let picture = RgbImage::from_fn(32, 32, |u, v| {
            let is_in = (x..x + side).contains(&u) && (y..y + side).contains(&v);
            Rgb([if is_in { 0 } else { 255 }; 3])
        });
        Example {
            id: id.into(),
            image: encode_png(&picture).unwrap().into(),
            further: Vec::new(),
            program: program.map(str::to_owned),
            ground_truth: "".into(),
            label: None,
            hundred_subset: false,
        }
    }

    fn library(parts: Vec<Example>) -> Library {
        Library::new(Dataset::of_examples(parts).unwrap())
    }

    #[test]
    fn the_nearest_pictures_are_found_and_the_nearest_is_last() {
        let at = |x: u32| [x, 4, 8];
        let library = library(vec![
            part("far", at(20), Some("far")),
            part("near", at(6), Some("near")),
            part("unlabelled", at(4), None),
            part("nearest", at(5), Some("nearest")),
            part("farther", at(10), Some("farther")),
        ]);
        let wanted = part("wanted", at(4), None);
        assert_eq!(library.nearest(&wanted, 3), [4, 1, 3]);
        assert_eq!(library.nearest(&wanted, 9), [0, 4, 1, 3]);
        assert_eq!((library.len(), library.parts().len()), (4, 5));
    }

    #[test]
    fn a_part_is_never_its_own_example() {
        let square = [4, 4, 8];
        let library = library(vec![
            part("itself", square, Some("a")),
            // The same picture under another id is the same part, too.
            part("again", square, Some("b")),
            part("other", [4, 4, 9], Some("c")),
        ]);
        assert_eq!(library.nearest(&part("itself", square, None), 3), [2]);
        // The id alone is enough.
        assert_eq!(library.nearest(&part("other", [4, 4, 8], None), 3), Vec::<usize>::new());
    }

    #[test]
    fn equally_near_parts_come_in_the_order_of_their_rows() {
        // Shifted by as much to each side: mirror images of each other.
        let library = library(vec![
            part("right", [14, 12, 8], Some("right")),
            part("left", [10, 12, 8], Some("left")),
            part("down", [12, 14, 8], Some("down")),
        ]);
        let wanted = part("wanted", [12, 12, 8], None);
        assert_eq!(library.nearest(&wanted, 2), [1, 0]);
        assert_eq!(library.nearest(&wanted, 3), [2, 1, 0]);
    }

    #[test]
    fn the_same_picture_in_another_size_is_as_near() {
        let example = part("small", [8, 8, 16], Some("x"));
        let large =
            image::imageops::resize(&decode_rgb(&example.image).unwrap(), 64, 64, image::imageops::FilterType::Nearest);
        let large = Example { image: encode_png(&large).unwrap().into(), ..part("large", [0, 0, 1], None) };
        assert_eq!(distance(&descriptor(&example), &descriptor(&large)), 0);
    }
}
