//! The frames in which two solids are compared.

use std::fmt;
use std::str::FromStr;

use nalgebra::{Matrix3, SymmetricEigen, Vector3};
use serde::{Deserialize, Serialize};

use crate::grid::{Grid, GridSpec, Pose, overlap, rasterise, voxelise};
use crate::mesh::Bounds;
use crate::outcome::{Geometry, Solid};

/// The coordinates in which two solids are compared. Each score names its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The programs' own coordinates: position, direction and size all count.
    Canonical,
    /// Each solid is moved to its centroid and scaled by 1 / radius of gyration: only direction
    /// counts.
    #[serde(alias = "normalized")]
    Normalised,
    /// Normalised, then the best IoU over the identity and the 24 proper rotations that take the
    /// prediction's principal axes to the ground truth's. Uses no reflections. Never below the
    /// normalised IoU.
    Aligned,
    /// The published "best IoU" between shells, which is not an IoU of solids; see
    /// [`shell`](crate::shell).
    Shell,
    /// Canonical coordinates, with OpenCASCADE's booleans instead of grids. Slow; meant for audits.
    Exact,
}

/// An invalid frame setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No frame has this name.
    #[error("unknown frame \"{0}\"; use one of: {known}", known = Frame::known())]
    Unknown(String),
    /// The list of frames is empty.
    #[error("no frame given; name at least one of: {known}", known = Frame::known())]
    None,
}

impl Frame {
    /// Every frame, in the order of rows and summaries.
    pub const ALL: [Self; 5] = [Self::Canonical, Self::Normalised, Self::Aligned, Self::Shell, Self::Exact];

    /// The name in flags, config keys and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Normalised => "normalised",
            Self::Aligned => "aligned",
            Self::Shell => "shell",
            Self::Exact => "exact",
        }
    }

    /// Whether [`frame_iou`] computes this frame. The other frames need CadQuery, even if the
    /// native engine executed the programs.
    pub fn is_of_grids(self) -> bool {
        matches!(self, Self::Canonical | Self::Normalised | Self::Aligned)
    }

    /// Parses a list such as `canonical,aligned`. Requires at least one name, drops repeated names
    /// and keeps the order.
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
            "shell" => Ok(Self::Shell),
            "exact" => Ok(Self::Exact),
            _ => Err(FrameError::Unknown(name.to_owned())),
        }
    }
}

/// IoU of two solids on `n^3` cells in `frame`, in [0, 1].
///
/// Returns 0 if the frame is undefined for one of the solids (normalised and aligned need a
/// positive volume) and in a frame that is not [of grids](Frame::is_of_grids).
pub fn frame_iou(frame: Frame, n: usize, prediction: &Solid, ground_truth: &Solid) -> f64 {
    place(frame, n, prediction, ground_truth).map_or(0.0, |placed| placed.iou)
}

/// Two solids, posed as a frame compares them.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The IoU that [`frame_iou`] returns.
    pub iou: f64,
    /// Pose of the prediction. In [`Frame::Aligned`] it has the best rotation.
    pub prediction: Pose,
    /// Pose of the ground truth.
    pub ground_truth: Pose,
}

/// The IoU of two solids as [`frame_iou`] computes it, and the poses that give it. `None` if the
/// frame is undefined for one of the solids.
pub fn place(frame: Frame, n: usize, prediction: &Solid, ground_truth: &Solid) -> Option<Placed> {
    if !frame.is_of_grids() {
        return None;
    }
    let placed = |moved: Pose, fixed: &Pose| {
        let iou = placed_iou(n, (prediction, &moved), (ground_truth, fixed));
        Placed { iou, prediction: moved, ground_truth: *fixed }
    };
    if frame == Frame::Canonical {
        return Some(placed(Pose::identity(), &Pose::identity()));
    }
    let (moved, fixed) = (Pose::normalising(prediction)?, Pose::normalising(ground_truth)?);
    let plain = placed(moved, &fixed);
    if frame == Frame::Normalised {
        return Some(plain);
    }
    let (from, to) = (principal_axes(prediction), principal_axes(ground_truth));
    let turned = cube_rotations()
        .into_iter()
        .map(|turn| placed(Pose { rotation: to * turn * from.transpose(), ..moved }, &fixed));
    Some(turned.fold(plain, |best, placed| if placed.iou > best.iou { placed } else { best }))
}

