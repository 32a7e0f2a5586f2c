//! The methods of a workplane that draw, and the dispatch of all methods.

use std::rc::Rc;

use super::geometry::{VectorObject, call_vector, vector};
use super::shapes::{Item, ShapeObject, call_shape};
use super::signatures::signature;
use super::sketch::Sketch;
use super::stack;
use super::workplane::{Workplane, shared};
use super::{flag_or, number, number_or};
use crate::csg::{Plane, Vec3};
use crate::native::python::{Arguments, Machine, Object, Stop, Value};
use crate::native::wires::{CLEARANCE, SpaceEdge, SpaceWire, check_point};

/// What a method costs for each object on the stack.
const STEPS_PER_OBJECT: u64 = 20;

/// Calls the method `name` of `this`.
pub fn call(this: &Rc<dyn Object>, name: &str, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
    if let Some(wp) = shared(this) {
        // A method may make an object for each one on the stack, and `add` puts them there, so their
        // number may double with every line.
        machine.spend(STEPS_PER_OBJECT * wp.objects.borrow().len() as u64)?;
        let result = draw(&wp, name, arguments.clone())?;
        return match result {
            Some(value) => Ok(value),
            None => stack::call(&wp, name, machine, arguments),
        };
    }
    if name == "export" {
        return super::export(arguments);
    }
    let sketch: Rc<dyn std::any::Any> = Rc::clone(this) as Rc<dyn std::any::Any>;
    if let Ok(sketch) = sketch.downcast::<Sketch>() {
        return sketch.call(name, arguments);
    }
    let any: &dyn std::any::Any = this.as_ref();
    if let Some(vector) = any.downcast_ref::<VectorObject>() {
        return call_vector(vector, name, arguments);
    }
    match any.downcast_ref::<ShapeObject>() {
        Some(shape) => call_shape(shape, name, arguments),
        None => Err(Stop::decline("method of an odd object", name)),
    }
}

/// Arguments bound to a method's parameters.
pub struct Bound(pub Vec<Option<Value>>);

impl Bound {
    /// Binds to the parameters of a method of a workplane.
    pub fn of(arguments: Arguments, method: &str) -> Result<Self, Stop> {
        let known = signature(method).ok_or_else(|| Stop::decline("Workplane method not supported", method))?;
        arguments.bind(&format!("Workplane.{method}"), known.parameters).map(Self)
    }

    pub fn get(&self, index: usize) -> Option<&Value> {
        self.0.get(index).and_then(Option::as_ref)
    }

    pub fn value(&self, index: usize) -> Result<&Value, Stop> {
        self.get(index).ok_or_else(|| Stop::decline("missing argument", index.to_string()))
    }

    pub fn number(&self, index: usize) -> Result<f64, Stop> {
        number(self.value(index)?)
    }

    pub fn point(&self, plane: &Plane, index: usize) -> Result<Vec3, Stop> {
        Ok(to_world(plane, vector(self.value(index)?)?))
    }
}

/// `toWorldCoords`.
pub fn to_world(plane: &Plane, local: Vec3) -> Vec3 {
    plane.to_space(local.xy(), local.z)
}

pub fn value(workplane: Rc<Workplane>) -> Value {
    Value::Object(workplane)
}

