//! Programs in the style of GenCAD-Code.

use super::super::draw::{Draw, Grain, float, rounded};

type Point = [f64; 2];

/// A closed outline.
#[derive(Clone)]
enum Loop {
    Circle {
        centre: Point,
        radius: f64,
    },
    /// Edges from the start through the ends and back to the start. An edge with a middle is an
    /// arc.
    Path {
        start: Point,
        edges: Vec<(Option<Point>, Point)>,
    },
}

/// The plane of a sketch.
struct Plane {
    origin: [f64; 3],
    x: [f64; 3],
    normal: [f64; 3],
}

/// Draws the grain of the program's numbers.
pub fn choose_grain(draw: &mut Draw) {
    draw.grain = draw.weighted(&[
        (10, Grain::Lattice(0.0625)),
        (15, Grain::Lattice(0.125)),
        (20, Grain::Lattice(0.25)),
        (10, Grain::Lattice(0.1)),
        (15, Grain::Continuous(16)),
        (15, Grain::Continuous(3)),
        (15, Grain::Continuous(2)),
    ]);
}

/// A program that joins one to eight extrusions.
pub fn program(draw: &mut Draw) -> String {
    choose_grain(draw);
    let bodies = draw.weighted(&[(30, 1), (28, 2), (16, 3), (10, 4), (6, 5), (4, 6), (3, 7), (3, 8)]);
    let mut text = String::from("import cadquery as cq\n");
    let mut loops = 0;
    let mut plane = first_plane(draw);
    let mut depth = 0.0;
    for index in 0..bodies {
        if index > 0 {
            plane = next_plane(draw, &plane, depth);
        }
        text += &format!(
            "wp_sketch{index} = cq.Workplane(cq.Plane({}, {}, {}))\n",
            vector(plane.origin),
            vector(plane.x),
            vector(plane.normal)
        );
        let mut adds = String::new();
        for outline in sketch(draw) {
            text += &format!("loop{loops}=wp_sketch{index}{}\n", written(draw, &outline));
            adds += &format!(".add(loop{loops})");
            loops += 1;
        }
        depth = distance(draw);
        let both = if draw.chance(0.12) { ", both=True" } else { "" };
        text += &format!("solid{index}=wp_sketch{index}{adds}.extrude({}{both})\n", float(depth));
        text += &match index {
            0 => "solid=solid0\n".to_owned(),
            _ => format!(
                "solid=solid.{}(solid{index})\n",
                draw.weighted(&[(55, "union"), (35, "cut"), (10, "intersect")])
            ),
        };
    }
    text
}

/// The depth of an extrusion: moderate, thin or against the normal.
fn distance(draw: &mut Draw) -> f64 {
    let size = match draw.below(10) {
        0 => draw.between(0.004, 0.04),
        1 => draw.number(0.9, 2.0),
        _ => draw.number(0.1, 0.9),
    };
    rounded(if draw.chance(0.2) { -size } else { size }, 12)
}

fn vector(v: [f64; 3]) -> String {
    format!("cq.Vector({}, {}, {})", float(v[0]), float(v[1]), float(v[2]))
}

fn axis(index: usize, sign: f64) -> [f64; 3] {
    let mut v = [0.0; 3];
    v[index] = sign;
    v
}

fn first_plane(draw: &mut Draw) -> Plane {
    let origin = if draw.chance(0.3) { [0.0; 3] } else { [0; 3].map(|_| draw.signed(1.0)) };
    turned(draw, origin)
}

/// A plane with a random direction.
fn turned(draw: &mut Draw, origin: [f64; 3]) -> Plane {
    let along = draw.weighted(&[(50, 2), (25, 1), (25, 0)]);
    let normal = axis(along, draw.pick(&[1.0, 1.0, -1.0]));
    let x = axis((along + 1 + draw.below(2)) % 3, draw.pick(&[1.0, 1.0, -1.0]));
    let mut plane = Plane { origin, x, normal };
    if draw.chance(0.04) {
        // Tilted. The kernel projects the x direction into the plane.
        let angle: f64 = draw.pick(&[0.5, std::f64::consts::FRAC_PI_4, 0.2, 1.1, 0.013]);
        let (sine, cosine) = angle.sin_cos();
        plane.normal = std::array::from_fn(|k| cosine * plane.normal[k] + sine * x[k]);
        plane.x = std::array::from_fn(|k| cosine * x[k] - sine * axis(along, normal[along])[k]);
    } else if draw.chance(0.25) {
        // Rotations leave such rounding errors in place of an exact zero.
        let noise = draw.pick(&[6.123233995736766e-17, -6.123233995736766e-17, 1.2246467991473532e-16]);
        let at = draw.below(3);
        if plane.normal[at] == 0.0 {
            plane.normal[at] = noise;
        }
        if plane.x[at] == 0.0 {
            plane.x[at] = -noise;
        }
    }
    plane
}