/// A prediction is far-reaching if, along some axis, the common bounds are this many times as long
/// as the ground truth's.
const FAR: f64 = 4.0;

/// A ground truth is far-reaching if the common bounds are this many times as long as the
/// prediction's. A grid of 64 cells then leaves the prediction four of them.
const FAR_TRUTH: f64 = 16.0;

/// IoU of two bodies, each placed by its pose.
///
/// On one common grid, a far-away speck would leave the other body only a handful of cells, so that
/// any part touching those cells could look the same. If one body is far-reaching, this counts the
/// shared volume on a grid over the intersection of the bounds, and takes the rest from known
/// volumes: `|A or B| = |A| + |B| - |A and B|`. If a volume is not meaningful, one grid covers the
/// ground truth and its surroundings, and a second grid counts the cells that the prediction
/// occupies beyond them.
pub(crate) fn placed_iou(n: usize, prediction: (&Solid, &Pose), ground_truth: (&Solid, &Pose)) -> f64 {
    let (reach, truth) = (prediction.1.bounds(prediction.0), ground_truth.1.bounds(ground_truth.0));
    let wide = GridSpec::spanning(n, &reach, &truth);
    let size = |bounds: &Bounds| -> [f64; 3] { std::array::from_fn(|axis| bounds.max[axis] - bounds.min[axis]) };
    let (reach_size, truth_size) = (size(&reach), size(&truth));
    let is_longer = |times: f64, size: &[f64; 3]| (0..3).any(|axis| wide.cell[axis] * n as f64 > times * size[axis]);
    let is_flat = |size: &[f64; 3]| size.iter().any(|size| *size <= 0.0);
    let is_far = is_longer(FAR, &truth_size);
    // A flat body occupies nothing anyway.
    if is_flat(&truth_size) || is_flat(&reach_size) || !(is_far || is_longer(FAR_TRUTH, &reach_size)) {
        return iou_on_grid(n, (prediction, &reach), (ground_truth, &truth));
    }
    if let Some(iou) = iou_by_volumes(n, prediction, ground_truth, &reach.common(&truth)) {
        return iou;
    }
    if !is_far {
        return iou_on_grid(n, (prediction, &reach), (ground_truth, &truth));
    }
    let all = reach.union(&truth);
    let near = Bounds {
        min: std::array::from_fn(|axis| all.min[axis].max(truth.min[axis] - truth_size[axis])),
        max: std::array::from_fn(|axis| all.max[axis].min(truth.max[axis] + truth_size[axis])),
    };
    let narrow = GridSpec::spanning(n, &near, &near);
    let (both, either) = overlap(&occupied(prediction, &narrow), &occupied(ground_truth, &narrow));
    let beyond = count_beyond(&occupied(prediction, &wide), &wide, &near) as f64;
    let cells = (0..3).map(|axis| wide.cell[axis] / narrow.cell[axis]).product::<f64>();
    if either == 0 { 0.0 } else { both as f64 / (either as f64 + beyond * cells) }
}

/// With fewer occupied cells than this the IoU is inaccurate: a tube whose wall is an eighth of a
/// cell was off by 0.06.
const FEW_CELLS: u64 = 4096;

/// On a coarse grid, fewer than one cell in so many are few.
const FEW_SHARE: u64 = 8;

/// The finest grid has this many times the requested number of cells along an edge.
const FINEST: usize = 4;

/// IoU on one grid over both bodies, given their bounds. If they occupy few of its cells, uses a
/// finer grid.
fn iou_on_grid(n: usize, a: ((&Solid, &Pose), &Bounds), b: ((&Solid, &Pose), &Bounds)) -> f64 {
    let mut cells = n;
    loop {
        let spec = GridSpec::spanning(cells, a.1, b.1);
        let (both, either) = overlap(&occupied(a.0, &spec), &occupied(b.0, &spec));
        if either >= FEW_CELLS.min(cells.pow(3) as u64 / FEW_SHARE) || cells >= FINEST * n {
            return if either == 0 { 0.0 } else { both as f64 / either as f64 };
        }
        cells *= 2;
    }
}

