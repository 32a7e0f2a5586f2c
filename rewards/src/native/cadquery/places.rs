//! Where things go: workplanes on what is there, selected faces, arrays of points.

use std::rc::Rc;

use super::geometry::{plane as make_plane, vector};
use super::methods::{Bound, centered, to_world};
use super::shapes::{Faces, Item, Motion};
use super::workplane::{Workplane, solid_bodies};
use super::{flag_or, number_or};
use crate::csg::{CsgSolid, Edge, Extrusion, Plane, Vec3};
use crate::native::certainty;
use crate::native::python::{Stop, Value};
use crate::native::wires::{SpaceEdge, check_point};

pub fn rectangular_array(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
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

/// `workplane`: a new plane at what is on the stack.
pub fn workplane(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
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

pub fn transformed(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
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
pub fn vertices(wp: &Rc<Workplane>) -> Result<Rc<Workplane>, Stop> {
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
pub fn faces(wp: &Rc<Workplane>, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
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
