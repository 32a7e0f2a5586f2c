//! Bounds and volume.

use super::{CONTACT, CsgSolid, Operation, Primitive, Vec3};
use crate::outcome::MassProperties;

type Mat3 = nalgebra::Matrix3<f64>;

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lowest coordinates.
    pub min: Vec3,
    /// Highest coordinates.
    pub max: Vec3,
}

impl Bounds {
    /// The box around points; `None` without points.
    pub fn of_points(points: impl IntoIterator<Item = Vec3>) -> Option<Self> {
        points.into_iter().fold(None, |bounds: Option<Self>, point| {
            Some(bounds.map_or(Self { min: point, max: point }, |old| Self {
                min: old.min.inf(&point),
                max: old.max.sup(&point),
            }))
        })
    }

    /// Edge lengths.
    pub fn size(&self) -> Vec3 {
        self.max - self.min
    }

    /// The middle.
    pub fn center(&self) -> Vec3 {
        (self.min + self.max) / 2.0
    }

    /// True where the boxes share inner points.
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..3).all(|axis| self.min[axis] < other.max[axis] && other.min[axis] < self.max[axis])
    }
}

impl Primitive<'_> {
    /// The smallest box around the body.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            min: Vec3::from_fn(|axis, _| -self.support(-unit(axis))),
            max: Vec3::from_fn(|axis, _| self.support(unit(axis))),
        }
    }
}

impl CsgSolid {
    /// A box that holds the solid: exact for an extrusion and for unions, possibly too large after a cut or an
    /// intersection. `None` where the boxes of an intersection are apart.
    pub fn bounds(&self) -> Option<Bounds> {
        match self {
            Self::Extrusion(_) | Self::Ball(_) | Self::Revolution(_) => self.as_primitive().map(|leaf| leaf.bounds()),
            Self::Boolean(operation, left, right) => match (operation, left.bounds(), right.bounds()) {
                (Operation::Cut, bounds, _) => bounds,
                (Operation::Union, Some(a), Some(b)) => Some(Bounds { min: a.min.inf(&b.min), max: a.max.sup(&b.max) }),
                (Operation::Union, a, b) => a.or(b),
                (Operation::Intersect, Some(a), Some(b)) if a.overlaps(&b) => {
                    Some(Bounds { min: a.min.sup(&b.min), max: a.max.inf(&b.max) })
                }
                (Operation::Intersect, ..) => None,
            },
        }
    }

    /// How far the solid reaches along `direction`, a unit vector: `(lowest, highest)` of `direction . p`. Unlike
    /// [`CsgSolid::bounds`] it does not count what a cut or an intersection has taken away. `(0, 0)` if nothing is left.
    pub fn extent(&self, direction: Vec3) -> (f64, f64) {
        let Some((low, high)) = self.loose_extent(direction) else { return (0.0, 0.0) };
        if self.is_union() {
            return (low, high);
        }
        ExtentSearch::new(self, direction).run(low, high)
    }

    /// The tight axis-aligned box; see [`CsgSolid::extent`].
    pub fn tight_bounds(&self) -> crate::outcome::Bounds {
        let extents = [Vec3::x(), Vec3::y(), Vec3::z()].map(|axis| self.extent(axis));
        crate::outcome::Bounds { min: extents.map(|(low, _)| low), max: extents.map(|(_, high)| high) }
    }

    /// Where something begins, ends or turns along `direction`, in order.
    pub(crate) fn breaks(&self, direction: Vec3) -> Vec<f64> {
        let mut found = Vec::new();
        for leaf in self.primitives() {
            let extrusion = match leaf {
                Primitive::Extrusion(extrusion) => extrusion,
                Primitive::Ball(_) => {
                    found.extend([-leaf.support(-direction), leaf.support(direction)]);
                    continue;
                }
                Primitive::Revolution(revolution) => {
                    revolution.breaks(direction, &mut found);
                    continue;
                }
            };
            let local = extrusion.plane.direction_to_local(direction);
            let base = direction.dot(&extrusion.plane.origin);
            let caps = [base + local.z * extrusion.low, base + local.z * extrusion.high];
            if local.xy().norm() < 1e-9 {
                found.extend(caps);
                continue;
            }
            for edge in extrusion.region.edges() {
                let (low, high) = (-edge.support(-local.xy()), edge.support(local.xy()));
                let ends = edge.ends().map_or([low, high], |(from, to)| [local.xy().dot(&from), local.xy().dot(&to)]);
                for at in [low, high].into_iter().chain(ends) {
                    found.extend(caps.map(|cap| cap + at));
                }
            }
        }
        sorted(found)
    }

