//! First bodies: the body that a part begins with.
//!
//! Rules that leave one program for each picture, as far as a picture can show:
//! - the longest side of the first body is always three quarters of a unit (pictures are fitted to
//!   the frame, so they do not show absolute size), and its sketch begins at the origin;
//! - a prism is sketched on the plane normal to its axis, a box on the top plane;
//! - prisms along x extend equally to both sides of their plane (`both=True`), others begin at it.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::Dice;
use super::part::{Body, Cell2, Outline, Piece, Side};

/// The sides of a box around a prism, in cells: width and height in the sketch, depth along the
/// normal; all even.
struct Sides {
    width: i32,
    height: i32,
    depth: i32,
}

/// Draws an even number of cells in `low..=high`.
pub(super) fn even(dice: &mut Dice, low: i32, high: i32) -> i32 {
    let low = (low + 1) / 2;
    2 * dice.random_range(low..=(high / 2).max(low))
}

/// Draws the first body of a part of `operations` bodies. The longest side has `longest` cells, a
/// multiple of 12. Also returns the family's name.
pub(super) fn draw_base(dice: &mut Dice, longest: i32, operations: usize) -> (&'static str, Body) {
    type Maker = fn(&mut Dice, i32) -> Body;
    const ALONE: &[(&str, Maker, u32)] = &[
        ("block", block, 6),
        ("drilled plate", drilled_plate, 16),
        ("frame", frame, 9),
        ("cylinder", cylinder, 6),
        ("tube", tube, 8),
        ("angle", angle, 12),
        ("tee", tee, 8),
        ("channel", channel, 8),
        ("stairs", stairs, 7),
        ("wedge", wedge, 8),
        ("chamfered block", chamfered, 8),
        ("slot plate", slot_plate, 8),
        ("tongue", tongue, 9),
        ("arch", arch, 7),
        ("bridge", bridge, 7),
        ("rounded block", rounded, 6),
    ];
    // Parts of several bodies mostly begin with a body that has room on its faces.
    const WITH_FEATURES: &[(&str, Maker, u32)] = &[
        ("block", block, 44),
        ("drilled plate", drilled_plate, 8),
        ("cylinder", cylinder, 12),
        ("angle", angle, 14),
        ("tee", tee, 4),
        ("channel", channel, 3),
        ("wedge", wedge, 4),
        ("chamfered block", chamfered, 5),
        ("slot plate", slot_plate, 4),
        ("tongue", tongue, 5),
        ("bridge", bridge, 3),
    ];
    let makers = if operations == 1 { ALONE } else { WITH_FEATURES };
    match makers.choose_weighted(dice, |maker| maker.2) {
        Ok((family, maker, _)) => (family, maker(dice, longest)),
        Err(_) => ("block", block(dice, longest)),
    }
}

/// A body whose sketch begins at the origin.
pub(super) fn standing(side: Side, outline: Outline, holes: Vec<Outline>, depth: i32) -> Body {
    let [du, dv] = outline.start().map(|cell| -cell);
    let both = side == Side::Right;
    Body {
        side,
        level: 0,
        outline: outline.shifted([du, dv]),
        holes: holes.iter().map(|hole| hole.shifted([du, dv])).collect(),
        distance: if both { depth / 2 } else { depth },
        both,
    }
}

fn any_side(dice: &mut Dice) -> Side {
    *Side::ALL.choose(dice).unwrap_or(&Side::Top)
}

/// Draws a prism's sides; the sketch is at least a third of the longest side each way.
fn prism(dice: &mut Dice, longest: i32) -> Sides {
    let mut sides =
        [even(dice, longest / 3, longest), even(dice, longest / 3, longest), even(dice, longest / 12, longest)];
    let pinned = *[0, 0, 1, 1, 2].choose(dice).unwrap_or(&0);
    sides[pinned] = longest;
    let [width, height, mut depth] = sides;
    if depth % 4 != 0 && depth > 2 {
        // Half of it must be even too if the prism stands on both sides of its plane.
        depth -= 2;
    }
    Sides { width, height, depth: depth.max(4) }
}

/// Draws a plate's sides: thin, with a sketch of at least half of the longest side each way.
fn plate(dice: &mut Dice, longest: i32) -> Sides {
    let mut sides = [longest, even(dice, longest / 2, longest)];
    if dice.random() {
        sides.swap(0, 1);
    }
    Sides { width: sides[0], height: sides[1], depth: 4 * dice.random_range(1..=longest / 12) }
}

