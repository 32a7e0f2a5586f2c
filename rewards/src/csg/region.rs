//! Plane regions: closed wires of lines, arcs and circles; a region has an outer wire and holes.

use thiserror::Error;

use super::Vec2;

/// The reason why an edge cannot be built.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum EdgeError {
    /// The edge has no length.
    #[error("edge: start {from:?} and end {to:?} coincide")]
    NoLength {
        /// Start of the edge.
        from: [f64; 2],
        /// End of the edge.
        to: [f64; 2],
    },
    /// The three points of an arc lie on one line.
    #[error("arc: the points {from:?}, {mid:?}, {to:?} do not lie on a circle")]
    Collinear {
        /// Start of the arc.
        from: [f64; 2],
        /// A point of the arc.
        mid: [f64; 2],
        /// End of the arc.
        to: [f64; 2],
    },
    /// The radius of a circle is not positive and finite.
    #[error("circle: the radius must be positive and finite, found {radius}")]
    Radius {
        /// The radius given.
        radius: f64,
    },
}

/// The reason why edges do not form a wire.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum WireError {
    /// There are no edges.
    #[error("wire: at least one edge is needed")]
    Empty,
    /// An edge does not begin at the end of the edge before it.
    #[error("wire: edge {index} begins at {found:?}, but the edge before it ends at {expected:?}")]
    Gap {
        /// Position of the edge in the wire.
        index: usize,
        /// Expected start.
        expected: [f64; 2],
        /// Actual start.
        found: [f64; 2],
    },
    /// A full circle is joined with other edges; it is a wire by itself.
    #[error("wire: a circle is closed by itself and cannot be joined with other edges")]
    CircleAmongEdges,
}

/// One edge of a wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Edge {
    /// A straight line.
    Line {
        /// Start point.
        from: Vec2,
        /// End point.
        to: Vec2,
    },
    /// A circular arc of less than a full turn.
    Arc {
        /// Start point.
        from: Vec2,
        /// End point.
        to: Vec2,
        /// Centre of the circle.
        center: Vec2,
        /// Radius of the circle.
        radius: f64,
        /// Whether the arc runs counter-clockwise from `from` to `to`.
        counter_clockwise: bool,
    },
    /// A full circle.
    Circle {
        /// Centre.
        center: Vec2,
        /// Radius.
        radius: f64,
    },
}

impl Edge {
    /// A straight line between two different points.
    pub fn line(from: Vec2, to: Vec2) -> Result<Self, EdgeError> {
        if from == to {
            return Err(EdgeError::NoLength { from: from.into(), to: to.into() });
        }
        Ok(Self::Line { from, to })
    }

    /// The arc from `from` through `mid` to `to`.
    pub fn three_point_arc(from: Vec2, mid: Vec2, to: Vec2) -> Result<Self, EdgeError> {
        let (a, b) = (mid - from, to - from);
        let cross = cross(a, b);
        let chord = a.norm() * b.norm();
        // The tolerance is relative, because the circle's curvature is this sine over half the
        // chord between `from` and `to`.
        if chord == 0.0 || !cross.is_finite() || cross.abs() <= 1e-9 * chord {
            return Err(EdgeError::Collinear { from: from.into(), mid: mid.into(), to: to.into() });
        }
        let (aa, bb) = (a.norm_squared(), b.norm_squared());
        let offset = Vec2::new(b.y * aa - a.y * bb, a.x * bb - b.x * aa) / (2.0 * cross);
        Ok(Self::Arc { from, to, center: from + offset, radius: offset.norm(), counter_clockwise: cross > 0.0 })
    }

    /// A full circle.
    pub fn circle(center: Vec2, radius: f64) -> Result<Self, EdgeError> {
        if !(radius > 0.0 && radius.is_finite()) {
            return Err(EdgeError::Radius { radius });
        }
        Ok(Self::Circle { center, radius })
    }

    /// Start and end; `None` for a circle.
    pub fn ends(&self) -> Option<(Vec2, Vec2)> {
        match *self {
            Self::Line { from, to } | Self::Arc { from, to, .. } => Some((from, to)),
            Self::Circle { .. } => None,
        }
    }

    /// Turn of an arc in radians, in (0, 2 pi); 0 for a line, 2 pi for a circle.
    pub fn sweep(&self) -> f64 {
        use std::f64::consts::TAU;
        match *self {
            Self::Line { .. } => 0.0,
            Self::Circle { .. } => TAU,
            Self::Arc { from, to, center, counter_clockwise, .. } => {
                let (a, b) =
                    if counter_clockwise { (from - center, to - center) } else { (to - center, from - center) };
                cross(a, b).atan2(a.dot(&b)).rem_euclid(TAU)
            }
        }
    }

