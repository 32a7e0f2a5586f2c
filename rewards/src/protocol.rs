//! Metrics exactly as others publish them, so that numbers can be compared. `docs/metrics.md` has
//! the sources and what differs.

use std::fmt;
use std::str::FromStr;

use nalgebra::{Matrix3, Vector3};
use serde::{Deserialize, Serialize};

use crate::eigh::eigh;
use crate::frames::placed_iou;
use crate::grid::Pose;
use crate::mesh::Bounds;
use crate::nearest::both_ways;
use crate::outcome::Solid;
use crate::surface;

/// Points on each surface for cadrille's chamfer distance.
const CADRILLE_POINTS: usize = 8192;

/// Points on each surface for CADBench's metrics.
const CADBENCH_POINTS: usize = 10_000;

/// A point counts as met in CADBench's surface IoU if the other surface is nearer than this. The
/// ground truth's longest side is 2.
const CADBENCH_NEAR: f64 = 0.02;

/// The seeds of the points of prediction and ground truth.
const SEEDS: [u64; 2] = [1, 2];

/// A published way to compare a prediction with its ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// `evaluate.py` of cadrille and CAD-Recode: bounding boxes are brought together, nothing is
    /// turned.
    Cadrille,
    /// CADBench (DeCoDE Lab): centres of mass, sizes and principal axes are brought together.
    Cadbench,
}

/// The name is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol \"{0}\"; use cadrille or cadbench")]
pub struct UnknownProtocol(String);

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::Cadrille, Self::Cadbench];

    /// The name in flags, config keys and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cadrille => "cadrille",
            Self::Cadbench => "cadbench",
        }
    }

    /// Parses a list such as `cadrille,cadbench`; it may be empty.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, UnknownProtocol> {
        let mut protocols = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let protocol = name.parse()?;
            if !protocols.contains(&protocol) {
                protocols.push(protocol);
            }
        }
        Ok(protocols)
    }

    /// Compares two solids. `n` is the number of cells along each axis of the grids that volumes are
    /// counted on. `truth_is_file`: the ground truth is an STL file, which may be in its protocol's
    /// coordinates already.
    pub fn score(self, n: usize, prediction: &Solid, truth: &Solid, truth_is_file: bool) -> ProtocolScore {
        match self {
            Self::Cadrille => cadrille(n, prediction, truth, truth_is_file),
            Self::Cadbench => cadbench(n, prediction, truth),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.name() == name);
        found.ok_or_else(|| UnknownProtocol(name.to_owned()))
    }
}

/// The numbers of one protocol about one prediction; `None` where there is nothing to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ProtocolScore {
    /// Chamfer distance, in the protocol's units.
    pub cd: Option<f64>,
    /// IoU of the volumes, in [0, 1].
    pub iou: Option<f64>,
    /// Share of surface points that are near the other surface; CADBench only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siou: Option<f64>,
}

/// cadrille: each part moved to the centre of its bounding box and divided by its longest side.
///
/// A ground truth from an STL file that lies in the unit cube is taken as it is, as the published
/// test sets are. The chamfer distance is the mean squared distance to the nearest point of the
/// other surface, both ways added, of 8,192 points each.
fn cadrille(n: usize, prediction: &Solid, truth: &Solid, truth_is_file: bool) -> ProtocolScore {
    let Some(moved) = boxed(prediction, 1.0) else { return ProtocolScore::default() };
    let in_place = Pose { center: Vector3::repeat(0.5), ..Pose::identity() };
    let fixed = if truth_is_file && is_in_unit_cube(truth.bounds()) { Some(in_place) } else { boxed(truth, 1.0) };
    let Some(fixed) = fixed else { return ProtocolScore::default() };
    let clouds = Clouds::of(CADRILLE_POINTS, (prediction, &moved), (truth, &fixed));
    ProtocolScore {
        cd: clouds.map(|clouds| clouds.mean(|squared| squared)),
        iou: Some(placed_iou(n, (prediction, &moved), (truth, &fixed))),
        siou: None,
    }
}

/// CADBench: both parts moved to their centres of mass and divided by `sqrt(tr I / m)`; the best IoU
/// over no rotation and the four that bring the principal axes together. Distances are measured where
/// the ground truth's longest side is 2.
fn cadbench(n: usize, prediction: &Solid, truth: &Solid) -> ProtocolScore {
    let (Some(moved), Some(fixed), Some(unit)) = (by_mass(prediction), by_mass(truth), boxed(truth, 2.0)) else {
        return ProtocolScore::default();
    };
    let turned = |rotation| Pose { rotation, ..moved };
    let iou = |pose: &Pose| placed_iou(n, (prediction, pose), (truth, &fixed));
    let mut best = (iou(&moved), moved);
    for pose in rotations(prediction, truth).into_iter().map(turned) {
        let iou = iou(&pose);
        if iou > best.0 {
            best = (iou, pose);
        }
    }
    // From the common centre and size to the ground truth's place in its unit.
    let size = unit.scale / fixed.scale;
    let clouds = Clouds::of(
        CADBENCH_POINTS,
        (prediction, &Pose { scale: best.1.scale * size, ..best.1 }),
        (truth, &Pose { scale: fixed.scale * size, ..fixed }),
    );
    ProtocolScore {
        cd: clouds.as_ref().map(|clouds| clouds.mean(f64::sqrt)),
        iou: Some(best.0),
        siou: clouds.map(|clouds| clouds.share_below(CADBENCH_NEAR)),
    }
}

