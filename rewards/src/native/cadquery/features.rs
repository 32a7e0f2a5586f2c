//! Builds bodies from outlines and sizes, and combines them with existing bodies.

use std::rc::Rc;

use super::geometry::vector;
use super::methods::{Bound, to_world};
use super::shapes::{self, Body, Item, check_apart};
use super::stack::frames;
use super::taper::tapered;
use super::workplane::Workplane;
use super::{flag_or, late_number, number, number_or};
use crate::csg::{CsgSolid, Edge, Extrusion, Layers, Plane, Region, Revolution, Vec2, Vec3, Wire};
use crate::native::python::{Stop, Value};
use crate::native::wires::{self, CLEARANCE, CONFUSION, check_point};

/// How a new body is combined with existing ones: the parameter `combine`.
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

/// `_combineWithBase` with one compound that holds `parts`.
fn combine_with_base(wp: &Rc<Workplane>, parts: Vec<Rc<Body>>, mode: Combine) -> Result<Rc<Workplane>, Stop> {
    let base = if mode == Combine::Apart { Vec::new() } else { wp.bodies() };
    let result = match mode {
        Combine::Apart => {
            check_apart(&parts)?;
            shapes::fuse(&parts)?
        }
        // Without a base, the parts are fused with one another. With a base, they form a single
        // argument.
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

pub fn check_size(size: f64) -> Result<(), Stop> {
    if size < CLEARANCE { Err(Stop::decline("size too small or negative", size.to_string())) } else { Ok(()) }
}

/// The profiles to extrude.
enum Profiles {
    Faces(wires::SketchFaces),
    /// Finished sketches, as prisms of height one over the xy plane, each with its position.
    Sketches(Vec<(CsgSolid, Vec3)>),
}

impl Profiles {
    /// Declines faces that touch, because their solids touch: one argument of a boolean must not
    /// hold such solids.
    fn check_separate(&self) -> Result<(), Stop> {
        match self {
            Self::Faces(faces) if faces.touch => Err(Stop::decline("overlapping bodies in one argument", "")),
            _ => Ok(()),
        }
    }

    /// Returns whether each profile is a single outline without holes.
    fn are_plain(&self) -> bool {
        match self {
            Self::Faces(faces) => faces.regions.iter().all(|(region, _)| region.holes().is_empty()),
            Self::Sketches(sketches) => sketches.iter().all(|(tree, _)| match tree {
                CsgSolid::Extrusion(flat) => flat.region.holes().is_empty(),
                _ => false,
            }),
        }
    }
}

/// `_getFaces`: returns the faces of the sketches on the stack or, if there are none, what the
/// pending wires enclose. Consumes the pending wires.
fn profiles(wp: &Rc<Workplane>, plane: &Plane) -> Result<Profiles, Stop> {
    let mut sketches = Vec::new();
    for item in wp.objects.borrow().iter() {
        match item {
            Item::Faces(_) | Item::Face(..) => return Err(Stop::decline("extrusion of a face", "")),
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

/// Returns the start and end of an extrusion along the normal.
fn span(distance: f64, both: bool) -> (f64, f64) {
    if both { (-distance.abs(), distance.abs()) } else { (distance.min(0.0), distance.max(0.0)) }
}

/// Builds the bodies over the profiles: `distance` to one side, or the full distance to both sides.
fn prisms(plane: &Plane, profiles: Profiles, distance: f64, both: bool) -> Vec<Rc<Body>> {
    let (low, high) = span(distance, both);
    match profiles {
        Profiles::Faces(faces) => wires::prisms(plane, faces.regions, low, high)
            .into_iter()
            .map(|prism| Rc::new(Body { tree: Some(prism.into()), doubt: None, known: None, tangled: faces.tangled }))
            .collect(),
        Profiles::Sketches(sketches) => sketches
            .into_iter()
            .map(|(tree, at)| {
                // The planes of the tree are parallel to xy and shifted within it.
                Body::new(super::sketch::placed(&tree, |flat| {
                    let origin = at + plane.x * flat.plane.origin.x + plane.y * flat.plane.origin.y;
                    Extrusion { plane: Plane { origin, ..plane.clone() }, region: flat.region.clone(), low, high }
                }))
            })
            .collect(),
    }
}

/// Checks a distance to extrude. A zero distance raises after the faces are built (experiments
/// `extrude0`, `extrude 1e-8`).
fn check_distance(distance: f64) -> Result<f64, Stop> {
    check_point(Vec3::repeat(distance))?;
    if distance.abs() < 5e-8 {
        return Err(Stop::raise("Standard_ConstructionError", "BRepSweep_Translation::Constructor"));
    }
    if distance.abs() < CLEARANCE {
        return Err(Stop::decline("extrusion too short", format!("{distance:e}")));
    }
    Ok(distance)
}

/// Reads the distance, `both` and `taper` of `extrude` and `cutBlind`; `both` is the index of the
/// second.
fn extent(bound: &Bound, both: usize) -> Result<(f64, bool, f64), Stop> {
    let until = bound.value(0)?;
    let distance = match until {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => number(until)?,
        Value::None => {
            let message = "Do not know how to handle until argument of type <class 'NoneType'>";
            return Err(Stop::raise("ValueError", message));
        }
        other => return Err(Stop::decline("extrusion until something", other.class_name())),
    };
    let taper = match bound.get(both + 1) {
        None | Some(Value::None) => 0.0,
        Some(taper) => late_number(taper)?,
    };
    Ok((distance, flag_or(bound.get(both), false)?, taper))
}

/// Builds the bodies over the profiles, narrowed by `taper` degrees along the way.
fn extruded(plane: &Plane, profiles: Profiles, distance: f64, both: bool, taper: f64) -> Result<Vec<Rc<Body>>, Stop> {
    if taper == 0.0 {
        return Ok(prisms(plane, profiles, check_distance(distance)?, both));
    }
    let Profiles::Faces(faces) = profiles else { return Err(Stop::decline("taper", "of a sketch")) };
    if faces.regions.iter().any(|(region, _)| !region.holes().is_empty()) {
        return Err(Stop::raise("ValueError", "Inner wires not allowed with tapered extrusion"));
    }
    if distance.abs() < 1e-3 || faces.tangled || faces.touch {
        return Err(Stop::decline("taper", "of a thin or odd body"));
    }
    let distance = check_distance(distance)?;
    faces.regions.iter().map(|face| tapered(plane, face, distance, both, taper)).collect()
}

pub fn extrude(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let mode = combine_mode(bound.get(1))?;
    if mode == Combine::Cut {
        return cut_blind(wp, plane, &Bound([&bound.0[..1], &bound.0[2..]].concat()));
    }
    let (distance, both, taper) = extent(bound, 3)?;
    let pending = wp.context.borrow().pending_wires.clone();
    let faces = match profiles(wp, plane) {
        // The kernel makes a solid of any wires in a plane, even if it is malformed.
        Err(Stop::Decline(doubt)) if wires::is_about_shape(&doubt) && wp.bodies().is_empty() && taper == 0.0 => {
            let (low, high) = span(check_distance(distance)?, both);
            // A sheet extruded to both sides is two sheets. The kernel's mass properties for these
            // are noise.
            let known = wires::known_prism(&pending, plane, low, high).ok();
            let known = known.filter(|known| known.malformed || !both);
            return Ok(wp.with(vec![Item::Body(Body::doubtful(doubt, known))]));
        }
        faces => faces?,
    };
    combine_with_base(wp, extruded(plane, faces, distance, both, taper)?, mode)
}

pub fn cut_blind(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let (distance, both, taper) = extent(bound, 2)?;
    let faces = profiles(wp, plane)?;
    faces.check_separate()?;
    if matches!(&faces, Profiles::Sketches(sketches) if sketches.iter().any(|(tree, _)| tree.leaves() > 1)) {
        // The faces of the sketch are not joined yet: experiment `cut by joined faces`.
        return Err(Stop::decline("cut by a sketch of several faces", ""));
    }
    let tools = extruded(plane, faces, distance, both, taper)?;
    let base = find_solid(wp)?;
    Ok(wp.with(vec![Item::Body(shapes::cut(&base, &tools)?)]))
}

/// Returns the start and end of the axis of `revolve`, in the plane's coordinates. If no end is
/// given, CadQuery uses the y of the start in space as the y of the end in the plane (experiments
/// `revolve from 1e-16`, `revolve default axis below`).
fn axis_of_turn(plane: &Plane, from: Option<Vec3>, to: Option<Vec3>) -> Result<(Vec3, Vec3), Stop> {
    let from = from.unwrap_or_else(Vec3::zeros);
    let y = to_world(plane, from).y;
    let to = match to {
        Some(to) => to,
        None if y == 0.0 => Vec3::y(),
        None if y.abs() < CLEARANCE => return Err(Stop::decline("part of a turn, or an odd axis", "")),
        None => Vec3::new(0.0, y, 0.0),
    };
    if from.z != 0.0 || to.z != 0.0 || (to - from).norm() < 1e-6 {
        return Err(Stop::decline("part of a turn, or an odd axis", ""));
    }
    Ok((from, to))
}

/// `revolve` for outlines made of lines, about an axis in their plane that they do not cross. A
/// negative angle means a full turn minus its absolute value.
pub fn revolve(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let angle = number_or(bound.get(0), 360.0)?;
    let given = |index: usize| bound.get(index).filter(|value| !matches!(value, Value::None)).map(vector).transpose();
    let (from, to) = axis_of_turn(plane, given(1)?, given(2)?)?;
    let degrees = angle.rem_euclid(360.0);
    let is_whole = degrees == 0.0;
    if !is_whole && !(1.0..=359.0).contains(&degrees) {
        return Err(Stop::decline("part of a turn, or an odd axis", degrees.to_string()));
    }
    let Profiles::Faces(faces) = profiles(wp, plane)? else { return Err(Stop::decline("revolved sketch", "")) };
    let along = (to - from).normalize().xy();
    let out = Vec2::new(along.y, -along.x);
    let mut parts = Vec::new();
    if faces.tangled || faces.touch {
        return Err(Stop::decline("revolved outline crosses itself", ""));
    }
    for (region, height) in faces.regions {
        let mut sides = Vec::new();
        for edge in region.edges() {
            let Edge::Line { from: a, to: b } = edge else { return Err(Stop::decline("revolved curve", "")) };
            sides.push([a, b].map(|p| Vec2::new((p - from.xy()).dot(&out), (p - from.xy()).dot(&along))));
        }
        let reach = |sign: f64| sides.iter().flatten().map(|end| sign * end.x).fold(f64::NEG_INFINITY, f64::max);
        if reach(1.0).min(reach(-1.0)) > 1e-9 || height.abs() > 1e-9 {
            return Err(Stop::decline("outline across the axis", ""));
        }
        let is_left = reach(1.0) < reach(-1.0);
        if sides.iter().flatten().any(|end| (1e-9..CLEARANCE).contains(&end.x.abs())) {
            return Err(Stop::decline("outline nearly on the axis", ""));
        }
        for end in sides.iter_mut().flatten() {
            end.x = if end.x.abs() < 1e-9 { 0.0 } else { end.x.abs() };
        }
        sides.retain(|[a, b]| a.x > 0.0 || b.x > 0.0);
        let axis = plane.x * along.x + plane.y * along.y;
        let origin = to_world(plane, from);
        parts.push(Body::new(if is_whole {
            Revolution::whole(Plane { origin, x: plane.z, y: axis.cross(&plane.z), z: axis }, sides)
        } else {
            let side = (plane.x * out.x + plane.y * out.y) * if is_left { -1.0 } else { 1.0 };
            let plane = Plane { origin, x: side, y: axis.cross(&side), z: axis };
            Revolution { plane, sides, turn: degrees.to_radians() }
        }));
    }
    combine_with_base(wp, parts, combine_mode(bound.get(3))?)
}

/// `cutThruAll`. To either side of the workplane, the kernel's prism is as long as the body is
/// along its longest axis. The cut may therefore not reach through the whole body (experiments
/// `cutThruAll from afar`).
pub fn cut_through(wp: &Rc<Workplane>, plane: &Plane) -> Result<Rc<Workplane>, Stop> {
    let base = find_solid(wp)?;
    let faces = profiles(wp, plane)?;
    faces.check_separate()?;
    if !faces.are_plain() {
        // Experiments `ring cutThruAll`: the kernel's prism through the whole body fails for most
        // faces with holes.
        return Err(Stop::decline("cut through with holes", ""));
    }
    let Some(tree) = base.shape()? else { return Err(Stop::decline("cut through nothing", "")) };
    let layers = Layers::of(tree);
    let reach = exact_size(tree, layers.as_ref())?.max();
    let extent = tree.extent(layers.as_ref(), plane.z).ok_or_else(|| Stop::decline("bounds not certain", ""))?;
    let level = plane.z.dot(&plane.origin);
    let farthest = (extent.1 - level).max(level - extent.0);
    // The kernel's box is larger than the body by its tolerance. A prism that ends at the far face
    // goes through that face.
    if (1e-9..1e-5).contains(&(farthest - reach).abs()) {
        return Err(Stop::decline("cut that ends at a face", ""));
    }
    // A prism through the whole body is never flush with a face.
    let distance = if farthest < reach + 1e-9 { 1.37 * reach + 1.234_567 } else { reach + 2.0 * CONFUSION };
    let tools = prisms(plane, faces, distance, true);
    Ok(wp.with(vec![Item::Body(shapes::cut(&base, &tools)?)]))
}

/// Returns the edge lengths of the box around a body. Declines if the bounds are uncertain.
fn exact_size(tree: &CsgSolid, layers: Option<&Layers>) -> Result<Vec3, Stop> {
    let bounds = tree.tight_bounds(layers).ok_or_else(|| Stop::decline("bounds not certain", ""))?;
    Ok(Vec3::from(bounds.max) - Vec3::from(bounds.min))
}

/// `findSolid`: returns the bodies on the stack or of the nearest ancestor, as one compound.
pub fn find_solid(wp: &Workplane) -> Result<Rc<Body>, Stop> {
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

/// Returns the depth of a hole. If none is given, it is the diagonal of the box around the part.
pub fn depth(wp: &Workplane, given: Option<&Value>) -> Result<f64, Stop> {
    match given {
        None | Some(Value::None) => {
            let base = find_solid(wp)?;
            let Some(tree) = base.shape()? else { return Ok(0.0) };
            Ok(exact_size(tree, Layers::of(tree).as_ref())?.norm())
        }
        Some(value) => late_number(value),
    }
}

/// `hole` and `cboreHole`: cuts cylinders of (diameter, depth) at each point, against the normal.
pub fn hole(wp: &Rc<Workplane>, bores: &[(f64, f64)]) -> Result<Rc<Workplane>, Stop> {
    let mut tools = Vec::new();
    for at in frames(wp)? {
        for &(diameter, depth) in bores {
            check_size(diameter / 2.0)?;
            check_size(depth)?;
            let edge = Edge::Circle { center: Vec2::zeros(), radius: diameter / 2.0 };
            let at = at.clone();
            tools.push(Body::new(Extrusion { plane: at, region: one_wire(vec![edge])?, low: -depth, high: 0.0 }));
        }
    }
    Ok(wp.with(vec![Item::Body(shapes::cut(&find_solid(wp)?, &tools)?)]))
}

/// `cskHole`: cuts a cylinder and a cone at each point, against the normal. The base of the cone
/// lies in the workplane.
pub fn countersunk_hole(
    wp: &Rc<Workplane>,
    diameter: f64,
    sink_diameter: f64,
    degrees: f64,
    depth: f64,
) -> Result<Rc<Workplane>, Stop> {
    let (bore, sink) = (diameter / 2.0, sink_diameter / 2.0);
    let tip = sink / (degrees / 2.0).to_radians().tan();
    check_size(bore)?;
    check_size(tip)?;
    check_point(Vec3::new(sink, tip, depth))?;
    // The depth at which the cone is as wide as the bore.
    let throat = tip * (1.0 - bore / sink);
    if sink - bore < 1e-3 * bore || throat < 1e-3 * tip || depth - tip < 1e-3 * tip {
        return Err(Stop::decline("countersink that is no wider than its hole, or deeper", ""));
    }
    let corners = [(0.0, 0.0), (sink, 0.0), (bore, -throat), (bore, -depth), (0.0, -depth)];
    let corners = corners.map(|(x, y)| Vec2::new(x, y));
    let sides: Vec<[Vec2; 2]> = corners.windows(2).map(|pair| [pair[0], pair[1]]).collect();
    let at = |plane: Plane| Body::new(Revolution::whole(plane, sides.clone()));
    let tools: Vec<_> = frames(wp)?.into_iter().map(at).collect();
    Ok(wp.with(vec![Item::Body(shapes::cut(&find_solid(wp)?, &tools)?)]))
}

fn one_wire(edges: Vec<Edge>) -> Result<Region, Stop> {
    let wire = Wire::new(edges).map_err(|error| Stop::decline("odd wire", error.to_string()))?;
    Ok(Region::new(wire, Vec::new()))
}

/// Adds a prism, given in local coordinates, at each point of the stack.
pub fn each_prism(
    wp: &Rc<Workplane>,
    edges: Vec<Edge>,
    low: f64,
    high: f64,
    combine: Option<&Value>,
) -> Result<Rc<Workplane>, Stop> {
    let region = one_wire(edges)?;
    let at = |plane: Plane| Body::new(Extrusion { plane, region: region.clone(), low, high });
    each_body(wp, frames(wp)?.into_iter().map(at).collect(), combine)
}

/// Combines bodies at the points of the stack as `combine` says.
pub fn each_body(wp: &Rc<Workplane>, bodies: Vec<Rc<Body>>, combine: Option<&Value>) -> Result<Rc<Workplane>, Stop> {
    match combine_mode(combine)? {
        Combine::Apart => Ok(wp.with(bodies.into_iter().map(Item::Body).collect())),
        mode => combine_with_base(wp, bodies, mode),
    }
}