fn corner_rectangle(sides: &Sides) -> Outline {
    Outline::rectangle([0, 0], [sides.width, sides.height])
}

fn block(dice: &mut Dice, longest: i32) -> Body {
    let mut sides = [0; 3].map(|_| even(dice, longest / 6, longest));
    sides[dice.random_range(0..3)] = longest;
    standing(Side::Top, Outline::rectangle([0, 0], [sides[0], sides[1]]), vec![], sides[2])
}

/// A plate with one hole, two holes in a row, or a hole in each corner.
fn drilled_plate(dice: &mut Dice, longest: i32) -> Body {
    let sides = plate(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let room = w.min(h) / 2;
    let hole = |u: i32, v: i32, radius: i32| Outline::Circle { center: [u, v], radius };
    let holes = match dice.random_range(0..4) {
        0 => vec![hole(w / 2, h / 2, dice.random_range(2..=room - 2))],
        1 => {
            let radius = dice.random_range(2..=(room - 2).min(longest / 8));
            let u = even(dice, radius + 2, w - radius - 2);
            let v = even(dice, radius + 2, h - radius - 2);
            vec![hole(u, v, radius)]
        }
        2 => {
            let radius = dice.random_range(1..=longest / 12 + 1);
            let edge = even(dice, radius + 2, longest / 4);
            if w >= h {
                vec![hole(edge, h / 2, radius), hole(w - edge, h / 2, radius)]
            } else {
                vec![hole(w / 2, edge, radius), hole(w / 2, h - edge, radius)]
            }
        }
        _ => {
            // The shorter side has room for two holes and three gaps of two cells: at both edges
            // and between the holes.
            let shorter = w.min(h);
            let radius = dice.random_range(1..=(longest / 12).min((shorter - 6) / 4));
            let edge = even(dice, radius + 2, (shorter / 2 - radius - 1).min(longest / 6));
            vec![
                hole(edge, edge, radius),
                hole(edge, h - edge, radius),
                hole(w - edge, edge, radius),
                hole(w - edge, h - edge, radius),
            ]
        }
    };
    standing(any_side(dice), corner_rectangle(&sides), holes, sides.depth)
}

/// A plate or block with a rectangular opening.
fn frame(dice: &mut Dice, longest: i32) -> Body {
    let sides = plate(dice, longest);
    let (left, low) = (even(dice, 2, sides.width / 3), even(dice, 2, sides.height / 3));
    let opening = if dice.random_bool(0.6) {
        [sides.width - 2 * left, sides.height - 2 * low]
    } else {
        [even(dice, 4, sides.width - left - 2), even(dice, 4, sides.height - low - 2)]
    };
    let hole = Outline::rectangle([left, low], opening);
    standing(any_side(dice), corner_rectangle(&sides), vec![hole], sides.depth)
}

/// Draws radius and length, in cells; either the diameter or the length is the longest side.
fn round(dice: &mut Dice, longest: i32) -> (i32, i32) {
    if dice.random() {
        (longest / 2, 4 * dice.random_range(1..=longest / 4))
    } else {
        (even(dice, longest / 12, longest / 2), longest)
    }
}

fn cylinder(dice: &mut Dice, longest: i32) -> Body {
    let (radius, length) = round(dice, longest);
    standing(any_side(dice), Outline::Circle { center: [0, 0], radius }, vec![], length)
}

fn tube(dice: &mut Dice, longest: i32) -> Body {
    let (radius, length) = round(dice, longest);
    let radius = radius.max(longest / 6);
    let hole = Outline::Circle { center: [0, 0], radius: dice.random_range(radius / 3..=radius - 1) };
    standing(any_side(dice), Outline::Circle { center: [0, 0], radius }, vec![hole], length)
}

/// A prism over a polygon, mirrored left to right in half of the draws.
fn polygon_prism(dice: &mut Dice, sides: &Sides, corners: &[Cell2]) -> Body {
    let outline = if dice.random() {
        let mirrored: Vec<Cell2> = corners.iter().rev().map(|[u, v]| [sides.width - u, *v]).collect();
        Outline::polygon(&mirrored)
    } else {
        Outline::polygon(corners)
    };
    standing(any_side(dice), outline, vec![], sides.depth)
}

fn angle(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let thickness = even(dice, 2, w.min(h) / 2);
    let (foot, leg) = if dice.random() { (thickness, thickness) } else { (even(dice, 2, h - 2), even(dice, 2, w - 2)) };
    polygon_prism(dice, &sides, &[[0, 0], [w, 0], [w, foot], [leg, foot], [leg, h], [0, h]])
}

fn tee(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let (a, t) = (even(dice, 2, w / 2 - 1), even(dice, 2, h - 2));
    let corners = if dice.random() {
        [[0, 0], [w, 0], [w, t], [w - a, t], [w - a, h], [a, h], [a, t], [0, t]]
    } else {
        [[a, 0], [w - a, 0], [w - a, t], [w, t], [w, h], [0, h], [0, t], [a, t]]
    };
    polygon_prism(dice, &sides, &corners)
}

fn channel(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let (a, t) = (even(dice, 2, w / 2 - 1), even(dice, 2, h - 2));
    let corners = if dice.random() {
        [[0, 0], [w, 0], [w, h], [w - a, h], [w - a, t], [a, t], [a, h], [0, h]]
    } else {
        [[0, 0], [a, 0], [a, t], [w - a, t], [w - a, 0], [w, 0], [w, h], [0, h]]
    };
    polygon_prism(dice, &sides, &corners)
}

fn stairs(dice: &mut Dice, longest: i32) -> Body {
    let mut sides = prism(dice, longest);
    sides.width = sides.width.max(longest / 2);
    sides.height = sides.height.max(longest / 2);
    let (w, h) = (sides.width, sides.height);
    let a = even(dice, 2, w - 4);
    let b = even(dice, a + 2, w - 2);
    let low = even(dice, 2, h - 4);
    let middle = even(dice, low + 2, h - 2);
    polygon_prism(dice, &sides, &[[0, 0], [w, 0], [w, low], [b, low], [b, middle], [a, middle], [a, h], [0, h]])
}

fn wedge(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    match dice.random_range(0..4) {
        0 => polygon_prism(dice, &sides, &[[0, 0], [w, 0], [0, h]]),
        1 => {
            let top = even(dice, 2, w - 2);
            polygon_prism(dice, &sides, &[[0, 0], [w, 0], [top, h], [0, h]])
        }
        2 => {
            let a = even(dice, 2, w / 2 - 1);
            polygon_prism(dice, &sides, &[[0, 0], [w, 0], [w - a, h], [a, h]])
        }
        _ => {
            let eaves = even(dice, 2, h - 2);
            polygon_prism(dice, &sides, &[[0, 0], [w, 0], [w, eaves], [w / 2, h], [0, eaves]])
        }
    }
}

/// A box with one to four corners cut off.
fn chamfered(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let c = even(dice, 2, w.min(h) / 2 - 1);
    let corners: &[Cell2] = match dice.random_range(0..4) {
        0 => &[[0, 0], [w, 0], [w, h - c], [w - c, h], [0, h]],
        1 => &[[0, 0], [w, 0], [w, h - c], [w - c, h], [c, h], [0, h - c]],
        2 => &[[0, c], [w / 2, 0], [w, c], [w, h - c], [w / 2, h], [0, h - c]],
        _ => &[[0, c], [c, 0], [w - c, 0], [w, c], [w, h - c], [w - c, h], [c, h], [0, h - c]],
    };
    polygon_prism(dice, &sides, corners)
}

/// A plate with half circles for ends, often drilled at their centres.
fn slot_plate(dice: &mut Dice, longest: i32) -> Body {
    let radius = even(dice, longest / 12, longest / 4);
    let far = longest - radius;
    let (outline, centers) = if dice.random() {
        let pieces = vec![
            Piece::Line([far, 0]),
            Piece::Arc([longest, radius], [far, 2 * radius]),
            Piece::Line([radius, 2 * radius]),
            Piece::Arc([0, radius], [radius, 0]),
        ];
        (Outline::path([radius, 0], pieces), [[radius, radius], [far, radius]])
    } else {
        let pieces = vec![
            Piece::Arc([radius, 0], [2 * radius, radius]),
            Piece::Line([2 * radius, far]),
            Piece::Arc([radius, longest], [0, far]),
            Piece::Line([0, radius]),
        ];
        (Outline::path([0, radius], pieces), [[radius, radius], [radius, far]])
    };
    let holes = if radius > 2 && dice.random_bool(0.6) {
        let bore = dice.random_range(radius / 3..=radius - 1).max(1);
        centers.into_iter().map(|center| Outline::Circle { center, radius: bore }).collect()
    } else {
        vec![]
    };
    let depth = 4 * dice.random_range(1..=longest / 8);
    standing(any_side(dice), outline, holes, depth)
}

/// A plate with one round end, at the top or the right, often drilled at that end's centre.
fn tongue(dice: &mut Dice, longest: i32) -> Body {
    let radius = even(dice, longest / 8, longest / 2);
    let straight = longest - radius;
    let (outline, center) = if dice.random() {
        let pieces = vec![
            Piece::Line([straight, 0]),
            Piece::Arc([longest, radius], [straight, 2 * radius]),
            Piece::Line([0, 2 * radius]),
            Piece::Line([0, 0]),
        ];
        (Outline::path([0, 0], pieces), [straight, radius])
    } else {
        let pieces = vec![
            Piece::Line([2 * radius, 0]),
            Piece::Line([2 * radius, straight]),
            Piece::Arc([radius, longest], [0, straight]),
            Piece::Line([0, 0]),
        ];
        (Outline::path([0, 0], pieces), [radius, straight])
    };
    let holes = if dice.random_bool(0.6) {
        vec![Outline::Circle { center, radius: dice.random_range((radius / 3).max(1)..=radius - 2) }]
    } else {
        vec![]
    };
    let depth = 4 * dice.random_range(1..=longest / 6);
    standing(any_side(dice), outline, holes, depth)
}

/// A box with a flat arch as its top.
fn arch(dice: &mut Dice, longest: i32) -> Body {
    let sides = prism(dice, longest);
    let (w, h) = (sides.width, sides.height);
    let rise = even(dice, 2, (w / 2 - 2).min(h - 2));
    let pieces = vec![
        Piece::Line([w, 0]),
        Piece::Line([w, h - rise]),
        Piece::Arc([w / 2, h], [0, h - rise]),
        Piece::Line([0, 0]),
    ];
    standing(any_side(dice), Outline::path([0, 0], pieces), vec![], sides.depth)
}

/// A box with a half-round opening from below.
fn bridge(dice: &mut Dice, longest: i32) -> Body {
    let mut sides = prism(dice, longest);
    // The centre and the rim of the opening lie on the lattice.
    sides.height = sides.height.max(longest / 2);
    let (w, h) = (sides.width, sides.height);
    let radius = dice.random_range(2..=(w / 2 - 2).min(h - 2));
    let (left, right) = (w / 2 - radius, w / 2 + radius);
    let pieces = vec![
        Piece::Line([left, 0]),
        Piece::Arc([w / 2, radius], [right, 0]),
        Piece::Line([w, 0]),
        Piece::Line([w, h]),
        Piece::Line([0, h]),
        Piece::Line([0, 0]),
    ];
    standing(any_side(dice), Outline::path([0, 0], pieces), vec![], sides.depth)
}

/// A box with one or two rounded corners. The radius is a multiple of five cells, so the arc passes
/// through a lattice point, the corner of a 3-4-5 triangle.
fn rounded(dice: &mut Dice, longest: i32) -> Body {
    let mut sides = prism(dice, longest);
    sides.width = sides.width.max(longest / 2);
    sides.height = sides.height.max(longest / 2);
    let (w, h) = (sides.width, sides.height);
    let k = dice.random_range(1..=(w.min(h) / 10).max(1));
    let r = 5 * k;
    let mut pieces = vec![Piece::Line([w, 0]), Piece::Line([w, h - r]), Piece::Arc([w - k, h - 2 * k], [w - r, h])];
    if 2 * r + 2 <= w && dice.random() {
        pieces.extend([Piece::Line([r, h]), Piece::Arc([k, h - 2 * k], [0, h - r])]);
    } else {
        pieces.push(Piece::Line([0, h]));
    }
    pieces.push(Piece::Line([0, 0]));
    standing(any_side(dice), Outline::path([0, 0], pieces), vec![], sides.depth)
}
