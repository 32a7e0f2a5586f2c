//! Shapes: the objects on a workplane's stack.

use std::rc::Rc;

use super::method;
use super::sketch::Profile;
use super::topology::Topology;
use crate::csg::{Ball, CsgSolid, Extrusion, Layers, Operation, Plane, Primitive, Revolution, Vec2, Vec3};
use crate::native::python::{Arguments, Object, Stop, Value};
use crate::native::wires::{Known, SpaceEdge, SpaceWire, check_point};
use crate::native::{Decline, certainty, wires};
use crate::outcome::Solid;

/// An object on a stack.
#[derive(Debug, Clone)]
pub enum Item {
    /// A `Vector`.
    Point(Vec3),
    /// A `Location` in the coordinates of its workplane: the position of its origin, and its
    /// rotation in degrees.
    Place {
        at: Vec2,
        degrees: f64,
    },
    /// A `Vertex`.
    Vertex(Vec3),
    Edge(Rc<SpaceEdge>),
    Wire(Rc<SpaceWire>),
    Body(Rc<Body>),
    /// Faces of a body, of unknown number.
    Faces(Rc<SelectedFaces>),
    /// A face of a body that is a single prism, by its number in the topology. The kernel's order
    /// of the faces is unknown.
    Face(Rc<Topology>, usize),
    /// An edge of such a body.
    BodyEdge(Rc<Topology>, usize),
    /// All edges of a body that run along an axis. It is unknown which edges these are.
    Uprights(Rc<Body>, Vec3),
    /// A `Vertex` of a body, in unknown order.
    Corner(Vec3),
    /// A sketch that is being drawn. The sketch holds its parent, but the parent does not hold the
    /// sketch.
    Drawing,
    /// A sketch that is finished.
    Sketched(Rc<Profile>),
    /// An argument of `add` that is no shape, by the name of its class.
    Other(String),
}

/// Faces selected from a body.
#[derive(Debug)]
pub enum SelectedFaces {
    /// One plane face, or several in one plane.
    Plane {
        /// Outward unit normal.
        normal: Vec3,
        /// `normal . p` for every point `p` of the face.
        offset: f64,
    },
}

/// A `Solid` or a `Compound` of solids.
#[derive(Debug)]
pub struct Body {
    /// `None` for an empty compound, which a boolean returns if nothing is left.
    pub tree: Option<CsgSolid>,
    /// Why the shape is uncertain. A solid certainly exists, so a program that raises later or
    /// leaves another object still gets an answer. Any operation on the body is declined.
    pub doubt: Option<Decline>,
    /// What the kernel reports for a doubtful body, if no operation uses it.
    pub known: Option<Known>,
    /// Whether the outline crosses itself next to a corner or the body is tapered. The kernel may
    /// call such a body invalid until a boolean has healed it.
    pub tangled: bool,
}

/// A shape as a Python value, which `val()` returns.
#[derive(Debug)]
pub struct ShapeObject(pub Item);

/// Returns an object on the stack as a Python value.
pub fn item_value(item: &Item) -> Result<Value, Stop> {
    Ok(match item {
        Item::Point(point) => super::geometry::vector_value(*point),
        Item::Other(_)
        | Item::Drawing
        | Item::Sketched(_)
        | Item::Place { .. }
        | Item::Face(..)
        | Item::BodyEdge(..)
        | Item::Uprights(..)
        | Item::Corner(_) => {
            return Err(Stop::decline("stack item of another kind", item.class_name()));
        }
        item => Value::Object(Rc::new(ShapeObject(item.clone()))),
    })
}

impl Item {
    /// Returns the name of the Python class, for messages.
    pub fn class_name(&self) -> &str {
        match self {
            Self::Point(_) => "Vector",
            Self::Place { .. } => "Location",
            Self::Vertex(_) | Self::Corner(_) => "Vertex",
            Self::Edge(_) | Self::BodyEdge(..) | Self::Uprights(..) => "Edge",
            Self::Wire(_) => "Wire",
            Self::Body(_) => "Solid",
            Self::Faces(_) | Self::Face(..) => "Face",
            Self::Drawing | Self::Sketched(_) => "Sketch",
            Self::Other(class) => class,
        }
    }

