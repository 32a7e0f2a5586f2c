//! A part as a list of sketches and operations on an integer lattice, and its two forms: text and
//! solid.

use cadwright_rewards::csg::{CsgSolid, Edge, Extrusion, Operation, Plane, Region, Vec2, Vec3, Wire};

use super::SynthError;
use super::numbers::Scale;

/// A point of a sketch, in cells.
pub(super) type Cell2 = [i32; 2];
/// A point of space, in cells.
pub(super) type Cell3 = [i32; 3];

/// The three sketch planes of the data set. Their normals point towards the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Side {
    /// Sketch (x, y), normal +z.
    Top,
    /// Sketch (x, z), normal -y.
    Front,
    /// Sketch (y, z), normal +x.
    Right,
}

impl Side {
    pub(super) const ALL: [Self; 3] = [Self::Top, Self::Front, Self::Right];

    /// The axes of space of sketch x, sketch y and the normal.
    pub(super) fn axes(self) -> [usize; 3] {
        match self {
            Self::Top => [0, 1, 2],
            Self::Front => [0, 2, 1],
            Self::Right => [1, 2, 0],
        }
    }

    /// +1 if the normal runs along its axis, -1 if against it.
    pub(super) fn sign(self) -> i32 {
        if self == Self::Front { -1 } else { 1 }
    }

    /// The point of space at sketch coordinates `(u, v)` and `level` along the normal's axis.
    pub(super) fn point(self, u: i32, v: i32, level: i32) -> Cell3 {
        let [a, b, c] = self.axes();
        let mut point = [0; 3];
        (point[a], point[b], point[c]) = (u, v, level);
        point
    }

    /// `xDir` and normal.
    fn vectors(self) -> [Vec3; 2] {
        match self {
            Self::Top => [Vec3::x(), Vec3::z()],
            Self::Front => [Vec3::x(), -Vec3::y()],
            Self::Right => [Vec3::y(), Vec3::x()],
        }
    }
}

/// A piece of a path, from the end of the piece before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Line(Cell2),
    /// An arc through the first point to the second.
    Arc(Cell2, Cell2),
}

impl Piece {
    fn end(self) -> Cell2 {
        match self {
            Self::Line(to) | Self::Arc(_, to) => to,
        }
    }
}

/// A closed outline, in the order of the data set: counter-clockwise from its leftmost corner, or
/// from the lowest of several leftmost corners. Sketches have their origin at that corner (for a
/// circle, at its leftmost point).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outline {
    Circle { center: Cell2, radius: i32 },
    Path { start: Cell2, pieces: Vec<Piece> },
}

impl Outline {
    /// A path through these corners, given counter-clockwise from any of them.
    pub(super) fn polygon(corners: &[Cell2]) -> Self {
        let pieces = corners.iter().cycle().skip(1).take(corners.len()).map(|corner| Piece::Line(*corner)).collect();
        Self::path(corners[0], pieces)
    }

    /// A rectangle, from its lower left corner and its size.
    pub(super) fn rectangle([u, v]: Cell2, [width, height]: Cell2) -> Self {
        Self::polygon(&[[u, v], [u + width, v], [u + width, v + height], [u, v + height]])
    }

    /// A counter-clockwise path from `start` back to it, rotated so that it begins at the canonical
    /// corner.
    pub(super) fn path(start: Cell2, pieces: Vec<Piece>) -> Self {
        let starts: Vec<Cell2> =
            std::iter::once(start).chain(pieces[..pieces.len() - 1].iter().map(|piece| piece.end())).collect();
        let first = (0..starts.len()).min_by_key(|index| starts[*index]).unwrap_or(0);
        let mut pieces = pieces;
        pieces.rotate_left(first);
        Self::Path { start: starts[first], pieces }
    }

    /// The origin of a sketch that begins with this outline.
    pub(super) fn start(&self) -> Cell2 {
        match self {
            Self::Circle { center, radius } => [center[0] - radius, center[1]],
            Self::Path { start, .. } => *start,
        }
    }

