//! Solids of revolution: polygons turned about an axis.

use std::f64::consts::{PI, TAU};

use super::cast::{Boundary, Span};
use super::{FaceId, Plane, Vec2, Vec3};

/// The solid that a polygon sweeps about an axis: cylinders, cones, discs with or without holes. A
/// turn of less than 360 degrees ends in two flat faces that contain the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Revolution {
    /// Its origin lies on the axis and its normal is the axis. The turn begins at its x direction
    /// and goes toward y.
    pub plane: Plane,
    /// Sides of the profile, as `(distance from the axis, height)` of their two ends. Together they
    /// are closed. Crossing parity decides which points lie inside.
    pub sides: Vec<[Vec2; 2]>,
    /// Angle in radians, in (0, 2 pi]; [`TAU`] for a full turn.
    pub turn: f64,
}

impl Revolution {
    /// A solid with a full turn.
    pub fn whole(plane: Plane, sides: Vec<[Vec2; 2]>) -> Self {
        Self { plane, sides, turn: TAU }
    }

    /// Whether it is a full turn, and so has no flat ends.
    pub fn is_whole(&self) -> bool {
        self.turn == TAU
    }

    /// Directions from the axis at the start and the end of the turn, in the plane.
    pub fn ends(&self) -> [Vec2; 2] {
        let (sin, cos) = self.turn.sin_cos();
        let snap = |share: f64| if (share - share.round()).abs() < 1e-15 { share.round() } else { share };
        [Vec2::x(), Vec2::new(snap(cos), snap(sin))]
    }

    /// Normals of the two flat ends in the plane, inward.
    pub fn end_normals(&self) -> [Vec2; 2] {
        let [_, end] = self.ends();
        [Vec2::y(), Vec2::new(end.y, -end.x)]
    }

    /// The largest value of `direction . p` over the body.
    pub fn support(&self, direction: Vec3) -> f64 {
        let local = self.plane.direction_to_local(direction);
        let aside = local.xy();
        let angle = aside.y.atan2(aside.x).rem_euclid(TAU);
        let outward = if self.is_whole() || angle <= self.turn {
            aside.norm()
        } else {
            self.ends().iter().map(|end| end.dot(&aside)).fold(f64::NEG_INFINITY, f64::max)
        };
        let reach = |end: &Vec2| end.x * outward + end.y * local.z;
        let highest = self.sides.iter().flatten().map(reach).fold(f64::NEG_INFINITY, f64::max);
        direction.dot(&self.plane.origin) + highest
    }

    /// Appends the positions along `direction` of the profile's corners, on both sides of the axis.
    pub(super) fn breaks(&self, direction: Vec3, found: &mut Vec<f64>) {
        let local = self.plane.direction_to_local(direction);
        let base = direction.dot(&self.plane.origin);
        for end in self.sides.iter().flatten() {
            let (aside, along) = (end.x * local.xy().norm(), base + end.y * local.z);
            found.extend([along - aside, along + aside]);
            if !self.is_whole() {
                found.push(along);
                found.extend(self.ends().iter().map(|toward| along + end.x * toward.dot(&local.xy())));
            }
        }
    }

    /// The intervals of a line between the planes of the flat ends; at most two.
    pub(super) fn between_ends(&self, origin: Vec3, direction: Vec3, primitive: u16) -> Vec<Span> {
        let (o, d) = (self.plane.to_local(origin).xy(), self.plane.direction_to_local(direction).xy());
        let first = self.sides.len() as u16;
        let boundary = |at: f64, end: u16| Boundary { at, face: FaceId { primitive, face: first + end } };
        let everything = || Span { enter: boundary(f64::NEG_INFINITY, 0), leave: boundary(f64::INFINITY, 0) };
        // The half plane on the inner side of each end. For half a turn both are the same.
        let is_half = (self.turn - PI).abs() < 1e-12;
        let inside = |end: u16, normal: Vec2| {
            let (height, rise) = (normal.dot(&o), normal.dot(&d));
            if rise.abs() < 1e-12 {
                return (height >= 0.0).then(everything);
            }
            let at = -height / rise;
            let end = if is_half { u16::from((o + d * at).x < 0.0) } else { end };
            let mut span = everything();
            *(if rise > 0.0 { &mut span.enter } else { &mut span.leave }) = boundary(at, end);
            Some(span)
        };
        let normals = self.end_normals();
        match [inside(0, normals[0]), inside(1, normals[1])] {
            [Some(a), Some(b)] if self.turn < PI || is_half => {
                let enter = if a.enter.at >= b.enter.at { a.enter } else { b.enter };
                let leave = if a.leave.at <= b.leave.at { a.leave } else { b.leave };
                if enter.at < leave.at { vec![Span { enter, leave }] } else { Vec::new() }
            }
            [a, b] if self.turn > PI && !is_half => {
                let mut found: Vec<Span> = [a, b].into_iter().flatten().collect();
                found.sort_by(|a, b| a.enter.at.total_cmp(&b.enter.at));
                if let [a, b] = *found.as_slice()
                    && b.enter.at <= a.leave.at
                {
                    let leave = if a.leave.at >= b.leave.at { a.leave } else { b.leave };
                    found = vec![Span { enter: a.enter, leave }];
                }
                found
            }
            _ => Vec::new(),
        }
    }

