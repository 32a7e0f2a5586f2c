//! Convex polyhedra: the shape of a tapered extrusion of a convex polygon.

use super::cast::{Boundary, Span};
use super::{CONTACT, Edge, FaceId, Vec2, Vec3};

/// A convex body with flat faces.
#[derive(Debug, Clone, PartialEq)]
pub struct Polyhedron {
    /// Its corners.
    pub corners: Vec<Vec3>,
    /// Its faces; their position is the number in a [`FaceId`].
    pub faces: Vec<Facet>,
}

/// A face of a polyhedron.
#[derive(Debug, Clone, PartialEq)]
pub struct Facet {
    /// Unit normal, outward.
    pub normal: Vec3,
    /// `normal . p` for the face's points.
    pub offset: f64,
    /// Indices of its corners, in order around the face.
    pub around: Vec<usize>,
}

impl Polyhedron {
    /// The body with these corners and faces; each face lists the indices of its corners in order.
    pub fn new(corners: Vec<Vec3>, faces: Vec<Vec<usize>>) -> Self {
        let middle = corners.iter().sum::<Vec3>() / corners.len() as f64;
        let facet = |around: Vec<usize>| {
            let next = around.iter().cycle().skip(1);
            let first = corners[around[0]];
            let area: Vec3 =
                around.iter().zip(next).map(|(a, b)| (corners[*a] - first).cross(&(corners[*b] - first))).sum();
            let normal = area.normalize();
            let normal = if normal.dot(&(first - middle)) < 0.0 { -normal } else { normal };
            Facet { normal, offset: normal.dot(&first), around }
        };
        let faces = faces.into_iter().map(facet).collect();
        Self { faces, corners }
    }

    /// The same body moved or mirrored; `point` must be an isometry.
    pub fn mapped(&self, point: impl Fn(Vec3) -> Vec3) -> Self {
        let corners = self.corners.iter().map(|corner| point(*corner)).collect();
        Self::new(corners, self.faces.iter().map(|face| face.around.clone()).collect())
    }

    /// The largest value of `direction . p` over the body.
    pub fn support(&self, direction: Vec3) -> f64 {
        self.corners.iter().map(|corner| direction.dot(corner)).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Straight edges, each with the normals of its two adjacent faces.
    pub fn edges(&self) -> Vec<([Vec3; 2], Vec<Vec3>)> {
        let mut found: Vec<([usize; 2], Vec<Vec3>)> = Vec::new();
        for face in &self.faces {
            let next = face.around.iter().cycle().skip(1);
            for (a, b) in face.around.iter().zip(next) {
                let ends = [*a.min(b), *a.max(b)];
                match found.iter_mut().find(|(known, _)| *known == ends) {
                    Some((_, normals)) => normals.push(face.normal),
                    None => found.push((ends, vec![face.normal])),
                }
            }
        }
        found.into_iter().map(|(ends, normals)| (ends.map(|end| self.corners[end]), normals)).collect()
    }

    /// The interval of a line inside the body.
    pub(super) fn cast(&self, origin: Vec3, direction: Vec3, primitive: u16) -> Option<Span> {
        let boundary = |at: f64, face: usize| Boundary { at, face: FaceId { primitive, face: face as u16 } };
        let mut span = Span { enter: boundary(f64::NEG_INFINITY, 0), leave: boundary(f64::INFINITY, 0) };
        for (number, face) in self.faces.iter().enumerate() {
            let (height, rise) = (face.normal.dot(&origin) - face.offset, face.normal.dot(&direction));
            if rise.abs() < 1e-12 {
                // Half open, so that exactly one of two stacked bodies holds a line in their common
                // plane.
                let leading = face.normal.iter().copied().find(|c| c.abs() > 1e-9).unwrap_or(1.0);
                if height > 0.0 || (height == 0.0 && leading > 0.0) {
                    return None;
                }
                continue;
            }
            let at = -height / rise;
            if rise < 0.0 && at > span.enter.at {
                span.enter = boundary(at, number);
            } else if rise > 0.0 && at < span.leave.at {
                span.leave = boundary(at, number);
            }
        }
        (span.leave.at > span.enter.at + CONTACT).then_some(span)
    }

    /// The edges of the section by the plane `up . p = level`; `flat` gives coordinates in that
    /// plane.
    pub(super) fn outline(&self, up: Vec3, level: f64, flat: impl Fn(Vec3) -> Vec2) -> Vec<Edge> {
        let mut edges = Vec::with_capacity(self.faces.len());
        for face in &self.faces {
            let next = face.around.iter().cycle().skip(1);
            let mut ends = Vec::with_capacity(2);
            for (a, b) in face.around.iter().zip(next) {
                // Starts at the lower end, so that both faces at an edge compute bitwise the same
                // point.
                let (a, b) = (self.corners[*a.min(b)], self.corners[*a.max(b)]);
                let (from, to) = (up.dot(&a) - level, up.dot(&b) - level);
                if (from > 0.0) != (to > 0.0) {
                    ends.push(flat(a + (b - a) * (from / (from - to))));
                }
            }
            if let [from, to] = *ends.as_slice()
                && from != to
            {
                edges.push(Edge::Line { from, to });
            }
        }
        edges
    }
}

#[cfg(test)]
mod tests {
    use super::super::CsgSolid;
    use super::*;

    /// A square frustum: 4 x 4 at z = 0, 2 x 2 at z = 3.
    fn frustum(turn: f64) -> CsgSolid {
        let turn = nalgebra::Rotation3::from_euler_angles(turn, 2.0 * turn, -turn);
        let ring = |half: f64, z: f64| {
            [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, y)| turn * Vec3::new(half * x, half * y, z))
        };
        let corners = [ring(2.0, 0.0), ring(1.0, 3.0)].concat();
        let mut faces = vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        faces.extend((0..4).map(|k| vec![k, (k + 1) % 4, 4 + (k + 1) % 4, 4 + k]));
        Polyhedron::new(corners, faces).into()
    }

    #[test]
    fn a_frustum_by_closed_form() {
        for turn in [0.0, 0.3, 1.1] {
            // h/3 (A + B + sqrt(A B)) = 16 + 4 + 8; the quadrature across a sweep is good to about
            // 3e-6 here.
            assert!((frustum(turn).volume() - 28.0).abs() < 1e-5 * 28.0, "{turn}: {}", frustum(turn).volume());
        }
        let solid = frustum(0.0);
        let bounds = solid.bounds().unwrap();
        assert_eq!((bounds.min, bounds.max), (Vec3::new(-2.0, -2.0, 0.0), Vec3::new(2.0, 2.0, 3.0)));
        // At half height the half width is 1.5; along x through y = 1.2 it is entered and left
        // there.
        let mut caster = solid.caster(Vec3::x());
        let spans: Vec<_> = caster.spans(Vec3::new(0.0, 1.2, 1.5)).iter().map(|s| (s.enter.at, s.leave.at)).collect();
        assert!(spans.len() == 1 && (spans[0].0 + 1.5).abs() + (spans[0].1 - 1.5).abs() < 1e-12, "{spans:?}");
        assert!(caster.spans(Vec3::new(0.0, 1.6, 1.5)).is_empty());
    }
}
