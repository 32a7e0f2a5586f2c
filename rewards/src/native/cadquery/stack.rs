//! The methods of a workplane that make, combine and move bodies.

use std::rc::Rc;

use super::geometry::{plane as make_plane, vector};
use super::methods::{Bound, centered, to_world, value};
use super::shapes::{self, Body, Faces, Item, Motion, ShapeObject, check_apart, item_value};
use super::workplane::{Workplane, solid_bodies};
use super::{flag_or, number, number_or, optional, required};
use crate::csg::{Ball, CsgSolid, Edge, Extrusion, Plane, Region, Revolution, Vec2, Vec3, Wire};
use crate::native::certainty;
use crate::native::python::{Arguments, Machine, Parameter, Stop, Value};
use crate::native::wires::{self, CLEAR, SpaceEdge, check_point};

/// Where the objects on the stack are; the plane's origin if there are none.
pub fn centers(wp: &Workplane) -> Result<Vec<Vec3>, Stop> {
    let objects = wp.objects.borrow();
    if objects.is_empty() {
        return Ok(vec![wp.plane.borrow().origin]);
    }
    objects.iter().map(Item::center).collect()
}

/// How a new body meets what is there: the parameter `combine`.
#[derive(Clone, Copy, PartialEq)]
enum Combine {
    Fuse,
    Cut,
    Apart,
}

fn combine_mode(value: Option<&Value>) -> Result<Combine, Stop> {
    match value {
        None | Some(Value::Bool(true)) => Ok(Combine::Fuse),
        Some(Value::Bool(false)) => Ok(Combine::Apart),
        Some(Value::Str(text)) if &**text == "a" => Ok(Combine::Fuse),
        Some(Value::Str(text)) if matches!(&**text, "s" | "cut") => Ok(Combine::Cut),
        Some(other) => Err(Stop::decline("odd value of combine", other.class_name())),
    }
}

/// `_combineWithBase` of one compound that holds `parts`.
fn combine_with_base(wp: &Rc<Workplane>, parts: Vec<Rc<Body>>, mode: Combine) -> Result<Rc<Workplane>, Stop> {
    let base = if mode == Combine::Apart { Vec::new() } else { wp.bodies() };
    let result = match mode {
        Combine::Apart => {
            check_apart(&parts)?;
            shapes::fuse(&parts)?
        }
        // Without a base the parts are fused with one another; with one they are a single argument.
        Combine::Fuse if base.is_empty() => shapes::fuse(&parts)?,
        Combine::Fuse => {
            check_apart(&parts)?;
            shapes::fuse(&[base, parts].concat())?
        }
        Combine::Cut if base.is_empty() => {
            check_apart(&parts)?;
            shapes::fuse(&parts)?
        }
        Combine::Cut => {
            check_apart(&parts)?;
            check_apart(&base)?;
            shapes::cut(&shapes::fuse(&base)?, &parts)?
        }
    };
    Ok(wp.with(vec![Item::Body(result)]))
}

