//! Volume, centroid and inertia.
//!
//! Plane sections are exact ([`Sweep`]), and so are solids extruded along one axis ([`Layers`]).
//! Any other solid is integrated along a sweep, between the heights at which its sections change,
//! and a second time along another direction. The second sweep sees features that lie between the
//! planes of the first.

use super::layers::Layers;
use super::section::{Flat, Sweep};
use super::{CsgSolid, Primitive, Vec3};
use crate::mesh::{Bounds, MassProperties};

type Mat3 = nalgebra::Matrix3<f64>;

/// Volume, centroid, and second moments about it.
type InSpace = (f64, Vec3, Mat3);

const NOTHING: InSpace = (0.0, Vec3::new(0.0, 0.0, 0.0), Mat3::new(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0));

/// Two sweeps must agree on the volume within this fraction of it.
const VOLUME_TOLERANCE: f64 = 2e-4;
/// Two sweeps must agree on the trace of the second moments within this fraction of it.
const MOMENT_TOLERANCE: f64 = 5e-4;

/// Integrals over a solid of 1, `p` and `p p^T`, in the coordinates of a sweep.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    axes: [Vec3; 3],
    origin: Vec3,
    volume: f64,
    first: Vec3,
    second: Mat3,
}

impl Moments {
    pub fn new(axes: [Vec3; 3], origin: Vec3) -> Self {
        Self { axes, origin, volume: 0.0, first: Vec3::zeros(), second: Mat3::zeros() }
    }

    /// Adds the product of a section's integrals and the integrals of 1, the height and its square.
    pub fn add(&mut self, flat: &Flat, along: [f64; 3]) {
        let Flat { area, first: [x, y], second: [xx, xy, yy] } = *flat;
        self.volume += area * along[0];
        self.first += Vec3::new(x * along[0], y * along[0], area * along[1]);
        self.second += Mat3::new(
            xx * along[0],
            xy * along[0],
            x * along[1], //
            xy * along[0],
            yy * along[0],
            y * along[1], //
            x * along[1],
            y * along[1],
            area * along[2],
        );
    }

    fn in_space(&self) -> InSpace {
        if self.volume <= 0.0 {
            return NOTHING;
        }
        let turn = Mat3::from_columns(&self.axes);
        let centroid = self.first / self.volume;
        let second = self.second - centroid * centroid.transpose() * self.volume;
        (self.volume, self.origin + turn * centroid, turn * second * turn.transpose())
    }
}

impl CsgSolid {
    /// Volume, centroid and inertia, and whether they are certain.
    ///
    /// They are exact for a solid extruded along one axis, a ball or a solid of revolution, and
    /// accurate to about 1e-4 of the volume for any other solid. They are not certain if two ways
    /// to compute them disagree by more. They are zero if the solid cannot be measured: see
    /// [`CsgSolid::is_measurable`].
    ///
    /// `layers` are those of [`Layers::of`] and `bounds` those of [`CsgSolid::tight_bounds`].
    pub fn mass_properties(&self, layers: Option<&Layers>, bounds: Bounds) -> (MassProperties, bool) {
        let ((volume, centroid, second), is_certain) = match layers {
            Some(layers) => (layers.moments().in_space(), true),
            None => self.swept_moments(),
        };
        let inertia = Mat3::identity() * second.trace() - second;
        let inertia = [0, 1, 2].map(|row| [0, 1, 2].map(|column| inertia[(row, column)]));
        (MassProperties { volume, centroid: centroid.into(), inertia, bounds }, is_certain)
    }

    /// Volume; see [`CsgSolid::mass_properties`].
    pub fn volume(&self) -> f64 {
        match Layers::of(self) {
            Some(layers) => layers.moments().volume,
            None => self.swept_moments().0.0,
        }
    }

