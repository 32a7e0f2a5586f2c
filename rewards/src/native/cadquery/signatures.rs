//! The methods of a workplane, with the parameters that calls are bound to.

use super::{optional, required};
use crate::native::python::Parameter;

/// A method of a workplane.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    pub name: &'static str,
    pub parameters: &'static [Parameter],
    pub topic: Topic,
}

/// What a method is for. The reference lists methods by it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Plane,
    Point,
    Edge,
    Outline,
    Extrusion,
    Body,
    Hole,
    Boolean,
    Motion,
    Selection,
    Blend,
    Stack,
}

impl Topic {
    pub const ALL: [Self; 12] = [
        Self::Plane,
        Self::Point,
        Self::Edge,
        Self::Outline,
        Self::Extrusion,
        Self::Body,
        Self::Hole,
        Self::Boolean,
        Self::Motion,
        Self::Selection,
        Self::Blend,
        Self::Stack,
    ];

    /// The heading in the reference.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Plane => "planes",
            Self::Point => "points",
            Self::Edge => "edges from the last point",
            Self::Outline => "outlines at each point",
            Self::Extrusion => "solids from outlines",
            Self::Body => "solids",
            Self::Hole => "holes",
            Self::Boolean => "booleans",
            Self::Motion => "moves",
            Self::Selection => "select (\">Z\", \"|X\")",
            Self::Blend => "on the selection",
            Self::Stack => "others",
        }
    }
}

/// The parameters of `Workplane(..)`.
pub const WORKPLANE: [Parameter; 3] = [optional("inPlane"), optional("origin"), optional("obj")];
/// The parameters of `Plane(..)`.
pub const PLANE: [Parameter; 3] = [required("origin"), optional("xDir"), optional("normal")];

const CLEAN: Parameter = optional("clean");
const COMBINE: Parameter = optional("combine");
const CONSTRUCTION: Parameter = optional("forConstruction");
const SELECTOR: &[Parameter] = &[optional("selector"), optional("tag")];

/// Optional parameters that hardly change a shape, that the engine declines, or that programs
/// rarely need. The reference leaves them out.
pub const MINOR: [&str; 14] = [
    "angle1",
    "angle2",
    "angle3",
    "centerOption",
    "circumscribed",
    "clean",
    "combine",
    "direct",
    "forConstruction",
    "glue",
    "includeCurrent",
    "kind",
    "tag",
    "tol",
];

