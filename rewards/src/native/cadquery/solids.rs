//! The constructors of `cq.Solid`, such as `makeBox`.

use std::rc::Rc;

use super::features::check_size;
use super::geometry::{plane as make_plane, vector};
use super::shapes::{Body, Item, item_value};
use super::{number, number_or, optional, required};
use crate::csg::{Ball, Edge, Extrusion, Plane, Region, Revolution, Vec2, Vec3, Wire};
use crate::native::python::{Arguments, Machine, Object, Parameter, Stop, Value};
use crate::native::wires::check_point;

/// `cq.Solid`, restricted to the methods that make solids.
#[derive(Debug)]
pub struct SolidClass;

/// A callable constructor, such as `cq.Solid.makeBox`.
#[derive(Debug)]
struct Maker(&'static str);

impl Object for SolidClass {
    fn class_name(&self) -> String {
        "type".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        match ["makeBox", "makeCylinder", "makeCone", "makeSphere"].into_iter().find(|known| *known == name) {
            Some(known) => Ok(Value::Object(Rc::new(Maker(known)))),
            None => Err(Stop::decline("class attribute", name)),
        }
    }

    fn call(&self, _machine: &mut Machine, _arguments: Arguments) -> Result<Value, Stop> {
        Err(Stop::decline("CadQuery class not supported", "Solid"))
    }
}

impl Object for Maker {
    fn class_name(&self) -> String {
        "method".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Err(Stop::decline("attribute of a method", name))
    }

    fn call(&self, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        machine.step()?;
        made(self.0, arguments).map_err(Stop::paraphrased)
    }
}

fn made(name: &'static str, arguments: Arguments) -> Result<Value, Stop> {
    // Sizes come first, then place and direction, then angles.
    let (sizes, angles): (&[&'static str], &[&'static str]) = match name {
        "makeBox" => (&["length", "width", "height"], &[]),
        "makeCylinder" => (&["radius", "height"], &["angleDegrees"]),
        "makeCone" => (&["radius1", "radius2", "height"], &["angleDegrees"]),
        _ => (&["radius"], &["angleDegrees1", "angleDegrees2", "angleDegrees3"]),
    };
    let parameters: Vec<Parameter> = sizes
        .iter()
        .map(|name| required(name))
        .chain(["pnt", "dir"].map(optional))
        .chain(angles.iter().map(|name| optional(name)))
        .collect();
    let bound = arguments.bind(&format!("Solid.{name}"), &parameters)?;
    let size = |index: usize| {
        let value = bound[index].as_ref().ok_or_else(|| Stop::decline("missing argument", name))?;
        let size = number(value)?;
        check_point(Vec3::repeat(size))?;
        Ok::<f64, Stop>(size)
    };
    let given = |index: usize, default: Vec3| bound[sizes.len() + index].as_ref().map_or(Ok(default), vector);
    let (origin, direction) = (given(0, Vec3::zeros())?, given(1, Vec3::z())?);
    let angle = |index: usize, default: f64| number_or(bound[sizes.len() + 2 + index].as_ref(), default);
    let whole = |degrees: f64| {
        if degrees == 360.0 { Ok(()) } else { Err(Stop::decline("solid by part of a turn", degrees.to_string())) }
    };
    let plane = make_plane(origin, None, direction)?;
    let body = match name {
        "makeBox" => {
            let [length, width, height] = [size(0)?, size(1)?, size(2)?];
            check_size(length.min(width).min(height))?;
            let corners = [(0.0, 0.0), (length, 0.0), (length, width), (0.0, width)].map(|(x, y)| Vec2::new(x, y));
            let edges = (0..4).map(|k| Edge::Line { from: corners[k], to: corners[(k + 1) % 4] }).collect();
            prism(plane, edges, height)?
        }
        "makeCylinder" => {
            let [radius, height] = [size(0)?, size(1)?];
            check_size(radius.min(height))?;
            whole(angle(0, 360.0)?)?;
            prism(plane, vec![Edge::Circle { center: Vec2::zeros(), radius }], height)?
        }
        "makeCone" => {
            let [below, above, height] = [size(0)?, size(1)?, size(2)?];
            whole(angle(0, 360.0)?)?;
            let least = 1e-3 * below.max(above);
            let is_radius = |radius: f64| radius == 0.0 || radius > least;
            check_size(least.min(height))?;
            if !is_radius(below) || !is_radius(above) || (below - above).abs() < least {
                return Err(Stop::decline("cone of odd radii", format!("{below} {above}")));
            }
            let corners = [(0.0, 0.0), (below, 0.0), (above, height), (0.0, height)].map(|(x, y)| Vec2::new(x, y));
            let sides = corners.windows(2).map(|pair| [pair[0], pair[1]]).filter(|[a, b]| a.x > 0.0 || b.x > 0.0);
            Body::new(Revolution::whole(plane, sides.collect()))
        }
        _ => {
            let radius = size(0)?;
            check_size(radius)?;
            if [angle(0, 0.0)?, angle(1, 90.0)?, angle(2, 360.0)?] != [-90.0, 90.0, 360.0] {
                return Err(Stop::decline("part of a sphere", ""));
            }
            Body::new(Ball { center: plane.origin, radius })
        }
    };
    item_value(&Item::Body(body))
}

fn prism(plane: Plane, edges: Vec<Edge>, height: f64) -> Result<Rc<Body>, Stop> {
    let wire = Wire::new(edges).map_err(|error| Stop::decline("odd wire", error.to_string()))?;
    Ok(Body::new(Extrusion { plane, region: Region::new(wire, Vec::new()), low: 0.0, high: height }))
}
