//! The frames in which two solids are compared.

use std::fmt;
use std::str::FromStr;

use nalgebra::{Matrix3, SymmetricEigen, Vector3};
use serde::{Deserialize, Serialize};

use crate::grid::{Grid, GridSpec, iou, voxelise};
use crate::outcome::{Mesh, Solid};

/// In which coordinates two solids are compared. Each score says which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The programs' own coordinates: position, direction and size count.
    Canonical,
    /// Each solid moved to its centroid and scaled by 1 / radius of gyration: direction counts.
    Normalised,
    /// Normalised, and the best over the identity and the 24 proper rotations that take the
    /// prediction's principal axes to the ground truth's. No reflections; never below normalised.
    Aligned,
}

/// A frame that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The name belongs to a frame that is planned.
    #[error("frame \"{0}\" is not available yet; use one of: {known}", known = Frame::known())]
    NotYet(String),
    /// The name means nothing.
    #[error("unknown frame \"{0}\"; use one of: {known}", known = Frame::known())]
    Unknown(String),
    /// A list of frames without any.
    #[error("no frame given; name at least one of: {known}", known = Frame::known())]
    None,
}

impl Frame {
    /// Every frame, in the order of rows and summaries.
    pub const ALL: [Self; 3] = [Self::Canonical, Self::Normalised, Self::Aligned];

    /// The name in flags, config keys and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Normalised => "normalised",
            Self::Aligned => "aligned",
        }
    }

    /// Parses `canonical,aligned`: at least one name; repeated ones count once, order is kept.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, FrameError> {
        let mut frames = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let frame = name.parse()?;
            if !frames.contains(&frame) {
                frames.push(frame);
            }
        }
        if frames.is_empty() { Err(FrameError::None) } else { Ok(frames) }
    }

    fn known() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Frame {
    type Err = FrameError;

    fn from_str(name: &str) -> Result<Self, FrameError> {
        match name {
            "canonical" => Ok(Self::Canonical),
            "normalised" | "normalized" => Ok(Self::Normalised),
            "aligned" => Ok(Self::Aligned),
            "shell" | "exact" => Err(FrameError::NotYet(name.to_owned())),
            _ => Err(FrameError::Unknown(name.to_owned())),
        }
    }
}

/// IoU of two solids on `n^3` cells in `frame`, in [0, 1].
///
/// Where a frame has no meaning for one of them (normalised and aligned need a positive volume),
/// the IoU is 0.
pub fn frame_iou(frame: Frame, n: usize, prediction: &Solid, ground_truth: &Solid) -> f64 {
    match frame {
        Frame::Canonical => mesh_iou(n, &prediction.mesh, &ground_truth.mesh),
        Frame::Normalised => match (normalised(prediction), normalised(ground_truth)) {
            (Some(prediction), Some(ground_truth)) => mesh_iou(n, &prediction, &ground_truth),
            _ => 0.0,
        },
        Frame::Aligned => match (normalised(prediction), normalised(ground_truth)) {
            (Some(moved), Some(fixed)) => {
                let (from, to) = (principal_axes(prediction), principal_axes(ground_truth));
                let plain = mesh_iou(n, &moved, &fixed);
                cube_rotations()
                    .into_iter()
                    .map(|turn| to * turn * from.transpose())
                    .map(|rotation| mesh_iou(n, &rotated(&moved, &rotation), &fixed))
                    .fold(plain, f64::max)
            }
            _ => 0.0,
        },
    }
}

/// IoU of two meshes in their own coordinates.
fn mesh_iou(n: usize, a: &Mesh, b: &Mesh) -> f64 {
    let spec = GridSpec::spanning(n, &a.bounds(), &b.bounds());
    let grids: [Grid; 2] = [voxelise(a, &spec), voxelise(b, &spec)];
    iou(&grids[0], &grids[1])
}

/// The mesh about its centroid, scaled by 1 / radius of gyration.
fn normalised(solid: &Solid) -> Option<Mesh> {
    let scale = 1.0 / solid.mass.radius_of_gyration()?;
    let centroid = solid.mass.centroid;
    Some(solid.mesh.mapped(|v| std::array::from_fn(|axis| (v[axis] - centroid[axis]) * scale)))
}

fn rotated(mesh: &Mesh, rotation: &Matrix3<f64>) -> Mesh {
    mesh.mapped(|v| (rotation * Vector3::from(v)).into())
}

/// Principal axes as the columns of a proper rotation, by ascending moment.
fn principal_axes(solid: &Solid) -> Matrix3<f64> {
    let inertia = Matrix3::from_fn(|row, column| solid.mass.inertia[row][column]);
    let eigen = SymmetricEigen::new(inertia);
    let mut order = [0, 1, 2];
    order.sort_by(|&a, &b| eigen.eigenvalues[a].total_cmp(&eigen.eigenvalues[b]));
    let mut axes = Matrix3::from_columns(&order.map(|k| eigen.eigenvectors.column(k).into_owned()));
    if axes.determinant() < 0.0 {
        axes.column_mut(2).neg_mut();
    }
    axes
}

/// The 24 proper rotations of the cube: signed permutations of the axes with determinant 1.
fn cube_rotations() -> Vec<Matrix3<f64>> {
    let permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut rotations = Vec::with_capacity(24);
    for permutation in permutations {
        for signs in 0..8u8 {
            let mut rotation = Matrix3::zeros();
            for row in 0..3 {
                rotation[(row, permutation[row])] = if signs >> row & 1 == 0 { 1.0 } else { -1.0 };
            }
            if rotation.determinant() > 0.0 {
                rotations.push(rotation);
            }
        }
    }
    rotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_errors_list_the_known_ones() {
        for frame in Frame::ALL {
            assert_eq!(frame.name().parse(), Ok(frame));
        }
        let error = "cannonical".parse::<Frame>().unwrap_err().to_string();
        assert!(error.contains("cannonical") && error.contains("canonical, normalised, aligned"));
        let error = "shell".parse::<Frame>().unwrap_err().to_string();
        assert!(error.contains("not available yet"), "{error}");
    }

    #[test]
    fn lists_keep_their_order_and_lose_repeats() {
        assert_eq!(Frame::parse_list("aligned, canonical,aligned"), Ok(vec![Frame::Aligned, Frame::Canonical]));
        assert_eq!(Frame::parse_list(" ,"), Err(FrameError::None));
    }

    #[test]
    fn there_are_24_distinct_proper_rotations() {
        let rotations = cube_rotations();
        assert_eq!(rotations.len(), 24);
        for (index, a) in rotations.iter().enumerate() {
            assert!((a.determinant() - 1.0).abs() < 1e-12);
            assert!(rotations[..index].iter().all(|b| a != b));
        }
    }
}
