//! Solids of revolution: polygons turned about an axis.

use super::cast::Boundary;
use super::{FaceId, Plane, Vec2, Vec3};

/// What a polygon sweeps in a full turn about an axis: cylinders, cones, discs with and without holes in them.
#[derive(Debug, Clone, PartialEq)]
pub struct Revolution {
    /// Its origin lies on the axis, its normal is the axis.
    pub plane: Plane,
    /// Sides of the profile as `(distance from the axis, height)` of their two ends; together they are closed. What lies
    /// inside is decided by crossing parity.
    pub sides: Vec<[Vec2; 2]>,
}

impl Revolution {
    /// The largest value of `direction . p` over the body.
    pub fn support(&self, direction: Vec3) -> f64 {
        let local = self.plane.direction_to_local(direction);
        let reach = |end: &Vec2| end.x * local.xy().norm() + end.y * local.z;
        let highest = self.sides.iter().flatten().map(reach).fold(f64::NEG_INFINITY, f64::max);
        direction.dot(&self.plane.origin) + highest
    }

    /// Where corners of the profile lie along `direction`, on both sides of the axis.
    pub(super) fn breaks(&self, direction: Vec3, found: &mut Vec<f64>) {
        let local = self.plane.direction_to_local(direction);
        let base = direction.dot(&self.plane.origin);
        for end in self.sides.iter().flatten() {
            let (aside, along) = (end.x * local.xy().norm(), base + end.y * local.z);
            found.extend([along - aside, along + aside]);
        }
    }

    /// Appends where a line passes through the swept sides, in no order.
    pub(super) fn crossings(&self, origin: Vec3, direction: Vec3, primitive: u16, found: &mut Vec<Boundary>) {
        let (o, d) = (self.plane.to_local(origin), self.plane.direction_to_local(direction));
        for (number, [a, b]) in self.sides.iter().enumerate() {
            let face = FaceId { primitive, face: number as u16 };
            let between = |value: f64, p: f64, q: f64| p.min(q) <= value && value < p.max(q);
            let rise = b.y - a.y;
            if a.x.max(b.x) <= 0.0 {
                // A side on the axis sweeps nothing.
                continue;
            }
            if rise.abs() < 1e-12 {
                let at = (a.y - o.z) / d.z;
                if d.z.abs() > 1e-12 && between((o.xy() + d.xy() * at).norm(), a.x, b.x) {
                    found.push(Boundary { at, face });
                }
                continue;
            }
            // |o + t d|^2 across the axis equals (r + k t)^2, the radius where the line is at that height.
            let slope = (b.x - a.x) / rise;
            let (r, k) = (a.x + slope * (o.z - a.y), slope * d.z);
            let (p, q, s) = (d.xy().norm_squared() - k * k, o.xy().dot(&d.xy()) - r * k, o.xy().norm_squared() - r * r);
            let mut push = |at: f64| {
                if between(o.z + at * d.z, a.y, b.y) && r + k * at >= 0.0 {
                    found.push(Boundary { at, face });
                }
            };
            if p.abs() < 1e-14 {
                if q.abs() > 1e-14 {
                    push(-s / (2.0 * q));
                }
            } else {
                let under = q * q - p * s;
                if under > 0.0 {
                    push((-q - under.sqrt()) / p);
                    push((-q + under.sqrt()) / p);
                }
            }
        }
    }

    /// A normal of the swept side at a point on it.
    pub(super) fn normal(&self, at: Vec3, side: u16) -> Vec3 {
        let [a, b] = self.sides[usize::from(side)];
        let along = (b - a).normalize();
        let local = self.plane.to_local(at);
        let out = local.xy() / local.xy().norm().max(1e-300);
        self.plane.direction_to_space(Vec3::new(out.x * along.y, out.y * along.y, -along.x))
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::CsgSolid;
    use super::*;

    fn turned(corners: &[(f64, f64)], axis: Vec3) -> CsgSolid {
        let corner = |k: usize| Vec2::new(corners[k % corners.len()].0, corners[k % corners.len()].1);
        let x_dir = if axis.x.abs() < 0.9 { Vec3::x() } else { Vec3::y() };
        let plane = Plane::new(Vec3::new(0.3, -0.2, 0.1), x_dir, axis).unwrap();
        CsgSolid::Revolution(Revolution {
            plane,
            sides: (0..corners.len()).map(|k| [corner(k), corner(k + 1)]).collect(),
        })
    }

    #[test]
    fn volumes_by_closed_form() {
        for axis in [Vec3::z(), Vec3::x(), -Vec3::y(), Vec3::new(1.0, 2.0, -0.5)] {
            for (corners, volume) in [
                // A cone, a frustum, a ring of square section, a double cone with a bore.
                (vec![(0.0, 0.0), (2.0, 0.0), (0.0, 3.0)], PI * 4.0),
                (vec![(0.0, 0.0), (2.0, 0.0), (1.0, 3.0), (0.0, 3.0)], PI * (4.0 + 2.0 + 1.0)),
                (vec![(2.0, 0.0), (3.0, 0.0), (3.0, 1.0), (2.0, 1.0)], PI * 5.0),
                (vec![(1.0, -1.0), (2.0, 0.0), (1.0, 1.0)], 2.0 * PI * (7.0 / 3.0 - 1.0)),
            ] {
                let found = turned(&corners, axis).volume();
                assert!((found - volume).abs() < 1e-3 * volume, "{axis:?} {corners:?}: {found} for {volume}");
            }
        }
    }

    #[test]
    fn a_cone_reaches_as_far_as_its_rim() {
        let bounds = turned(&[(0.0, 0.0), (2.0, 0.0), (0.0, 3.0)], Vec3::z()).bounds().unwrap();
        assert!((bounds.min - Vec3::new(-1.7, -2.2, 0.1)).norm() < 1e-12);
        assert!((bounds.max - Vec3::new(2.3, 1.8, 3.1)).norm() < 1e-12);
    }
}