    /// Breaks along `v` of the slice at `u = a` where they are not those of the whole: outlines of what is extruded along
    /// the lines, of balls, and of solids of revolution.
    fn slice_breaks(&self, u: Vec3, a: f64, v: Vec3, direction: Vec3, found: &mut Vec<f64>) {
        for leaf in self.primitives() {
            match leaf {
                Primitive::Ball(ball) => {
                    let aside = a - u.dot(&ball.center);
                    let half = (ball.radius * ball.radius - aside * aside).max(0.0).sqrt();
                    let center = v.dot(&ball.center);
                    found.extend([center - half, center + half]);
                }
                Primitive::Extrusion(extrusion) if extrusion.plane.z.dot(&direction).abs() > 1.0 - 1e-9 => {
                    let origin = u * (a - u.dot(&extrusion.plane.origin)) + extrusion.plane.origin;
                    let start = v.dot(&origin);
                    let (origin, along) =
                        (extrusion.plane.to_local(origin).xy(), extrusion.plane.direction_to_local(v).xy());
                    super::cast::crossings_of_line(extrusion, origin, along, |at| found.push(start + at));
                }
                Primitive::Extrusion(_) => {}
                Primitive::Revolution(revolution) => revolution.slice_breaks(u, a, v, found),
            }
        }
    }

    /// Made of unions alone.
    fn is_union(&self) -> bool {
        match self {
            Self::Extrusion(_) | Self::Ball(_) | Self::Revolution(_) => true,
            Self::Boolean(operation, left, right) => {
                *operation == Operation::Union && left.is_union() && right.is_union()
            }
        }
    }

    /// Like [`CsgSolid::bounds`], along one direction.
    fn loose_extent(&self, direction: Vec3) -> Option<(f64, f64)> {
        match self {
            Self::Extrusion(_) | Self::Ball(_) | Self::Revolution(_) => {
                let leaf = self.as_primitive()?;
                Some((-leaf.support(-direction), leaf.support(direction)))
            }
            Self::Boolean(operation, left, right) => {
                match (operation, left.loose_extent(direction), right.loose_extent(direction)) {
                    (Operation::Cut, extent, _) => extent,
                    (Operation::Union, Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                    (Operation::Union, a, b) => a.or(b),
                    (Operation::Intersect, Some(a), Some(b)) => {
                        Some((a.0.max(b.0), a.1.min(b.1))).filter(|(low, high)| low + CONTACT < *high)
                    }
                    (Operation::Intersect, ..) => None,
                }
            }
        }
    }

    /// Roughly what the tree occupies in memory.
    pub fn size_in_bytes(&self) -> usize {
        let of = |leaf: Primitive<'_>| match leaf {
            Primitive::Extrusion(e) => size_of_val(e) + e.region.edges().count() * size_of::<super::Edge>(),
            Primitive::Ball(ball) => size_of_val(ball),
            Primitive::Revolution(revolution) => size_of_val(revolution) + size_of_val(&*revolution.sides),
        };
        self.primitives().into_iter().map(of).sum()
    }

    /// Volume, centroid, inertia and bounds. Exact along lines, by quadrature across: rounding for extrusions along the
    /// axes whose outlines do not cross, below 1e-4 of the volume for parts of ordinary shape.
    pub fn mass_properties(&self) -> MassProperties {
        let Moments { volume, first, second } = integrate(self);
        let bounds = self.tight_bounds();
        if volume <= 0.0 {
            return MassProperties { bounds, ..MassProperties::NOTHING };
        }
        let centroid = first / volume;
        let about_centroid = second - centroid * centroid.transpose() * volume;
        let inertia = Mat3::identity() * about_centroid.trace() - about_centroid;
        MassProperties {
            volume,
            centroid: centroid.into(),
            inertia: [0, 1, 2].map(|row| [0, 1, 2].map(|column| inertia[(row, column)])),
            bounds,
        }
    }

    /// Volume; see [`CsgSolid::mass_properties`].
    pub fn volume(&self) -> f64 {
        match self {
            Self::Extrusion(extrusion) => extrusion.volume(),
            Self::Ball(_) | Self::Revolution(_) | Self::Boolean(..) => integrate(self).volume,
        }
    }
}

