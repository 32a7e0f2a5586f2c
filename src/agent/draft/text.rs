//! Writes a draft in the data set's statement forms.

use std::fmt::Write;

use cadwright_rewards::csg::Operation;

use super::{Body, Draft, Loop, Piece, Point};

impl Draft {
    /// The program. Numbers are written as Python's `repr` writes them.
    pub fn program(&self) -> String {
        let mut text = String::from("import cadquery as cq\n");
        let mut first_loop = 0;
        for (number, body) in self.bodies.iter().enumerate() {
            body.write(&mut text, number, first_loop);
            first_loop += body.loops.len();
        }
        text
    }
}

impl Body {
    fn write(&self, text: &mut String, number: usize, first_loop: usize) {
        let [origin, x_dir, normal] =
            [self.origin, self.x_dir, self.normal].map(|[x, y, z]| format!("{x:?}, {y:?}, {z:?}"));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# Generating a workplane for sketch {number}\n\
             wp_sketch{number} = cq.Workplane(cq.Plane(cq.Vector({origin}), cq.Vector({x_dir}), cq.Vector({normal})))"
        );
        let mut adds = String::new();
        for (index, outline) in self.loops.iter().enumerate() {
            let _ = writeln!(text, "loop{}=wp_sketch{number}{}", first_loop + index, outline.calls());
            let _ = write!(adds, ".add(loop{})", first_loop + index);
        }
        let both = if self.both { ", both=True" } else { "" };
        let _ = writeln!(text, "solid{number}=wp_sketch{number}{adds}.extrude({:?}{both})", self.distance);
        let _ = match (number, self.operation) {
            (0, _) => writeln!(text, "solid=solid0"),
            (_, Operation::Union) => writeln!(text, "solid=solid.union(solid{number})"),
            (_, Operation::Cut) => writeln!(text, "solid=solid.cut(solid{number})"),
            (_, Operation::Intersect) => writeln!(text, "solid=solid.intersect(solid{number})"),
        };
    }
}

impl Loop {
    /// The calls after the name of the workplane.
    fn calls(&self) -> String {
        let point = |[x, y]: Point| format!("{x:?}, {y:?}");
        match self {
            Self::Circle { center, radius } => format!(".moveTo({}).circle({radius:?})", point(*center)),
            Self::Path { start, pieces } => {
                let piece = |piece: &Piece| match piece {
                    Piece::Line(to) => format!(".lineTo({})", point(*to)),
                    Piece::Arc(through, to) => format!(".threePointArc(({}), ({}))", point(*through), point(*to)),
                };
                let pieces: String = pieces.iter().map(piece).collect();
                format!(".moveTo({}){pieces}.close()", point(*start))
            }
        }
    }
}
