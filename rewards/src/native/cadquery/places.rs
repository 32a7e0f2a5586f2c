//! Positions: workplanes on existing objects, selected faces, arrays of points.

use std::rc::Rc;

use super::geometry::{plane as make_plane, vector};
use super::methods::{Bound, centered, to_world};
use super::shapes::{Item, Motion, SelectedFaces};
use super::workplane::Workplane;
use super::{flag_or, number_or};
use crate::csg::{Plane, Vec2, Vec3};
use crate::native::python::{Stop, Value};
use crate::native::wires::check_point;

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

/// `polarArray`: places locations on a circle. They turn with the angle unless `rotate` is false.
pub fn polar_array(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let Value::Int(count) = *bound.value(3)? else { return Err(Stop::decline("odd count", "")) };
    if count < 1 {
        return Err(Stop::raise("ValueError", format!("At least 1 element required, requested {count}")));
    }
    if count > 1000 {
        return Err(Stop::decline("too many points", ""));
    }
    let (radius, start, angle) = (bound.number(0)?, bound.number(1)?, bound.number(2)?);
    let (fill, rotate) = (flag_or(bound.get(4), true)?, flag_or(bound.get(5), true)?);
    let beyond = angle - 360.0 * (angle / 360.0).round();
    let step = if !fill {
        angle
    } else if beyond.abs() < 1e-9 {
        angle / count as f64
    } else if beyond.abs() < 1e-3 {
        return Err(Stop::decline("array of nearly a whole turn", angle.to_string()));
    } else if count > 1 {
        angle / (count - 1) as f64
    } else {
        start
    };
    let at = |index: i64| {
        let degrees = start + step * index as f64;
        let (sin, cos) = degrees.to_radians().sin_cos();
        let at = Vec2::new(radius * cos, radius * sin);
        check_point(plane.to_space(at, 0.0))?;
        Ok(Item::Place { at, degrees: if rotate { degrees } else { 0.0 } })
    };
    Ok(wp.with((0..count).map(at).collect::<Result<_, Stop>>()?))
}

/// `workplane`: makes a new plane at the object on the stack.
pub fn workplane(wp: &Rc<Workplane>, plane: &Plane, bound: &Bound) -> Result<Rc<Workplane>, Stop> {
    let option = match bound.get(2) {
        None => Center::Projected,
        Some(Value::Str(option)) => match &**option {
            "ProjectedOrigin" => Center::Projected,
            "CenterOfMass" => Center::Mass,
            "CenterOfBoundBox" => Center::Bounds,
            _ => return Err(Stop::raise("ValueError", "Undefined centerOption value provided.")),
        },
        Some(_) => return Err(Stop::raise("ValueError", "Undefined centerOption value provided.")),
    };
    let onto = match bound.get(3) {
        Some(Value::None) | None => plane.origin,
        Some(value @ (Value::Tuple(_) | Value::Object(_))) => vector(value)?,
        Some(_) => return Err(Stop::decline("origin not a tuple", "")),
    };
    let (offset, invert) = (number_or(bound.get(0), 0.0)?, flag_or(bound.get(1), false)?);
    let objects = wp.objects.borrow();
    if objects.len() > 1 {
        return Err(several(&objects));
    }
    let item = objects.first().cloned().unwrap_or(Item::Point(plane.origin));
    let (center, normal, x_dir) = match &item {
        Item::Faces(faces) => match &**faces {
            SelectedFaces::Plane { normal, offset } if option == Center::Projected => {
                (*normal * *offset, *normal, x_direction(*normal))
            }
            SelectedFaces::Plane { .. } => return Err(Stop::decline("centre of a face", "")),
        },
        Item::Face(topology, face) => {
            let Some(normal) = topology.faces[*face].direction else {
                return Err(Stop::decline("workplane on a curved face", ""));
            };
            let bounds = option == Center::Bounds;
            let center = if bounds { topology.middle_of_face(*face) } else { topology.faces[*face].center };
            (center, normal, x_direction(normal))
        }
        Item::Body(_) if option == Center::Bounds => return Err(Stop::decline("workplane on a shape", "Solid")),
        Item::Point(_) | Item::Vertex(_) | Item::Corner(_) | Item::Wire(_) | Item::Edge(_) | Item::Body(_) => {
            let parent = wp.parent.as_ref().map(|parent| parent.val());
            if matches!(parent, Some(Item::Faces(_) | Item::Face(..))) {
                return Err(Stop::decline("workplane on a vertex of a face", ""));
            }
            (item.center()?, plane.z, plane.x)
        }
        Item::Place { .. } => {
            return Err(Stop::raise("ValueError", "Needs a face or a vertex or point on a work plane"));
        }
        other => return Err(Stop::decline("workplane on a shape", other.class_name())),
    };
    // The current origin, projected onto the new plane.
    let center = if option == Center::Projected {
        let unit = normal.normalize();
        onto - unit * (onto - center).dot(&unit)
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

/// How the origin of a workplane is chosen.
#[derive(Clone, Copy, PartialEq)]
enum Center {
    Projected,
    Mass,
    Bounds,
}

/// `_computeXdir`: returns the direction across z, or x if the normal is parallel to z.
fn x_direction(normal: Vec3) -> Vec3 {
    let aside = Vec3::z().cross(&normal);
    if aside.norm() < 1e-4 { Vec3::x() } else { aside }
}

/// Returns what a workplane on several objects raises or why it is declined. The objects must be
/// plane faces in one plane.
fn several(objects: &[Item]) -> Stop {
    let uneven = || Stop::raise("ValueError", "If multiple objects selected, they all must be planar faces.");
    let mut faces = Vec::new();
    for item in objects {
        match item {
            Item::Face(topology, face) => match topology.faces[*face].direction {
                Some(normal) => faces.push((topology.faces[*face].center, normal)),
                None => return uneven(),
            },
            Item::Faces(_) => return Stop::decline("workplane on several faces", ""),
            _ => return uneven(),
        }
    }
    // It is unknown which face is the first, so no two may lie in one plane.
    let are_apart = faces.iter().enumerate().all(|(index, (center, normal))| {
        let others = faces.iter().enumerate().filter(|(other, _)| *other != index);
        others.into_iter().all(|(_, (other, _))| normal.dot(&(center - other)).abs() > 1e-3)
    });
    if are_apart {
        Stop::raise("ValueError", "Selected faces must be co-planar.")
    } else {
        Stop::decline("workplane on several faces", "")
    }
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
