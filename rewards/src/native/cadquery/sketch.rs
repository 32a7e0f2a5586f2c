//! `Sketch`: faces combined in the plane.
//!
//! A boolean of faces is the boolean of the prisms over them. A sketch therefore keeps a tree of
//! prisms of height one over its own plane. `extrude` moves these prisms to their place.

use std::cell::RefCell;
use std::rc::Rc;

use super::geometry::vector;
use super::shapes::Item;
use super::workplane::Workplane;
use super::{method, number, number_or, optional, required, stack};
use crate::csg::{CsgSolid, Edge, Extrusion, Operation, Plane, Primitive, Region, Vec2, Vec3, Wire};
use crate::native::certainty;
use crate::native::python::{Arguments, Object, Parameter, Stop, Value};
use crate::native::wires::{CLEARANCE, SpaceEdge, SpaceWire, check_point, regions};

/// `cq.Sketch`.
#[derive(Debug)]
pub struct Sketch {
    parent: Option<Rc<Workplane>>,
    /// The positions from the parent's stack.
    pub places: Vec<Vec3>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    faces: Option<CsgSolid>,
    edges: Vec<SpaceEdge>,
    selection: Option<Vec<Vec2>>,
}

const METHODS: [&str; 12] =
    ["arc", "assemble", "circle", "clean", "close", "face", "finalize", "push", "rect", "reset", "segment", "slot"];

/// The other names that a `Sketch` has. They exist in CadQuery but are not implemented here.
const OTHERS: &[&str] = &[
    "_constraints",
    "_edges",
    "_endPoint",
    "_faces",
    "_matchFacesToVertices",
    "_select",
    "_selected_faces",
    "_selection",
    "_solve_status",
    "_startPoint",
    "_tag",
    "_tags",
    "_unique",
    "add",
    "apply",
    "bezier",
    "chamfer",
    "constrain",
    "copy",
    "delete",
    "distribute",
    "each",
    "edge",
    "edges",
    "ellipse",
    "export",
    "faces",
    "fillet",
    "filter",
    "hull",
    "importDXF",
    "invoke",
    "located",
    "locs",
    "map",
    "moved",
    "offset",
    "parent",
    "parray",
    "polygon",
    "rarray",
    "regularPolygon",
    "replace",
    "select",
    "solve",
    "sort",
];

/// The rest of [`OTHERS`].
const MORE: &[&str] = &["spline", "subtract", "tag", "trapezoid", "val", "vals", "vertices", "wires"];

/// `Workplane.sketch()`: starts a sketch at the positions on the parent's stack.
pub fn on(wp: &Rc<Workplane>) -> Result<Value, Stop> {
    let places = stack::centers(wp)?;
    let parent = wp.with(Vec::new());
    parent.objects.borrow_mut().push(Item::Drawing);
    Ok(Value::Object(Rc::new(Sketch { parent: Some(parent), places, state: RefCell::default() })))
}

/// `cq.Sketch()`.
pub fn construct(arguments: Arguments) -> Result<Value, Stop> {
    arguments.bind("Sketch.__init__", &[])?;
    Ok(Value::Object(Rc::new(Sketch { parent: None, places: vec![Vec3::zeros()], state: RefCell::default() })))
}

impl Object for Sketch {
    fn class_name(&self) -> String {
        "Sketch".to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        if let Some(known) = METHODS.iter().find(|known| **known == name) {
            return Ok(method(this, known));
        }
        if OTHERS.contains(&name) || MORE.contains(&name) || name.starts_with("__") {
            return Err(Stop::decline("Sketch method not supported", name));
        }
        Err(Stop::raise("AttributeError", format!("'Sketch' object has no attribute '{name}'")))
    }
}

impl Sketch {
    /// Returns the faces, as prisms of height one over the xy plane.
    pub fn faces(&self) -> Option<CsgSolid> {
        self.state.borrow().faces.clone()
    }

