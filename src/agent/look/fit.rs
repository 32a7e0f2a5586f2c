//! The zoom and shift between a candidate's picture and the input picture.
//!
//! Gauss-Newton on the coarse maps: silhouette and lines, blurred. The input's gradients are used
//! in place of the candidate's, which agree once both are aligned; so they and the normal matrix
//! are computed once per input picture.

use nalgebra::{Matrix3, Vector3};

use super::features::{Features, SIDE};
use super::map::{Between, Map, Points};

/// Side of the coarse maps.
const COARSE: usize = SIDE / 2;
/// The weight of lines beside silhouettes: lines are thin, so that their maps are paler.
const LINE_WEIGHT: f32 = 3.0;
/// Steps from each start.
const STEPS: usize = 5;

/// The placement of a candidate's picture in the input picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Enlargement around the picture's centre; 1 for the automatic framing.
    pub zoom: f64,
    /// Movement after it, to the right and down, in shares of the picture's side.
    pub shift: [f64; 2],
}

impl Placement {
    /// The automatic framing.
    pub const IDENTITY: Self = Self { zoom: 1.0, shift: [0.0; 2] };

    /// How far it is from another one, in units of a usual disturbance: 5 % of zoom, 3 % of the
    /// side.
    pub fn distance(&self, other: &Self) -> f64 {
        let zoom = (self.zoom / other.zoom).ln() / 0.05;
        let shift = [0, 1].map(|axis| (self.shift[axis] - other.shift[axis]) / 0.03);
        (zoom * zoom + shift[0] * shift[0] + shift[1] * shift[1]).sqrt()
    }

    /// The logarithm of the zoom, and the shift in places of the coarse maps.
    fn in_places(self) -> Vector3<f64> {
        Vector3::new(self.zoom.ln(), self.shift[0] * COARSE as f64, self.shift[1] * COARSE as f64)
    }
}

/// An input picture, prepared for the fit of many candidates.
#[derive(Debug, Clone)]
pub struct Target {
    /// Silhouette and lines.
    maps: [Map; 2],
    /// For each map, the change of the picture with the logarithm of the zoom, and with the shift
    /// along x and y in places.
    slopes: [[Map; 3]; 2],
    /// The inverse of the normal matrix.
    inverse: Matrix3<f64>,
    /// Sum of squares of each map.
    energy: [f64; 2],
    frame: Frame,
}

/// The box around a silhouette: centre and size, in places.
#[derive(Debug, Clone, Copy)]
struct Frame {
    center: [f64; 2],
    size: [f64; 2],
}

impl Target {
    /// Prepares a picture.
    pub fn new(features: &Features) -> Self {
        let maps = [features.coarse[0].clone(), features.coarse[1].map(|value| value * LINE_WEIGHT)];
        let slopes = maps.clone().map(|map| {
            let [x, y] = map.gradients();
            let middle = COARSE as f32 / 2.0;
            let values = (0..COARSE * COARSE).map(|i| {
                let (u, v) = ((i % COARSE) as f32 + 0.5 - middle, (i / COARSE) as f32 + 0.5 - middle);
                -(u * x.values()[i] + v * y.values()[i])
            });
            [Map::of_values(COARSE, values.collect()), x.map(|slope| -slope), y.map(|slope| -slope)]
        });
        let normal = Matrix3::from_fn(|i, j| slopes.iter().map(|slopes| slopes[i].dot(&slopes[j])).sum());
        // A little of the identity: without gradients there is nothing to fit.
        let ridge = Matrix3::from_diagonal(&Vector3::new(1.0, 1e-2, 1e-2));
        let inverse = (normal + ridge).try_inverse().unwrap_or_else(Matrix3::zeros);
        let energy = [0, 1].map(|i| maps[i].dot(&maps[i]));
        Self { maps, slopes, inverse, energy, frame: Frame::around(&features.coarse[0]) }
    }