/// The methods that are implemented.
pub const METHODS: &[Signature] = &[
    of(
        Topic::Plane,
        "workplane",
        &[optional("offset"), optional("invert"), optional("centerOption"), optional("origin")],
    ),
    of(Topic::Plane, "transformed", &[optional("rotate"), optional("offset")]),
    of(Topic::Plane, "center", &[required("x"), required("y")]),
    of(Topic::Plane, "copyWorkplane", &[required("obj")]),
    of(Topic::Plane, "workplaneFromTagged", &[required("name")]),
    of(Topic::Point, "moveTo", &[optional("x"), optional("y")]),
    of(Topic::Point, "move", &[optional("xDist"), optional("yDist")]),
    of(Topic::Point, "pushPoints", &[required("pntList")]),
    of(
        Topic::Point,
        "polarArray",
        &[
            required("radius"),
            required("startAngle"),
            required("angle"),
            required("count"),
            optional("fill"),
            optional("rotate"),
        ],
    ),
    of(
        Topic::Point,
        "rarray",
        &[required("xSpacing"), required("ySpacing"), required("xCount"), required("yCount"), optional("center")],
    ),
    of(Topic::Edge, "lineTo", &[required("x"), required("y"), CONSTRUCTION]),
    of(Topic::Edge, "line", &[required("xDist"), required("yDist"), CONSTRUCTION]),
    of(Topic::Edge, "hLine", &[required("distance"), CONSTRUCTION]),
    of(Topic::Edge, "vLine", &[required("distance"), CONSTRUCTION]),
    of(Topic::Edge, "hLineTo", &[required("xCoord"), CONSTRUCTION]),
    of(Topic::Edge, "vLineTo", &[required("yCoord"), CONSTRUCTION]),
    of(Topic::Edge, "polarLine", &[required("distance"), required("angle"), CONSTRUCTION]),
    of(Topic::Edge, "polarLineTo", &[required("distance"), required("angle"), CONSTRUCTION]),
    of(Topic::Edge, "threePointArc", &[required("point1"), required("point2"), CONSTRUCTION]),
    of(Topic::Edge, "sagittaArc", &[required("endPoint"), required("sag"), CONSTRUCTION]),
    of(Topic::Edge, "radiusArc", &[required("endPoint"), required("radius"), CONSTRUCTION]),
    of(Topic::Edge, "polyline", &[required("listOfXYTuple"), CONSTRUCTION, optional("includeCurrent")]),
    of(Topic::Edge, "close", &[]),
    of(Topic::Outline, "circle", &[required("radius"), CONSTRUCTION]),
    of(Topic::Outline, "rect", &[required("xLen"), required("yLen"), optional("centered"), CONSTRUCTION]),
    of(Topic::Outline, "polygon", &[required("nSides"), required("diameter"), CONSTRUCTION, optional("circumscribed")]),
    of(Topic::Outline, "slot2D", &[required("length"), required("diameter"), optional("angle")]),
    of(Topic::Extrusion, "extrude", &[required("until"), COMBINE, CLEAN, optional("both"), optional("taper")]),
    of(Topic::Extrusion, "cutBlind", &[required("until"), CLEAN, optional("both"), optional("taper")]),
    of(Topic::Extrusion, "cutThruAll", &[CLEAN, optional("taper")]),
    of(
        Topic::Extrusion,
        "revolve",
        &[optional("angleDegrees"), optional("axisStart"), optional("axisEnd"), COMBINE, CLEAN],
    ),
    of(
        Topic::Body,
        "box",
        &[required("length"), required("width"), required("height"), optional("centered"), COMBINE, CLEAN],
    ),
    of(
        Topic::Body,
        "cylinder",
        &[
            required("height"),
            required("radius"),
            optional("direct"),
            optional("angle"),
            optional("centered"),
            COMBINE,
            CLEAN,
        ],
    ),
    of(
        Topic::Body,
        "sphere",
        &[
            required("radius"),
            optional("direct"),
            optional("angle1"),
            optional("angle2"),
            optional("angle3"),
            optional("centered"),
            COMBINE,
            CLEAN,
        ],
    ),
    of(Topic::Hole, "hole", &[required("diameter"), optional("depth"), CLEAN]),
    of(
        Topic::Hole,
        "cboreHole",
        &[required("diameter"), required("cboreDiameter"), required("cboreDepth"), optional("depth"), CLEAN],
    ),
    of(
        Topic::Hole,
        "cskHole",
        &[required("diameter"), required("cskDiameter"), required("cskAngle"), optional("depth"), CLEAN],
    ),
    of(Topic::Boolean, "union", &[optional("toUnion"), CLEAN, optional("glue"), optional("tol")]),
    of(Topic::Boolean, "cut", &[required("toCut"), CLEAN, optional("tol")]),
    of(Topic::Boolean, "intersect", &[required("toIntersect"), CLEAN, optional("tol")]),
    of(Topic::Motion, "translate", &[required("vec")]),
    of(Topic::Motion, "rotate", &[required("axisStartPoint"), required("axisEndPoint"), required("angleDegrees")]),
    of(Topic::Motion, "mirror", &[optional("mirrorPlane"), optional("basePointVector"), optional("union")]),
    of(Topic::Selection, "faces", SELECTOR),
    of(Topic::Selection, "edges", SELECTOR),
    of(Topic::Selection, "vertices", SELECTOR),
    of(Topic::Blend, "fillet", &[required("radius")]),
    of(Topic::Blend, "chamfer", &[required("length"), optional("length2")]),
    of(Topic::Blend, "shell", &[required("thickness"), optional("kind")]),
    of(Topic::Stack, "add", &[required("obj")]),
    of(Topic::Stack, "end", &[optional("n")]),
    of(Topic::Stack, "first", &[]),
    of(Topic::Stack, "last", &[]),
    of(Topic::Stack, "val", &[]),
    of(Topic::Stack, "size", &[]),
    of(Topic::Stack, "tag", &[required("name")]),
    of(Topic::Stack, "sketch", &[]),
    of(Topic::Stack, "clean", &[]),
];

const fn of(topic: Topic, name: &'static str, parameters: &'static [Parameter]) -> Signature {
    Signature { name, parameters, topic }
}

/// The method `name` of a workplane.
pub fn signature(name: &str) -> Option<&'static Signature> {
    METHODS.iter().find(|method| method.name == name)
}