    /// Calls a method.
    pub fn call(self: &Rc<Self>, name: &str, arguments: Arguments) -> Result<Value, Stop> {
        let bind = |parameters: &[Parameter]| arguments.clone().bind(&format!("Sketch.{name}"), parameters);
        let (mode, tag) = (optional("mode"), optional("tag"));
        match name {
            "circle" => {
                let bound = bind(&[required("r"), mode, tag])?;
                let radius = bound[0].as_ref().map_or(Ok(0.0), number)?;
                if radius < 0.0 {
                    let message = "gp_Circ() - radius should be positive number";
                    return Err(Stop::raise("Standard_ConstructionError", message));
                }
                check_extent(radius)?;
                let circle = Edge::Circle { center: Vec2::zeros(), radius };
                self.each(&[region(vec![circle])?], &bound[1..])?;
            }
            "rect" => {
                let bound = bind(&[required("w"), required("h"), optional("angle"), mode, tag])?;
                let [w, h] = [0, 1].map(|index: usize| bound[index].as_ref().map_or(Ok(0.0), number));
                let (w, h) = (w?, h?);
                check_extent(w.abs())?;
                check_extent(h.abs())?;
                let turn = nalgebra::Rotation2::new(number_or(bound[2].as_ref(), 0.0)?.to_radians());
                let corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)];
                let corners = corners.map(|(x, y)| turn * Vec2::new(x * w.abs(), y * h.abs()));
                let edges = (0..4).map(|i| Edge::Line { from: corners[i], to: corners[(i + 1) % 4] }).collect();
                self.each(&[region(edges)?], &bound[3..])?;
            }
            "slot" => return Err(Stop::decline("Sketch method not supported", name)),
            "push" => {
                let bound = bind(&[required("locs"), tag])?;
                let points = bound[0].as_ref().and_then(Value::sequence);
                let points = points.ok_or_else(|| Stop::decline("points not a list", ""))?;
                let at = |point: &Value| {
                    let point = check_point(vector(point)?)?;
                    if point.z == 0.0 { Ok(point.xy()) } else { Err(Stop::decline("point off the sketch", "")) }
                };
                let points = points.iter().map(at).collect::<Result<Vec<_>, Stop>>()?;
                self.state.borrow_mut().selection = Some(points);
            }
            "reset" => {
                bind(&[])?;
                self.state.borrow_mut().selection = None;
            }
            "clean" => {
                bind(&[])?;
            }
            "segment" | "arc" => self.draw(name, arguments)?,
            "close" => {
                bind(&[tag])?;
                let ends = |edge: &SpaceEdge| edge.ends().ok_or_else(|| Stop::decline("end of a circle", ""));
                let (to, from) = (ends(&self.edge(false)?)?.0, ends(&self.edge(true)?)?.1);
                let edge = SpaceEdge::line(from, to)?;
                self.state.borrow_mut().edges.push(edge);
            }
            "assemble" => {
                let bound = bind(&[mode, tag])?;
                let faces = self.assembled()?;
                self.each(&faces, &bound)?;
            }
            "face" => {
                let parameters = [required("b"), optional("angle"), mode, tag, optional("ignore_selection")];
                let bound = bind(&parameters)?;
                let Some(other) = bound[0].as_ref().and_then(Value::object::<Sketch>) else {
                    return Err(Stop::decline("face of an odd object", ""));
                };
                if number_or(bound[1].as_ref(), 0.0)? != 0.0 || bound[4].is_some() {
                    return Err(Stop::decline("turned face", ""));
                }
                let Some(faces) = other.faces() else { return Err(Stop::decline("face of an empty sketch", "")) };
                self.each_tree(&faces, &bound[2..])?;
            }
            "finalize" => {
                bind(&[])?;
                return match &self.parent {
                    Some(parent) => {
                        // From now on the parent holds the sketch. In CadQuery it does so from the
                        // start.
                        let mut objects = parent.objects.borrow_mut();
                        for item in objects.iter_mut() {
                            if matches!(item, Item::Drawing) {
                                *item = Item::Sketched(Rc::new(self.profile()));
                            }
                        }
                        drop(objects);
                        Ok(Value::Object(Rc::clone(parent) as Rc<dyn Object>))
                    }
                    None => Ok(Value::None),
                };
            }
            _ => return Err(Stop::decline("Sketch method not supported", name)),
        }
        Ok(Value::Object(Rc::clone(self) as Rc<dyn Object>))
    }

    /// Returns what `extrude` needs.
    fn profile(&self) -> Profile {
        Profile { faces: self.faces(), places: self.places.clone() }
    }

    /// Returns the last edge, or the first. Raises if there is none.
    fn edge(&self, last: bool) -> Result<SpaceEdge, Stop> {
        let state = self.state.borrow();
        let edge = if last { state.edges.last() } else { state.edges.first() };
        edge.cloned().ok_or_else(|| Stop::raise("ValueError", "No free edges available"))
    }

    /// `segment(p1, p2)`, `segment(p2)`, `arc(p1, p2, p3)`, `arc(p2, p3)`: the number of points
    /// selects the overload.
    fn draw(&self, name: &str, arguments: Arguments) -> Result<(), Stop> {
        if !arguments.keywords.is_empty() {
            return Err(Stop::decline("keywords of a sketched edge", name));
        }
        // CadQuery selects the overload by types. Lists and triples match none (experiment
        // `segment of lists`).
        let is_point = |value: &Value| match value {
            Value::Tuple(items) => items.len() == 2,
            Value::Object(_) => true,
            _ => false,
        };
        if !arguments.positional.iter().all(is_point) {
            return Err(Stop::decline("sketched edge with odd arguments", name));
        }
        let points: Vec<Vec3> = arguments.positional.iter().map(vector).collect::<Result<_, _>>()?;
        if points.iter().any(|point| point.z != 0.0) {
            return Err(Stop::decline("point off the sketch", ""));
        }
        let end = || -> Result<Vec3, Stop> {
            let (_, end) = self.edge(true)?.ends().ok_or_else(|| Stop::decline("end of a circle", ""))?;
            Ok(end)
        };
        let edge = match (name, points.as_slice()) {
            ("segment", [to]) => SpaceEdge::line(end()?, *to)?,
            ("segment", [from, to]) => SpaceEdge::line(check_point(*from)?, *to)?,
            ("arc", [through, to]) => SpaceEdge::arc(end()?, *through, *to)?,
            ("arc", [from, through, to]) => SpaceEdge::arc(check_point(*from)?, *through, *to)?,
            _ => return Err(Stop::decline("sketched edge with odd arguments", name)),
        };
        self.state.borrow_mut().edges.push(edge);
        Ok(())
    }

    /// Returns the faces that the edges enclose. The edges must form closed outlines one after
    /// another; others are declined.
    fn assembled(&self) -> Result<Vec<Region>, Stop> {
        let edges = self.state.borrow().edges.clone();
        if edges.is_empty() {
            return Err(Stop::raise("IndexError", "list index out of range"));
        }
        let mut wires: Vec<Wire> = Vec::new();
        let mut chain: Vec<SpaceEdge> = Vec::new();
        for edge in edges {
            chain.push(edge);
            let start = chain.first().and_then(SpaceEdge::ends).map(|(from, _)| from);
            let end = chain.last().and_then(SpaceEdge::ends).map(|(_, to)| to);
            if start.zip(end).is_some_and(|(start, end)| (start - end).norm() < 1e-9) {
                let wire = SpaceWire::closed(std::mem::take(&mut chain))?;
                let flat = wire.flat(&Plane::xy(Vec3::zeros()))?;
                wires.extend(flat.map(|(wire, _)| wire));
            }
        }
        if !chain.is_empty() {
            return Err(Stop::decline("sketched edges not closed", ""));
        }
        match regions(wires)? {
            (regions, false) => Ok(regions),
            (_, true) => Err(Stop::decline("sketched outline crosses itself at a corner", "")),
        }
    }

    /// Combines regions with the faces at each selected place. `rest` holds mode and tag.
    fn each(&self, regions: &[Region], rest: &[Option<Value>]) -> Result<(), Stop> {
        let prism = |region: &Region| {
            CsgSolid::from(Extrusion { plane: Plane::xy(Vec3::zeros()), region: region.clone(), low: 0.0, high: 1.0 })
        };
        let mut trees = regions.iter().map(prism);
        let Some(first) = trees.next() else { return Err(Stop::decline("face of nothing", "")) };
        let tree = trees.fold(first, |all, next| all.combine(Operation::Union, next));
        self.each_tree(&tree, rest)
    }

    fn each_tree(&self, tree: &CsgSolid, rest: &[Option<Value>]) -> Result<(), Stop> {
        let mode = match &rest[0] {
            None => "a",
            Some(Value::Str(mode)) => mode,
            Some(_) => return Err(Stop::decline("odd mode", "")),
        };
        let operation = match mode {
            "a" => Operation::Union,
            "s" => Operation::Cut,
            "i" => Operation::Intersect,
            "r" | "c" => return Err(Stop::decline("sketch mode", mode)),
            _ => return Err(Stop::raise("ValueError", format!("Invalid mode: {mode}"))),
        };
        let mut state = self.state.borrow_mut();
        let places = match &state.selection {
            Some(selection) if !selection.is_empty() => selection.clone(),
            _ => vec![Vec2::zeros()],
        };
        let parts: Vec<CsgSolid> = places
            .iter()
            .map(|at| {
                let shift = Vec3::new(at.x, at.y, 0.0);
                placed(tree, |flat| Extrusion {
                    plane: Plane { origin: flat.plane.origin + shift, ..flat.plane.clone() },
                    ..flat.clone()
                })
            })
            .collect();
        state.faces = match (operation, state.faces.take()) {
            (Operation::Union, faces) => Some(unite(faces, parts)?),
            // Experiment `s first`.
            (_, None) => return Err(Stop::raise("ValueError", "Null TopoDS_Shape object")),
            (_, Some(faces)) => {
                let tool = if operation == Operation::Intersect { vec![unite(None, parts)?] } else { parts };
                let mut result = faces;
                for part in tool {
                    certainty::check_boolean(&result, &part)?;
                    result = result.combine(operation, part);
                }
                if certainty::is_empty(&result)? {
                    return Err(Stop::decline("sketch emptied", ""));
                }
                Some(result)
            }
        };
        Ok(())
    }
}