    /// Contribution to the signed area of a wire (Green's theorem); counter-clockwise wires are
    /// positive.
    fn signed_area(&self) -> f64 {
        match *self {
            Self::Line { from, to } => 0.5 * cross(from, to),
            Self::Circle { radius, .. } => std::f64::consts::PI * radius * radius,
            Self::Arc { from, to, radius, counter_clockwise, .. } => {
                let sweep = self.sweep();
                // The chord's triangle with the origin, plus the segment between chord and arc.
                let segment = 0.5 * radius * radius * (sweep - sweep.sin());
                0.5 * cross(from, to) + if counter_clockwise { segment } else { -segment }
            }
        }
    }

    /// Centre of mass of the curve.
    pub fn centroid(&self) -> Vec2 {
        match *self {
            Self::Line { from, to } => (from + to) / 2.0,
            Self::Circle { center, .. } => center,
            Self::Arc { from, center, radius, counter_clockwise, .. } => {
                // On the axis of symmetry, at r sin(s/2) / (s/2) from the centre.
                let half = self.sweep() / 2.0;
                let turn = nalgebra::Rotation2::new(if counter_clockwise { half } else { -half });
                center + turn * ((from - center) / radius) * (radius * half.sin() / half)
            }
        }
    }

    /// First moment of the area swept from the origin, for computing centroids.
    fn area_moment(&self) -> Vec2 {
        match *self {
            // A triangle with the origin: a third of the sum of its corners.
            Self::Line { from, to } => (from + to) / 3.0 * (0.5 * cross(from, to)),
            Self::Circle { center, radius } => center * (std::f64::consts::PI * radius * radius),
            Self::Arc { from, to, center, radius, counter_clockwise } => {
                let chord = (from + to) / 3.0 * (0.5 * cross(from, to));
                // The segment between chord and arc: its centroid lies on the axis of symmetry, at
                // 4 r sin^3(s/2) / (3 (s - sin s)) from the centre.
                let sweep = self.sweep();
                let area = 0.5 * radius * radius * (sweep - sweep.sin());
                let turn = nalgebra::Rotation2::new(if counter_clockwise { sweep / 2.0 } else { -sweep / 2.0 });
                let reach = 4.0 * radius * (sweep / 2.0).sin().powi(3) / (3.0 * (sweep - sweep.sin()));
                let at = center + turn * ((from - center) / radius) * reach;
                chord + at * if counter_clockwise { area } else { -area }
            }
        }
    }

    /// Area swept from a point to the edge, counter-clockwise positive.
    pub(crate) fn signed_area_about(&self, point: Vec2) -> f64 {
        let moved = |p: Vec2| p - point;
        match *self {
            Self::Line { from, to } => Self::Line { from: moved(from), to: moved(to) },
            Self::Arc { from, to, center, radius, counter_clockwise } => {
                Self::Arc { from: moved(from), to: moved(to), center: moved(center), radius, counter_clockwise }
            }
            Self::Circle { center, radius } => Self::Circle { center: moved(center), radius },
        }
        .signed_area()
    }

    /// The largest value of `direction . p` over the edge.
    pub(crate) fn support(&self, direction: Vec2) -> f64 {
        let at_ends = |from: Vec2, to: Vec2| direction.dot(&from).max(direction.dot(&to));
        match *self {
            Self::Line { from, to } => at_ends(from, to),
            Self::Circle { center, radius } => direction.dot(&center) + radius * direction.norm(),
            Self::Arc { from, to, center, radius, counter_clockwise } => {
                let (a, b) =
                    if counter_clockwise { (from - center, to - center) } else { (to - center, from - center) };
                if direction != Vec2::zeros() && within_turn(a, b, direction) {
                    direction.dot(&center) + radius * direction.norm()
                } else {
                    at_ends(from, to)
                }
            }
        }
    }

    /// Unit normal of the curve at a point on it. The sign is arbitrary.
    pub(super) fn normal_at(&self, point: Vec2) -> Vec2 {
        match *self {
            Self::Line { from, to } => {
                let along = to - from;
                Vec2::new(along.y, -along.x).normalize()
            }
            Self::Arc { center, radius, .. } | Self::Circle { center, radius } => (point - center) / radius,
        }
    }
}

/// The z component of the cross product.
pub(super) fn cross(a: Vec2, b: Vec2) -> f64 {
    a.x * b.y - a.y * b.x
}

/// Whether direction `u` lies in the counter-clockwise turn from `a` to `b`.
pub(super) fn within_turn(a: Vec2, b: Vec2, u: Vec2) -> bool {
    if cross(a, b) > 0.0 {
        cross(a, u) >= 0.0 && cross(u, b) >= 0.0
    } else if cross(a, b) < 0.0 {
        !(cross(b, u) > 0.0 && cross(u, a) > 0.0)
    } else {
        // A half turn; a full turn is no arc.
        cross(a, u) >= 0.0
    }
}