/// Calls a method; declines what it does not know.
pub fn call(wp: &Rc<Workplane>, name: &str, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
    pay(wp, machine)?;
    let plane = wp.plane.borrow().clone();
    let bind = |parameters: &[Parameter]| Bound::of(arguments, name, parameters);
    let combine = optional("combine");
    let clean = optional("clean");
    let made = match name {
        "sketch" => {
            bind(&[])?;
            return super::sketch::on(wp);
        }
        "add" => {
            let bound = bind(&[required("obj")])?;
            add(wp, bound.value(0)?)?;
            Rc::clone(wp)
        }
        "val" => {
            bind(&[])?;
            return item_value(&wp.val());
        }
        "size" => {
            bind(&[])?;
            return Ok(Value::Int(wp.objects.borrow().len() as i64));
        }
        "first" | "last" => {
            bind(&[])?;
            let objects = wp.objects.borrow();
            let item = if name == "first" { objects.first() } else { objects.last() };
            wp.with(vec![item.cloned().ok_or_else(|| Stop::decline("first of an empty stack", ""))?])
        }
        "end" => {
            let bound = bind(&[optional("n")])?;
            let Value::Int(count) = bound.get(0).cloned().unwrap_or(Value::Int(1)) else {
                return Err(Stop::decline("odd count", ""));
            };
            let mut at = Rc::clone(wp);
            for _ in 0..count {
                let Some(parent) = at.parent.clone() else {
                    return Err(Stop::raise("ValueError", "Cannot End the chain-- no parents!"));
                };
                at = parent;
            }
            at
        }
        "clean" => {
            bind(&[])?;
            wp.with(wp.objects.borrow().clone())
        }
        "pushPoints" => {
            let bound = bind(&[required("pntList")])?;
            let points = bound.value(0)?;
            let points = points.sequence().ok_or_else(|| Stop::decline("points not a list", points.class_name()))?;
            let at = |point: &Value| Ok(Item::Point(check_point(to_world(&plane, vector(point)?))?));
            wp.with(points.iter().map(at).collect::<Result<_, Stop>>()?)
        }
        "rarray" => {
            let names = ["xSpacing", "ySpacing", "xCount", "yCount"].map(required);
            let bound = bind(&[names[0], names[1], names[2], names[3], optional("center")])?;
            rectangular_array(wp, &plane, &bound)?
        }
        "extrude" => {
            let parameters = [required("until"), combine, clean, optional("both"), optional("taper")];
            extrude(wp, &plane, &bind(&parameters)?)?
        }
        "cutBlind" => {
            let bound = bind(&[required("until"), clean, optional("both"), optional("taper")])?;
            cut_blind(wp, &plane, &bound, 0)?
        }
        "revolve" => {
            let parameters = [optional("angleDegrees"), optional("axisStart"), optional("axisEnd"), combine, clean];
            revolve(wp, &plane, &bind(&parameters)?)?
        }
        "cutThruAll" => {
            let bound = bind(&[clean, optional("taper")])?;
            if number_or(bound.get(1), 0.0)? != 0.0 {
                return Err(Stop::decline("taper", ""));
            }
            cut_through(wp, &plane)?
        }
        "hole" => {
            let bound = bind(&[required("diameter"), optional("depth"), clean])?;
            hole(wp, &plane, &[(bound.number(0)?, depth(wp, bound.get(1))?)])?
        }
        "cboreHole" => {
            let names = ["diameter", "cboreDiameter", "cboreDepth"].map(required);
            let bound = bind(&[names[0], names[1], names[2], optional("depth"), clean])?;
            let bore = (bound.number(0)?, depth(wp, bound.get(3))?);
            hole(wp, &plane, &[bore, (bound.number(1)?, bound.number(2)?)])?
        }
        "box" => {
            let names = ["length", "width", "height"].map(required);
            let bound = bind(&[names[0], names[1], names[2], optional("centered"), combine, clean])?;
            let size = Vec3::new(bound.number(0)?, bound.number(1)?, bound.number(2)?);
            if size.iter().any(|side| *side <= 0.0) {
                // Experiments `box0`, `box-1`.
                return Err(Stop::raise("Standard_DomainError", ""));
            }
            check_size(size.min())?;
            check_point(size)?;
            let centered: [bool; 3] = centered(bound.get(3))?;
            let low = Vec3::from_fn(|axis, _| if centered[axis] { -size[axis] / 2.0 } else { 0.0 });
            let corners = [(0.0, 0.0), (size.x, 0.0), (size.x, size.y), (0.0, size.y)];
            let corners = corners.map(|(x, y)| Vec2::new(x + low.x, y + low.y));
            let edges = (0..4).map(|i| Edge::Line { from: corners[i], to: corners[(i + 1) % 4] }).collect();
            each_prism(wp, &plane, edges, low.z, low.z + size.z, bound.get(4))?
        }
        "cylinder" => {
            let parameters = [
                required("height"),
                required("radius"),
                optional("direct"),
                optional("angle"),
                optional("centered"),
                combine,
                clean,
            ];
            let bound = bind(&parameters)?;
            let (height, radius) = (bound.number(0)?, bound.number(1)?);
            if bound.get(2).is_some() || bound.get(3).is_some() {
                return Err(Stop::decline("cylinder with a direction or an angle", ""));
            }
            check_size(height)?;
            check_size(radius)?;
            check_point(Vec3::new(height, radius, 0.0))?;
            let centered: [bool; 3] = centered(bound.get(4))?;
            let center = Vec2::new(if centered[0] { 0.0 } else { radius }, if centered[1] { 0.0 } else { radius });
            let low = if centered[2] { -height / 2.0 } else { 0.0 };
            each_prism(wp, &plane, vec![Edge::Circle { center, radius }], low, low + height, bound.get(5))?
        }
        "sphere" => {
            let names = ["direct", "angle1", "angle2", "angle3", "centered"].map(optional);
            let bound = bind(&[&[required("radius")], &names[..], &[combine, clean]].concat())?;
            if bound.0[1..5].iter().any(Option::is_some) {
                return Err(Stop::decline("sphere with a direction or an angle", ""));
            }
            let radius = bound.number(0)?;
            check_size(radius)?;
            check_point(Vec3::repeat(radius))?;
            let centered: [bool; 3] = centered(bound.get(5))?;
            let shift = Vec3::from_fn(|axis, _| if centered[axis] { 0.0 } else { radius });
            let at = |center: Vec3| Body::new(Ball { center: center + to_world(&plane, shift) - plane.origin, radius });
            let bodies = centers(wp)?.into_iter().map(at).collect();
            each_body(wp, bodies, bound.get(6))?
        }
        "union" => {
            let bound = bind(&[optional("toUnion"), clean, optional("glue"), optional("tol")])?;
            plain(&bound, 2)?;
            union(wp, bound.get(0))?
        }
        "cut" | "intersect" => {
            let bound = bind(&[required(if name == "cut" { "toCut" } else { "toIntersect" }), clean, optional("tol")])?;
            plain(&bound, 2)?;
            subtract_or_intersect(wp, bound.value(0)?, name == "cut")?
        }
        "translate" => {
            let bound = bind(&[required("vec")])?;
            moved(wp, &Motion::translation(check_point(vector(bound.value(0)?)?)?))?
        }
        "rotate" => {
            let bound = bind(&["axisStartPoint", "axisEndPoint", "angleDegrees"].map(required))?;
            let (from, to) = (vector(bound.value(0)?)?, vector(bound.value(1)?)?);
            moved(wp, &Motion::rotation(from, to, bound.number(2)?)?)?
        }
        "mirror" => mirror(wp, &bind(&["mirrorPlane", "basePointVector", "union"].map(optional))?)?,
        "workplane" => {
            let bound = bind(&["offset", "invert", "centerOption", "origin"].map(optional))?;
            workplane(wp, &plane, &bound)?
        }
        "transformed" => {
            let bound = bind(&["rotate", "offset"].map(optional))?;
            transformed(wp, &plane, &bound)?
        }
        "vertices" => {
            if bind(&["selector", "tag"].map(optional))?.0.iter().any(Option::is_some) {
                return Err(Stop::decline("vertex selector", ""));
            }
            vertices(wp)?
        }
        "faces" => {
            let bound = bind(&["selector", "tag"].map(optional))?;
            faces(wp, &bound)?
        }
        _ => return Err(Stop::decline("Workplane method not supported", name)),
    };
    Ok(value(made))
}