    /// Appends the crossings of a line with the swept sides, unsorted.
    pub(super) fn crossings(&self, origin: Vec3, direction: Vec3, primitive: u16, found: &mut Vec<Boundary>) {
        let (o, d) = (self.plane.to_local(origin), self.plane.direction_to_local(direction));
        for (number, [a, b]) in self.sides.iter().enumerate() {
            let face = FaceId { primitive, face: number as u16 };
            let between = |value: f64, p: f64, q: f64| p.min(q) <= value && value < p.max(q);
            let rise = b.y - a.y;
            if a.x.max(b.x) <= 0.0 {
                // A side on the axis sweeps no surface.
                continue;
            }
            if rise.abs() < 1e-12 {
                let at = (a.y - o.z) / d.z;
                if d.z.abs() > 1e-12 && between((o.xy() + d.xy() * at).norm(), a.x, b.x) {
                    found.push(Boundary { at, face });
                }
                continue;
            }
            // At a crossing, |o + t d|^2 across the axis equals (r + k t)^2, the squared radius at
            // the line's height.
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

    /// A normal at the point `at` of swept side or flat end number `side`.
    pub(super) fn normal(&self, at: Vec3, side: u16) -> Vec3 {
        let Some([a, b]) = self.sides.get(usize::from(side)) else {
            let flat = self.end_normals()[usize::from(side) - self.sides.len()];
            return self.plane.direction_to_space(Vec3::new(flat.x, flat.y, 0.0));
        };
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
        CsgSolid::Revolution(Revolution::whole(plane, (0..corners.len()).map(|k| [corner(k), corner(k + 1)]).collect()))
    }

    fn part(solid: &CsgSolid, turn: f64) -> CsgSolid {
        let CsgSolid::Revolution(whole) = solid else { panic!("a solid of revolution") };
        CsgSolid::Revolution(Revolution { turn, ..whole.clone() })
    }

    #[test]
    fn part_of_a_turn_has_its_share_of_the_volume() {
        let ring = turned(&[(1.0, -1.0), (2.0, 0.0), (1.5, 1.0)], Vec3::new(1.0, 2.0, -0.5));
        for degrees in [10.0f64, 90.0, 135.0, 180.0, 200.0, 270.0, 355.0] {
            let share = part(&ring, degrees.to_radians());
            let expected = ring.volume() * degrees / 360.0;
            assert!((share.volume() - expected).abs() < 1e-9, "{degrees}: {} for {expected}", share.volume());
        }
    }

    #[test]
    fn part_of_a_turn_is_whole_but_for_a_wedge() {
        // A tube about z from radius 1 to 2; the axis passes through (0.3, -0.2), the turn begins
        // at +x.
        let tube = turned(&[(1.0, 0.0), (2.0, 0.0), (2.0, 1.0), (1.0, 1.0)], Vec3::z());
        for (degrees, min, max) in [
            (90.0f64, [0.3, -0.2], [2.3, 1.8]),
            (180.0, [-1.7, -0.2], [2.3, 1.8]),
            (225.0, [-1.7, -0.2 - 2.0 * 0.5f64.sqrt()], [2.3, 1.8]),
            (300.0, [-1.7, -2.2], [2.3, 1.8]),
        ] {
            let solid = part(&tube, degrees.to_radians());
            let bounds = solid.bounds().unwrap();
            assert!((bounds.min.xy() - Vec2::from(min)).norm() < 1e-12, "{degrees}: {bounds:?}");
            assert!((bounds.max.xy() - Vec2::from(max)).norm() < 1e-12, "{degrees}: {bounds:?}");
            // Along a line across the axis, at half height and a little off it.
            let mut caster = solid.caster(Vec3::x());
            let spans: Vec<_> =
                caster.spans(Vec3::new(0.3, 0.0, 0.6)).iter().map(|s| (s.enter.at, s.leave.at)).collect();
            let (near, far) = ((1.0f64 - 0.04).sqrt(), (4.0f64 - 0.04).sqrt());
            let expected = if degrees == 90.0 { vec![(near, far)] } else { vec![(-far, -near), (near, far)] };
            assert_eq!(spans.len(), expected.len(), "{degrees}: {spans:?}");
            for (found, expected) in spans.iter().zip(expected) {
                assert!((found.0 - expected.0).abs() + (found.1 - expected.1).abs() < 1e-12, "{degrees}: {spans:?}");
            }
            // And along the other axis, through a point left of it.
            let mut caster = solid.caster(Vec3::y());
            let spans: Vec<_> =
                caster.spans(Vec3::new(-0.2, -0.2, 0.6)).iter().map(|s| (s.enter.at, s.leave.at)).collect();
            let (near, far) = ((1.0f64 - 0.25).sqrt(), (4.0f64 - 0.25).sqrt());
            let expected = match degrees as i32 {
                90 => vec![],
                // The ray from the axis at 225 degrees passes x = -0.5 at y = -0.5: within the
                // bore.
                180 | 225 => vec![(near, far)],
                _ => vec![(-far, -near), (near, far)],
            };
            assert_eq!(spans.len(), expected.len(), "{degrees}: {spans:?}");
        }
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
