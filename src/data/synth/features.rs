//! Further bodies: bosses on, and cuts into, the visible sides of the part.
//!
//! Rules that leave one program for each picture:
//! - bosses come before cuts; within each kind, the order is top, front, right, then by level and
//!   position;
//! - a body is sketched on the face that it stands on or enters, and extruded away from the face or
//!   (negative) into it;
//! - a drilling through the whole part is sketched in the part's middle and cut to both sides
//!   (`both=True`);
//! - a round body on both sides of a wheel is one extrusion to both sides;
//! - nothing touches along a line or a rounded face: features keep a distance of one cell, unless
//!   faces are flush.

use cadwright_rewards::csg::{CsgSolid, Operation, Vec3};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::Dice;
use super::base::even;
use super::cells::{CellBox, Cells};
use super::part::{Body, Cell2, Outline, Part, Piece, Side};

/// The material between a feature and its neighbours, in cells.
const MARGIN: i32 = 1;

/// The kind of a further body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Feature {
    Boss,
    Axle,
    Pocket,
    Notch,
    Bore,
    CrossDrilling,
    Intersection,
}

impl Feature {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boss => "boss",
            Self::Axle => "axle",
            Self::Pocket => "pocket",
            Self::Notch => "notch",
            Self::Bore => "bore",
            Self::CrossDrilling => "cross drilling",
            Self::Intersection => "intersection",
        }
    }
}

/// The sort key of a feature in the order of operations.
pub(super) type Rank = (bool, Side, i32, Cell2);

/// A feature that fits the part.
#[derive(Debug, Clone)]
pub(super) struct Fitted {
    pub(super) feature: Feature,
    pub(super) operation: Operation,
    pub(super) body: Body,
}

impl Fitted {
    pub(super) fn rank(&self) -> Rank {
        (self.operation == Operation::Cut, self.body.side, self.body.level, self.body.outline.start())
    }
}

/// A round or rectangular footprint, in cells, in a sketch plane's absolute coordinates.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    low: Cell2,
    size: Cell2,
    is_round: bool,
}

impl Footprint {
    /// Draws a footprint within a range of the sketch plane.
    fn draw(dice: &mut Dice, low: Cell2, high: Cell2, largest: i32) -> Option<Self> {
        let is_round = dice.random();
        let room: Cell2 = std::array::from_fn(|i| (high[i] - low[i] - 2 * MARGIN).min(largest));
        let size = if is_round {
            let diameter = 2 * dice.random_range(2..=(room[0].min(room[1]) / 2).max(2));
            [diameter, diameter]
        } else {
            room.map(|room| even(dice, 4, room))
        };
        if (0..2).any(|i| size[i] > room[i]) {
            return None;
        }
        let place = |dice: &mut Dice, i: usize| {
            let slack = high[i] - low[i] - size[i];
            // Half of the features are centred.
            if slack % 4 == 0 && dice.random() {
                low[i] + slack / 2
            } else {
                low[i] + even(dice, 2, slack - 2).min(slack)
            }
        };
        Some(Self { low: [place(dice, 0), place(dice, 1)], size, is_round })
    }

    fn outline(&self) -> Outline {
        if self.is_round {
            let radius = self.size[0] / 2;
            Outline::Circle { center: [self.low[0] + radius, self.low[1] + radius], radius }
        } else {
            Outline::rectangle(self.low, self.size)
        }
    }

    fn smaller_side(&self) -> i32 {
        self.size[0].min(self.size[1])
    }

    /// The cells over the footprint between two levels, widened by `margin` cells.
    fn cells(&self, side: Side, from: i32, to: i32, margin: i32) -> CellBox {
        let [u, v] = self.low;
        CellBox::between(
            side.point(u - margin, v - margin, from),
            side.point(u + self.size[0] + margin, v + self.size[1] + margin, to),
        )
    }
}

/// The part so far, in the forms that fitting a feature needs.
pub(super) struct Site<'a> {
    pub(super) part: &'a Part,
    pub(super) solid: &'a CsgSolid,
    pub(super) cells: &'a Cells,
    /// Units per cell.
    pub(super) cell: f64,
}