/// Counts the work of a method by the size of what it may work on.
fn pay(wp: &Workplane, machine: &mut Machine) -> Result<(), Stop> {
    let leaves: usize = wp.bodies().iter().filter_map(|body| body.tree.as_ref()).map(CsgSolid::leaves).sum();
    machine.spend(200 + 100 * leaves as u64)
}

/// The parameters from `first` on must be left to their defaults.
fn plain(bound: &Bound, first: usize) -> Result<(), Stop> {
    let given = bound.0[first..].iter().flatten().any(|value| !matches!(value, Value::None | Value::Bool(false)));
    if given { Err(Stop::decline("boolean with a tolerance", "")) } else { Ok(()) }
}

/// `add`: more objects, on this very workplane. It has no part in `extrude`, which looks for faces and pending wires.
fn add(wp: &Rc<Workplane>, what: &Value) -> Result<(), Stop> {
    let mut added = Vec::new();
    if let Some(other) = what.object::<Workplane>() {
        if other.context.borrow().tags.is_empty() {
            added.extend(other.objects.borrow().iter().cloned());
        } else {
            return Err(Stop::decline("tags", ""));
        }
    } else if let Value::List(_) = what {
        return Err(Stop::decline("add of a list", ""));
    } else if let Some(ShapeObject(item)) = what.object::<ShapeObject>() {
        added.push(item.clone());
    } else {
        added.push(Item::Other(what.class_name()));
    }
    wp.objects.borrow_mut().extend(added);
    Ok(())
}

fn check_size(size: f64) -> Result<(), Stop> {
    if size < CLEAR { Err(Stop::decline("size too small or negative", size.to_string())) } else { Ok(()) }
}

/// What is extruded.
enum Profiles {
    Faces(Vec<(Region, f64)>),
    /// Finished sketches, as prisms of height one over the xy plane, with where they lie.
    Sketches(Vec<(CsgSolid, Vec3)>),
}

/// `_getFaces`: the faces of the sketches on the stack, else what the pending wires enclose. The wires are used up.
fn profiles(wp: &Rc<Workplane>, plane: &Plane) -> Result<Profiles, Stop> {
    let mut sketches = Vec::new();
    for item in wp.objects.borrow().iter() {
        match item {
            Item::Faces(_) => return Err(Stop::decline("extrusion of a face", "")),
            Item::Drawing => return Err(Stop::decline("extrusion of an unfinished sketch", "")),
            Item::Sketched(profile) => {
                let places =
                    profile.faces.iter().flat_map(|faces| profile.places.iter().map(|at| (faces.clone(), *at)));
                sketches.extend(places);
            }
            _ => {}
        }
    }
    if !sketches.is_empty() {
        return Ok(Profiles::Sketches(sketches));
    }
    let wires = std::mem::take(&mut wp.context.borrow_mut().pending_wires);
    if wires.is_empty() {
        return Err(Stop::raise("ValueError", "No pending wires present"));
    }
    wires::faces(&wires, plane).map(Profiles::Faces)
}

