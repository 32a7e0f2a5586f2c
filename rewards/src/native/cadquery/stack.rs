//! The methods of a workplane that make, combine and move bodies.

use std::rc::Rc;

use super::blend::Blend;
use super::geometry::vector;
use super::methods::{Bound, centered, to_world, value};
use super::shapes::{self, Body, Item, Motion, ShapeObject, item_value, turned};
use super::workplane::{Workplane, solid_bodies};
use super::{features, flag_or, late_number, places, select};
use crate::csg::{Ball, CsgSolid, Edge, Plane, Vec2, Vec3};
use crate::native::python::{Arguments, BinaryOperator, Machine, Stop, Value};
use crate::native::wires::check_point;

/// Returns the positions of the objects on the stack, or the plane's origin if there are none.
pub fn centers(wp: &Workplane) -> Result<Vec<Vec3>, Stop> {
    let objects = wp.objects.borrow();
    if objects.is_empty() {
        return Ok(vec![wp.plane.borrow().origin]);
    }
    objects.iter().map(Item::center).collect()
}

/// Returns the workplane moved to each object on the stack and turned by its `Location`. Returns
/// the workplane unchanged if the stack is empty.
pub fn frames(wp: &Workplane) -> Result<Vec<Plane>, Stop> {
    let plane = wp.plane.borrow().clone();
    let at = |item: &Item| match item {
        Item::Place { at, degrees } => Ok(Plane { origin: plane.to_space(*at, 0.0), ..turned(&plane, *degrees) }),
        item => Ok(Plane { origin: item.center()?, ..plane.clone() }),
    };
    let objects = wp.objects.borrow();
    if objects.is_empty() { Ok(vec![plane.clone()]) } else { objects.iter().map(at).collect() }
}