impl Site<'_> {
    /// The level of the solid's surface over a footprint; `None` if the surface is not flat with
    /// free space in front of it.
    fn surface_under(&self, footprint: &Footprint, side: Side) -> Option<i32> {
        let extent = self.cells.extent();
        let axis = side.axes()[2];
        let sign = side.sign();
        let (outer, inner) =
            if sign > 0 { (extent.max[axis], extent.min[axis]) } else { (extent.min[axis], extent.max[axis]) };
        let mut level = outer;
        while level != inner && self.cells.all(footprint.cells(side, level, level - sign, MARGIN), false) {
            level -= sign;
        }
        let is_full = level != inner && self.cells.all(footprint.cells(side, level, level - sign, MARGIN), true);
        (is_full && self.is_flat(footprint, side, level)).then_some(level)
    }

    /// Whether rays against the normal meet the surface at the level all over a footprint. Cells
    /// alone do not tell: the crest of a rounded face fills them too.
    fn is_flat(&self, footprint: &Footprint, side: Side, level: i32) -> bool {
        let [a, b, axis] = side.axes();
        let mut direction = Vec3::zeros();
        direction[axis] = -f64::from(side.sign());
        let mut caster = self.solid.caster(direction);
        [0.0, 0.5, 1.0].into_iter().all(|u| {
            [0.0, 0.5, 1.0].into_iter().all(|v| {
                let mut origin = Vec3::zeros();
                let place = |i: usize, share: f64| {
                    let (low, size) = (f64::from(footprint.low[i] - MARGIN), f64::from(footprint.size[i] + 2 * MARGIN));
                    // Just off the lattice, on which all edges lie.
                    self.cell * (low + 0.01 + (size - 0.02) * share)
                };
                (origin[a], origin[b], origin[axis]) = (place(0, u), place(1, v), self.cell * f64::from(level));
                caster.spans(origin).first().is_some_and(|span| span.enter.at.abs() < 1e-9)
            })
        })
    }
}

/// Whether there is room for a tool `depth` deep below `level`, with material around and beneath
/// it.
fn is_buried(footprint: &Footprint, side: Side, level: i32, depth: i32, cells: &Cells) -> bool {
    cells.all(footprint.cells(side, level, level - side.sign() * (depth + MARGIN), MARGIN), true)
}

/// Tries once to fit a boss (`is_cut` false) or a cut on a side of the part. `None` if it does
/// not fit.
pub(super) fn try_feature(dice: &mut Dice, site: &Site<'_>, side: Side, is_cut: bool, longest: i32) -> Option<Fitted> {
    let Site { part, cells, .. } = *site;
    let extent = cells.extent();
    let [a, b, axis] = side.axes();
    let (low, high) = ([extent.min[a], extent.min[b]], [extent.max[a], extent.max[b]]);
    if is_cut && side == Side::Top && part.features.is_empty() && is_plain_block(part) && dice.random_bool(0.3) {
        return notch(dice, part, longest);
    }
    let largest = if is_cut { longest / 2 } else { longest * 2 / 3 };
    let footprint = Footprint::draw(dice, low, high, largest)?;
    let level = site.surface_under(&footprint, side)?;
    let thickness = (level - if side.sign() > 0 { extent.min[axis] } else { extent.max[axis] }).abs();
    if !is_cut {
        if side == Side::Right && part.base.side == Side::Right && matches!(part.base.outline, Outline::Circle { .. }) {
            return None;
        }
        return Some(boss(dice, &footprint, side, level, longest));
    }
    let cut = |feature, level, distance, both| {
        let body = Body { side, level, outline: footprint.outline(), holes: vec![], distance, both };
        Some(Fitted { feature, operation: Operation::Cut, body })
    };
    let goes_through = cells.all(footprint.cells(side, level, level - side.sign() * thickness, MARGIN), true);
    let on_boss = level != (if side.sign() > 0 { extent.min[axis] + base_reach(part, axis) } else { level });
    // Holes along the first body's own axis belong to its sketch.
    if goes_through
        && footprint.is_round
        && side != Side::Top
        && side != part.base.side
        && thickness % 2 == 0
        && dice.random_bool(0.5)
    {
        return cut(Feature::CrossDrilling, level - side.sign() * thickness / 2, thickness, true);
    }
    if goes_through && side == Side::Top && on_boss && 2 * thickness > 3 * footprint.smaller_side() {
        return cut(Feature::Bore, level, -thickness, false);
    }
    // The bottom of a pocket should be visible: in the isometric view it moves by its depth along
    // both axes.
    let deepest = if footprint.is_round { footprint.size[0] * 2 / 5 } else { footprint.smaller_side() * 3 / 5 };
    let depth = even(dice, 2, deepest.min(thickness - 2));
    if depth > deepest || !is_buried(&footprint, side, level, depth, cells) {
        return None;
    }
    cut(Feature::Pocket, level, -depth, false)
}

/// The extent of the first body along an axis, in cells.
fn base_reach(part: &Part, axis: usize) -> i32 {
    if part.base.side.axes()[2] == axis { part.base.distance * if part.base.both { 2 } else { 1 } } else { 0 }
}