/// The bodies over the profiles: to one side, or the full distance to both.
fn prisms(plane: &Plane, profiles: Profiles, distance: f64, both: bool) -> Vec<Rc<Body>> {
    let (low, high) = if both { (-distance.abs(), distance.abs()) } else { (distance.min(0.0), distance.max(0.0)) };
    match profiles {
        Profiles::Faces(faces) => wires::prisms(plane, faces, low, high).into_iter().map(Body::new).collect(),
        Profiles::Sketches(sketches) => sketches
            .into_iter()
            .map(|(tree, at)| {
                // The tree's planes are parallel to xy, moved within it.
                Body::new(super::sketch::placed(&tree, |flat| {
                    let origin = at + plane.x * flat.plane.origin.x + plane.y * flat.plane.origin.y;
                    Extrusion { plane: Plane { origin, ..plane.clone() }, region: flat.region.clone(), low, high }
                }))
            })
            .collect(),
    }
}

/// A distance to extrude: none raises once the faces are there (experiments `extrude0`, `extrude 1e-8`).
fn check_distance(distance: f64) -> Result<f64, Stop> {
    check_point(Vec3::repeat(distance))?;
    if distance.abs() < 5e-8 {
        return Err(Stop::raise("Standard_ConstructionError", "BRepSweep_Translation::Constructor"));
    }
    if distance.abs() < CLEAR {
        return Err(Stop::decline("extrusion too short", format!("{distance:e}")));
    }
    Ok(distance)
}

/// The distance, `both` and `taper` of `extrude` and `cutBlind`, from three parameters.
fn extent(bound: &Bound, both: usize) -> Result<(f64, bool, bool), Stop> {
    let until = bound.value(0)?;
    let distance = match until {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => number(until)?,
        Value::None => {
            let message = "Do not know how to handle until argument of type <class 'NoneType'>";
            return Err(Stop::raise("ValueError", message));
        }
        other => return Err(Stop::decline("extrusion until something", other.class_name())),
    };
    let tapered = match bound.get(both + 1) {
        None | Some(Value::None) => false,
        Some(taper) => number(taper)? != 0.0,
    };
    Ok((distance, flag_or(bound.get(both), false)?, tapered))
}

fn check_taper(profiles: &Profiles, tapered: bool) -> Result<(), Stop> {
    let Profiles::Faces(faces) = profiles else {
        return if tapered { Err(Stop::decline("taper", "")) } else { Ok(()) };
    };
    if tapered && faces.iter().any(|(region, _)| !region.holes().is_empty()) {
        return Err(Stop::raise("ValueError", "Inner wires not allowed with tapered extrusion"));
    }
    if tapered { Err(Stop::decline("taper", "")) } else { Ok(()) }
}

fn extrude(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let mode = combine_mode(bound.get(1))?;
    if mode == Combine::Cut {
        return cut_blind(wp, plane, &Bound([&bound.0[..1], &bound.0[2..]].concat()), 0);
    }
    let (distance, both, tapered) = extent(bound, 3)?;
    let faces = match profiles(wp, plane) {
        // The kernel makes a solid of any wires in a plane, malformed as it may be. What is not certain is its shape.
        Err(Stop::Decline(doubt)) if wires::is_about_shape(&doubt) && wp.bodies().is_empty() && !tapered => {
            check_distance(distance)?;
            return Ok(wp.with(vec![Item::Body(Body::doubtful(doubt))]));
        }
        faces => faces?,
    };
    check_taper(&faces, tapered)?;
    combine_with_base(wp, prisms(plane, faces, check_distance(distance)?, both), mode)
}

fn cut_blind(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound, _first: usize) -> Result<Rc<Workplane>, Stop> {
    let (distance, both, tapered) = extent(bound, 2)?;
    let faces = profiles(wp, plane)?;
    check_taper(&faces, tapered)?;
    let tools = prisms(plane, faces, check_distance(distance)?, both);
    let base = find_solid(wp)?;
    Ok(wp.with(vec![Item::Body(shapes::cut(&base, &tools)?)]))
}