/// A plane on top of the last body, beside it, or elsewhere.
fn next_plane(draw: &mut Draw, last: &Plane, depth: f64) -> Plane {
    let shifted = |along: f64| std::array::from_fn(|k| rounded(last.origin[k] + along * last.normal[k], 12));
    let same = |origin| Plane { origin, x: last.x, normal: last.normal };
    match draw.below(10) {
        0..=2 => same(shifted(depth)),
        3 => same(last.origin),
        4 => {
            let along = draw.signed(0.75);
            same(shifted(along))
        }
        5 | 6 => {
            let mut origin: [f64; 3] = shifted(if draw.chance(0.5) { depth } else { 0.0 });
            let moved = draw.below(3);
            origin[moved] = rounded(origin[moved] + draw.signed(0.5), 12);
            same(origin)
        }
        7 => turned(draw, last.origin),
        _ => {
            let origin = [0; 3].map(|_| draw.signed(1.0));
            turned(draw, origin)
        }
    }
}

/// The loops of one sketch. Mostly it is one outline, alone or with holes well inside. Rarely loops
/// touch or cross it.
fn sketch(draw: &mut Draw) -> Vec<Loop> {
    let centre = [draw.signed(0.5), draw.signed(0.5)];
    let mut loops = Vec::new();
    match draw.below(40) {
        0..=20 => loops.push(outline(draw, centre, 1.0)),
        21..=24 => {
            // A thin wall.
            let outer = match draw.below(2) {
                0 => rectangle(draw, centre, 1.0),
                _ => circle(draw, centre, 0.1, 0.5),
            };
            let wall = draw.pick(&[0.99, 0.95, 0.9, 0.75, 0.5]);
            let inner = scaled(&outer, wall, centre);
            loops.extend([outer, inner]);
        }
        25..=30 => {
            // A plate with holes, each in a cell of its own.
            let cell = draw.number(0.125, 0.3);
            let (columns, rows) = (1 + draw.below(3), 1 + draw.below(2));
            let half = [columns, rows].map(|n| n as f64 * cell / 2.0);
            loops.push(polygon(
                &[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, y)| at(centre, half, x, y)),
            ));
            for k in 0..columns * rows {
                let [i, j] = [k % columns, k / columns].map(|k| k as f64 + 0.5);
                let middle = [centre[0] - half[0] + i * cell, centre[1] - half[1] + j * cell].map(|c| rounded(c, 12));
                match draw.below(6) {
                    0 => {}
                    1 => loops.push(rectangle(draw, middle, 0.9 * cell)),
                    _ => loops.push(circle(draw, middle, 0.1 * cell, 0.45 * cell)),
                }
            }
        }
        31..=33 => {
            let radius = draw.number(0.2, 0.5);
            loops.push(Loop::Circle { centre, radius });
            let (n, reach) = (2 + draw.below(5), draw.pick(&[0.5, 0.625, 0.75]) * radius);
            let hole = draw.pick(&[0.1, 0.125, 0.2]) * radius;
            for k in 0..n {
                let (sine, cosine) = (std::f64::consts::TAU * k as f64 / n as f64).sin_cos();
                loops.push(Loop::Circle {
                    centre: [centre[0] + reach * cosine, centre[1] + reach * sine],
                    radius: hole,
                });
            }
        }
        34..=37 => {
            // Outlines beside each other.
            let mut x = centre[0];
            for _ in 0..2 + draw.below(3) {
                loops.push(outline(draw, [rounded(x, 12), centre[1]], 0.4));
                x += draw.pick(&[0.75, 1.0, 0.8]);
            }
        }
        _ => {
            // Outlines at random positions.
            loops.push(outline(draw, centre, 1.0));
            for _ in 0..=draw.below(2) {
                let at = [centre[0] + draw.signed(0.75), centre[1] + draw.signed(0.75)].map(|c| rounded(c, 12));
                let other = outline(draw, at, 0.5);
                loops.push(other);
            }
        }
    }
    if draw.chance(0.1) {
        loops.reverse();
    }
    loops
}