/// A finished sketch on the stack of its workplane.
#[derive(Debug)]
pub struct Profile {
    /// Prisms of height one over the xy plane.
    pub faces: Option<CsgSolid>,
    /// The positions of its origin in space.
    pub places: Vec<Vec3>,
}

/// Returns the tree of a sketch with each of its prisms replaced by `place`.
pub fn placed(tree: &CsgSolid, place: impl Fn(&Extrusion) -> Extrusion) -> CsgSolid {
    tree.mapped(&|leaf| match leaf {
        Primitive::Extrusion(flat) => place(flat).into(),
        // Unreachable: a sketch consists of prisms only.
        Primitive::Ball(ball) => (*ball).into(),
        Primitive::Revolution(revolution) => revolution.clone().into(),
        Primitive::Polyhedron(polyhedron) => polyhedron.clone().into(),
    })
}

fn unite(faces: Option<CsgSolid>, parts: Vec<CsgSolid>) -> Result<CsgSolid, Stop> {
    let mut all = faces;
    for part in parts {
        all = Some(match all {
            None => part,
            Some(all) => {
                certainty::check_boolean(&all, &part)?;
                all.combine(Operation::Union, part)
            }
        });
    }
    all.ok_or_else(|| Stop::decline("face of nothing", ""))
}

fn region(edges: Vec<Edge>) -> Result<Region, Stop> {
    let wire = Wire::new(edges).map_err(|error| Stop::decline("odd wire", error.to_string()))?;
    Ok(Region::new(wire, Vec::new()))
}

fn check_extent(size: f64) -> Result<(), Stop> {
    check_point(Vec3::repeat(size))?;
    if size < CLEARANCE { Err(Stop::decline("sketched face too small", size.to_string())) } else { Ok(()) }
}