/// `revolve` of outlines made of lines, in a full turn, about an axis in their plane that they do not cross.
fn revolve(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let angle = number_or(bound.get(0), 360.0)?;
    let given = |index: usize| bound.get(index).filter(|value| !matches!(value, Value::None)).map(vector).transpose();
    let (from, to) = match (given(1)?, given(2)?) {
        (None, None) => (Vec3::zeros(), Vec3::y()),
        (Some(from), Some(to)) => (from, to),
        _ => return Err(Stop::decline("axis with one end", "")),
    };
    if angle % 360.0 != 0.0 || from.z != 0.0 || to.z != 0.0 || (to - from).norm() < 1e-6 {
        return Err(Stop::decline("part of a turn, or an odd axis", ""));
    }
    let Profiles::Faces(faces) = profiles(wp, plane)? else { return Err(Stop::decline("revolved sketch", "")) };
    let along = (to - from).normalize().xy();
    let out = Vec2::new(along.y, -along.x);
    let mut parts = Vec::new();
    for (region, height) in faces {
        let mut sides = Vec::new();
        for edge in region.edges() {
            let Edge::Line { from: a, to: b } = edge else { return Err(Stop::decline("revolved curve", "")) };
            sides.push([a, b].map(|p| Vec2::new((p - from.xy()).dot(&out), (p - from.xy()).dot(&along))));
        }
        let reach = |sign: f64| sides.iter().flatten().map(|end| sign * end.x).fold(f64::NEG_INFINITY, f64::max);
        if reach(1.0).min(reach(-1.0)) > 1e-9 || height.abs() > 1e-9 {
            return Err(Stop::decline("outline across the axis", ""));
        }
        if sides.iter().flatten().any(|end| (1e-9..CLEAR).contains(&end.x.abs())) {
            return Err(Stop::decline("outline nearly on the axis", ""));
        }
        for end in sides.iter_mut().flatten() {
            end.x = if end.x.abs() < 1e-9 { 0.0 } else { end.x.abs() };
        }
        sides.retain(|[a, b]| a.x > 0.0 || b.x > 0.0);
        let axis = plane.x * along.x + plane.y * along.y;
        let turned = Plane { origin: to_world(plane, from), x: plane.z, y: axis.cross(&plane.z), z: axis };
        parts.push(Body::new(Revolution { plane: turned, sides }));
    }
    combine_with_base(wp, parts, combine_mode(bound.get(3))?)
}

fn cut_through(wp: &Rc<Workplane>, plane: &Plane) -> Result<Rc<Workplane>, Stop> {
    let base = find_solid(wp)?;
    let faces = profiles(wp, plane)?;
    let far = base
        .tree
        .as_ref()
        .and_then(CsgSolid::bounds)
        .map_or(0.0, |bounds| bounds.size().norm() + (bounds.center() - plane.origin).norm());
    // Longer than any part, and never flush with anything.
    let tools = prisms(plane, faces, 1.37 * far + 1.234_567, true);
    Ok(wp.with(vec![Item::Body(shapes::cut(&base, &tools)?)]))
}

/// `findSolid`: the bodies on the stack or of an ancestor, as one compound.
fn find_solid(wp: &Workplane) -> Result<Rc<Body>, Stop> {
    let bodies = wp.bodies();
    match bodies.as_slice() {
        [] => Err(Stop::raise("ValueError", "Cannot find a solid on the stack or in the parent chain")),
        [one] => Ok(Rc::clone(one)),
        several => {
            check_apart(several)?;
            shapes::fuse(several)
        }
    }
}

/// The depth of a hole; the part's largest dimension where none is given.
fn depth(wp: &Workplane, given: Option<&Value>) -> Result<f64, Stop> {
    match given {
        None | Some(Value::None) => {
            let base = find_solid(wp)?;
            let bounds = base.shape()?.map(CsgSolid::tight_bounds);
            Ok(bounds.map_or(0.0, |b| (Vec3::from(b.max) - Vec3::from(b.min)).norm()))
        }
        Some(value) => number(value),
    }
}

/// `hole` and `cboreHole`: cylinders of (diameter, depth) sunk at each point, against the normal.
fn hole(wp: &Rc<Workplane>, plane: &Plane, bores: &[(f64, f64)]) -> Result<Rc<Workplane>, Stop> {
    let mut tools = Vec::new();
    for center in centers(wp)? {
        for &(diameter, depth) in bores {
            check_size(diameter / 2.0)?;
            check_size(depth)?;
            let edge = Edge::Circle { center: Vec2::zeros(), radius: diameter / 2.0 };
            let at = Plane { origin: center, ..plane.clone() };
            tools.push(Body::new(Extrusion { plane: at, region: one_wire(vec![edge])?, low: -depth, high: 0.0 }));
        }
    }
    Ok(wp.with(vec![Item::Body(shapes::cut(&find_solid(wp)?, &tools)?)]))
}

fn one_wire(edges: Vec<Edge>) -> Result<Region, Stop> {
    let wire = Wire::new(edges).map_err(|error| Stop::decline("odd wire", error.to_string()))?;
    Ok(Region::new(wire, Vec::new()))
}

/// A prism in local coordinates at each point of the stack.
fn each_prism(
    wp: &Rc<Workplane>,
    plane: &Plane,
    edges: Vec<Edge>,
    low: f64,
    high: f64,
    combine: Option<&Value>,
) -> Result<Rc<Workplane>, Stop> {
    let region = one_wire(edges)?;
    let at = |center: Vec3| {
        let plane = Plane { origin: center, ..plane.clone() };
        Body::new(Extrusion { plane, region: region.clone(), low, high })
    };
    each_body(wp, centers(wp)?.into_iter().map(at).collect(), combine)
}

/// Bodies at the points of the stack, combined as asked.
fn each_body(wp: &Rc<Workplane>, bodies: Vec<Rc<Body>>, combine: Option<&Value>) -> Result<Rc<Workplane>, Stop> {
    match combine_mode(combine)? {
        Combine::Apart => Ok(wp.with(bodies.into_iter().map(Item::Body).collect())),
        mode => combine_with_base(wp, bodies, mode),
    }
}