/// Looks for the first and the last point of a solid along a direction by casting lines.
struct ExtentSearch<'a> {
    caster: super::LineCaster<'a>,
    u: Vec3,
    v: Vec3,
    /// Loose extents along `u` and `v`.
    range: [(f64, f64); 2],
}

impl<'a> ExtentSearch<'a> {
    fn new(solid: &'a CsgSolid, direction: Vec3) -> Self {
        let aside = if direction.x.abs() < 0.6 { Vec3::x() } else { Vec3::y() };
        let u = direction.cross(&aside).normalize();
        let v = direction.cross(&u);
        let range = [u, v].map(|axis| solid.loose_extent(axis).unwrap_or((0.0, 0.0)));
        Self { caster: solid.caster(direction), u, v, range }
    }

    /// Nearest and farthest point inside along the line through `(a, b)`.
    fn cast(&mut self, a: f64, b: f64) -> Option<(f64, f64)> {
        let spans = self.caster.spans(self.u * a + self.v * b);
        Some((spans.first()?.enter.at, spans.last()?.leave.at))
    }

    fn run(mut self, low: f64, high: f64) -> (f64, f64) {
        const COARSE: usize = 12;
        const FINE: usize = 64;
        let near = 1e-9 * (high - low).max(1e-3);
        let mut best = [(f64::INFINITY, 0.0, 0.0); 2];
        // Where a flat face bounds the solid, one of the first lines tells.
        for count in [COARSE, FINE] {
            let step = self.range.map(|(low, high)| (high - low) / count as f64);
            for i in 0..count {
                for j in 0..count {
                    let a = self.range[0].0 + (i as f64 + 0.5) * step[0];
                    let b = self.range[1].0 + (j as f64 + 0.5) * step[1];
                    if let Some((first, last)) = self.cast(a, b) {
                        for (best, found) in best.iter_mut().zip([first, -last]) {
                            if found < best.0 {
                                *best = (found, a, b);
                            }
                        }
                    }
                }
                if best[0].0 <= low + near && best[1].0 <= near - high {
                    return (low, high);
                }
            }
        }
        if best[0].0.is_infinite() {
            // All is thinner than the raster.
            return (low, high);
        }
        let step = self.range.map(|(low, high)| (high - low) / FINE as f64);
        let [first, last] = [0, 1].map(|side| {
            let loose = if side == 0 { low } else { -high };
            let refined = self.descend(best[side], step, side);
            // Within what the search resolves, the face that was there before is the answer.
            if refined <= loose + 1e-7 * (high - low) { loose } else { refined }
        });
        (first, -last)
    }

    /// Looks around the best line found, in a window that moves with the best and shrinks where that is inside.
    fn descend(&mut self, (mut value, mut a, mut b): (f64, f64, f64), step: [f64; 2], side: usize) -> f64 {
        const HALF: i32 = 3;
        let mut size = 0.7;
        for _ in 0..150 {
            let (center_a, center_b) = (a, b);
            let mut at_border = false;
            for i in -HALF..=HALF {
                for j in -HALF..=HALF {
                    let (x, y) = (center_a + f64::from(i) * size * step[0], center_b + f64::from(j) * size * step[1]);
                    let found = self.cast(x, y).map(|(first, last)| if side == 0 { first } else { -last });
                    if let Some(found) = found.filter(|found| *found < value) {
                        (value, a, b) = (found, x, y);
                        at_border = i.abs() == HALF || j.abs() == HALF;
                    }
                }
            }
            if !at_border {
                size /= 1.5;
            }
            if size < 1e-7 {
                break;
            }
        }
        value
    }
}

/// Integrals over a solid: of 1, of `p`, and of `p p^T`.
struct Moments {
    volume: f64,
    first: Vec3,
    second: Mat3,
}

/// Integrates along lines parallel to an axis: exactly along each line, and by Gauss-Legendre quadrature across, in
/// panels between the corners and extremes of all sketches, so that what is integrated is smooth in each panel but for
/// square roots at its ends, which a substitution takes away. For extrusions along the axes whose outlines do not cross
/// the error is rounding; where surfaces cross obliquely within a panel it falls with the square of the panel, and is
/// below 1e-4 of the volume for parts of ordinary shape.
fn integrate(solid: &CsgSolid) -> Moments {
    /// Nodes across the whole solid along either direction: two to compare, and one for solids where those differ.
    const NODES: [f64; 3] = [64.0, 160.0, 800.0];
    let [coarse, fine] = [NODES[0], NODES[1]].map(|nodes| integrate_with(solid, nodes, false));
    if (coarse.volume - fine.volume).abs() < 1e-4 * fine.volume { fine } else { integrate_with(solid, NODES[2], true) }
}

