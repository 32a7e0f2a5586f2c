//! Programs in the data set's form, as something that can be changed: a list of sketches and
//! operations whose numbers have a meaning.
//!
//! [`Draft::parse`] reads the statements that GenCAD-Code writes and nothing else, and
//! [`Draft::program`] writes them. A program in another form is edited as text, number by number
//! ([`Literals`](super::refine::Literals)).

mod edits;
mod handles;
mod parse;
mod text;

use cadwright_rewards::csg::{Operation, Vec3};

pub use edits::draw_edit;
pub use handles::{Handle, own_lattice};

/// A point of a sketch.
pub type Point = [f64; 2];

/// A part: bodies that are added to or removed from what stands before.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// At least one. The operation of the first is not used.
    pub bodies: Vec<Body>,
}

/// A sketch and its extrusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// How the body changes what stands before.
    pub operation: Operation,
    /// Origin of the sketch plane.
    pub origin: [f64; 3],
    /// Direction of the sketch's x axis, as written.
    pub x_dir: [f64; 3],
    /// Normal of the sketch plane, as written.
    pub normal: [f64; 3],
    /// Closed outlines in sketch coordinates, in the order of the program.
    pub loops: Vec<Loop>,
    /// Length of the extrusion; against the normal if negative.
    pub distance: f64,
    /// Whether the extrusion goes to both sides, by `distance` each.
    pub both: bool,
}

/// A closed outline.
#[derive(Debug, Clone, PartialEq)]
pub enum Loop {
    /// `moveTo(center).circle(radius)`
    Circle {
        /// Its centre.
        center: Point,
        /// Its radius.
        radius: f64,
    },
    /// `moveTo(start)`, the pieces, `close()`
    Path {
        /// Where the path begins.
        start: Point,
        /// The pieces, each from the end of the one before.
        pieces: Vec<Piece>,
    },
}

/// A piece of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Piece {
    /// A straight line to this point.
    Line(Point),
    /// An arc through the first point to the second.
    Arc(Point, Point),
}

impl Piece {
    /// Where the piece ends.
    pub fn end(self) -> Point {
        match self {
            Self::Line(to) | Self::Arc(_, to) => to,
        }
    }
}

impl Loop {
    /// Least and greatest sketch coordinate along `axis`. An arc counts by its three points.
    pub fn extent(&self, axis: usize) -> [f64; 2] {
        match self {
            Self::Circle { center, radius } => [center[axis] - radius, center[axis] + radius],
            Self::Path { .. } => {
                let mut extent = [f64::INFINITY, f64::NEG_INFINITY];
                self.for_each_point(|point| extent = [extent[0].min(point[axis]), extent[1].max(point[axis])]);
                extent
            }
        }
    }

    /// Calls `visit` with every point that the loop names.
    pub fn for_each_point(&self, mut visit: impl FnMut(Point)) {
        match self {
            Self::Circle { center, .. } => visit(*center),
            Self::Path { start, pieces } => {
                visit(*start);
                for piece in pieces {
                    if let Piece::Arc(through, _) = piece {
                        visit(*through);
                    }
                    visit(piece.end());
                }
            }
        }
    }

    /// Replaces every coordinate along `axis`. A circle keeps its radius.
    pub fn map_axis(&mut self, axis: usize, map: impl Fn(f64) -> f64) {
        let change = |point: &mut Point| point[axis] = map(point[axis]);
        match self {
            Self::Circle { center, .. } => change(center),
            Self::Path { start, pieces } => {
                change(start);
                for piece in pieces {
                    match piece {
                        Piece::Line(to) => change(to),
                        Piece::Arc(through, to) => {
                            change(through);
                            change(to);
                        }
                    }
                }
            }
        }
    }

    /// The kinds of its pieces, in order, without the line that `close()` draws: `C` for a circle,
    /// else `L` and `A`.
    pub fn signature(&self) -> String {
        match self {
            Self::Circle { .. } => "C".to_owned(),
            Self::Path { pieces, .. } => {
                pieces.iter().map(|piece| if matches!(piece, Piece::Line(_)) { 'L' } else { 'A' }).collect()
            }
        }
    }
}

