//! Sketch planes, built as CadQuery builds them.

use thiserror::Error;

use super::{Vec2, Vec3};

/// The reason why three vectors do not make a plane.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PlaneError {
    /// The normal is zero.
    #[error("plane: the normal must not be zero, found {found:?}")]
    ZeroNormal {
        /// The normal given.
        found: [f64; 3],
    },
    /// The x direction is zero.
    #[error("plane: xDir must not be zero, found {found:?}")]
    ZeroXDir {
        /// The x direction given.
        found: [f64; 3],
    },
    /// The x direction has no component in the plane.
    #[error("plane: xDir {x_dir:?} is parallel to the normal {normal:?}")]
    Parallel {
        /// The x direction given.
        x_dir: [f64; 3],
        /// The normal given.
        normal: [f64; 3],
    },
}

/// An origin with an orthonormal frame. `z` is the normal.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Position of sketch coordinates (0, 0) in space.
    pub origin: Vec3,
    /// Unit direction of sketch x.
    pub x: Vec3,
    /// Unit direction of sketch y.
    pub y: Vec3,
    /// Unit normal.
    pub z: Vec3,
}

impl Plane {
    /// `cq.Plane(origin, xDir, normal)`: normalises the normal, projects `x_dir` into the plane and
    /// normalises it; y completes the right-handed frame.
    pub fn new(origin: Vec3, x_dir: Vec3, normal: Vec3) -> Result<Self, PlaneError> {
        // The modelling kernel treats a vector shorter than this as zero.
        const RESOLUTION: f64 = 1e-12;
        if normal.norm() <= RESOLUTION {
            return Err(PlaneError::ZeroNormal { found: normal.into() });
        }
        if x_dir.norm() <= RESOLUTION {
            return Err(PlaneError::ZeroXDir { found: x_dir.into() });
        }
        let z = normal.normalize();
        let in_plane = x_dir - z * x_dir.dot(&z);
        if in_plane.norm() <= RESOLUTION * x_dir.norm() {
            return Err(PlaneError::Parallel { x_dir: x_dir.into(), normal: normal.into() });
        }
        let x = in_plane.normalize();
        Ok(Self { origin, x, y: z.cross(&x), z })
    }

    /// The plane through `origin` with the axes of space.
    pub fn xy(origin: Vec3) -> Self {
        Self { origin, x: Vec3::x(), y: Vec3::y(), z: Vec3::z() }
    }

    /// Converts sketch coordinates and height to space.
    pub fn to_space(&self, point: Vec2, height: f64) -> Vec3 {
        self.origin + self.x * point.x + self.y * point.y + self.z * height
    }

    /// Converts a point in space to sketch coordinates (x, y) and height (z).
    pub fn to_local(&self, point: Vec3) -> Vec3 {
        self.direction_to_local(point - self.origin)
    }

    /// Converts a direction in space to the plane's frame.
    pub fn direction_to_local(&self, direction: Vec3) -> Vec3 {
        Vec3::new(direction.dot(&self.x), direction.dot(&self.y), direction.dot(&self.z))
    }

    /// Converts a direction in the plane's frame to space.
    pub fn direction_to_space(&self, direction: Vec3) -> Vec3 {
        self.x * direction.x + self.y * direction.y + self.z * direction.z
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_x_direction_is_projected_and_y_completes_a_right_handed_frame() {
        let plane = Plane::new(Vec3::zeros(), Vec3::new(2.0, 0.0, 5.0), Vec3::new(0.0, 0.0, 3.0)).unwrap();
        assert_eq!(plane.x, Vec3::x());
        assert_eq!(plane.y, Vec3::y());
        // The front plane of the data set: x to the right, y up, normal towards the viewer.
        let front = Plane::new(Vec3::zeros(), Vec3::x(), -Vec3::y()).unwrap();
        assert_eq!(front.y, Vec3::z());
    }

    #[test]
    fn degenerate_frames_are_refused() {
        let (zero, x, z) = (Vec3::zeros(), Vec3::x(), Vec3::z());
        assert!(matches!(Plane::new(zero, x, zero), Err(PlaneError::ZeroNormal { .. })));
        assert!(matches!(Plane::new(zero, zero, z), Err(PlaneError::ZeroXDir { .. })));
        assert!(matches!(Plane::new(zero, z * 2.0, z), Err(PlaneError::Parallel { .. })));
    }

    #[test]
    fn local_coordinates_and_back() {
        let plane = Plane::new(Vec3::new(1.0, 2.0, 3.0), Vec3::new(1.0, 1.0, 0.0), Vec3::new(1.0, -1.0, 2.0)).unwrap();
        let point = Vec3::new(-0.3, 0.7, 0.2);
        let local = plane.to_local(point);
        assert!((plane.to_space(local.xy(), local.z) - point).norm() < 1e-14);
    }
}
