//! The distance between two edges of a sketch.

use super::region::{cross, within_turn};
use super::{Edge, Vec2};

/// An edge as a curve with a distance to points.
#[derive(Clone, Copy)]
enum PlaneCurve {
    Segment {
        from: Vec2,
        to: Vec2,
    },
    /// Counter-clockwise from direction `a` to direction `b`; a full circle if they are `None`.
    Arc {
        center: Vec2,
        radius: f64,
        turn: Option<(Vec2, Vec2)>,
    },
}

impl Edge {
    /// The smallest distance between points of two edges; 0 if they cross.
    pub fn gap(&self, other: &Self) -> f64 {
        match (self.curve(), other.curve()) {
            (a @ PlaneCurve::Segment { .. }, b @ PlaneCurve::Segment { .. }) => segments(a, b),
            (a @ PlaneCurve::Segment { .. }, b @ PlaneCurve::Arc { .. })
            | (b @ PlaneCurve::Arc { .. }, a @ PlaneCurve::Segment { .. }) => segment_and_arc(a, b),
            (a @ PlaneCurve::Arc { .. }, b @ PlaneCurve::Arc { .. }) => arcs(a, b),
        }
    }

    /// The points that two edges have in common. Returns none for two edges on the same line or
    /// circle (see [`Edge::gap`]).
    pub fn crossings(&self, other: &Self) -> Vec<Vec2> {
        match (self.curve(), other.curve()) {
            (PlaneCurve::Segment { from: a, to: b }, PlaneCurve::Segment { from: c, to: d }) => {
                let (u, v) = (b - a, d - c);
                let turn = cross(u, v);
                if turn == 0.0 {
                    return Vec::new();
                }
                let (s, t) = (cross(c - a, v) / turn, cross(c - a, u) / turn);
                let inside = |x: f64| (0.0..=1.0).contains(&x);
                if inside(s) && inside(t) { vec![a + u * s] } else { Vec::new() }
            }
            (segment @ PlaneCurve::Segment { .. }, arc @ PlaneCurve::Arc { .. })
            | (arc @ PlaneCurve::Arc { .. }, segment @ PlaneCurve::Segment { .. }) => line_and_circle(segment, arc),
            (a @ PlaneCurve::Arc { .. }, b @ PlaneCurve::Arc { .. }) => circles(a, b),
        }
    }

    /// The distance of a point from the edge.
    pub fn distance(&self, point: Vec2) -> f64 {
        self.curve().distance(point)
    }

    fn curve(&self) -> PlaneCurve {
        match *self {
            Self::Line { from, to } => PlaneCurve::Segment { from, to },
            Self::Circle { center, radius } => PlaneCurve::Arc { center, radius, turn: None },
            Self::Arc { from, to, center, radius, counter_clockwise } => {
                let (a, b) =
                    if counter_clockwise { (from - center, to - center) } else { (to - center, from - center) };
                PlaneCurve::Arc { center, radius, turn: Some((a, b)) }
            }
        }
    }
}

impl PlaneCurve {
    fn distance(self, point: Vec2) -> f64 {
        match self {
            Self::Segment { from, to } => {
                let along = to - from;
                let share = ((point - from).dot(&along) / along.norm_squared()).clamp(0.0, 1.0);
                (point - from - along * share).norm()
            }
            Self::Arc { center, radius, .. } => {
                if self.looks_at(point) {
                    ((point - center).norm() - radius).abs()
                } else {
                    self.ends().iter().map(|end| (point - end).norm()).fold(f64::INFINITY, f64::min)
                }
            }
        }
    }

    /// Whether the arc spans the direction from its centre to `point`.
    fn looks_at(self, point: Vec2) -> bool {
        match self {
            Self::Arc { center, turn: Some((a, b)), .. } => within_turn(a, b, point - center),
            _ => true,
        }
    }

    fn ends(self) -> Vec<Vec2> {
        match self {
            Self::Segment { from, to } => vec![from, to],
            Self::Arc { center, turn: Some((a, b)), .. } => vec![center + a, center + b],
            Self::Arc { .. } => Vec::new(),
        }
    }
}

fn ends_to(a: PlaneCurve, b: PlaneCurve) -> f64 {
    let one_way =
        |a: PlaneCurve, b: PlaneCurve| a.ends().iter().map(|end| b.distance(*end)).fold(f64::INFINITY, f64::min);
    one_way(a, b).min(one_way(b, a))
}

fn segments(a: PlaneCurve, b: PlaneCurve) -> f64 {
    let (PlaneCurve::Segment { from: p, to: q }, PlaneCurve::Segment { from: r, to: s }) = (a, b) else { return 0.0 };
    let apart = |u: Vec2, v: Vec2, w: Vec2, x: Vec2| cross(v - u, w - u) * cross(v - u, x - u) > 0.0;
    let parallel = cross(q - p, s - r) == 0.0;
    if !parallel && !apart(p, q, r, s) && !apart(r, s, p, q) { 0.0 } else { ends_to(a, b) }
}

fn line_and_circle(segment: PlaneCurve, arc: PlaneCurve) -> Vec<Vec2> {
    let (PlaneCurve::Segment { from, to }, PlaneCurve::Arc { center, radius, .. }) = (segment, arc) else {
        return Vec::new();
    };
    let along = to - from;
    let length = along.norm();
    let unit = along / length;
    let foot = unit.dot(&(center - from));
    let height = cross(unit, center - from);
    let half = radius * radius - height * height;
    if half < 0.0 {
        return Vec::new();
    }
    [foot - half.sqrt(), foot + half.sqrt()]
        .into_iter()
        .filter(|at| (0.0..=length).contains(at))
        .map(|at| from + unit * at)
        .filter(|point| arc.looks_at(*point))
        .collect()
}