/// Calls a method that adds points, edges or wires. Returns `None` for any other method.
fn draw(wp: &Rc<Workplane>, name: &str, arguments: Arguments) -> Result<Option<Value>, Stop> {
    let bind = || Bound::of(arguments, name);
    let plane = wp.plane.borrow().clone();
    let result = match name {
        "moveTo" | "move" => {
            let bound = bind()?;
            let step = Vec3::new(number_or(bound.get(0), 0.0)?, number_or(bound.get(1), 0.0)?, 0.0);
            let local = if name == "moveTo" { step } else { wp.current_local()? + step };
            wp.with(vec![Item::Point(check_point(to_world(&plane, local))?)])
        }
        "center" => {
            let bound = bind()?;
            let origin = check_point(to_world(&plane, Vec3::new(bound.number(0)?, bound.number(1)?, 0.0)))?;
            let moved = wp.with(vec![Item::Point(origin)]);
            moved.plane.borrow_mut().origin = origin;
            moved
        }
        "lineTo" => {
            let bound = bind()?;
            line_to(wp, bound.number(0)?, bound.number(1)?, flag_or(bound.get(2), false)?)?
        }
        "line" => {
            let bound = bind()?;
            line_by(wp, bound.number(0)?, bound.number(1)?, flag_or(bound.get(2), false)?)?
        }
        "hLine" | "vLine" => {
            let bound = bind()?;
            let distance = bound.number(0)?;
            let (dx, dy) = if name == "hLine" { (distance, 0.0) } else { (0.0, distance) };
            line_by(wp, dx, dy, flag_or(bound.get(1), false)?)?
        }
        "hLineTo" | "vLineTo" => {
            let bound = bind()?;
            let here = wp.current_local()?;
            let to = bound.number(0)?;
            let (x, y) = if name == "hLineTo" { (to, here.y) } else { (here.x, to) };
            line_to(wp, x, y, flag_or(bound.get(1), false)?)?
        }
        "polarLine" | "polarLineTo" => {
            let bound = bind()?;
            let (distance, angle) = (bound.number(0)?, bound.number(1)?.to_radians());
            let (x, y) = (angle.cos() * distance, angle.sin() * distance);
            let construction = flag_or(bound.get(2), false)?;
            if name == "polarLine" { line_by(wp, x, y, construction)? } else { line_to(wp, x, y, construction)? }
        }
        "threePointArc" => {
            let bound = bind()?;
            let from = wp.current_point()?;
            let (through, to) = (bound.point(&plane, 0)?, bound.point(&plane, 1)?);
            arc(wp, from, through, to, flag_or(bound.get(2), false)?)?
        }
        "sagittaArc" => {
            let bound = bind()?;
            let to = vector(bound.value(0)?)?;
            sagitta_arc(wp, to, bound.number(1)?, flag_or(bound.get(2), false)?)?
        }
        "radiusArc" => {
            let bound = bind()?;
            let (to, radius) = (vector(bound.value(0)?)?, bound.number(1)?);
            let half = (to - wp.current_local()?).norm() / 2.0;
            let rest = radius * radius - half * half;
            let sag = if rest.abs() < 1e-6 {
                radius.abs()
            } else if rest < 0.0 {
                let message = "Arc radius is not large enough to reach the end point.";
                return Err(Stop::raise("ValueError", message));
            } else {
                radius.abs() - rest.sqrt()
            };
            sagitta_arc(wp, to, if radius > 0.0 { sag } else { -sag }, flag_or(bound.get(2), false)?)?
        }
        "polyline" => {
            let bound = bind()?;
            let points = bound.value(0)?;
            let points = points.sequence().ok_or_else(|| Stop::decline("points not a list", points.class_name()))?;
            let points = points.iter().map(vector).collect::<Result<Vec<_>, _>>()?;
            let current = flag_or(bound.get(2), false)?;
            polyline(wp, &points, flag_or(bound.get(1), false)?, current)?
        }
        "close" => {
            bind()?;
            close(wp)?
        }
        "circle" => {
            let bound = bind()?;
            let radius = bound.number(0)?;
            if radius < 0.0 {
                // Experiment `circle<0`.
                let message = "gp_Circ() - radius should be positive number";
                return Err(Stop::raise("Standard_ConstructionError", message));
            }
            if radius < CLEARANCE {
                return Err(Stop::decline("circle too small", radius.to_string()));
            }
            check_point(Vec3::repeat(radius))?;
            let circle = SpaceEdge::Circle { center: Vec3::zeros(), normal: Vec3::z(), radius };
            each_point(wp, vec![circle], flag_or(bound.get(1), false)?, false)?
        }
        "rect" => {
            let bound = bind()?;
            let (x, y) = (bound.number(0)?, bound.number(1)?);
            let [centered_x, centered_y] = centered(bound.get(2))?;
            let shift = Vec3::new(if centered_x { 0.0 } else { x / 2.0 }, if centered_y { 0.0 } else { y / 2.0 }, 0.0);
            let corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)];
            let corners = corners.map(|(a, b)| Vec3::new(a * x, b * y, 0.0) + shift);
            each_point(wp, SpaceWire::polygon(&corners)?.edges, flag_or(bound.get(3), false)?, false)?
        }
        "polygon" => {
            let bound = bind()?;
            let Value::Int(sides @ 3..=1000) = *bound.value(0)? else {
                return Err(Stop::decline("polygon with odd sides", ""));
            };
            let step = 2.0 * std::f64::consts::PI / sides as f64;
            let circumscribed = flag_or(bound.get(3), false)?;
            let radius = bound.number(1)? / 2.0 / if circumscribed { (step / 2.0).cos() } else { 1.0 };
            let corner = |k: i64| {
                let angle = step * k as f64 + if circumscribed { step / 2.0 } else { 0.0 };
                Vec3::new(radius * angle.cos(), radius * angle.sin(), 0.0)
            };
            let corners: Vec<Vec3> = (0..sides).map(corner).collect();
            each_point(wp, SpaceWire::polygon(&corners)?.edges, flag_or(bound.get(2), false)?, false)?
        }
        "slot2D" => {
            let bound = bind()?;
            let edges = slot(bound.number(0)?, bound.number(1)?, number_or(bound.get(2), 0.0)?)?;
            each_point(wp, edges, false, true)?
        }
        _ => return Ok(None),
    };
    Ok(Some(value(result)))
}