/// `is_tight` looks for where the solid really ends, for little may be left of what it is made of.
fn integrate_with(solid: &CsgSolid, total: f64, is_tight: bool) -> Moments {
    let mut moments = Moments { volume: 0.0, first: Vec3::zeros(), second: Mat3::zeros() };
    if solid.bounds().is_none() {
        return moments;
    }
    let [u, v, direction] = frame(solid);
    let mut caster = solid.caster(direction);
    let within = |axis: Vec3, breaks: Vec<f64>| if is_tight { clipped(breaks, solid.extent(axis)) } else { breaks };
    let (across_u, across_v) = (within(u, solid.breaks(u)), within(v, solid.breaks(v)));
    for (a, weight_a) in quadrature(&across_u, total) {
        let mut breaks = across_v.clone();
        solid.slice_breaks(u, a, v, direction, &mut breaks);
        if let (true, [first, .., last]) = (is_tight, across_v.as_slice()) {
            breaks.retain(|at| (first..=last).contains(&at));
        }
        for (b, weight_b) in quadrature(&sorted(breaks), total) {
            let origin = u * a + v * b;
            let weight = weight_a * weight_b;
            for span in caster.spans(origin) {
                let (from, to) = (span.enter.at, span.leave.at);
                let length = weight * (to - from);
                let along = weight * (to * to - from * from) / 2.0;
                let squared = weight * (to * to * to - from * from * from) / 3.0;
                moments.volume += length;
                moments.first += origin * length + direction * along;
                let mixed = origin * direction.transpose() * along;
                moments.second += origin * origin.transpose() * length
                    + mixed
                    + mixed.transpose()
                    + direction * direction.transpose() * squared;
            }
        }
    }
    moments
}

/// The frame to integrate in: `[u, v, along the lines]`. Of the sketch planes' frames, the one that most edges are
/// aligned with; lines run along the axis along which the fewest are extruded, for caps are exact across the lines, and
/// outlines along them.
fn frame(solid: &CsgSolid) -> [Vec3; 3] {
    let extrusions: Vec<&super::Extrusion> = solid
        .primitives()
        .into_iter()
        .filter_map(|leaf| if let Primitive::Extrusion(extrusion) = leaf { Some(extrusion) } else { None })
        .collect();
    let aligned = |axes: &[Vec3; 3], extrusion: &super::Extrusion| -> Option<usize> {
        axes.iter().position(|axis| extrusion.plane.z.dot(axis).abs() > 1.0 - 1e-9)
    };
    let score = |axes: &[Vec3; 3]| -> [usize; 4] {
        let mut score = [0; 4];
        for extrusion in &extrusions {
            score[aligned(axes, extrusion).unwrap_or(3)] += extrusion.region.edges().count();
        }
        score
    };
    let world = [unit(0), unit(1), unit(2)];
    let frames = extrusions.iter().map(|e| [e.plane.x, e.plane.y, e.plane.z]);
    let best = std::iter::once(world).chain(frames).min_by_key(|axes| score(axes)[3]).unwrap_or(world);
    let along = (0..3).min_by_key(|&axis| score(&best)[axis]).unwrap_or(0);
    [best[(along + 1) % 3], best[(along + 2) % 3], best[along]]
}

fn unit(axis: usize) -> Vec3 {
    Vec3::ith(axis, 1.0)
}

/// Sorted, and without repetitions.
fn sorted(mut breaks: Vec<f64>) -> Vec<f64> {
    breaks.sort_by(f64::total_cmp);
    let tiny = 1e-9 * breaks.last().zip(breaks.first()).map_or(0.0, |(high, low)| high - low);
    breaks.dedup_by(|b, a| *b - *a <= tiny);
    breaks
}

/// The breaks within an extent and its ends, with a margin for the search that found it.
fn clipped(mut breaks: Vec<f64>, (low, high): (f64, f64)) -> Vec<f64> {
    let margin = 1e-5 * (high - low);
    let ends = [low - margin, high + margin];
    breaks.retain(|at| (ends[0]..=ends[1]).contains(at));
    breaks.extend(ends);
    sorted(breaks)
}