    /// Returns whether the object is a `Shape`.
    pub fn is_shape(&self) -> bool {
        !matches!(self, Self::Point(_) | Self::Place { .. } | Self::Drawing | Self::Sketched(_) | Self::Other(_))
    }

    /// Returns whether the position of the object on the stack may differ from that in CadQuery.
    pub fn is_unordered(&self) -> bool {
        matches!(self, Self::Faces(_) | Self::Face(..) | Self::BodyEdge(..) | Self::Uprights(..) | Self::Corner(_))
    }

    /// `Center()`: returns the centre of the object.
    pub fn center(&self) -> Result<Vec3, Stop> {
        match self {
            Self::Point(point) | Self::Vertex(point) | Self::Corner(point) => Ok(*point),
            Self::Face(topology, face) => Ok(topology.faces[*face].center),
            Self::BodyEdge(topology, edge) => topology.center_of_edge(*edge),
            Self::Wire(wire) => wire.center(),
            Self::Edge(edge) => {
                SpaceWire { edges: vec![(**edge).clone()], for_construction: false, is_assembled: false }.center()
            }
            Self::Body(body) => body.center(),
            Self::Place { .. }
            | Self::Faces(_)
            | Self::Uprights(..)
            | Self::Drawing
            | Self::Sketched(_)
            | Self::Other(_) => Err(Stop::decline("centre of a shape", self.class_name())),
        }
    }
}

impl Body {
    /// Makes a body that certainly holds a solid.
    pub fn new(tree: impl Into<CsgSolid>) -> Rc<Self> {
        Rc::new(Self { tree: Some(tree.into()), doubt: None, known: None, tangled: false })
    }

    /// Makes an empty compound.
    pub fn empty() -> Rc<Self> {
        Rc::new(Self { tree: None, doubt: None, known: None, tangled: false })
    }

    /// Makes a body that certainly holds a solid of uncertain shape. `known` is what the kernel
    /// reports for it, if that is known.
    pub fn doubtful(doubt: Decline, known: Option<Known>) -> Rc<Self> {
        Rc::new(Self { tree: None, doubt: Some(doubt), known, tangled: false })
    }

    /// Returns whether the body holds a solid.
    pub fn holds_solid(&self) -> bool {
        self.tree.is_some() || self.doubt.is_some()
    }

    /// Returns the shape, or `None` if the body is empty. Declines a doubtful body.
    pub fn shape(&self) -> Result<Option<&CsgSolid>, Decline> {
        match &self.doubt {
            Some(doubt) => Err(doubt.clone()),
            None => Ok(self.tree.as_ref()),
        }
    }

    /// `Center()`: returns the centre of mass if it is known exactly. Declines otherwise.
    pub fn center(&self) -> Result<Vec3, Stop> {
        let uncertain = || Stop::decline("centre of a shape", "Solid");
        let tree = self.shape()?.ok_or_else(uncertain)?;
        certainty::check_centre(tree)?;
        if let CsgSolid::Ball(ball) = tree {
            return Ok(ball.center);
        }
        let layers = Layers::of(tree).ok_or_else(uncertain)?;
        let bounds = tree.tight_bounds(Some(&layers)).ok_or_else(uncertain)?;
        let (mass, is_certain) = tree.mass_properties(Some(&layers), bounds);
        if is_certain { check_point(Vec3::from(mass.centroid)) } else { Err(uncertain()) }
    }

    /// Returns the body moved.
    pub fn moved(&self, motion: &Motion) -> Result<Rc<Self>, Stop> {
        let Some(tree) = self.shape()? else { return Ok(Self::empty()) };
        // A tapered prism that was valid may become invalid elsewhere.
        let tangled = self.tangled || matches!(tree, CsgSolid::Polyhedron(_));
        let tree = Some(tree.mapped(&|leaf| motion.leaf(leaf)));
        Ok(Rc::new(Self { tree, doubt: None, known: None, tangled }))
    }
}