fn circle(draw: &mut Draw, centre: Point, low: f64, high: f64) -> Loop {
    Loop::Circle { centre, radius: draw.number(low, high) }
}

fn rectangle(draw: &mut Draw, centre: Point, size: f64) -> Loop {
    let half = [draw.number(0.1 * size, size) / 2.0, draw.number(0.1 * size, size) / 2.0];
    polygon(&[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(x, y)| at(centre, half, x, y)))
}

fn at(centre: Point, half: Point, x: f64, y: f64) -> Point {
    [rounded(centre[0] + x * half[0], 16), rounded(centre[1] + y * half[1], 16)]
}

fn polygon(corners: &[Point]) -> Loop {
    Loop::Path { start: corners[0], edges: corners[1..].iter().map(|&corner| (None, corner)).collect() }
}

/// One outline of about `size` around `centre`.
fn outline(draw: &mut Draw, centre: Point, size: f64) -> Loop {
    let half = [draw.number(0.1 * size, size) / 2.0, draw.number(0.1 * size, size) / 2.0];
    let place = |x: f64, y: f64| at(centre, half, x, y);
    match draw.below(40) {
        24..=29 => circle(draw, centre, 0.1 * size, 0.5 * size),
        30..=33 => {
            let (a, b) = (draw.between(-0.8, 0.8), draw.pick(&[-0.5, 0.0, 0.25, 0.5]));
            polygon(&[place(-1.0, -1.0), place(1.0, -1.0), place(1.0, b), place(a, b), place(a, 1.0), place(-1.0, 1.0)])
        }
        34 | 35 => {
            let (a, b) = (draw.pick(&[0.25, 0.5, 0.75]), draw.pick(&[-0.5, 0.0, 0.5]));
            polygon(&[
                place(-1.0, -1.0),
                place(1.0, -1.0),
                place(1.0, 1.0),
                place(a, 1.0),
                place(a, b),
                place(-a, b),
                place(-a, 1.0),
                place(-1.0, 1.0),
            ])
        }
        13 | 14 => {
            let corners = [0; 3].map(|_| [centre[0] + draw.signed(size), centre[1] + draw.signed(size)]);
            polygon(&corners.map(|corner| corner.map(|c| rounded(c, 12))))
        }
        15 => {
            // A polygon that is star-shaped about the centre: simple, rarely convex.
            let corners = 4 + draw.below(6);
            let points: Vec<Point> = (0..corners)
                .map(|k| {
                    let angle = std::f64::consts::TAU * (k as f64 + draw.between(-0.3, 0.3)) / corners as f64;
                    let radius = draw.between(0.3, 1.0);
                    place(radius * angle.cos(), radius * angle.sin()).map(|c| rounded(c, 6))
                })
                .collect();
            polygon(&points)
        }
        16..=18 | 36 | 37 => {
            // Rounded at two ends: a slot if the ends are half circles.
            let r = half[1];
            let edges = vec![
                (None, [centre[0] + half[0], centre[1] - r]),
                (Some([centre[0] + half[0] + r, centre[1]]), [centre[0] + half[0], centre[1] + r]),
                (None, [centre[0] - half[0], centre[1] + r]),
                (Some([centre[0] - half[0] - r, centre[1]]), [centre[0] - half[0], centre[1] - r]),
            ];
            Loop::Path { start: [centre[0] - half[0], centre[1] - r], edges }
        }
        19 => {
            let bulge = draw.pick(&[1.0, 0.5, -0.5, 0.02, 1.7]);
            let edges =
                vec![(None, place(1.0, -1.0)), (Some([centre[0], centre[1] + bulge * half[0]]), place(-1.0, -1.0))];
            Loop::Path { start: place(-1.0, -1.0), edges }
        }
        20 | 38 => {
            // A box with round corners.
            let r = draw.pick(&[0.1, 0.25, 0.5]) * half[0].min(half[1]);
            let cut = r * (1.0 - std::f64::consts::FRAC_1_SQRT_2);
            let [x, y] = half;
            let corner = |sx: f64, sy: f64, dx: f64, dy: f64| [centre[0] + sx * (x - dx), centre[1] + sy * (y - dy)];
            let edges = vec![
                (None, corner(1.0, -1.0, r, 0.0)),
                (Some(corner(1.0, -1.0, cut, cut)), corner(1.0, -1.0, 0.0, r)),
                (None, corner(1.0, 1.0, 0.0, r)),
                (Some(corner(1.0, 1.0, cut, cut)), corner(1.0, 1.0, r, 0.0)),
                (None, corner(-1.0, 1.0, r, 0.0)),
                (Some(corner(-1.0, 1.0, cut, cut)), corner(-1.0, 1.0, 0.0, r)),
                (None, corner(-1.0, -1.0, 0.0, r)),
                (Some(corner(-1.0, -1.0, cut, cut)), corner(-1.0, -1.0, r, 0.0)),
            ];
            Loop::Path { start: corner(-1.0, -1.0, r, 0.0), edges }
        }
        21 => {
            // A sliver.
            let thin = draw.pick(&[0.02, 0.005, 0.001]);
            polygon(&[place(-1.0, 0.0), place(1.0, -thin), place(draw.between(-0.5, 0.9), thin)])
        }
        22 => {
            // Two arcs.
            let bulge = [draw.pick(&[0.2, 0.5, 1.0]), draw.pick(&[0.2, 0.5, 1.0, -0.3])];
            let edges = vec![
                (Some([centre[0], centre[1] - bulge[0] * half[0]]), place(1.0, 0.0)),
                (Some([centre[0], centre[1] + bulge[1] * half[0]]), place(-1.0, 0.0)),
            ];
            Loop::Path { start: place(-1.0, 0.0), edges }
        }
        39 => {
            // Corners in random order, so that the polygon mostly crosses itself.
            let corners: Vec<Point> = (0..4 + draw.below(2))
                .map(|_| [centre[0] + draw.signed(size), centre[1] + draw.signed(size)])
                .collect();
            polygon(&corners)
        }
        _ => rectangle(draw, centre, size),
    }
}