/// Nodes and weights over all panels between neighbouring breaks: Gauss-Legendre in `t`, with `x = sin(pi t / 2)` across a
/// panel, which makes square roots at its ends as smooth as polynomials.
fn quadrature(breaks: &[f64], total: f64) -> Vec<(f64, f64)> {
    /// Abramowitz and Stegun, table 25.4, n = 8: positive nodes and their weights.
    const GAUSS: [(f64, f64); 4] = [
        (0.183_434_642_495_649_8, 0.362_683_783_378_362),
        (0.525_532_409_916_329, 0.313_706_645_877_887_27),
        (0.796_666_477_413_626_7, 0.222_381_034_453_374_48),
        (0.960_289_856_497_536_3, 0.101_228_536_290_376_26),
    ];
    let (Some(first), Some(last)) = (breaks.first(), breaks.last()) else { return Vec::new() };
    let mut nodes = Vec::new();
    for pair in breaks.windows(2) {
        let (middle, half) = ((pair[0] + pair[1]) / 2.0, (pair[1] - pair[0]) / 2.0);
        let pieces = (total * (pair[1] - pair[0]) / (last - first) / 8.0).ceil().max(1.0);
        for piece in 0..pieces as usize {
            let (center, reach) = ((2.0 * piece as f64 + 1.0) / pieces - 1.0, 1.0 / pieces);
            for (node, weight) in GAUSS.into_iter().flat_map(|(node, weight)| [(node, weight), (-node, weight)]) {
                let (sin, cos) = (std::f64::consts::FRAC_PI_2 * (center + reach * node)).sin_cos();
                nodes.push((middle + half * sin, half * reach * weight * std::f64::consts::FRAC_PI_2 * cos));
            }
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;

    use super::super::{Edge, Extrusion, Plane, Region, Vec2, Wire};
    use super::*;

    fn block(min: Vec3, size: Vec3) -> CsgSolid {
        let corners = [(0.0, 0.0), (size.x, 0.0), (size.x, size.y), (0.0, size.y)].map(|(x, y)| Vec2::new(x, y));
        let edges = (0..4).map(|i| Edge::line(corners[i], corners[(i + 1) % 4]).unwrap()).collect();
        Extrusion::new(Plane::xy(min), Region::new(Wire::new(edges).unwrap(), vec![]), size.z, false).into()
    }

    fn cylinder(center: Vec3, axis: Vec3, radius: f64, length: f64) -> CsgSolid {
        let x_dir = if axis.x.abs() < 0.9 { Vec3::x() } else { Vec3::y() };
        let plane = Plane::new(center, x_dir, axis).unwrap();
        let circle = Edge::circle(Vec2::zeros(), radius).unwrap();
        Extrusion::new(plane, Region::new(Wire::new(vec![circle]).unwrap(), vec![]), length / 2.0, true).into()
    }

    #[test]
    fn a_drilled_block_by_closed_form() {
        let drilled = block(Vec3::zeros(), Vec3::new(2.0, 1.0, 1.0))
            .combine(Operation::Cut, cylinder(Vec3::new(1.0, 0.5, 0.5), Vec3::y(), 0.25, 3.0));
        assert!((drilled.volume() - (2.0 - PI * 0.0625)).abs() < 1e-3);
    }

    #[test]
    fn two_crossing_cylinders_share_sixteen_thirds_of_the_cubed_radius() {
        let crossing = cylinder(Vec3::zeros(), Vec3::x(), 1.0, 4.0)
            .combine(Operation::Intersect, cylinder(Vec3::zeros(), Vec3::z(), 1.0, 4.0));
        // The surfaces cross obliquely: the hardest kind.
        assert!((crossing.volume() - 16.0 / 3.0).abs() < 1e-4 * 16.0 / 3.0, "{}", crossing.volume());
    }

    #[test]
    fn mass_properties_of_a_drilled_block() {
        // 2 x 1 x 1, drilled along y at its centre: moments of the block less those of the cylinder.
        let drilled = block(Vec3::new(5.0, 0.0, 0.0), Vec3::new(2.0, 1.0, 1.0))
            .combine(Operation::Cut, cylinder(Vec3::new(6.0, 0.5, 0.5), Vec3::y(), 0.25, 3.0));
        let mass = drilled.mass_properties();
        let hole = PI * 0.0625;
        let expected = [
            2.0 * (1.0 + 1.0) / 12.0 - hole * (3.0 * 0.0625 + 1.0) / 12.0,
            2.0 * (4.0 + 1.0) / 12.0 - hole * 0.0625 / 2.0,
            2.0 * (4.0 + 1.0) / 12.0 - hole * (3.0 * 0.0625 + 1.0) / 12.0,
        ];
        assert!((mass.volume - (2.0 - hole)).abs() < 1e-5, "{}", mass.volume);
        assert!((Vec3::from(mass.centroid) - Vec3::new(6.0, 0.5, 0.5)).norm() < 1e-6);
        for axis in 0..3 {
            assert!((mass.inertia[axis][axis] - expected[axis]).abs() < 1e-5, "{axis}: {:?}", mass.inertia);
        }
        assert_eq!((mass.bounds.min, mass.bounds.max), ([5.0, 0.0, 0.0], [7.0, 1.0, 1.0]));
    }

    #[test]
    fn what_was_cut_away_does_not_count_for_the_bounds() {
        // A cylinder along z, cut in half by a block: the flat side lies at x = 0, the round one reaches to 1.
        let half = cylinder(Vec3::zeros(), Vec3::z(), 1.0, 2.0)
            .combine(Operation::Cut, block(Vec3::new(-2.0, -2.0, -2.0), Vec3::new(2.0, 4.0, 4.0)));
        let bounds = half.tight_bounds();
        for (found, expected) in bounds.min.into_iter().chain(bounds.max).zip([0.0, -1.0, -1.0, 1.0, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-8, "{bounds:?}");
        }
    }

    #[test]
    fn bounds_of_tilted_cylinders_are_tight() {
        // A disc of radius 1 and no length to speak of, seen at 45 degrees, reaches cos 45 along both of its axes.
        let disc = cylinder(Vec3::zeros(), Vec3::new(1.0, 0.0, 1.0), 1.0, 1e-9);
        let half = 0.5f64.sqrt();
        let bounds = disc.bounds().unwrap();
        assert!((bounds.max - Vec3::new(half, 1.0, half)).norm() < 1e-8, "{bounds:?}");
        assert!((bounds.min + bounds.max).norm() < 1e-8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What is cut away and what is left add up to the whole, and union and intersection to both.
        #[test]
        fn booleans_add_up(
            corner in prop::array::uniform3(-1.0..1.0f64),
            size in prop::array::uniform3(0.2..2.0f64),
            axis in prop::array::uniform3(0.1..1.0f64),
            radius in 0.1..1.0f64,
        ) {
            let a = block(Vec3::from(corner), Vec3::from(size));
            let b = cylinder(Vec3::zeros(), Vec3::from(axis), radius, 2.0);
            let direction = Vec3::new(0.3, -0.5, 0.8);
            let length = |solid: &CsgSolid, origin: Vec3| -> f64 {
                solid.caster(direction).spans(origin).iter().map(|span| span.leave.at - span.enter.at).sum()
            };
            let both = |operation| a.clone().combine(operation, b.clone());
            let (cut, common, union) = (both(Operation::Cut), both(Operation::Intersect), both(Operation::Union));
            for i in 0..100 {
                let origin = Vec3::new(-1.5 + 0.3 * f64::from(i / 10), -1.5 + 0.3 * f64::from(i % 10), 0.1);
                let (a, b) = (length(&a, origin), length(&b, origin));
                prop_assert!((length(&cut, origin) + length(&common, origin) - a).abs() < 1e-8);
                prop_assert!((length(&union, origin) + length(&common, origin) - a - b).abs() < 1e-8);
            }
        }

        /// A cylinder's volume does not depend on where it points.
        #[test]
        fn rows_agree_with_the_closed_form(axis in prop::array::uniform3(-1.0..1.0f64), radius in 0.2..1.0f64) {
            prop_assume!(Vec3::from(axis).norm() > 0.1);
            let solid = cylinder(Vec3::new(0.3, -0.2, 0.1), Vec3::from(axis), radius, 1.5);
            let exact = PI * radius * radius * 1.5;
            prop_assert!((integrate(&solid).volume - exact).abs() < 1e-3 * exact);
            prop_assert!((solid.volume() - exact).abs() < 1e-9);
        }
    }
}