/// Reads `centered=`: one flag for all axes, or one for each axis.
pub fn centered<const N: usize>(value: Option<&Value>) -> Result<[bool; N], Stop> {
    let odd = || Stop::decline("odd value of centered", "");
    match value {
        None => Ok([true; N]),
        Some(Value::Bool(flag)) => Ok([*flag; N]),
        Some(value) => {
            let items = value.sequence().ok_or_else(odd)?;
            let flags = items.iter().map(|item| flag_or(Some(item), true)).collect::<Result<Vec<_>, _>>()?;
            flags.try_into().map_err(|_| odd())
        }
    }
}

/// `_addPendingEdge`. The first edge after a close records its start.
fn pend_edge(wp: &Workplane, edge: &SpaceEdge) {
    let mut context = wp.context.borrow_mut();
    context.pending_edges.push(edge.clone());
    if context.first_point.is_none() {
        context.first_point = edge.ends().map(|(from, _)| wp.plane.borrow().to_local(from));
    }
}

fn add_edge(wp: &Rc<Workplane>, edge: SpaceEdge, construction: bool) -> Rc<Workplane> {
    if !construction {
        pend_edge(wp, &edge);
    }
    wp.with(vec![Item::Edge(Rc::new(edge))])
}

fn line_to(wp: &Rc<Workplane>, x: f64, y: f64, construction: bool) -> Result<Rc<Workplane>, Stop> {
    let from = wp.current_point()?;
    let to = to_world(&wp.plane.borrow(), Vec3::new(x, y, 0.0));
    let after_arc =
        matches!(wp.objects.borrow().last(), Some(Item::Edge(edge)) if matches!(**edge, SpaceEdge::Arc { .. }));
    if after_arc && (to - from).norm() < 1e-9 {
        // The kernel's arc ends there up to rounding, and the rounding decides which exception is
        // raised.
        return Err(Stop::decline("line to where an arc ends", ""));
    }
    Ok(add_edge(wp, SpaceEdge::line(from, to)?, construction))
}

fn line_by(wp: &Rc<Workplane>, dx: f64, dy: f64, construction: bool) -> Result<Rc<Workplane>, Stop> {
    let here = wp.current_local()?;
    line_to(wp, here.x + dx, here.y + dy, construction)
}

fn arc(wp: &Rc<Workplane>, from: Vec3, through: Vec3, to: Vec3, construction: bool) -> Result<Rc<Workplane>, Stop> {
    Ok(add_edge(wp, SpaceEdge::arc(from, through, to)?, construction))
}

fn sagitta_arc(wp: &Rc<Workplane>, to: Vec3, sag: f64, construction: bool) -> Result<Rc<Workplane>, Stop> {
    let from = wp.current_local()?;
    let length = (to - from).norm();
    if length < CLEARANCE {
        return Err(Stop::decline("arc without length", ""));
    }
    let along = (to - from) / length * sag.abs();
    let aside = if sag > 0.0 { Vec3::new(-along.y, along.x, along.z) } else { Vec3::new(along.y, -along.x, along.z) };
    let through = (from + to) / 2.0 + aside;
    let plane = wp.plane.borrow().clone();
    arc(wp, wp.current_point()?, to_world(&plane, through), to_world(&plane, to), construction)
}