impl Body {
    /// The directions of space of sketch x, sketch y and normal, orthonormal as CadQuery makes them
    /// from `x_dir` and `normal`. `None` if they are parallel or zero.
    pub fn axes(&self) -> Option<[Vec3; 3]> {
        let normal = Vec3::from(self.normal).try_normalize(1e-9)?;
        let x_dir = Vec3::from(self.x_dir);
        let x = (x_dir - normal * x_dir.dot(&normal)).try_normalize(1e-9)?;
        Some([x, normal.cross(&x), normal])
    }

    /// Where the extrusion begins and ends along the normal, from the sketch plane, ascending.
    pub fn span(&self) -> [f64; 2] {
        let far = self.distance;
        if self.both { [-far.abs(), far.abs()] } else { [far.min(0.0), far.max(0.0)] }
    }

    /// Extent of all loops along a sketch axis.
    pub fn extent(&self, axis: usize) -> [f64; 2] {
        let extents = self.loops.iter().map(|outline| outline.extent(axis));
        extents.fold([f64::INFINITY, f64::NEG_INFINITY], |all, one| [all[0].min(one[0]), all[1].max(one[1])])
    }

    /// Axis-aligned bounds in space, as `[least, greatest]` of each axis.
    pub fn bounds(&self) -> Option<[[f64; 2]; 3]> {
        let axes = self.axes()?;
        let spans = [self.extent(0), self.extent(1), self.span()];
        Some(std::array::from_fn(|axis| {
            let mut bounds = [self.origin[axis]; 2];
            for (direction, span) in axes.iter().zip(spans) {
                let ends = span.map(|at| at * direction[axis]);
                bounds = [bounds[0] + ends[0].min(ends[1]), bounds[1] + ends[0].max(ends[1])];
            }
            bounds
        }))
    }

    /// Moves the sketch plane by `shift` along one of its own axes (2 is the normal).
    pub fn shift(&mut self, axis: usize, shift: f64) {
        if let Some(axes) = self.axes() {
            for component in 0..3 {
                self.origin[component] = tidy(self.origin[component] + axes[axis][component] * shift);
            }
        }
    }
}

impl Draft {
    /// Axis-aligned bounds in space of everything but bodies that are cut away.
    pub fn bounds(&self) -> Option<[[f64; 2]; 3]> {
        let solid = |(number, body): &(usize, &Body)| *number == 0 || body.operation == Operation::Union;
        let boxes = self.bodies.iter().enumerate().filter(solid).filter_map(|(_, body)| body.bounds());
        boxes.reduce(|a, b| std::array::from_fn(|axis| [a[axis][0].min(b[axis][0]), a[axis][1].max(b[axis][1])]))
    }

    /// The numbers that place and size the part, plane directions aside.
    pub fn numbers(&self) -> Vec<f64> {
        let mut numbers = Vec::new();
        for body in &self.bodies {
            numbers.extend(body.origin);
            for outline in &body.loops {
                outline.for_each_point(|point| numbers.extend(point));
                if let Loop::Circle { radius, .. } = outline {
                    numbers.push(*radius);
                }
            }
            numbers.push(body.distance);
        }
        numbers
    }
}

/// Removes the rounding noise of sums: the same number at eleven digits, and no negative zero.
pub fn tidy(value: f64) -> f64 {
    let rounded = (value * 1e11).round() / 1e11;
    if rounded == 0.0 { 0.0 } else { rounded }
}