    /// Directions along which the solid can be swept. The direction with the most leaves along it
    /// comes first.
    pub(super) fn sweep_directions(&self) -> Vec<Vec3> {
        let mut found: Vec<(usize, Vec3)> = Vec::new();
        let leaves = self.primitives();
        let axis_of = |leaf: &Primitive<'_>| match leaf {
            Primitive::Extrusion(prism) => Some((prism.plane.z, prism.region.edges().count())),
            Primitive::Revolution(turned) => Some((turned.plane.z, turned.sides.len())),
            Primitive::Polyhedron(body) => body.faces.first().map(|face| (face.normal, body.faces.len())),
            Primitive::Ball(_) => None,
        };
        let world = [Vec3::z(), Vec3::x(), Vec3::y()].map(|axis| (axis, 0));
        for (axis, edges) in leaves.iter().filter_map(axis_of).chain(world) {
            match found.iter_mut().find(|(_, known)| known.dot(&axis).abs() > 1.0 - 1e-9) {
                Some((count, _)) => *count += edges,
                None => found.push((edges, axis)),
            }
        }
        found.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        found.into_iter().map(|(_, axis)| axis).filter(|axis| Sweep::new(self, *axis).is_some()).collect()
    }

    /// Whether there is a way to measure the solid: see [`CsgSolid::mass_properties`].
    pub fn is_measurable(&self) -> bool {
        !self.sweep_directions().is_empty()
    }

    /// Moments by sweeps along two directions, and whether they agree.
    fn swept_moments(&self) -> (InSpace, bool) {
        let directions = self.sweep_directions();
        let sweep = |direction: Vec3, pieces: usize| -> InSpace {
            let sweep = Sweep::new(self, direction);
            sweep.map_or(NOTHING, |sweep| integrate(self, sweep, pieces).in_space())
        };
        let (first, second) = match directions.as_slice() {
            [] => return (NOTHING, false),
            [only] => (*only, *only),
            [first, second, ..] => (*first, *second),
        };
        let mut best = sweep(first, 1);
        // The first direction uses odd numbers of pieces and the second even numbers, so that no
        // plane serves two rules.
        for pieces in [2, 6, 24] {
            let check = sweep(second, pieces);
            let size = best.2.trace() + best.0 * (best.1 - check.1).norm_squared();
            let do_agree = (best.0 - check.0).abs() <= VOLUME_TOLERANCE * best.0
                && (size - check.2.trace()).abs() <= MOMENT_TOLERANCE * check.2.trace();
            if do_agree {
                return (best, true);
            }
            best = sweep(first, 2 * pieces + 1);
        }
        (best, false)
    }
}

/// Integrates along a sweep by Gauss-Legendre quadrature. The panels lie between the heights at
/// which sections change; each is cut into `pieces`.
fn integrate(solid: &CsgSolid, mut sweep: Sweep<'_>, pieces: usize) -> Moments {
    let mut moments = Moments::new(sweep.axes, sweep.origin());
    for pair in sweep.heights(solid).windows(2) {
        for (height, weight) in quadrature([pair[0], pair[1]], pieces) {
            let flat = Flat::of(&sweep.section(height));
            moments.add(&flat, [weight, weight * height, weight * height * height]);
        }
    }
    moments
}