/// A closed chain of edges, or one circle.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    edges: Vec<Edge>,
}

impl Wire {
    /// A wire of edges in order. Each edge must begin exactly at the end of the one before, and the
    /// first at the end of the last.
    pub fn new(edges: Vec<Edge>) -> Result<Self, WireError> {
        if edges.is_empty() {
            return Err(WireError::Empty);
        }
        if edges.len() == 1 && matches!(edges[0], Edge::Circle { .. }) {
            return Ok(Self { edges });
        }
        let mut last = None;
        for edge in &edges {
            last = Some(edge.ends().ok_or(WireError::CircleAmongEdges)?.1);
        }
        for (index, edge) in edges.iter().enumerate() {
            let (from, to) = edge.ends().ok_or(WireError::CircleAmongEdges)?;
            if let Some(expected) = last.filter(|expected| *expected != from) {
                return Err(WireError::Gap { index, expected: expected.into(), found: from.into() });
            }
            last = Some(to);
        }
        Ok(Self { edges })
    }

    /// The edges in order.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Whether two neighbouring edges continue each other on one line or one circle, so that their
    /// faces merge.
    pub fn has_smooth_joint(&self) -> bool {
        let next = self.edges.iter().cycle().skip(1);
        self.edges.len() > 1
            && self.edges.iter().zip(next).any(|(a, b)| match (a, b) {
                (Edge::Line { from, to }, Edge::Line { to: end, .. }) => {
                    let (u, v) = (to - from, end - to);
                    cross(u, v).abs() < 1e-6 * u.norm() * v.norm()
                }
                (Edge::Arc { center, radius, .. }, Edge::Arc { center: other, radius: s, .. }) => {
                    (center - other).norm() < 1e-6 && (radius - s).abs() < 1e-6
                }
                _ => false,
            })
    }

    /// Whether a point that is not on the wire lies inside, by crossing parity.
    pub fn contains(&self, point: Vec2) -> bool {
        super::cast::crossings_ahead(&self.edges, point) % 2 == 1
    }

    /// Area by Green's theorem, positive for counter-clockwise wires. Meaningful for wires that do
    /// not cross themselves.
    pub fn signed_area(&self) -> f64 {
        self.edges.iter().map(Edge::signed_area).sum()
    }
}

/// The area inside of the outer wire and outside of the holes. Crossing parity over all wires
/// decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    outer: Wire,
    holes: Vec<Wire>,
}

impl Region {
    /// A region from an outer wire and holes. The caller ensures that the holes lie within the
    /// outer wire and apart from each other.
    pub fn new(outer: Wire, holes: Vec<Wire>) -> Self {
        Self { outer, holes }
    }

    /// The outer wire.
    pub fn outer(&self) -> &Wire {
        &self.outer
    }

    /// The holes.
    pub fn holes(&self) -> &[Wire] {
        &self.holes
    }