fn polyline(wp: &Rc<Workplane>, points: &[Vec3], construction: bool, current: bool) -> Result<Rc<Workplane>, Stop> {
    let plane = wp.plane.borrow().clone();
    let (mut from, rest) = match points {
        points if current => (wp.current_point()?, points),
        [first, rest @ ..] => (to_world(&plane, *first), rest),
        [] => return Err(Stop::raise("IndexError", "list index out of range")),
    };
    let mut edges = Vec::with_capacity(rest.len());
    for point in rest {
        let to = to_world(&plane, *point);
        let edge = SpaceEdge::line(from, to)?;
        if !construction {
            pend_edge(wp, &edge);
        }
        edges.push(Item::Edge(Rc::new(edge)));
        from = to;
    }
    Ok(wp.with(edges))
}

/// `close`. Adds a line back to the first point if that is farther away than 1e-6. Then all pending
/// edges become one wire, including those of an earlier outline that was never closed.
fn close(wp: &Rc<Workplane>) -> Result<Rc<Workplane>, Stop> {
    let end = wp.current_local()?;
    let Some(start) = wp.context.borrow().first_point else {
        return Err(Stop::raise("ValueError", "No start point specified - cannot close"));
    };
    let gap = (end - start).norm();
    if gap > CLEARANCE {
        polyline(wp, &[end, start], false, false)?;
    } else if gap > 1e-9 {
        return Err(Stop::decline("gap in an outline", format!("{gap:e}")));
    }
    let edges = {
        let mut context = wp.context.borrow_mut();
        context.first_point = None;
        std::mem::take(&mut context.pending_edges)
    };
    let wire = Rc::new(SpaceWire::closed(edges)?);
    wp.context.borrow_mut().pending_wires.push(Rc::clone(&wire));
    let mut objects: Vec<Item> =
        wp.objects.borrow().iter().filter(|item| !matches!(item, Item::Edge(_))).cloned().collect();
    objects.push(Item::Wire(wire));
    Ok(wp.with(objects))
}

/// Returns the edges of a rounded slot about the origin, turned by `degrees`.
fn slot(length: f64, diameter: f64, degrees: f64) -> Result<Vec<SpaceEdge>, Stop> {
    if diameter < CLEARANCE || length - diameter < CLEARANCE {
        return Err(Stop::decline("slot without a straight part", ""));
    }
    let (radius, half) = (diameter / 2.0, length / 2.0);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let at = |x: f64, y: f64| Vec3::new(x * cos - y * sin, x * sin + y * cos, 0.0);
    let straight = half - radius;
    let corners = [at(-straight, radius), at(straight, radius), at(straight, -radius), at(-straight, -radius)];
    Ok(vec![
        SpaceEdge::line(corners[0], corners[1])?,
        SpaceEdge::arc(corners[1], at(half, 0.0), corners[2])?,
        SpaceEdge::line(corners[2], corners[3])?,
        SpaceEdge::arc(corners[3], at(-half, 0.0), corners[0])?,
    ])
}

/// `eachpoint` for a wire given in local coordinates. Places one wire at the centre of each object
/// on the stack.
fn each_point(
    wp: &Rc<Workplane>,
    edges: Vec<SpaceEdge>,
    for_construction: bool,
    is_assembled: bool,
) -> Result<Rc<Workplane>, Stop> {
    let mut objects = Vec::new();
    for plane in stack::frames(wp)? {
        let point = |local: Vec3| to_world(&plane, local);
        let direction = |local: Vec3| plane.direction_to_space(local);
        let wire = SpaceWire { edges: edges.clone(), for_construction, is_assembled }.mapped(&point, &direction);
        let wire = Rc::new(wire);
        if !for_construction {
            wp.context.borrow_mut().pending_wires.push(Rc::clone(&wire));
        }
        objects.push(Item::Wire(wire));
    }
    Ok(wp.with(objects))
}
