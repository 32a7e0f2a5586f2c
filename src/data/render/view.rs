//! The directions from which a part is drawn.

use cadwright_rewards::csg::Vec3;
use thiserror::Error;

/// A direction from which a part is seen, orthographically: a right-handed set of unit vectors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    pub(super) right: Vec3,
    pub(super) up: Vec3,
    /// From the part to the viewer.
    pub(super) toward: Vec3,
    name: &'static str,
}

/// The eight corners, by the signs of the direction to the viewer. The data set's view is first.
const CORNERS: [(&str, [f64; 3]); 8] = [
    ("iso", [1.0, -1.0, 1.0]),
    ("right-back-top", [1.0, 1.0, 1.0]),
    ("left-back-top", [-1.0, 1.0, 1.0]),
    ("left-front-top", [-1.0, -1.0, 1.0]),
    ("right-front-bottom", [1.0, -1.0, -1.0]),
    ("right-back-bottom", [1.0, 1.0, -1.0]),
    ("left-back-bottom", [-1.0, 1.0, -1.0]),
    ("left-front-bottom", [-1.0, -1.0, -1.0]),
];

/// The six axis views: the direction to the viewer, and the one that points up in the picture.
const AXES: [(&str, [f64; 3], [f64; 3]); 6] = [
    ("front", [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]),
    ("back", [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
    ("left", [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    ("right", [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    ("top", [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
    ("bottom", [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]),
];

/// A name that is no view.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "view {name:?} is unknown; expected iso, corners, axes, front, back, left, right, top, bottom, or a corner such \
     as left-front-top"
)]
pub struct ViewError {
    /// The name.
    pub name: String,
}

impl View {
    /// The data set's view: from (1, -1, 1), with z up.
    pub fn isometric() -> Self {
        Self::corners()[0]
    }

    /// The views from the eight corners of a cube, with z up. The first one is the data set's.
    pub fn corners() -> [Self; 8] {
        CORNERS.map(|(name, toward)| Self::along(name, toward, [0.0, 0.0, 1.0]))
    }

    /// The six views along the axes: front (from -y), back, left (from -x), right, top, bottom.
    pub fn axes() -> [Self; 6] {
        AXES.map(|(name, toward, up)| Self::along(name, toward, up))
    }

    /// Front, top, right and the data set's view.
    pub fn drafting() -> [Self; 4] {
        let [front, _, _, right, top, _] = Self::axes();
        [front, top, right, Self::isometric()]
    }

    /// The views of a name: `iso` (or `isometric`) for the data set's view, `corners` for all eight
    /// corners, `axes` for all six axis views, or the name of one view: see [`View::name`].
    ///
    /// # Errors
    /// The name is unknown.
    pub fn named(name: &str) -> Result<Vec<Self>, ViewError> {
        let unknown = || ViewError { name: name.to_owned() };
        match name {
            "isometric" | "right-front-top" => Ok(vec![Self::isometric()]),
            "corners" => Ok(Self::corners().to_vec()),
            "axes" => Ok(Self::axes().to_vec()),
            name => {
                let mut all = Self::corners().into_iter().chain(Self::axes());
                Ok(vec![all.find(|view| view.name == name).ok_or_else(unknown)?])
            }
        }
    }

    /// `iso`, `front`, `back`, `left`, `right`, `top`, `bottom`, or for another corner the side, the
    /// front or the back, and the top or the bottom, such as `left-front-top`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The view with the viewer in the direction `toward`, in which `up` points up.
    fn along(name: &'static str, toward: [f64; 3], up: [f64; 3]) -> Self {
        let toward = Vec3::from(toward).normalize();
        let right = Vec3::from(up).cross(&toward).normalize();
        Self { right, up: toward.cross(&right), toward, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_right_handed_and_found_by_their_names() {
        for view in View::corners().into_iter().chain(View::axes()) {
            assert!((view.right.cross(&view.up) - view.toward).norm() < 1e-12, "{view:?}");
            assert!(view.up.z > 0.0 || view.toward.z.abs() == 1.0, "{view:?}");
            assert_eq!(View::named(view.name()).unwrap(), [view]);
        }
        assert_eq!(View::named("isometric").unwrap(), [View::isometric()]);
        assert_eq!((View::named("corners").unwrap().len(), View::named("axes").unwrap().len()), (8, 6));
        assert!(View::named("sideways").unwrap_err().to_string().contains("\"sideways\""));
    }

    #[test]
    fn the_front_shows_x_to_the_right_and_the_top_shows_y_up() {
        let [front, _, left, _, top, bottom] = View::axes();
        assert_eq!((front.right, front.up), (Vec3::x(), Vec3::z()));
        assert_eq!((left.right, left.up), (-Vec3::y(), Vec3::z()));
        assert_eq!((top.right, top.up), (Vec3::x(), Vec3::y()));
        assert_eq!((bottom.right, bottom.up), (Vec3::x(), -Vec3::y()));
    }
}