    /// All edges: those of the outer wire, then those of each hole. Their position is the number of
    /// the side face.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        std::iter::once(&self.outer).chain(&self.holes).flat_map(|wire| wire.edges())
    }

    /// Area of the region.
    pub fn area(&self) -> f64 {
        self.outer.signed_area().abs() - self.holes.iter().map(|hole| hole.signed_area().abs()).sum::<f64>()
    }

    /// Centre of mass of the region.
    pub fn centroid(&self) -> Vec2 {
        let of = |wire: &Wire| {
            let moment: Vec2 = wire.edges.iter().map(Edge::area_moment).sum();
            (moment * wire.signed_area().signum(), wire.signed_area().abs())
        };
        let (moment, area) = of(&self.outer);
        let holes = self.holes.iter().map(of).fold((Vec2::zeros(), 0.0), |(m, a), (n, b)| (m + n, a + b));
        (moment - holes.0) / (area - holes.1)
    }

    /// The largest value of `direction . p` over the region.
    pub fn support(&self, direction: Vec2) -> f64 {
        self.outer.edges.iter().map(|edge| edge.support(direction)).fold(f64::NEG_INFINITY, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    fn v(x: f64, y: f64) -> Vec2 {
        Vec2::new(x, y)
    }

    #[test]
    fn an_arc_finds_its_circle_its_sense_and_its_turn() {
        let half = Edge::three_point_arc(v(2.0, 0.0), v(3.0, 1.0), v(2.0, 2.0)).unwrap();
        let Edge::Arc { center, radius, counter_clockwise, .. } = half else { panic!("an arc") };
        assert_eq!((center, radius, counter_clockwise), (v(2.0, 1.0), 1.0, true));
        assert!((half.sweep() - PI).abs() < 1e-12);
        let clockwise = Edge::three_point_arc(v(0.0, 1.0), v(1.0, 0.0), v(0.0, -1.0)).unwrap();
        assert!(matches!(clockwise, Edge::Arc { counter_clockwise: false, .. }));
        // Three quarters of the unit circle, the long way round.
        let long = Edge::three_point_arc(v(1.0, 0.0), v(-1.0, 0.0), v(0.0, -1.0)).unwrap();
        assert!((long.sweep() - 1.5 * PI).abs() < 1e-12);
    }

    #[test]
    fn collinear_points_make_no_arc() {
        assert!(matches!(
            Edge::three_point_arc(v(0.0, 0.0), v(0.5, 0.0), v(1.0, 0.0)),
            Err(EdgeError::Collinear { .. })
        ));
        assert!(Edge::three_point_arc(v(0.0, 0.0), v(0.0, 0.0), v(1.0, 0.0)).is_err());
        assert!(Edge::circle(v(0.0, 0.0), -1.0).is_err());
        assert!(Edge::line(v(1.0, 1.0), v(1.0, 1.0)).is_err());
    }

    #[test]
    fn areas_by_closed_form() {
        // A slot: a 2 x 1 rectangle with half circles of radius 0.5 on both ends, minus a circle of
        // radius 0.25.
        let slot = Wire::new(vec![
            Edge::line(v(0.0, 0.0), v(2.0, 0.0)).unwrap(),
            Edge::three_point_arc(v(2.0, 0.0), v(2.5, 0.5), v(2.0, 1.0)).unwrap(),
            Edge::line(v(2.0, 1.0), v(0.0, 1.0)).unwrap(),
            Edge::three_point_arc(v(0.0, 1.0), v(-0.5, 0.5), v(0.0, 0.0)).unwrap(),
        ])
        .unwrap();
        assert!((slot.signed_area() - (2.0 + PI * 0.25)).abs() < 1e-12);
        let hole = Wire::new(vec![Edge::circle(v(1.0, 0.5), 0.25).unwrap()]).unwrap();
        let region = Region::new(slot, vec![hole]);
        assert!((region.area() - (2.0 + PI * 0.25 - PI * 0.0625)).abs() < 1e-12);
        assert_eq!(region.support(v(1.0, 0.0)), 2.5);
        assert_eq!(region.support(v(-1.0, 0.0)), 0.5);
        assert_eq!(region.support(v(0.0, 1.0)), 1.0);
    }

    #[test]
    fn centroids_by_closed_form() {
        // A half disc of radius 3 about (1, 0), drawn in both directions. Its centroid lies 4 r /
        // (3 pi) above the diameter, the centroid of its arc 2 r / pi.
        for (from, to) in [(4.0, -2.0), (-2.0, 4.0)] {
            let arc = Edge::three_point_arc(v(from, 0.0), v(1.0, 3.0), v(to, 0.0)).unwrap();
            assert!((arc.centroid() - v(1.0, 6.0 / PI)).norm() < 1e-12);
            let wire = Wire::new(vec![arc, Edge::line(v(to, 0.0), v(from, 0.0)).unwrap()]).unwrap();
            assert!((Region::new(wire, vec![]).centroid() - v(1.0, 4.0 / PI)).norm() < 1e-12);
        }
        // A square with a quarter of it cut out.
        let square = |a: f64, b: f64| {
            let corners = [v(a, a), v(b, a), v(b, b), v(a, b)];
            Wire::new((0..4).map(|i| Edge::line(corners[i], corners[(i + 1) % 4]).unwrap()).collect()).unwrap()
        };
        let region = Region::new(square(0.0, 4.0), vec![square(1.0, 3.0)]);
        assert!((region.centroid() - v(2.0, 2.0)).norm() < 1e-12);
        let region = Region::new(square(0.0, 4.0), vec![square(0.5, 2.5)]);
        assert!((region.centroid() - v((16.0 * 2.0 - 4.0 * 1.5) / 12.0, (32.0 - 6.0) / 12.0)).norm() < 1e-12);
    }

    #[test]
    fn gaps_and_circles_among_edges_are_refused() {
        let line = Edge::line(v(0.0, 0.0), v(1.0, 0.0)).unwrap();
        assert!(matches!(Wire::new(vec![line.clone()]), Err(WireError::Gap { index: 0, .. })));
        let circle = Edge::circle(v(0.0, 0.0), 1.0).unwrap();
        assert!(matches!(Wire::new(vec![line, circle]), Err(WireError::CircleAmongEdges)));
        assert!(matches!(Wire::new(vec![]), Err(WireError::Empty)));
    }
}