/// The pose that moves a part to the centre of its bounding box and makes its longest side `side`.
fn boxed(solid: &Solid, side: f64) -> Option<Pose> {
    let Bounds { min, max } = *solid.bounds();
    let longest = (0..3).map(|axis| max[axis] - min[axis]).fold(0.0, f64::max);
    let center = Vector3::from_fn(|axis, _| (min[axis] + max[axis]) / 2.0);
    let pose = Pose { center, scale: side / longest, ..Pose::identity() };
    (pose.scale.is_finite() && pose.scale > 0.0).then_some(pose)
}

/// Within the unit cube, and filling it along some axis.
fn is_in_unit_cube(bounds: &Bounds) -> bool {
    const SLACK: f64 = 1e-3;
    let is_within = (0..3).all(|axis| bounds.min[axis] >= -SLACK && bounds.max[axis] <= 1.0 + SLACK);
    is_within && (0..3).any(|axis| bounds.max[axis] - bounds.min[axis] >= 1.0 - SLACK)
}

/// The pose that moves a part to its centre of mass and divides it by `sqrt(tr I / m)`.
fn by_mass(solid: &Solid) -> Option<Pose> {
    let mass = solid.mass();
    let trace: f64 = (0..3).map(|axis| mass.inertia[axis][axis]).sum();
    let scale = (mass.volume / trace).sqrt();
    (mass.volume > 0.0 && scale.is_finite() && scale > 0.0).then(|| Pose {
        center: mass.centroid.into(),
        scale,
        ..Pose::identity()
    })
}

/// The four rotations that take the prediction's principal axes to the ground truth's. The axes have
/// the signs of the usual solver, as in the published code; if these make one of the frames
/// left-handed, all four reflect.
fn rotations(prediction: &Solid, truth: &Solid) -> Vec<Matrix3<f64>> {
    let axes = |solid: &Solid| {
        let inertia = Matrix3::from_fn(|row, column| solid.mass().inertia[row][column]);
        let (_, axes) = eigh(&inertia)?;
        // By descending moment.
        Some(Matrix3::from_columns(&[axes.column(2), axes.column(1), axes.column(0)]))
    };
    let (Some(from), Some(to)) = (axes(prediction), axes(truth)) else { return Vec::new() };
    let flips = [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]];
    flips.map(|flip| to * (from * Matrix3::from_diagonal(&Vector3::from(flip))).transpose()).to_vec()
}

/// For each point of each surface the squared distance to the nearest point of the other.
struct Clouds([Vec<f64>; 2]);

impl Clouds {
    fn of(n: usize, a: (&Solid, &Pose), b: (&Solid, &Pose)) -> Option<Self> {
        let cloud = |(solid, pose): (&Solid, &Pose), seed| -> Option<Vec<[f64; 3]>> {
            let points = surface::points(solid, n, seed)?;
            Some(points.into_iter().map(|point| pose.apply(point.into()).into()).collect())
        };
        let (a, b) = (cloud(a, SEEDS[0])?, cloud(b, SEEDS[1])?);
        Some(Self(both_ways(&a, &b)))
    }

    /// The mean of a function of the squared distances, both ways added.
    fn mean(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.0
            .iter()
            .map(|squared| squared.iter().map(|&squared| of(squared)).sum::<f64>() / squared.len() as f64)
            .sum()
    }