/// Returns whether the boxes of two bodies are clearly apart. A boolean between them then changes
/// nothing, whatever the bodies are.
fn are_apart(a: &Body, b: &Body) -> bool {
    let bounds = |body: &Body| match (&body.known, &body.tree) {
        // Booleans heal or lose what a wire that crosses itself encloses, even far from the other.
        _ if body.doubt.as_ref().is_some_and(wires::is_about_one_wire) => None,
        (Some(known), _) => Some((Vec3::from(known.mass.bounds.min), Vec3::from(known.mass.bounds.max))),
        (None, Some(tree)) => tree.bounds().map(|bounds| (bounds.min, bounds.max)),
        (None, None) => None,
    };
    let (Some((a_min, a_max)), Some((b_min, b_max))) = (bounds(a), bounds(b)) else { return false };
    (0..3).any(|axis| a_min[axis] > b_max[axis] + 1e-5 || b_min[axis] > a_max[axis] + 1e-5)
}

/// Unites bodies that are clearly apart, some of them doubtful. The kernel combines them unchanged
/// (experiments `malformed beside ..`).
fn beside(bodies: &[Rc<Body>]) -> Result<Rc<Body>, Decline> {
    let Some(doubt) = bodies.iter().find_map(|body| body.doubt.clone()) else { return Ok(Body::empty()) };
    let apart = bodies.iter().enumerate().all(|(index, body)| bodies[..index].iter().all(|b| are_apart(body, b)));
    let known = |body: &Body| match (&body.known, &body.tree) {
        (Some(known), _) => Some(known.clone()),
        (None, Some(tree)) if !body.tangled => {
            let solid = Solid::native(tree.clone(), false);
            let mass = solid.is_mass_certain().then(|| *solid.mass())?;
            Some(Known { shape: tree.clone(), mass, solids: solid.solids(), malformed: false })
        }
        _ => None,
    };
    let known: Option<Vec<Known>> = bodies.iter().map(|body| known(body)).collect();
    match known.filter(|_| apart).and_then(|known| known.into_iter().reduce(Known::beside)) {
        Some(all) => Ok(Body::doubtful(doubt, Some(all))),
        None => Err(doubt),
    }
}

/// Returns the shapes of the bodies that are not empty.
fn shapes(bodies: &[Rc<Body>]) -> Result<Vec<&CsgSolid>, Decline> {
    bodies.iter().filter_map(|body| body.shape().transpose()).collect()
}

/// Checks that bodies may form one argument of a boolean: no two may share a point.
pub fn check_apart(bodies: &[Rc<Body>]) -> Result<(), Decline> {
    let bounds: Vec<_> = shapes(bodies)?.into_iter().filter_map(CsgSolid::bounds).collect();
    for (index, a) in bounds.iter().enumerate() {
        for b in &bounds[..index] {
            let apart = (0..3).any(|axis| a.min[axis] > b.max[axis] + 1e-5 || b.min[axis] > a.max[axis] + 1e-5);
            if !apart {
                return Err(Decline::new("overlapping bodies in one argument", ""));
            }
        }
    }
    Ok(())
}

/// `fuse`: returns the union of all bodies.
pub fn fuse(bodies: &[Rc<Body>]) -> Result<Rc<Body>, Stop> {
    if let [one] = bodies {
        return Ok(Rc::clone(one));
    }
    if bodies.iter().any(|body| body.doubt.is_some()) {
        return Ok(beside(bodies)?);
    }
    let mut trees = shapes(bodies)?.into_iter();
    let Some(first) = trees.next() else { return Ok(Body::empty()) };
    let mut result = first.clone();
    for tree in trees {
        certainty::check_boolean(&result, tree)?;
        result = checked(result.combine(Operation::Union, tree.clone()))?;
    }
    Ok(Body::new(result))
}

