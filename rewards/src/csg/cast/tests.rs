//! Lines through blocks, arcs of every turn, corners.

use super::*;
use crate::csg::{Plane, Region, Wire};
use crate::samples::block;

fn v(x: f64, y: f64) -> Vec2 {
    Vec2::new(x, y)
}

fn along_x(solid: &CsgSolid, y: f64, z: f64) -> Vec<(f64, f64)> {
    let mut caster = solid.caster(Vec3::x());
    caster.spans(Vec3::new(0.0, y, z)).iter().map(|span| (span.enter.at, span.leave.at)).collect()
}

#[test]
fn the_booleans_on_blocks() {
    let a = block(Vec3::zeros(), Vec3::new(4.0, 1.0, 1.0));
    let b = block(Vec3::new(1.0, 0.0, 0.0), Vec3::new(1.0, 1.0, 1.0));
    let far = block(Vec3::new(4.0, 0.0, 0.0), Vec3::new(2.0, 1.0, 1.0));
    let cut = a.clone().combine(Operation::Cut, b.clone());
    assert_eq!(along_x(&cut, 0.5, 0.5), [(0.0, 1.0), (2.0, 4.0)]);
    assert_eq!(along_x(&a.clone().combine(Operation::Intersect, b.clone()), 0.5, 0.5), [(1.0, 2.0)]);
    // Touching faces fuse.
    assert_eq!(along_x(&a.clone().combine(Operation::Union, far.clone()), 0.5, 0.5), [(0.0, 6.0)]);
    assert_eq!(along_x(&far.combine(Operation::Union, a.clone()), 0.5, 0.5), [(0.0, 6.0)]);
    assert_eq!(along_x(&cut.clone().combine(Operation::Union, b.clone()), 0.5, 0.5), [(0.0, 4.0)]);
    assert_eq!(along_x(&cut.combine(Operation::Intersect, b.clone()), 0.5, 0.5), []);
    // A cut that removes everything leaves no sliver.
    assert_eq!(along_x(&b.clone().combine(Operation::Cut, a), 0.5, 0.5), []);
    assert_eq!(along_x(&b, 0.5, 1.5), []);
}

#[test]
fn faces_and_outward_normals() {
    let a = block(Vec3::zeros(), Vec3::new(4.0, 1.0, 1.0));
    let b = block(Vec3::new(1.0, 0.0, 0.0), Vec3::new(1.0, 1.0, 1.0));
    let cut = a.combine(Operation::Cut, b);
    let origin = Vec3::new(0.0, 0.5, 0.5);
    let mut caster = cut.caster(Vec3::x());
    let spans = caster.spans(origin).to_vec();
    // The left piece ends on the tool's left side (edge 3, running down at x = 1), which now faces
    // right.
    assert_eq!(spans[0].leave.face, FaceId { primitive: 1, face: FaceId::FIRST_SIDE + 3 });
    assert_eq!(caster.normal(origin, &spans[0].leave, false), Vec3::x());
    assert_eq!(caster.normal(origin, &spans[0].enter, true), -Vec3::x());
    let mut down = cut.caster(-Vec3::z());
    let above = Vec3::new(0.5, 0.5, 5.0);
    let span = down.spans(above)[0];
    assert_eq!((span.enter.at, span.leave.at), (4.0, 5.0));
    assert_eq!(span.enter.face, FaceId { primitive: 0, face: FaceId::HIGH_CAP });
    assert_eq!(down.normal(above, &span.enter, true), Vec3::z());
    assert_eq!(down.normal(above, &span.leave, false), -Vec3::z());
}

#[test]
fn arcs_of_every_turn_are_crossed_where_the_circle_is() {
    // Pie slices of the unit circle from 0 to `turn`, cut by horizontal and vertical lines.
    for degrees in [30.0f64, 90.0, 135.0, 180.0, 200.0, 270.0, 300.0, 350.0] {
        for counter_clockwise in [true, false] {
            let point = |d: f64| {
                let (sin, cos) = d.to_radians().sin_cos();
                v(cos, if counter_clockwise { sin } else { -sin })
            };
            let arc = Edge::three_point_arc(point(0.0), point(degrees / 2.0), point(degrees)).unwrap();
            let zero = v(0.0, 0.0);
            let region = Region::new(
                Wire::new(vec![Edge::line(zero, point(0.0)).unwrap(), arc, Edge::line(point(degrees), zero).unwrap()])
                    .unwrap(),
                vec![],
            );
            assert!((region.area() - degrees.to_radians() / 2.0).abs() < 1e-12);
            let solid: CsgSolid = Extrusion::new(Plane::xy(Vec3::zeros()), region.clone(), 1.0, false).into();
            let inside = |x: f64, y: f64| {
                let y = if counter_clockwise { y } else { -y };
                x.hypot(y) < 1.0 && y.atan2(x).rem_euclid(std::f64::consts::TAU) < degrees.to_radians()
            };
            for step in 0..40 {
                let level = -0.97 + 0.05 * f64::from(step);
                for direction in [Vec3::x(), -Vec3::x(), Vec3::y(), -Vec3::y()] {
                    let side = Vec3::z().cross(&direction);
                    let origin = side * level + Vec3::new(0.0, 0.0, 0.5);
                    let mut caster = solid.caster(direction);
                    let spans = caster.spans(origin).to_vec();
                    for probe in 0..80 {
                        let at = -0.983 + 0.025 * f64::from(probe);
                        let point = origin + direction * at;
                        let found = spans.iter().any(|span| span.enter.at < at && at < span.leave.at);
                        assert_eq!(found, inside(point.x, point.y), "{degrees} {counter_clockwise} {point:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_line_through_corners_and_along_edges_keeps_its_parity() {
    let corners = [v(0.0, 0.0), v(1.0, 0.0), v(1.0, 1.0), v(0.5, 0.5), v(0.0, 1.0)];
    let edges = (0..5).map(|i| Edge::line(corners[i], corners[(i + 1) % 5]).unwrap()).collect();
    let solid: CsgSolid =
        Extrusion::new(Plane::xy(Vec3::zeros()), Region::new(Wire::new(edges).unwrap(), vec![]), 1.0, false).into();
    assert_eq!(along_x(&solid, 0.5, 0.5).iter().map(|s| s.1 - s.0).sum::<f64>(), 1.0);
    for y in [0.0, 1.0] {
        assert!(along_x(&solid, y, 0.5).len() <= 2);
    }
    let mut up = solid.caster(Vec3::z());
    assert_eq!(up.spans(Vec3::new(0.25, 0.25, -1.0)).len(), 1);
    assert_eq!(up.spans(Vec3::new(0.5, 0.75, -1.0)).len(), 0);
}

#[test]
fn a_negative_distance_and_both_directions() {
    let region = || Region::new(Wire::new(vec![Edge::circle(v(0.0, 0.0), 1.0).unwrap()]).unwrap(), vec![]);
    let down = Extrusion::new(Plane::xy(Vec3::zeros()), region(), -2.0, false);
    assert_eq!((down.low, down.high), (-2.0, 0.0));
    let both = Extrusion::new(Plane::xy(Vec3::zeros()), region(), -2.0, true);
    assert_eq!((both.low, both.high), (-2.0, 2.0));
    assert!((both.volume() - 4.0 * std::f64::consts::PI).abs() < 1e-12);
}