/// Calls a method. Declines an unknown method.
pub fn call(wp: &Rc<Workplane>, name: &str, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
    pay(wp, machine)?;
    let plane = wp.plane.borrow().clone();
    let bind = || Bound::of(arguments, name);
    let made = match name {
        "sketch" => {
            bind()?;
            return super::sketch::on(wp);
        }
        "add" => {
            let bound = bind()?;
            add(wp, bound.value(0)?)?;
            Rc::clone(wp)
        }
        "val" => {
            bind()?;
            return item_value(&wp.val());
        }
        "size" => {
            bind()?;
            let objects = wp.objects.borrow();
            if objects.iter().any(|item| matches!(item, Item::Faces(_) | Item::Uprights(..))) {
                return Err(Stop::decline("size of a selection", ""));
            }
            return Ok(Value::Int(objects.len() as i64));
        }
        "first" | "last" => {
            bind()?;
            let objects = wp.objects.borrow();
            if objects.len() > 1 && objects.iter().any(Item::is_unordered) {
                return Err(Stop::decline("order of a selection", ""));
            }
            let item = if name == "first" { objects.first() } else { objects.last() };
            wp.with(vec![item.cloned().ok_or_else(|| Stop::decline("first of an empty stack", ""))?])
        }
        "end" => {
            let bound = bind()?;
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
            bind()?;
            wp.with(wp.objects.borrow().clone())
        }
        "pushPoints" => {
            let bound = bind()?;
            let points = bound.value(0)?;
            let points = points.sequence().ok_or_else(|| Stop::decline("points not a list", points.class_name()))?;
            let at = |point: &Value| Ok(Item::Point(check_point(to_world(&plane, vector(point)?))?));
            wp.with(points.iter().map(at).collect::<Result<_, Stop>>()?)
        }
        "polarArray" => {
            let bound = bind()?;
            places::polar_array(wp, &plane, &bound)?
        }
        "tag" => {
            let bound = bind()?;
            wp.tag(&text(bound.value(0)?)?);
            Rc::clone(wp)
        }
        "workplaneFromTagged" => {
            let bound = bind()?;
            let tagged = wp.tagged(&text(bound.value(0)?)?)?;
            wp.on(tagged.plane, tagged.objects)
        }
        "copyWorkplane" => {
            let bound = bind()?;
            let Some(other) = bound.value(0)?.object::<Workplane>() else {
                return Err(Stop::decline("copyWorkplane of an odd object", ""));
            };
            let (plane, objects) = (other.plane.borrow().clone(), other.objects.borrow().clone());
            wp.on(plane, objects)
        }
        "rarray" => {
            let bound = bind()?;
            places::rectangular_array(wp, &plane, &bound)?
        }
        "extrude" => features::extrude(wp, &plane, &bind()?)?,
        "cutBlind" => {
            let bound = bind()?;
            features::cut_blind(wp, &plane, &bound)?
        }
        "revolve" => features::revolve(wp, &plane, &bind()?)?,
        "cutThruAll" => {
            let bound = bind()?;
            if bound.get(1).map_or(Ok(0.0), late_number)? != 0.0 {
                return Err(Stop::decline("taper", ""));
            }
            features::cut_through(wp, &plane)?
        }
        "hole" => {
            let bound = bind()?;
            features::hole(wp, &[(late_number(bound.value(0)?)?, features::depth(wp, bound.get(1))?)])?
        }
        "cboreHole" => {
            let bound = bind()?;
            let size = |index| bound.value(index).and_then(late_number);
            let bore = (size(0)?, features::depth(wp, bound.get(3))?);
            features::hole(wp, &[bore, (size(1)?, size(2)?)])?
        }
        "cskHole" => {
            let bound = bind()?;
            let size = |index| bound.value(index).and_then(late_number);
            let depth = features::depth(wp, bound.get(3))?;
            features::countersunk_hole(wp, size(0)?, size(1)?, size(2)?, depth)?
        }
        "box" => {
            let bound = bind()?;
            let size = Vec3::new(bound.number(0)?, bound.number(1)?, bound.number(2)?);
            if size.iter().any(|side| *side <= 0.0) {
                // Experiments `box0`, `box-1`.
                return Err(Stop::raise("Standard_DomainError", ""));
            }
            features::check_size(size.min())?;
            check_point(size)?;
            let centered: [bool; 3] = centered(bound.get(3))?;
            let low = Vec3::from_fn(|axis, _| if centered[axis] { -size[axis] / 2.0 } else { 0.0 });
            let corners = [(0.0, 0.0), (size.x, 0.0), (size.x, size.y), (0.0, size.y)];
            let corners = corners.map(|(x, y)| Vec2::new(x + low.x, y + low.y));
            let edges = (0..4).map(|i| Edge::Line { from: corners[i], to: corners[(i + 1) % 4] }).collect();
            features::each_prism(wp, edges, low.z, low.z + size.z, bound.get(4))?
        }
        "cylinder" => {
            let bound = bind()?;
            let (height, radius) = (bound.number(0)?, bound.number(1)?);
            if bound.get(2).is_some() || bound.get(3).is_some() {
                return Err(Stop::decline("cylinder with a direction or an angle", ""));
            }
            features::check_size(height)?;
            features::check_size(radius)?;
            check_point(Vec3::new(height, radius, 0.0))?;
            let centered: [bool; 3] = centered(bound.get(4))?;
            let center = Vec2::new(if centered[0] { 0.0 } else { radius }, if centered[1] { 0.0 } else { radius });
            let low = if centered[2] { -height / 2.0 } else { 0.0 };
            features::each_prism(wp, vec![Edge::Circle { center, radius }], low, low + height, bound.get(5))?
        }
        "sphere" => {
            let bound = bind()?;
            if bound.0[1..5].iter().any(Option::is_some) {
                return Err(Stop::decline("sphere with a direction or an angle", ""));
            }
            let radius = bound.number(0)?;
            features::check_size(radius)?;
            check_point(Vec3::repeat(radius))?;
            let centered: [bool; 3] = centered(bound.get(5))?;
            let shift = Vec3::from_fn(|axis, _| if centered[axis] { 0.0 } else { radius });
            let at = |plane: Plane| Body::new(Ball { center: to_world(&plane, shift), radius });
            let bodies = frames(wp)?.into_iter().map(at).collect();
            features::each_body(wp, bodies, bound.get(6))?
        }
        "union" => {
            let bound = bind()?;
            plain(&bound, 2)?;
            union(wp, bound.get(0))?
        }
        "cut" | "intersect" => {
            let bound = bind()?;
            plain(&bound, 2)?;
            subtract_or_intersect(wp, bound.value(0)?, name == "cut")?
        }
        "translate" => {
            let bound = bind()?;
            moved(wp, &Motion::translation(check_point(vector(bound.value(0)?)?)?))?
        }
        "rotate" => {
            let bound = bind()?;
            let (from, to) = (vector(bound.value(0)?)?, vector(bound.value(1)?)?);
            moved(wp, &Motion::rotation(from, to, bound.number(2)?)?)?
        }
        "mirror" => mirror(wp, &bind()?)?,
        "workplane" => {
            let bound = bind()?;
            places::workplane(wp, &plane, &bound)?
        }
        "transformed" => {
            let bound = bind()?;
            places::transformed(wp, &plane, &bound)?
        }
        "vertices" => {
            let bound = bind()?;
            select::vertices(wp, &bound)?
        }
        "edges" => {
            let bound = bind()?;
            select::edges(wp, &bound)?
        }
        "fillet" => {
            let bound = bind()?;
            select::blended(wp, Blend::Fillet(late_number(bound.value(0)?)?))?
        }
        "chamfer" => {
            let bound = bind()?;
            select::blended(wp, Blend::Chamfer(select::chamfer_length(&bound)?))?
        }
        "shell" => {
            let bound = bind()?;
            select::shelled(wp, late_number(bound.value(0)?)?)?
        }
        "faces" => {
            let bound = bind()?;
            select::faces(wp, &bound)?
        }
        _ => return Err(Stop::decline("Workplane method not supported", name)),
    };
    Ok(value(made))
}