/// A plate with a hole, a boss on it and a groove across it.
#[cfg(test)]
pub(in crate::agent) const PROGRAM: &str = "import cadquery as cq\n\
    # Generating a workplane for sketch 0\n\
    wp_sketch0 = cq.Workplane(cq.Plane(cq.Vector(0.0, 0.0, 0.0), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.0, 1.0)))\n\
    loop0=wp_sketch0.moveTo(0.75, 0.0).lineTo(0.75, 0.5).lineTo(0.0, 0.5).lineTo(0.0, 0.0).close()\n\
    loop1=wp_sketch0.moveTo(0.25, 0.25).circle(0.125)\n\
    solid0=wp_sketch0.add(loop0).add(loop1).extrude(0.25)\n\
    solid=solid0\n\
    # Generating a workplane for sketch 1\n\
    wp_sketch1 = cq.Workplane(cq.Plane(cq.Vector(0.5, 0.25, 0.25), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.0, 1.0)))\n\
    loop2=wp_sketch1.moveTo(0.0, 0.0).threePointArc((0.0625, 0.0625), (0.125, 0.0)).lineTo(0.0625, -0.0625).close()\n\
    solid1=wp_sketch1.add(loop2).extrude(0.125)\n\
    solid=solid.union(solid1)\n\
    # Generating a workplane for sketch 2\n\
    wp_sketch2 = cq.Workplane(cq.Plane(cq.Vector(0.6875, 0.0, 0.25), cq.Vector(0.0, 1.0, 0.0), cq.Vector(1.0, 0.0, 0.0)))\n\
    loop3=wp_sketch2.moveTo(0.5, -0.0625).lineTo(0.5, 0.0).lineTo(0.0, 0.0).lineTo(0.0, -0.0625).close()\n\
    solid2=wp_sketch2.add(loop3).extrude(0.03125, both=True)\n\
    solid=solid.cut(solid2)\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_data_sets_form_is_read_and_written_unchanged() {
        let draft = Draft::parse(PROGRAM).unwrap();
        assert_eq!(draft.bodies.len(), 3);
        assert_eq!(draft.program(), PROGRAM);
        // Rounding noise of the data set stays as it is.
        let noisy = PROGRAM.replace("Vector(1.0, 0.0, 0.0)))", "Vector(1.0, 0.0, 6.123233995736766e-17)))");
        assert_eq!(Draft::parse(&noisy).unwrap().program(), noisy);
    }

    #[test]
    fn synthetic_programs_are_read_and_written_unchanged() {
        use crate::data::synth::{Numbers, SynthConfig, draw_parts};
        for numbers in [Numbers::Short, Numbers::Full] {
            let config = SynthConfig { count: 200, numbers, image_size: 16, ..SynthConfig::default() };
            for part in draw_parts(&config).unwrap() {
                let draft = Draft::parse(&part.program);
                assert_eq!(draft.map(|draft| draft.program()).as_deref(), Some(part.program.as_str()));
            }
        }
    }

    #[test]
    fn other_statements_are_not_a_draft() {
        for (from, to) in [
            (".close()", ""),
            ("extrude(0.25)", "extrude(0.25, taper=5)"),
            ("solid=solid.union(solid1)", "solid=solid.union(solid7)"),
            ("solid=solid0\n", "solid=solid0\nimport os\n"),
            (".add(loop0).add(loop1)", ".add(loop0)"),
            ("circle(0.125)", "circle(r)"),
            ("moveTo(0.25, 0.25)", "moveTo(0.25, nan)"),
        ] {
            assert!(PROGRAM.contains(from));
            assert_eq!(Draft::parse(&PROGRAM.replacen(from, to, 1)), None, "{to}");
        }
        assert_eq!(Draft::parse(""), None);
    }

    #[test]
    fn bounds_are_those_of_the_solid() {
        let draft = Draft::parse(PROGRAM).unwrap();
        let bounds = draft.bounds().unwrap();
        assert_eq!(bounds, [[0.0, 0.75], [0.0, 0.5], [0.0, 0.375]]);
        assert_eq!(draft.bodies[2].bounds().unwrap()[1], [0.0, 0.5]);
        assert_eq!(draft.bodies[2].span(), [-0.03125, 0.03125]);
    }
}
