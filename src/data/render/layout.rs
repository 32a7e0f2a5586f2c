//! The pictures of a part: which views, and whether each has a picture of its own.

use std::str::FromStr;

use cadwright_rewards::{Geometry, Solid};
use image::RgbImage;
use thiserror::Error;

use super::{Canvas, Facets, Framing, MeshError, View, ViewError, canvas_side, draw_csg};

/// The views of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum Views {
    /// A picture each.
    Each(Vec<View>),
    /// Front, top, right and the data set's view in one picture, row by row.
    Grid,
}

/// A list that names no views.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ViewsError {
    /// A name is unknown.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A view is named twice: its pictures would have one name.
    #[error("view {0} is named twice")]
    Twice(&'static str),
    /// The grid stands beside other views.
    #[error("grid2x2 is one picture of four views; name no other view beside it")]
    Grid,
}

impl FromStr for Views {
    type Err = ViewsError;

    /// `grid2x2`, or names of views, separated by commas.
    fn from_str(text: &str) -> Result<Self, ViewsError> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        if names == ["grid2x2"] {
            return Ok(Self::Grid);
        }
        if names.contains(&"grid2x2") {
            return Err(ViewsError::Grid);
        }
        let mut views: Vec<View> = Vec::new();
        for view in names.into_iter().map(View::named).collect::<Result<Vec<_>, _>>()?.concat() {
            if views.contains(&view) {
                return Err(ViewsError::Twice(view.name()));
            }
            views.push(view);
        }
        Ok(Self::Each(views))
    }
}

impl Views {
    /// The names of the pictures; one picture alone has none.
    pub fn names(&self) -> Vec<Option<&'static str>> {
        match self {
            Self::Each(views) if views.len() > 1 => views.iter().map(|view| Some(view.name())).collect(),
            Self::Each(_) | Self::Grid => vec![None],
        }
    }

    /// The pictures of a solid in the data set's style, `size` pixels a side: one for each of
    /// [`Self::names`]. Each view fills its picture, so that they differ in scale. `has_faces` says
    /// whether a mesh knows the face of each triangle, which that of an STL file does not.
    ///
    /// # Errors
    /// See [`MeshError`].
    pub fn pictures(&self, solid: &Solid, has_faces: bool, size: u32) -> Result<Vec<RgbImage>, MeshError> {
        let facets = match &solid.geometry {
            Geometry::Csg(_) => None,
            Geometry::Mesh(mesh) if has_faces => {
                Some(Facets::with_faces(&mesh.vertices, &mesh.triangles, &mesh.faces)?)
            }
            Geometry::Mesh(mesh) => Some(Facets::with_creases(&mesh.vertices, &mesh.triangles)?),
        };
        let picture = |view: View, size: u32| match (&facets, &solid.geometry) {
            (Some(facets), _) => facets.picture(view, size),
            (None, Geometry::Csg(csg)) => {
                let side = canvas_side(size);
                let bounds = csg.bounds();
                let canvas = bounds.map(|bounds| draw_csg(csg, Framing::fit(&bounds, view, side)));
                canvas.unwrap_or_else(|| Canvas::new(side)).to_picture(size)
            }
            (None, Geometry::Mesh(_)) => unreachable!("every mesh has facets"),
        };
        Ok(match self {
            Self::Each(views) => views.iter().map(|view| picture(*view, size)).collect(),
            Self::Grid => vec![grid(View::drafting().map(|view| picture(view, size / 2)))],
        })
    }
}

/// Four pictures in one, row by row.
fn grid(pictures: [RgbImage; 4]) -> RgbImage {
    let side = pictures[0].width();
    let mut sheet = RgbImage::new(2 * side, 2 * side);
    for (place, picture) in pictures.iter().enumerate() {
        let (column, row) = (place % 2, place / 2);
        let corner = |place: usize| i64::from(place as u32 * side);
        image::imageops::replace(&mut sheet, picture, corner(column), corner(row));
    }
    sheet
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::csg::Vec3;
    use cadwright_rewards::samples::{block, block_mass, block_mesh};

    use super::*;

    #[test]
    fn lists_of_views_are_read_and_wrong_ones_say_why() {
        let names = |text: &str| text.parse::<Views>().map(|views| views.names());
        assert_eq!(names("iso"), Ok(vec![None]));
        assert_eq!(names("grid2x2"), Ok(vec![None]));
        assert_eq!(names("front, top"), Ok(vec![Some("front"), Some("top")]));
        assert_eq!(names("iso,iso"), Err(ViewsError::Twice("iso")));
        assert_eq!(names("grid2x2,iso"), Err(ViewsError::Grid));
        assert!(names("").unwrap_err().to_string().contains("expected iso"));
    }

    /// The rows and columns of a picture that show something: first and last.
    fn extent(picture: &RgbImage) -> [u32; 4] {
        let drawn: Vec<(u32, u32)> =
            picture.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] < 250).map(|(x, y, _)| (x, y)).collect();
        let range = |of: fn(&(u32, u32)) -> u32| {
            (drawn.iter().map(of).min().unwrap_or(0), drawn.iter().map(of).max().unwrap_or(0))
        };
        let ((left, right), (top, bottom)) = (range(|p| p.0), range(|p| p.1));
        [right - left, bottom - top, left, top]
    }

    #[test]
    fn the_grid_has_front_top_right_and_iso_row_by_row() {
        // 4 wide, 3 deep, 1 high: the front shows 4 : 1, the top 4 : 3, the right side 3 : 1.
        let solid = Solid::native(block(Vec3::zeros(), Vec3::new(4.0, 3.0, 1.0)), false);
        let sheet = Views::Grid.pictures(&solid, true, 448).unwrap().remove(0);
        assert_eq!(sheet.dimensions(), (448, 448));
        let ratio = |column: u32, row: u32| {
            let view = image::imageops::crop_imm(&sheet, column * 224, row * 224, 224, 224).to_image();
            let [width, height, ..] = extent(&view);
            f64::from(width) / f64::from(height)
        };
        for (found, expected) in [(ratio(0, 0), 4.0), (ratio(1, 0), 4.0 / 3.0), (ratio(0, 1), 3.0)] {
            assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
        }
        let views = "iso".parse::<Views>().unwrap();
        let iso = views.pictures(&solid, true, 224).unwrap().remove(0);
        assert_eq!(image::imageops::crop_imm(&sheet, 224, 224, 224, 224).to_image(), iso);
    }

    #[test]
    fn a_mesh_without_faces_looks_like_the_solid_it_came_from() {
        let (low, high) = ([0.0; 3], [4.0, 2.0, 1.0]);
        let exact = Solid::native(block(Vec3::zeros(), Vec3::from(high)), false);
        let mut mesh = block_mesh(low, high);
        // As from an STL file: a face for each triangle.
        mesh.faces = (0..12).collect();
        let meshed = Solid::meshed(block_mass(low, high), mesh, 1, false);
        for views in ["iso", "front", "left-back-top"].map(|name| name.parse::<Views>().unwrap()) {
            let [a, b] = [&exact, &meshed].map(|solid| views.pictures(solid, false, 448).unwrap().remove(0));
            // Lines may differ by half a canvas pixel; nothing else differs, and no side has a diagonal.
            let difference: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            assert!(difference / (a.as_raw().len() as f64) < 2.0, "{views:?}: {difference}");
            let lines = |picture: &RgbImage| picture.pixels().filter(|pixel| pixel.0[0] < 60).count() as f64;
            let ratio = lines(&b) / lines(&a);
            assert!((ratio - 1.0).abs() < 0.1, "{views:?}: {ratio} times the pixels of lines");
        }
    }
}