/// Evaluates `a + b` and the other operators. In CadQuery `|` and `&` work but warn that they are
/// deprecated.
pub fn binary(wp: &Rc<Workplane>, operator: BinaryOperator, other: &Value) -> Result<Value, Stop> {
    use BinaryOperator::{Add, And, Multiply, Or, Subtract};
    let made = match operator {
        Add | Or => union(wp, Some(other))?,
        Subtract => subtract_or_intersect(wp, other, true)?,
        Multiply | And => subtract_or_intersect(wp, other, false)?,
        _ => return Err(Stop::decline("operator of Workplane", format!("{operator:?}"))),
    };
    Ok(value(made))
}

/// Reads the name of a tag.
fn text(value: &Value) -> Result<String, Stop> {
    match value {
        Value::Str(name) => Ok(name.to_string()),
        other => Err(Stop::decline("tag not text", other.class_name())),
    }
}

/// Charges the work of a method by the size of the bodies that it may work on.
fn pay(wp: &Workplane, machine: &mut Machine) -> Result<(), Stop> {
    let faces: usize = wp.bodies().iter().filter_map(|body| body.tree.as_ref()).map(CsgSolid::faces).sum();
    machine.spend(200 + 20 * faces as u64)
}

/// Checks that the parameters from `first` on have their defaults.
fn plain(bound: &Bound, first: usize) -> Result<(), Stop> {
    let given = bound.0[first..].iter().flatten().any(|value| !matches!(value, Value::None | Value::Bool(false)));
    if given { Err(Stop::decline("boolean with a tolerance", "")) } else { Ok(()) }
}

/// `add`: adds objects to this same workplane. Added objects play no part in `extrude`, which uses
/// faces and pending wires.
fn add(wp: &Rc<Workplane>, what: &Value) -> Result<(), Stop> {
    let mut added = Vec::new();
    if let Some(other) = what.object::<Workplane>() {
        if wp.is_tagged() {
            return Err(Stop::decline("add to what is tagged", ""));
        }
        added.extend(other.objects.borrow().iter().cloned());
        wp.merge_tags(other);
    } else if let Value::List(_) = what {
        return Err(Stop::decline("add of a list", ""));
    } else if what.object::<super::sketch::Sketch>().is_some() {
        return Err(Stop::decline("add of a sketch", ""));
    } else if let Some(ShapeObject(item)) = what.object::<ShapeObject>() {
        added.push(item.clone());
    } else {
        added.push(Item::Other(what.class_name()));
    }
    wp.objects.borrow_mut().extend(added);
    Ok(())
}

/// Returns the bodies that an operand of `union`, `cut` or `intersect` stands for, or `None` if the
/// operand is no shape.
fn operand(value: &Value) -> Option<Vec<Rc<Body>>> {
    if let Some(other) = value.object::<Workplane>() {
        let items = other.objects.borrow();
        return Some(
            items
                .iter()
                .filter_map(|item| if let Item::Body(body) = item { Some(Rc::clone(body)) } else { None })
                .collect(),
        );
    }
    match value.object::<ShapeObject>() {
        Some(ShapeObject(Item::Body(body))) => Some(vec![Rc::clone(body)]),
        _ => None,
    }
}

fn union(wp: &Rc<Workplane>, other: Option<&Value>) -> Result<Rc<Workplane>, Stop> {
    let mut parts = match other {
        None | Some(Value::None) => Vec::new(),
        Some(value) => match operand(value) {
            Some(bodies) => {
                let solid = solid_bodies(&bodies.iter().cloned().map(Item::Body).collect::<Vec<_>>());
                if solid.is_empty() && value.object::<Workplane>().is_some() {
                    let message = "Workplane object must have at least one solid on the stack to union!";
                    return Err(Stop::raise("ValueError", message));
                }
                if let Some(other) = value.object::<Workplane>() {
                    wp.merge_tags(other);
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
    let base = features::find_solid(wp)?;
    let tools = match operand(other) {
        Some(tools) => tools,
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
        wp.merge_tags(other);
        let items = other.objects.borrow();
        let shapes = items.iter().filter(|item| item.is_shape()).count();
        if tools.is_empty() && !cut && shapes > 0 {
            return Err(Stop::decline("intersection with no body", ""));
        }
        if tools.is_empty() && items.iter().any(Item::is_unordered) {
            return Err(Stop::decline("boolean with a selection", ""));
        }
        if tools.is_empty() {
            // The operand holds nothing, or only edges and wires: experiments `cut by sketch`,
            // `cut by empty wp`.
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
    let shapes = objects.iter().filter(|item| item.is_shape());
    let mirrored = wp.with(shapes.map(|item| motion.apply(item)).collect::<Result<_, _>>()?);
    if flag_or(bound.get(2), false)? { union(wp, Some(&value(mirrored))) } else { Ok(mirrored) }
}
