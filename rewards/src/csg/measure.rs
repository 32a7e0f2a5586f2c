//! Bounds and volume.

use super::{CsgSolid, Operation, Vec3};

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

impl CsgSolid {
    /// A box that holds the solid: exact for an extrusion and for unions, possibly too large after a cut or an
    /// intersection. `None` where the boxes of an intersection are apart.
    pub fn bounds(&self) -> Option<Bounds> {
        match self {
            Self::Extrusion(extrusion) => {
                let axes = [Vec3::x(), Vec3::y(), Vec3::z()];
                Some(Bounds {
                    min: Vec3::from_fn(|axis, _| -extrusion.support(-axes[axis])),
                    max: Vec3::from_fn(|axis, _| extrusion.support(axes[axis])),
                })
            }
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

    /// Volume: closed form for one extrusion, else by [`volume_by_rows`] with 256 x 256 rows.
    pub fn volume(&self) -> f64 {
        match self {
            Self::Extrusion(extrusion) => extrusion.volume(),
            Self::Boolean(..) => volume_by_rows(self, 256),
        }
    }
}

/// Volume by integration along `rows` x `rows` lines parallel to the longest axis, each through the middle of its
/// cell. Exact along the lines; the error comes from the outline seen along them and falls as `1 / rows` or better.
pub fn volume_by_rows(solid: &CsgSolid, rows: usize) -> f64 {
    let Some(bounds) = solid.bounds() else {
        return 0.0;
    };
    let size = bounds.size();
    let axis = size.imax();
    let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut direction = Vec3::zeros();
    direction[axis] = 1.0;
    let mut caster = solid.caster(direction);
    let (du, dv) = (size[u] / rows as f64, size[v] / rows as f64);
    let mut length = 0.0;
    for i in 0..rows {
        for j in 0..rows {
            let mut origin = bounds.min;
            origin[u] += (i as f64 + 0.5) * du;
            origin[v] += (j as f64 + 0.5) * dv;
            length += caster.spans(origin).iter().map(|span| span.leave.at - span.enter.at).sum::<f64>();
        }
    }
    length * du * dv
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
        // The error falls at least as fast as the width of a row.
        for rows in [16, 64, 256] {
            let error = (volume_by_rows(&crossing, rows) - 16.0 / 3.0).abs();
            assert!(error < 4.0 / rows as f64, "{rows} rows: {error}");
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
            prop_assert!((volume_by_rows(&solid, 96) - exact).abs() < 0.02 * exact);
            prop_assert!((solid.volume() - exact).abs() < 1e-9);
        }
    }
}