    /// The placement of a candidate whose picture has these features in the automatic framing. The
    /// fit starts from `start` or from the silhouettes' boxes, whichever agrees better.
    pub fn fit(&self, candidate: &Features, start: Placement) -> Placement {
        let lines = &candidate.coarse[1];
        // Lines may be wider or paler in the input: only their places count.
        let scale = (self.energy[1] / lines.dot(lines).max(1e-6)).sqrt().min(20.0) as f32;
        let maps = [Points::of(&candidate.coarse[0]), Points::of(&lines.map(|value| value * scale))];
        let boxes = self.frame.onto(&Frame::around(&candidate.coarse[0]));
        let squares = [start, boxes].map(|start| self.residual(&maps, start.in_places()).0);
        self.refine(&maps, if squares[1] < squares[0] { boxes } else { start })
    }

    /// Gauss-Newton from a start: the best placement on the way.
    fn refine(&self, candidate: &[Points; 2], start: Placement) -> Placement {
        let mut at = start.in_places();
        let mut best = (start, f64::INFINITY);
        for _ in 0..=STEPS {
            let (squares, slope) = self.residual(candidate, at);
            if squares < best.1 {
                let shift = [at[1] / COARSE as f64, at[2] / COARSE as f64];
                best = (Placement { zoom: at[0].exp(), shift }, squares);
            }
            let step = self.inverse * slope;
            at -= step;
            at = Vector3::new(at[0].clamp(-0.4, 0.4), at[1].clamp(-14.0, 14.0), at[2].clamp(-14.0, 14.0));
            if step.norm() < 1e-3 {
                break;
            }
        }
        best.0
    }

    /// The sum of squared differences of the candidate at this placement, and half its slope.
    fn residual(&self, candidate: &[Points; 2], at: Vector3<f64>) -> (f64, Vector3<f64>) {
        let middle = COARSE as f32 / 2.0;
        let shrink = (-at[0]).exp() as f32;
        let (left, top) = (middle + at[1] as f32, middle + at[2] as f32);
        // All maps have one size, so their places are the same.
        let source = |at: usize, start: f32| candidate[0].between(middle + (at as f32 + 0.5 - start) * shrink);
        let columns: [Between; COARSE] = std::array::from_fn(|x| source(x, left));
        let mut squares = 0.0;
        let mut slope = Vector3::zeros();
        let mut differences = [0.0f32; COARSE];
        for (i, points) in candidate.iter().enumerate() {
            let rows = self.maps[i].values().chunks_exact(COARSE);
            for (y, target) in rows.enumerate() {
                let v = source(y, top);
                for ((difference, column), target) in differences.iter_mut().zip(&columns).zip(target) {
                    *difference = points.at(*column, v) - target;
                }
                let row = |map: &Map| dot(&differences, &map.values()[y * COARSE..]);
                squares += dot(&differences, &differences);
                slope += Vector3::from(self.slopes[i].each_ref().map(row));
            }
        }
        (squares, slope)
    }
}

/// The sum of the products of two rows.
fn dot(a: &[f32; COARSE], b: &[f32]) -> f64 {
    /// As many sums as a vector register holds.
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

impl Frame {
    /// The box around all places that the silhouette half covers.
    fn around(silhouette: &Map) -> Self {
        let side = silhouette.side();
        let mut range = [[side, 0]; 2];
        for (i, value) in silhouette.values().iter().enumerate() {
            if *value > 0.5 {
                for (range, at) in range.iter_mut().zip([i % side, i / side]) {
                    *range = [range[0].min(at), range[1].max(at + 1)];
                }
            }
        }
        let center = range.map(|[low, high]| (low + high) as f64 / 2.0);
        Self { center, size: range.map(|[low, high]| high.saturating_sub(low) as f64) }
    }

    /// The placement that lays `other` on this box, as well as one zoom can.
    fn onto(&self, other: &Self) -> Placement {
        if self.size.iter().chain(&other.size).any(|size| *size <= 0.0) {
            return Placement::IDENTITY;
        }
        let zoom = ((self.size[0] * self.size[1]) / (other.size[0] * other.size[1])).sqrt().clamp(0.7, 1.4);
        let middle = COARSE as f64 / 2.0;
        let shift = [0, 1].map(|axis| {
            let moved = middle + zoom * (other.center[axis] - middle);
            ((self.center[axis] - moved) / COARSE as f64).clamp(-0.25, 0.25)
        });
        Placement { zoom, shift }
    }
}