fn segment_and_arc(segment: PlaneCurve, arc: PlaneCurve) -> f64 {
    if !line_and_circle(segment, arc).is_empty() {
        return 0.0;
    }
    let (PlaneCurve::Segment { from, to }, PlaneCurve::Arc { center, radius, .. }) = (segment, arc) else { return 0.0 };
    let along = to - from;
    let share = (center - from).dot(&along) / along.norm_squared();
    let foot = from + along * share.clamp(0.0, 1.0);
    let nearest = if arc.looks_at(foot) { ((foot - center).norm() - radius).abs() } else { f64::INFINITY };
    nearest.min(ends_to(segment, arc))
}

fn circles(a: PlaneCurve, b: PlaneCurve) -> Vec<Vec2> {
    let (PlaneCurve::Arc { center: c, radius: r, .. }, PlaneCurve::Arc { center: d, radius: s, .. }) = (a, b) else {
        return Vec::new();
    };
    let apart = (d - c).norm();
    if apart < 1e-12 || apart > r + s || apart < (r - s).abs() {
        return Vec::new();
    }
    let unit = (d - c) / apart;
    let along = (apart * apart + r * r - s * s) / (2.0 * apart);
    let aside = (r * r - along * along).max(0.0).sqrt();
    let left = Vec2::new(-unit.y, unit.x);
    [aside, -aside]
        .into_iter()
        .map(|side| c + unit * along + left * side)
        .filter(|point| a.looks_at(*point) && b.looks_at(*point))
        .collect()
}

fn arcs(a: PlaneCurve, b: PlaneCurve) -> f64 {
    if !circles(a, b).is_empty() {
        return 0.0;
    }
    let (
        PlaneCurve::Arc { center: c, radius: r, turn: turn_a },
        PlaneCurve::Arc { center: d, radius: s, turn: turn_b },
    ) = (a, b)
    else {
        return 0.0;
    };
    let mut least = ends_to(a, b);
    let apart = (d - c).norm();
    if apart < 1e-12 {
        // Concentric circles: the ends determine the gap, unless both circles are full.
        return if turn_a.is_none() && turn_b.is_none() { (r - s).abs() } else { least };
    }
    let unit = (d - c) / apart;
    for p in [c + unit * r, c - unit * r] {
        for q in [d + unit * s, d - unit * s] {
            if a.looks_at(p) && b.looks_at(q) {
                least = least.min((p - q).norm());
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(x: f64, y: f64) -> Vec2 {
        Vec2::new(x, y)
    }

    fn line(a: (f64, f64), b: (f64, f64)) -> Edge {
        Edge::line(v(a.0, a.1), v(b.0, b.1)).unwrap()
    }

    #[test]
    fn gaps_by_hand() {
        let circle = |x, y, r| Edge::circle(v(x, y), r).unwrap();
        // The upper half of the unit circle.
        let arch = Edge::three_point_arc(v(1.0, 0.0), v(0.0, 1.0), v(-1.0, 0.0)).unwrap();
        for (a, b, expected) in [
            (line((0.0, 0.0), (1.0, 0.0)), line((0.0, 1.0), (1.0, 2.0)), 1.0),
            (line((0.0, 0.0), (2.0, 2.0)), line((0.0, 2.0), (2.0, 0.0)), 0.0),
            (line((0.0, 0.0), (1.0, 0.0)), line((2.0, 0.0), (3.0, 0.0)), 1.0),
            (line((0.0, 0.0), (1.0, 0.0)), line((0.5, 0.0), (3.0, 0.0)), 0.0),
            (line((-5.0, 3.0), (5.0, 3.0)), circle(0.0, 0.0, 1.0), 2.0),
            (line((-0.5, 0.0), (0.5, 0.0)), circle(0.0, 0.0, 1.0), 0.5),
            (line((-5.0, 0.5), (5.0, 0.5)), circle(0.0, 0.0, 1.0), 0.0),
            (circle(0.0, 0.0, 1.0), circle(3.0, 0.0, 1.5), 0.5),
            (circle(0.0, 0.0, 2.0), circle(0.5, 0.0, 1.0), 0.5),
            (circle(0.0, 0.0, 2.0), circle(0.0, 0.0, 1.0), 1.0),
            (circle(0.0, 0.0, 2.0), circle(2.0, 0.0, 1.0), 0.0),
            (arch.clone(), line((-5.0, -1.0), (5.0, -1.0)), 1.0),
            (arch.clone(), circle(0.0, -3.0, 1.0), 10f64.sqrt() - 1.0),
            (arch.clone(), line((0.0, 0.5), (0.0, 0.75)), 0.25),
        ] {
            assert!((a.gap(&b) - expected).abs() < 1e-12, "{a:?} {b:?}: {}", a.gap(&b));
            assert!((b.gap(&a) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn crossings_by_hand() {
        let circle = Edge::circle(v(0.0, 0.0), 1.0).unwrap();
        assert_eq!(line((-2.0, 0.0), (2.0, 0.0)).crossings(&circle), [v(-1.0, 0.0), v(1.0, 0.0)]);
        assert_eq!(line((0.0, 0.0), (2.0, 0.0)).crossings(&circle), [v(1.0, 0.0)]);
        assert_eq!(line((0.0, 0.0), (2.0, 2.0)).crossings(&line((0.0, 2.0), (2.0, 0.0))), [v(1.0, 1.0)]);
        assert!(Edge::circle(v(3.0, 0.0), 1.0).unwrap().crossings(&circle).is_empty());
    }
}