/// Nodes and weights over a panel: Gauss-Legendre in `t`, with `x = sin(pi t / 2)` across the
/// panel. This substitution makes square roots at the panel's ends as smooth as polynomials.
fn quadrature([low, high]: [f64; 2], pieces: usize) -> impl Iterator<Item = (f64, f64)> {
    use std::f64::consts::FRAC_PI_2;
    /// Abramowitz and Stegun, table 25.4, n = 6: positive nodes and their weights.
    const GAUSS: [(f64, f64); 3] = [
        (0.238_619_186_083_196_9, 0.467_913_934_572_691),
        (0.661_209_386_466_264_5, 0.360_761_573_048_138_6),
        (0.932_469_514_203_152, 0.171_324_492_379_170_35),
    ];
    let (middle, half, reach) = ((low + high) / 2.0, (high - low) / 2.0, 1.0 / pieces as f64);
    (0..pieces).flat_map(move |piece| {
        let center = (2.0 * piece as f64 + 1.0) * reach - 1.0;
        let nodes = GAUSS.into_iter().flat_map(|(node, weight)| [(node, weight), (-node, weight)]);
        nodes.map(move |(node, weight)| {
            let (sin, cos) = (FRAC_PI_2 * (center + reach * node)).sin_cos();
            (middle + half * sin, half * reach * weight * FRAC_PI_2 * cos)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;

    use super::super::{Edge, Extrusion, Operation, Plane, Region, Vec2, Wire};
    use super::*;
    use crate::samples::block;

    fn cylinder(center: Vec3, axis: Vec3, radius: f64, length: f64) -> CsgSolid {
        let x_dir = if axis.x.abs() < 0.9 { Vec3::x() } else { Vec3::y() };
        let plane = Plane::new(center, x_dir, axis).unwrap();
        let circle = Edge::circle(Vec2::zeros(), radius).unwrap();
        Extrusion::new(plane, Region::new(Wire::new(vec![circle]).unwrap(), vec![]), length / 2.0, true).into()
    }

    fn mass(solid: &CsgSolid) -> MassProperties {
        let layers = Layers::of(solid);
        let bounds = solid.tight_bounds(layers.as_ref()).unwrap();
        let (mass, is_certain) = solid.mass_properties(layers.as_ref(), bounds);
        assert!(is_certain);
        mass
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
        // 2 x 1 x 1, drilled along y at its centre: moments of the block minus those of the
        // cylinder.
        let drilled = block(Vec3::new(5.0, 0.0, 0.0), Vec3::new(2.0, 1.0, 1.0))
            .combine(Operation::Cut, cylinder(Vec3::new(6.0, 0.5, 0.5), Vec3::y(), 0.25, 3.0));
        let mass = mass(&drilled);
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
        // A cylinder along z, cut in half by a block: the flat side lies at x = 0, the round one
        // reaches to 1.
        let half = cylinder(Vec3::zeros(), Vec3::z(), 1.0, 2.0)
            .combine(Operation::Cut, block(Vec3::new(-2.0, -2.0, -2.0), Vec3::new(2.0, 4.0, 4.0)));
        let bounds = half.tight_bounds(Layers::of(&half).as_ref()).unwrap();
        for (found, expected) in bounds.min.into_iter().chain(bounds.max).zip([0.0, -1.0, -1.0, 1.0, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-8, "{bounds:?}");
        }
    }

    #[test]
    fn bounds_of_tilted_cylinders_are_tight() {
        // A disc of radius 1 and negligible length, tilted by 45 degrees, reaches cos 45 along both
        // of its axes.
        let disc = cylinder(Vec3::zeros(), Vec3::new(1.0, 0.0, 1.0), 1.0, 1e-9);
        let half = 0.5f64.sqrt();
        let bounds = disc.bounds().unwrap();
        assert!((bounds.max - Vec3::new(half, 1.0, half)).norm() < 1e-8, "{bounds:?}");
        assert!((bounds.min + bounds.max).norm() < 1e-8);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A cut and the matching intersection add up to the whole; union and intersection add up
        /// to the sum of both solids.
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

        /// A cylinder's volume does not depend on its direction.
        #[test]
        fn rows_agree_with_the_closed_form(axis in prop::array::uniform3(-1.0..1.0f64), radius in 0.2..1.0f64) {
            prop_assume!(Vec3::from(axis).norm() > 0.1);
            let solid = cylinder(Vec3::new(0.3, -0.2, 0.1), Vec3::from(axis), radius, 1.5);
            let exact = PI * radius * radius * 1.5;
            prop_assert!((solid.volume() - exact).abs() < 1e-9);
        }
    }
}