fn rectangular_array(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let (dx, dy) = (bound.number(0)?, bound.number(1)?);
    let (Value::Int(columns), Value::Int(rows)) = (bound.value(2)?, bound.value(3)?) else {
        return Err(Stop::decline("odd count", ""));
    };
    let (columns, rows) = (*columns, *rows);
    if (dx <= 0.0 && dy <= 0.0) || columns < 1 || rows < 1 {
        let message = "Spacing and count must be > 0 in at least one direction";
        return Err(Stop::raise("ValueError", message));
    }
    if columns.saturating_mul(rows) > 1000 {
        return Err(Stop::decline("too many points", ""));
    }
    let [center_x, center_y] = centered(bound.get(4))?;
    let offset_x = if center_x { -dx * (columns - 1) as f64 * 0.5 } else { 0.0 };
    let offset_y = if center_y { -dy * (rows - 1) as f64 * 0.5 } else { 0.0 };
    let mut points = Vec::new();
    for column in 0..columns {
        for row in 0..rows {
            let local = Vec3::new(dx * column as f64 + offset_x, dy * row as f64 + offset_y, 0.0);
            points.push(Item::Point(check_point(to_world(plane, local))?));
        }
    }
    Ok(wp.with(points))
}

/// The bodies that an operand of `union`, `cut` or `intersect` stands for; `None` where it is no shape.
fn operand(value: &Value) -> Option<Result<Vec<Rc<Body>>, Stop>> {
    if let Some(other) = value.object::<Workplane>() {
        let items = other.objects.borrow();
        if !other.context.borrow().tags.is_empty() {
            return Some(Err(Stop::decline("tags", "")));
        }
        return Some(Ok(items
            .iter()
            .filter_map(|item| if let Item::Body(body) = item { Some(Rc::clone(body)) } else { None })
            .collect()));
    }
    match value.object::<ShapeObject>() {
        Some(ShapeObject(Item::Body(body))) => Some(Ok(vec![Rc::clone(body)])),
        _ => None,
    }
}

fn union(wp: &Rc<Workplane>, other: Option<&Value>) -> Result<Rc<Workplane>, Stop> {
    let mut parts = match other {
        None | Some(Value::None) => Vec::new(),
        Some(value) => match operand(value) {
            Some(bodies) => {
                let bodies = bodies?;
                let solid = solid_bodies(&bodies.iter().cloned().map(Item::Body).collect::<Vec<_>>());
                if solid.is_empty() && value.object::<Workplane>().is_some() {
                    let message = "Workplane object must have at least one solid on the stack to union!";
                    return Err(Stop::raise("ValueError", message));
                }
                solid
            }
            None if matches!(value, Value::Object(_)) => {
                return Err(Stop::decline("union with an odd object", value.class_name()));
            }
            None => {
                let message = format!("Cannot union type '<class '{}'>'", value.class_name());
                return Err(Stop::raise("ValueError", message));
            }
        },
    };
    let mut all = wp.bodies();
    all.append(&mut parts);
    if all.is_empty() {
        return Err(Stop::raise("IndexError", "list index out of range"));
    }
    Ok(wp.with(vec![Item::Body(shapes::fuse(&all)?)]))
}

fn subtract_or_intersect(wp: &Rc<Workplane>, other: &Value, cut: bool) -> Result<Rc<Workplane>, Stop> {
    let base = find_solid(wp)?;
    let tools = match operand(other) {
        Some(tools) => tools?,
        None if matches!(other, Value::Object(_)) => {
            return Err(Stop::decline("boolean with an odd object", other.class_name()));
        }
        None => {
            let verb = if cut { "cut" } else { "intersect" };
            let message = format!("Cannot {verb} type '<class '{}'>'", other.class_name());
            return Err(Stop::raise("ValueError", message));
        }
    };
    if let Some(other) = other.object::<Workplane>() {
        let items = other.objects.borrow();
        let shapes = items.iter().filter(|item| !matches!(item, Item::Point(_) | Item::Other(_))).count();
        if tools.is_empty() {
            // Nothing, or only edges and wires: experiments `cut by sketch`, `cut by empty wp`.
            return Err(Stop::raise("ValueError", "Null TopoDS_Shape object"));
        }
        if shapes > tools.len() {
            return Err(Stop::decline("boolean with bodies and wires", ""));
        }
    }
    let result = if cut { shapes::cut(&base, &tools)? } else { shapes::intersect(&base, &tools)? };
    Ok(wp.with(vec![Item::Body(result)]))
}

fn moved(wp: &Rc<Workplane>, motion: &Motion) -> Result<Rc<Workplane>, Stop> {
    let items = wp.objects.borrow().iter().map(|item| motion.apply(item)).collect::<Result<_, _>>()?;
    Ok(wp.with(items))
}