fn boss(dice: &mut Dice, footprint: &Footprint, side: Side, level: i32, longest: i32) -> Fitted {
    let outline = footprint.outline();
    let mut holes = vec![];
    if let Outline::Circle { center, radius } = outline
        && radius >= 3
        && dice.random_bool(0.35)
    {
        holes.push(Outline::Circle { center, radius: dice.random_range((radius / 3).max(1)..=radius - 1) });
    }
    let distance = even(dice, 2, longest / 2);
    let body = Body { side, level, outline, holes, distance, both: false };
    Fitted { feature: Feature::Boss, operation: Operation::Union, body }
}

fn is_plain_block(part: &Part) -> bool {
    part.base.side == Side::Top
        && part.base.holes.is_empty()
        && matches!(&part.base.outline, Outline::Path { pieces, .. }
            if pieces.len() == 4 && pieces.iter().all(|piece| matches!(piece, Piece::Line(_))))
}

/// A step cut into an upper corner of a block.
fn notch(dice: &mut Dice, part: &Part, longest: i32) -> Option<Fitted> {
    let Outline::Path { pieces, .. } = &part.base.outline else {
        return None;
    };
    let Piece::Line([width, depth]) = pieces[1] else {
        return None;
    };
    let height = part.base.distance;
    if width.min(depth).min(height) < longest / 4 {
        return None;
    }
    let size = [even(dice, 2, width * 2 / 3), even(dice, 2, depth * 2 / 3)];
    // The hidden corner, back left, is excluded.
    let low = *[[0, 0], [width - size[0], 0], [width - size[0], depth - size[1]]].choose(dice)?;
    let body = Body {
        side: Side::Top,
        level: height,
        outline: Outline::rectangle(low, size),
        holes: vec![],
        distance: -even(dice, 2, height - 2),
        both: false,
    };
    Some(Fitted { feature: Feature::Notch, operation: Operation::Cut, body })
}

/// A longer and thinner cylinder through the centre of a wheel, which lies on the right plane.
pub(super) fn axle(dice: &mut Dice, base: &Body, longest: i32) -> Option<Fitted> {
    let Outline::Circle { center, radius } = base.outline else {
        return None;
    };
    let reach = even(dice, base.distance + 2, longest);
    if base.side != Side::Right || radius < 4 || reach <= base.distance {
        return None;
    }
    let outline = Outline::Circle { center, radius: dice.random_range(1..=radius - 2) };
    let body = Body { side: Side::Right, level: 0, outline, holes: vec![], distance: reach, both: true };
    Some(Fitted { feature: Feature::Axle, operation: Operation::Union, body })
}

/// A profile in the front view to which a standing prism is cut: flats on a cylinder, or a sloped
/// or stepped top on a prism with flat left and right sides. Also returns the first body.
pub(super) fn intersection(dice: &mut Dice, longest: i32) -> (&'static str, Body, Fitted) {
    let height = even(dice, longest / 3, longest);
    let is_cylinder = dice.random_bool(0.4);
    let (family, base, profile, middle, width) = if is_cylinder {
        let radius = longest / 2;
        let flat = even(dice, 2, radius - 4);
        let base = Body {
            side: Side::Top,
            level: 0,
            outline: Outline::Circle { center: [radius, 0], radius },
            holes: vec![],
            distance: height,
            both: false,
        };
        let profile = Outline::rectangle([flat, 0], [2 * radius - 2 * flat, height]);
        ("cylinder", base, profile, 0, 2 * radius)
    } else {
        let (w, d) = (longest, even(dice, longest / 3, longest));
        let c = even(dice, 2, d / 2 - 1);
        let corners: Vec<Cell2> = if dice.random() {
            vec![[0, 0], [w - c, 0], [w, c], [w, d], [0, d]]
        } else {
            vec![[0, c], [c, 0], [w - c, 0], [w, c], [w, d - c], [w - c, d], [c, d], [0, d - c]]
        };
        let base = super::base::standing(Side::Top, Outline::polygon(&corners), vec![], height);
        let [_, start] = Outline::polygon(&corners).start();
        let (low, top) = (even(dice, 2, height - 2), even(dice, 4, w - 4));
        let profile = if dice.random() {
            Outline::polygon(&[[0, 0], [w, 0], [w, low], [top, height], [0, height]])
        } else {
            Outline::polygon(&[[0, 0], [w, 0], [w, low], [top, low], [top, height], [0, height]])
        };
        ("chamfered block", base, profile, d / 2 - start, d)
    };
    let body = Body { side: Side::Front, level: middle, outline: profile, holes: vec![], distance: width, both: true };
    (family, base, Fitted { feature: Feature::Intersection, operation: Operation::Intersect, body })
}