/// The outline scaled by `share` about `centre`.
fn scaled(outline: &Loop, share: f64, centre: Point) -> Loop {
    let scale = |p: Point| [0, 1].map(|k| rounded(centre[k] + share * (p[k] - centre[k]), 12));
    match outline {
        Loop::Circle { centre: at, radius } => Loop::Circle { centre: scale(*at), radius: rounded(radius * share, 12) },
        Loop::Path { start, edges } => Loop::Path {
            start: scale(*start),
            edges: edges.iter().map(|(middle, end)| (middle.map(scale), scale(*end))).collect(),
        },
    }
}

/// The chain of calls that draws an outline, from any of its corners and in either direction.
fn written(draw: &mut Draw, outline: &Loop) -> String {
    let pair = |p: &Point| format!("{}, {}", float(p[0] + 0.0), float(p[1] + 0.0));
    match outline {
        Loop::Circle { centre, radius } => format!(".moveTo({}).circle({})", pair(centre), float(*radius)),
        Loop::Path { start, edges } => {
            let mut corners: Vec<Point> = std::iter::once(*start).chain(edges.iter().map(|edge| edge.1)).collect();
            let mut middles: Vec<Option<Point>> = edges.iter().map(|edge| edge.0).collect();
            if corners.last() == Some(start) {
                corners.pop();
            } else {
                middles.push(None);
            }
            let n = corners.len();
            let first = draw.below(n);
            let backwards = draw.chance(0.4);
            let index = |k: usize| if backwards { (first + n - k % n) % n } else { (first + k) % n };
            let mut text = format!(".moveTo({})", pair(&corners[index(0)]));
            let back = draw.chance(0.7);
            for k in 0..n {
                let middle = middles[if backwards { index(k + 1) } else { index(k) }];
                let end = pair(&corners[index(k + 1)]);
                match middle {
                    Some(middle) => text += &format!(".threePointArc(({}), ({end}))", pair(&middle)),
                    None if k + 1 < n || back => text += &format!(".lineTo({end})"),
                    None => {}
                }
            }
            text + ".close()"
        }
    }
}