fn mirror(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let normal = match bound.get(0) {
        None => Vec3::z(),
        Some(Value::Str(name)) => match &**name {
            "XY" | "YX" => Vec3::z(),
            "XZ" | "ZX" => Vec3::y(),
            "YZ" | "ZY" => Vec3::x(),
            other => return Err(Stop::decline("mirror plane", other)),
        },
        Some(value) => {
            let normal = vector(value)?;
            if normal.norm() < 1e-9 {
                return Err(Stop::decline("mirror plane without normal", ""));
            }
            normal
        }
    };
    let point = match bound.get(1) {
        None | Some(Value::None) => Vec3::zeros(),
        Some(value) => vector(value)?,
    };
    let motion = Motion::mirror(normal, point);
    let objects = wp.objects.borrow();
    let shapes = objects.iter().filter(|item| !matches!(item, Item::Point(_) | Item::Other(_)));
    let mirrored = wp.with(shapes.map(|item| motion.apply(item)).collect::<Result<_, _>>()?);
    if flag_or(bound.get(2), false)? { union(wp, Some(&value(mirrored))) } else { Ok(mirrored) }
}

/// `workplane`: a new plane at what is on the stack.
fn workplane(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    if bound.get(3).is_some() {
        return Err(Stop::decline("workplane with an origin", ""));
    }
    let projected = match bound.get(2) {
        None => true,
        Some(Value::Str(option)) if &**option == "ProjectedOrigin" => true,
        Some(Value::Str(option)) if matches!(&**option, "CenterOfMass" | "CenterOfBoundBox") => false,
        Some(_) => return Err(Stop::raise("ValueError", "Undefined centerOption value provided.")),
    };
    let (offset, invert) = (number_or(bound.get(0), 0.0)?, flag_or(bound.get(1), false)?);
    let objects = wp.objects.borrow();
    if objects.len() > 1 && !objects.iter().all(|item| matches!(item, Item::Faces(_))) {
        let message = "If multiple objects selected, they all must be planar faces.";
        return Err(Stop::raise("ValueError", message));
    }
    if objects.len() > 1 {
        return Err(Stop::decline("workplane on several faces", ""));
    }
    let item = objects.first().cloned().unwrap_or(Item::Point(plane.origin));
    let (center, normal, x_dir) = match &item {
        Item::Faces(faces) => match &**faces {
            // Experiments `workplane on a round face`, `workplane on faces apart`.
            Faces::Curved => {
                let message = "If multiple objects selected, they all must be planar faces.";
                return Err(Stop::raise("ValueError", message));
            }
            Faces::Apart => return Err(Stop::raise("ValueError", "Selected faces must be co-planar.")),
            Faces::Plane { normal, offset, center } => {
                let of_mass = matches!(bound.get(2), Some(Value::Str(option)) if &**option == "CenterOfMass");
                let center = match center {
                    Some(center) if projected || of_mass => *center,
                    None if projected => *normal * *offset,
                    _ => return Err(Stop::decline("centre of a face", "")),
                };
                let aside = Vec3::z().cross(normal);
                let x_dir = if aside.norm() < 1e-4 { Vec3::x() } else { aside };
                (center, *normal, x_dir)
            }
        },
        Item::Point(_) | Item::Vertex(_) | Item::Wire(_) | Item::Edge(_) => {
            let parent = wp.parent.as_ref().map(|parent| parent.val());
            if matches!(parent, Some(Item::Faces(_))) {
                return Err(Stop::decline("workplane on a vertex of a face", ""));
            }
            (item.center()?, plane.z, plane.x)
        }
        other => return Err(Stop::decline("workplane on a shape", other.class_name())),
    };
    // The present origin, projected onto the new plane.
    let center = if projected {
        let unit = normal.normalize();
        plane.origin - unit * (plane.origin - center).dot(&unit)
    } else {
        center
    };
    let normal = if invert { -normal } else { normal };
    let origin = center + normal.normalize() * offset;
    let made = Workplane {
        plane: std::cell::RefCell::new(make_plane(origin, Some(x_dir), normal)?),
        objects: std::cell::RefCell::default(),
        parent: Some(Rc::clone(wp)),
        context: Rc::clone(&wp.context),
    };
    Ok(Rc::new(made))
}

fn transformed(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let rotate = bound.get(0).map_or(Ok(Vec3::zeros()), vector)?;
    let offset = bound.get(1).map_or(Ok(Vec3::zeros()), vector)?;
    let about = |axis: Vec3, degrees: f64| Motion::rotation(Vec3::zeros(), axis, degrees).map(|motion| motion.linear);
    let turn = about(plane.x, rotate.x)? * about(plane.y, rotate.y)? * about(plane.z, rotate.z)?;
    let origin = check_point(to_world(plane, offset))?;
    let made = wp.with(vec![Item::Point(origin)]);
    *made.plane.borrow_mut() = make_plane(origin, Some(turn * plane.x), turn * plane.z)?;
    Ok(made)
}