    pub(super) fn shifted(&self, [du, dv]: Cell2) -> Self {
        let shift = |[u, v]: Cell2| [u + du, v + dv];
        match self {
            Self::Circle { center, radius } => Self::Circle { center: shift(*center), radius: *radius },
            Self::Path { start, pieces } => Self::Path {
                start: shift(*start),
                pieces: pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Line(to) => Piece::Line(shift(*to)),
                        Piece::Arc(mid, to) => Piece::Arc(shift(*mid), shift(*to)),
                    })
                    .collect(),
            },
        }
    }

    fn wire(&self, scale: &Scale) -> Result<Wire, SynthError> {
        let point = |[u, v]: Cell2| Vec2::new(scale.value(u), scale.value(v));
        let edges = match self {
            Self::Circle { center, radius } => {
                vec![Edge::circle(point(*center), scale.value(*radius))?]
            }
            Self::Path { start, pieces } => {
                let mut from = *start;
                let mut edges = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    edges.push(match piece {
                        Piece::Line(to) => Edge::line(point(from), point(*to))?,
                        Piece::Arc(mid, to) => Edge::three_point_arc(point(from), point(*mid), point(*to))?,
                    });
                    from = piece.end();
                }
                edges
            }
        };
        Ok(Wire::new(edges)?)
    }

    /// Writes the calls after `wp_sketchN`.
    fn write(&self, text: &mut String, scale: &Scale) {
        let point = |[u, v]: Cell2| format!("{}, {}", scale.text(u), scale.text(v));
        match self {
            Self::Circle { center, radius } => {
                text.push_str(&format!(".moveTo({}).circle({})", point(*center), scale.text(*radius)));
            }
            Self::Path { start, pieces } => {
                // If the first edge is a line, `close()` draws it, so the path is written from its
                // second corner.
                let (from, rest) = match pieces[0] {
                    Piece::Line(to) => (to, &pieces[1..]),
                    Piece::Arc(..) => (*start, &pieces[..]),
                };
                text.push_str(&format!(".moveTo({})", point(from)));
                for piece in rest {
                    text.push_str(&match piece {
                        Piece::Line(to) => format!(".lineTo({})", point(*to)),
                        Piece::Arc(mid, to) => {
                            format!(".threePointArc(({}), ({}))", point(*mid), point(*to))
                        }
                    });
                }
                text.push_str(".close()");
            }
        }
    }
}

/// One sketch and its extrusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) side: Side,
    /// The level of the sketch plane along the normal's axis, in cells.
    pub(super) level: i32,
    /// The outline. Like the holes, it is in the sketch plane's absolute coordinates (those of
    /// space along its axes), in cells.
    pub(super) outline: Outline,
    pub(super) holes: Vec<Outline>,
    /// Against the normal if negative.
    pub(super) distance: i32,
    pub(super) both: bool,
}

impl Body {
    /// The origin of the sketch plane in space.
    pub(super) fn origin(&self) -> Cell3 {
        let [u, v] = self.outline.start();
        self.side.point(u, v, self.level)
    }

    /// The outlines in sketch coordinates; holes are in the order of their first points.
    fn loops(&self) -> Vec<Outline> {
        let [u, v] = self.outline.start();
        let mut holes: Vec<Outline> = self.holes.iter().map(|hole| hole.shifted([-u, -v])).collect();
        holes.sort_by_key(Outline::start);
        std::iter::once(self.outline.shifted([-u, -v])).chain(holes).collect()
    }

    pub(super) fn extrusion(&self, scale: &Scale) -> Result<Extrusion, SynthError> {
        let [x_dir, normal] = self.side.vectors();
        let plane = Plane::new(Vec3::from(self.origin().map(|cell| scale.value(cell))), x_dir, normal)?;
        let wires = self.loops().iter().map(|outline| outline.wire(scale)).collect::<Result<Vec<_>, _>>()?;
        let mut wires = wires.into_iter();
        let outer = wires.next().expect("a body has an outline");
        Ok(Extrusion::new(plane, Region::new(outer, wires.collect()), scale.value(self.distance), self.both))
    }
}

/// A part: the first body, and the further bodies with their operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) base: Body,
    pub(super) features: Vec<(Operation, Body)>,
}

impl Part {
    /// The solid that the part describes.
    pub(super) fn solid(&self, scale: &Scale) -> Result<CsgSolid, SynthError> {
        let mut solid = CsgSolid::from(self.base.extrusion(scale)?);
        for (operation, body) in &self.features {
            solid = solid.combine(*operation, body.extrusion(scale)?);
        }
        Ok(solid)
    }

    /// The program, in the data set's statement forms.
    pub(super) fn program(&self, scale: &Scale) -> String {
        let mut text = String::from("import cadquery as cq\n");
        let mut loop_number = 0;
        let bodies = std::iter::once((None, &self.base))
            .chain(self.features.iter().map(|(operation, body)| (Some(*operation), body)));
        for (number, (operation, body)) in bodies.enumerate() {
            let origin = body.origin().map(|cell| scale.text(cell)).join(", ");
            let [x_dir, normal] = scale.plane_vectors(body.side);
            text.push_str(&format!(
                "# Generating a workplane for sketch {number}\n\
                 wp_sketch{number} = cq.Workplane(cq.Plane(cq.Vector({origin}), cq.Vector({x_dir}), cq.Vector({normal})))\n"
            ));
            let mut adds = String::new();
            for outline in body.loops() {
                text.push_str(&format!("loop{loop_number}=wp_sketch{number}"));
                outline.write(&mut text, scale);
                text.push('\n');
                adds.push_str(&format!(".add(loop{loop_number})"));
                loop_number += 1;
            }
            let both = if body.both { ", both=True" } else { "" };
            let distance = scale.text(body.distance);
            text.push_str(&format!("solid{number}=wp_sketch{number}{adds}.extrude({distance}{both})\n"));
            text.push_str(&match operation {
                None => format!("solid=solid{number}\n"),
                Some(Operation::Union) => format!("solid=solid.union(solid{number})\n"),
                Some(Operation::Cut) => format!("solid=solid.cut(solid{number})\n"),
                Some(Operation::Intersect) => format!("solid=solid.intersect(solid{number})\n"),
            });
        }
        text
    }
}