/// `cut`: returns the first body minus the others.
pub fn cut(base: &Rc<Body>, tools: &[Rc<Body>]) -> Result<Rc<Body>, Stop> {
    let is_doubtful = |tool: &Body| base.doubt.is_some() || tool.doubt.is_some();
    let near: Vec<Rc<Body>> =
        tools.iter().filter(|tool| !(is_doubtful(tool) && are_apart(base, tool))).cloned().collect();
    if near.is_empty() && base.known.is_some() {
        return Ok(Rc::clone(base));
    }
    let tools = shapes(&near)?;
    let Some(tree) = base.shape()? else { return Ok(Body::empty()) };
    let mut result = tree.clone();
    for tool in tools {
        certainty::check_boolean(&result, tool)?;
        result = checked(result.combine(Operation::Cut, tool.clone()))?;
    }
    Ok(if certainty::is_empty(&result)? { Body::empty() } else { Body::new(result) })
}

/// `intersect`: returns the intersection of the first body with the union of the others.
pub fn intersect(base: &Rc<Body>, tools: &[Rc<Body>]) -> Result<Rc<Body>, Stop> {
    let tool = fuse(tools)?;
    if (base.doubt.is_some() || tool.doubt.is_some()) && are_apart(base, &tool) {
        return Ok(Body::empty());
    }
    let (Some(a), Some(b)) = (base.shape()?, tool.shape()?) else { return Ok(Body::empty()) };
    certainty::check_boolean(a, b)?;
    let result = checked(a.clone().combine(Operation::Intersect, b.clone()))?;
    Ok(if certainty::is_empty(&result)? { Body::empty() } else { Body::new(result) })
}

/// Declines a tree that is too large. Trees are traversed by recursion, so their size is limited.
fn checked(tree: CsgSolid) -> Result<CsgSolid, Decline> {
    const MOST: usize = 300;
    if tree.leaves() > MOST { Err(Decline::new("too many bodies in one", "")) } else { Ok(tree) }
}

/// A rigid motion or a reflection: `linear * p + shift`.
#[derive(Debug, Clone)]
pub struct Motion {
    pub linear: nalgebra::Matrix3<f64>,
    pub shift: Vec3,
}

impl Motion {
    pub fn translation(shift: Vec3) -> Self {
        Self { linear: nalgebra::Matrix3::identity(), shift }
    }

    /// Builds the rotation about the line through two points, in degrees.
    pub fn rotation(from: Vec3, to: Vec3, degrees: f64) -> Result<Self, Stop> {
        let axis = to - from;
        if axis.norm() < 1e-9 {
            return Err(Stop::decline("rotation about a point", ""));
        }
        let rotation = nalgebra::Rotation3::from_axis_angle(&nalgebra::Unit::new_normalize(axis), degrees.to_radians());
        let linear = snapped(rotation.into_inner());
        Ok(Self { linear, shift: from - linear * from })
    }

    /// Builds the reflection at the plane through a point.
    pub fn mirror(normal: Vec3, point: Vec3) -> Self {
        let normal = normal.normalize();
        let linear = nalgebra::Matrix3::identity() - 2.0 * normal * normal.transpose();
        Self { linear, shift: point - linear * point }
    }

    pub fn point(&self, point: Vec3) -> Vec3 {
        self.linear * point + self.shift
    }

    /// Moves a leaf. A reflected frame is left-handed, so its normal and its heights are negated.
    fn leaf(&self, leaf: Primitive<'_>) -> CsgSolid {
        let Extrusion { plane, region, low, high } = match leaf {
            Primitive::Extrusion(extrusion) => extrusion,
            Primitive::Ball(ball) => return Ball { center: self.point(ball.center), ..*ball }.into(),
            Primitive::Polyhedron(polyhedron) => return polyhedron.mapped(|point| self.point(point)).into(),
            // A body of revolution needs no such change: in a left-handed frame it still turns from
            // x to y.
            Primitive::Revolution(Revolution { plane, sides, turn }) => {
                let [x, y, z] = [plane.x, plane.y, plane.z].map(|axis| self.linear * axis);
                let plane = Plane { origin: self.point(plane.origin), x, y, z };
                return Revolution { plane, sides: sides.clone(), turn: *turn }.into();
            }
        };
        let [x, y, z] = [plane.x, plane.y, plane.z].map(|axis| self.linear * axis);
        let (origin, region) = (self.point(plane.origin), region.clone());
        if self.linear.determinant() > 0.0 {
            Extrusion { plane: Plane { origin, x, y, z }, region, low: *low, high: *high }.into()
        } else {
            Extrusion { plane: Plane { origin, x, y, z: -z }, region, low: -high, high: -low }.into()
        }
    }