    fn share_below(&self, distance: f64) -> f64 {
        let below = self.0.iter().flatten().filter(|squared| squared.sqrt() < distance).count();
        below as f64 / self.0.iter().map(Vec::len).sum::<usize>() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csg::Vec3;
    use crate::samples::{block, block_mass, block_mesh};

    const N: usize = 96;

    fn exact(min: [f64; 3], size: [f64; 3]) -> Solid {
        Solid::native(block(Vec3::from(min), Vec3::from(size)), false)
    }

    fn meshed(min: [f64; 3], max: [f64; 3]) -> Solid {
        Solid::meshed(block_mass(min, max), block_mesh(min, max), 1, false)
    }

    #[test]
    fn cadrille_forgives_place_and_size_and_nothing_else() {
        let plate = exact([0.0; 3], [4.0, 2.0, 1.0]);
        let same = Protocol::Cadrille.score(N, &exact([7.0, -3.0, 1.0], [2.0, 1.0, 0.5]), &plate, false);
        assert!(same.iou.unwrap() > 0.999 && same.cd.unwrap() * 1e3 < 0.2, "{same:?}");
        // Turned by a right angle: 1 x 0.5 x 0.25 against 0.5 x 1 x 0.25.
        let turned = Protocol::Cadrille.score(N, &exact([0.0; 3], [2.0, 4.0, 1.0]), &plate, false);
        assert!((turned.iou.unwrap() - 1.0 / 3.0).abs() < 0.01, "{turned:?}");
        assert!(turned.siou.is_none());
    }

    /// Two plates of the same outline whose distance is known nearly everywhere.
    #[test]
    fn cadrille_distances_are_squared_and_added() {
        let (thick, thin) = (exact([0.0; 3], [1.0, 1.0, 0.2]), exact([0.0; 3], [1.0, 1.0, 0.002]));
        let cd = Protocol::Cadrille.score(N, &thin, &thick, false).cd.unwrap();
        // Thin to thick: 0.099^2, but d^2 where the rim is nearer, at d < 0.099: 0.00747 on average.
        // Thick to thin: 0.099^2 from its faces (2 of 2.8), a third of that from its rim: 0.00794.
        assert!((cd / 0.0154 - 1.0).abs() < 0.03, "{cd}");
    }

    #[test]
    fn a_ground_truth_in_the_unit_cube_stays_where_it_is() {
        // Its longest side is 1, but it is not in the middle.
        let truth = meshed([0.0; 3], [1.0, 0.5, 0.25]);
        let prediction = exact([0.0; 3], [2.0, 1.0, 0.5]);
        let as_file = Protocol::Cadrille.score(N, &prediction, &truth, true);
        let as_program = Protocol::Cadrille.score(N, &prediction, &truth, false);
        assert!(as_program.iou.unwrap() > 0.999, "{as_program:?}");
        // Moved by (0, 0.25, 0.375): the two do not meet along z.
        assert!(as_file.iou.unwrap() < 1e-6, "{as_file:?}");
        let larger = meshed([0.0; 3], [2.0, 1.0, 0.5]);
        assert!(Protocol::Cadrille.score(N, &prediction, &larger, true).iou.unwrap() > 0.999);
    }

    #[test]
    fn cadbench_forgives_place_size_and_direction() {
        let truth = exact([0.0; 3], [4.0, 2.0, 1.0]);
        let turned = exact([5.0, 5.0, 5.0], [0.5, 1.0, 2.0]);
        let score = Protocol::Cadbench.score(N, &turned, &truth, false);
        assert!(score.iou.unwrap() > 0.99, "{score:?}");
        assert!(score.cd.unwrap() < 0.06 && score.siou.unwrap() > 0.5, "{score:?}");
    }

    /// Distances are in the ground truth's box of longest side 2, and not squared.
    #[test]
    fn cadbench_measures_in_half_longest_sides() {
        let (truth, scaled) = (exact([0.0; 3], [10.0, 10.0, 1.0]), exact([0.0; 3], [10.0, 10.0, 0.01]));
        let score = Protocol::Cadbench.score(N, &scaled, &truth, false);
        // Half the thickness is 0.1 in this unit.
        let cd = score.cd.unwrap();
        assert!((0.16..0.21).contains(&cd), "{score:?}");
        assert!(score.siou.unwrap() < 0.2, "{score:?}");
    }

    #[test]
    fn exact_solids_and_their_meshes_agree() {
        let truth = exact([0.0; 3], [3.0, 2.0, 1.0]);
        let prediction = ([0.0; 3], [3.0, 1.5, 1.2]);
        for protocol in Protocol::ALL {
            let [a, b] = [exact(prediction.0, prediction.1), meshed(prediction.0, prediction.1)]
                .map(|solid| protocol.score(N, &solid, &truth, false));
            assert!((a.iou.unwrap() - b.iou.unwrap()).abs() < 0.01, "{a:?} {b:?}");
            assert!((a.cd.unwrap() / b.cd.unwrap() - 1.0).abs() < 0.03, "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_cannot_be_measured_has_no_number() {
        let empty = Solid::meshed(block_mass([0.0; 3], [0.0; 3]), crate::mesh::Mesh::default(), 1, false);
        let plate = exact([0.0; 3], [4.0, 2.0, 1.0]);
        for protocol in Protocol::ALL {
            assert_eq!(protocol.score(N, &empty, &plate, false), ProtocolScore::default());
        }
    }

    #[test]
    fn names() {
        assert_eq!(
            Protocol::parse_list("cadbench, cadrille,cadbench").unwrap(),
            [Protocol::Cadbench, Protocol::Cadrille]
        );
        assert_eq!(Protocol::parse_list("").unwrap(), []);
        assert!(Protocol::parse_list("cad").unwrap_err().to_string().contains("use cadrille or cadbench"));
    }
}