/// IoU from the shared volume, counted on a grid over the intersection of the bounds, and from the
/// known volumes. `None` if these volumes cannot be trusted.
fn iou_by_volumes(n: usize, a: (&Solid, &Pose), b: (&Solid, &Pose), common: &Bounds) -> Option<f64> {
    /// Tolerance for a shared volume that seems larger than the body itself, by the resolution of a
    /// grid.
    const SLACK: f64 = 1.02;
    let volume = |(solid, pose): (&Solid, &Pose)| {
        let volume = solid.mass().volume * pose.scale.powi(3);
        (!solid.malformed && !solid.iou_uncertain && volume > 0.0 && solid.is_mass_certain()).then_some(volume)
    };
    let (a_volume, b_volume) = (volume(a)?, volume(b)?);
    if (0..3).any(|axis| common.max[axis] <= common.min[axis]) {
        return Some(0.0);
    }
    let spec = GridSpec::spanning(n, common, common);
    let (both, _) = overlap(&occupied(a, &spec), &occupied(b, &spec));
    let shared = both as f64 * spec.cell.iter().product::<f64>();
    let least = a_volume.min(b_volume);
    (shared <= SLACK * least).then(|| shared.min(least) / (a_volume + b_volume - shared.min(least)))
}

/// The cells of `spec` that a posed solid occupies.
pub(crate) fn occupied((solid, pose): (&Solid, &Pose), spec: &GridSpec) -> Grid {
    match &solid.geometry {
        Geometry::Mesh(mesh) if *pose == Pose::identity() => voxelise(mesh, spec),
        Geometry::Mesh(mesh) => voxelise(&mesh.mapped(|v| pose.apply(Vector3::from(v)).into()), spec),
        Geometry::Csg(csg) => rasterise(csg, pose, spec),
    }
}

/// Number of occupied cells whose samples lie outside of `near`.
fn count_beyond(grid: &Grid, spec: &GridSpec, near: &Bounds) -> usize {
    let n = grid.n();
    let is_beyond =
        |sample: [f64; 3]| (0..3).any(|axis| sample[axis] < near.min[axis] || sample[axis] > near.max[axis]);
    let columns = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
    let in_column = |(i, j)| (0..n).filter(|&k| grid.get(i, j, k) && is_beyond(spec.sample(i, j, k))).count();
    columns.map(in_column).sum()
}

impl Pose {
    /// Moves the centroid to the origin and scales by 1 / radius of gyration.
    fn normalising(solid: &Solid) -> Option<Self> {
        let scale = 1.0 / solid.mass().radius_of_gyration()?;
        Some(Self { center: solid.mass().centroid.into(), rotation: Matrix3::identity(), scale })
    }

    /// Bounds of a posed solid. Those of a boolean tree may be too large unless the pose is the
    /// identity.
    fn bounds(&self, solid: &Solid) -> Bounds {
        if *self == Self::identity() {
            return *solid.bounds();
        }
        match &solid.geometry {
            Geometry::Mesh(mesh) => {
                Bounds::of(&mesh.vertices.iter().map(|&v| self.apply(v.into()).into()).collect::<Vec<_>>())
            }
            Geometry::Csg(csg) => {
                let extents = [0, 1, 2].map(|axis| {
                    let direction = self.rotation.row(axis).transpose();
                    let [low, high] = [-solid.reach(csg, -direction), solid.reach(csg, direction)];
                    let center = direction.dot(&self.center);
                    [(low - center) * self.scale, (high - center) * self.scale]
                });
                Bounds { min: extents.map(|extent| extent[0]), max: extents.map(|extent| extent[1]) }
            }
        }
    }
}

/// Principal axes as the columns of a proper rotation, by ascending moment.
fn principal_axes(solid: &Solid) -> Matrix3<f64> {
    let inertia = Matrix3::from_fn(|row, column| solid.mass().inertia[row][column]);
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