    /// Moves an item.
    pub fn apply(&self, item: &Item) -> Result<Item, Stop> {
        let point = |p: Vec3| self.point(p);
        let direction = |d: Vec3| self.linear * d;
        Ok(match item {
            Item::Wire(wire) => Item::Wire(Rc::new(wire.mapped(&point, &direction))),
            Item::Edge(edge) => Item::Edge(Rc::new(edge.mapped(&point, &direction))),
            Item::Vertex(at) => Item::Vertex(check_point(point(*at))?),
            Item::Body(body) => Item::Body(body.moved(self)?),
            Item::Point(_) | Item::Place { .. } | Item::Drawing | Item::Sketched(_) | Item::Other(_) => item.clone(),
            Item::Faces(_) | Item::Face(..) | Item::BodyEdge(..) | Item::Uprights(..) | Item::Corner(_) => {
                return Err(Stop::decline("moved face", ""));
            }
        })
    }
}

/// Returns a plane turned about its normal by an angle in degrees.
pub fn turned(plane: &Plane, degrees: f64) -> Plane {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let [sin, cos] = [sin, cos].map(|share| if (share - share.round()).abs() < 1e-15 { share.round() } else { share });
    Plane { x: plane.x * cos + plane.y * sin, y: plane.y * cos - plane.x * sin, ..plane.clone() }
}

/// Rounds entries that are 0 or 1 up to rounding errors. A rotation by a multiple of a right angle
/// about an axis has such entries. Without this, faces that should be flush would be nearly flush.
fn snapped(mut matrix: nalgebra::Matrix3<f64>) -> nalgebra::Matrix3<f64> {
    for entry in matrix.iter_mut() {
        let nearest = entry.round();
        if (*entry - nearest).abs() < 1e-15 {
            *entry = nearest;
        }
    }
    matrix
}

impl Object for ShapeObject {
    fn equals(&self, other: &Value) -> Result<bool, Stop> {
        match other.object::<Self>() {
            Some(_) => Err(Stop::decline("operator of a shape", "==")),
            None => Ok(false),
        }
    }

    fn class_name(&self) -> String {
        self.0.class_name().to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        let known = ["translate", "rotate", "Center", "cut", "fuse", "intersect", "exportStl", "exportStep"];
        match known.into_iter().find(|known| *known == name) {
            Some(known) => Ok(method(this, known)),
            None => Err(Stop::decline("attribute of a shape", name)),
        }
    }
}

/// Calls a method of a shape.
pub fn call_shape(shape: &ShapeObject, name: &str, arguments: Arguments) -> Result<Value, Stop> {
    use super::{geometry::vector, number, required};
    match name {
        "translate" => {
            let bound = arguments.bind("Shape.translate", &[required("vector")])?;
            let shift = bound[0].as_ref().map_or(Ok(Vec3::zeros()), vector)?;
            item_value(&Motion::translation(shift).apply(&shape.0)?)
        }
        "rotate" => {
            let parameters = [required("startVector"), required("endVector"), required("angleDegrees")];
            let bound = arguments.bind("Shape.rotate", &parameters)?;
            let [Some(from), Some(to), Some(angle)] = bound.as_slice() else {
                return Err(Stop::decline("Shape.rotate", ""));
            };
            item_value(&Motion::rotation(vector(from)?, vector(to)?, number(angle)?)?.apply(&shape.0)?)
        }
        "Center" => {
            arguments.bind("Shape.Center", &[])?;
            Ok(super::geometry::vector_value(shape.0.center()?))
        }
        _ => Err(Stop::decline("method of a shape", name)),
    }
}