/// `vertices()` of outlines made of lines: where holes go that follow a construction rectangle.
fn vertices(wp: &Rc<Workplane>) -> Result<Rc<Workplane>, Stop> {
    let mut found = Vec::new();
    for item in wp.objects.borrow().iter() {
        let Item::Wire(wire) = item else { return Err(Stop::decline("vertices of a shape", item.class_name())) };
        for edge in &wire.edges {
            match edge {
                SpaceEdge::Line { from, .. } => found.push(Item::Vertex(*from)),
                _ => return Err(Stop::decline("vertices of a curve", "")),
            }
        }
    }
    Ok(wp.with(found))
}

/// `faces(">Z")` and its like: the faces whose centres are farthest out.
fn faces(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let Some(Value::Str(selector)) = bound.get(0) else { return Err(Stop::decline("face selector", "")) };
    if bound.get(1).is_some() {
        return Err(Stop::decline("tags", ""));
    }
    let (sign, axis) = match &**selector {
        ">X" => (1.0, 0),
        "<X" => (-1.0, 0),
        ">Y" => (1.0, 1),
        "<Y" => (-1.0, 1),
        ">Z" => (1.0, 2),
        "<Z" => (-1.0, 2),
        other => return Err(Stop::decline("face selector", other)),
    };
    let bodies = solid_bodies(&wp.objects.borrow());
    let [body] = bodies.as_slice() else { return Err(Stop::decline("faces of several bodies", "")) };
    let Some(tree) = body.shape()? else { return Err(Stop::decline("faces of nothing", "")) };
    let direction = Vec3::ith(axis, sign);
    let found = match tree {
        CsgSolid::Extrusion(prism) => prism_faces(prism, direction)?,
        // Where a body ends in a plane face across the axis, that face's centre is farther out than any other's.
        _ => match certainty::plane_end(tree, direction) {
            Some(offset) => Faces::Plane { normal: direction, offset, center: None },
            None => return Err(Stop::decline("face selector", "no plane face ends the body there")),
        },
    };
    Ok(wp.with(vec![Item::Faces(Rc::new(found))]))
}

/// A face of a prism.
struct PrismFace {
    center: Vec3,
    /// Outward unit normal of a plane face.
    normal: Option<Vec3>,
}

/// The faces of a prism whose centres of mass are farthest along `direction` (`DirectionMinMaxSelector`, which takes
/// centres within 1e-4 for one).
fn prism_faces(prism: &Extrusion, direction: Vec3) -> Result<Faces, Stop> {
    let Extrusion { plane, region, low, high } = prism;
    let (middle, centroid) = ((low + high) / 2.0, region.centroid());
    let mut faces = vec![
        PrismFace { center: plane.to_space(centroid, *low), normal: Some(-plane.z) },
        PrismFace { center: plane.to_space(centroid, *high), normal: Some(plane.z) },
    ];
    for (wire, is_hole) in
        std::iter::once((region.outer(), false)).chain(region.holes().iter().map(|hole| (hole, true)))
    {
        if wire.has_smooth_joint() {
            return Err(Stop::decline("face selector", "faces that are joined"));
        }
        let outward = if (wire.signed_area() > 0.0) != is_hole { 1.0 } else { -1.0 };
        for edge in wire.edges() {
            let normal = match edge {
                Edge::Line { from, to } => {
                    let along = (to - from).normalize() * outward;
                    Some(plane.x * along.y - plane.y * along.x)
                }
                _ => None,
            };
            faces.push(PrismFace { center: plane.to_space(edge.centroid(), middle), normal });
        }
    }
    let farthest = faces.iter().map(|face| face.center.dot(&direction)).fold(f64::NEG_INFINITY, f64::max);
    let behind = |face: &PrismFace| farthest - face.center.dot(&direction);
    if faces.iter().any(|face| (1e-8..1e-3).contains(&behind(face))) {
        return Err(Stop::decline("face selector", "centres nearly as far"));
    }
    let selected: Vec<&PrismFace> = faces.iter().filter(|face| behind(face) < 1e-8).collect();
    match selected.as_slice() {
        [PrismFace { center, normal: Some(normal) }] => {
            Ok(Faces::Plane { normal: *normal, offset: normal.dot(center), center: Some(*center) })
        }
        [_] => Err(Stop::decline("face selector", "a curved face")),
        several if several.iter().any(|face| face.normal.is_none()) => Ok(Faces::Curved),
        [first, rest @ ..] => {
            let normal = first.normal.unwrap_or(direction);
            let apart = |face: &&&PrismFace| normal.dot(&(first.center - face.center)).abs() > 1e-3;
            match rest.iter().find(apart) {
                Some(_) => Ok(Faces::Apart),
                None => Err(Stop::decline("face selector", "several faces in one plane")),
            }
        }
        [] => Err(Stop::decline("face selector", "no face")),
    }
}
