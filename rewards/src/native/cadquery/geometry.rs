//! `Vector` and `Plane`.

use std::rc::Rc;

use super::{method, number, optional, required, signatures};
use crate::csg::{Plane, Vec3, seam_direction};
use crate::native::python::{Arguments, BinaryOperator, Machine, Object, Stop, UnaryOperator, Value};
use crate::native::wires::check_point;

/// `cq.Vector`.
#[derive(Debug, Clone)]
pub struct VectorObject(pub Vec3);

/// `cq.Plane`.
#[derive(Debug, Clone)]
pub struct PlaneObject(pub Plane);

/// A callable constructor of `Plane`, such as `Plane.XY`.
#[derive(Debug)]
struct NamedPlane(&'static str);

pub fn vector_value(vector: Vec3) -> Value {
    Value::Object(Rc::new(VectorObject(vector)))
}

/// Reads a `VectorLike`: a vector, or a tuple or list of two or three numbers.
pub fn vector(value: &Value) -> Result<Vec3, Stop> {
    if let Some(VectorObject(vector)) = value.object::<VectorObject>() {
        return Ok(*vector);
    }
    let items = value.sequence().ok_or_else(|| Stop::decline("argument not a vector", value.class_name()))?;
    match items.as_slice() {
        [x, y] => Ok(Vec3::new(number(x)?, number(y)?, 0.0)),
        [x, y, z] => Ok(Vec3::new(number(x)?, number(y)?, number(z)?)),
        _ => Err(Stop::decline("vector of odd length", items.len().to_string())),
    }
}

pub fn construct_vector(arguments: Arguments) -> Result<Value, Stop> {
    if !arguments.keywords.is_empty() {
        return Err(Stop::decline("keywords of Vector", ""));
    }
    let found = match arguments.positional.as_slice() {
        [] => Vec3::zeros(),
        [one] => vector(one)?,
        [x, y] => Vec3::new(number(x)?, number(y)?, 0.0),
        [x, y, z] => Vec3::new(number(x)?, number(y)?, number(z)?),
        // Experiment `vec4`.
        _ => return Err(Stop::raise("TypeError", "Expected three floats, OCC gp_, or 3-tuple")),
    };
    Ok(vector_value(check_point(found)?))
}

/// The names that `Plane.named` accepts, with x direction and normal.
const NAMED: [(&str, [f64; 3], [f64; 3]); 12] = [
    ("XY", [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    ("YZ", [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
    ("ZX", [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
    ("XZ", [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]),
    ("YX", [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]),
    ("ZY", [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]),
    ("front", [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    ("back", [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]),
    ("left", [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]),
    ("right", [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]),
    ("top", [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
    ("bottom", [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]),
];

/// `Plane.named`.
pub fn named_plane(name: &str, origin: Vec3) -> Result<Plane, Stop> {
    match NAMED.iter().find(|(known, ..)| *known == name) {
        Some((_, x, normal)) => plane(origin, Some(Vec3::from(*x)), Vec3::from(*normal)),
        None => {
            let names: Vec<String> = NAMED.iter().map(|(name, ..)| format!("'{name}'")).collect();
            Err(Stop::raise("ValueError", format!("Supported names are [{}]", names.join(", "))))
        }
    }
}

/// `Plane(origin, xDir, normal)`. Both directions are normalised, and x is projected into the
/// plane. A null vector and a parallel pair raise. A vector within rounding of either case is
/// declined.
pub fn plane(origin: Vec3, x_dir: Option<Vec3>, normal: Vec3) -> Result<Plane, Stop> {
    const TINY: f64 = 1e-9;
    check_point(origin)?;
    if normal == Vec3::zeros() {
        return Err(Stop::raise("ValueError", "normal should be non null"));
    }
    if normal.norm() < TINY {
        return Err(Stop::decline("normal nearly null", format!("{normal:?}")));
    }
    let z = normal / normal.norm();
    let x_dir = match x_dir {
        Some(x_dir) if x_dir == Vec3::zeros() => return Err(Stop::raise("ValueError", "xDir should be non null")),
        Some(x_dir) if x_dir.norm() < TINY => {
            return Err(Stop::decline("xDir nearly null", format!("{x_dir:?}")));
        }
        Some(x_dir) => x_dir / x_dir.norm(),
        None if z.iter().any(|c| *c != 0.0 && c.abs() < TINY) => {
            return Err(Stop::decline("plane without xDir nearly along an axis", format!("{z:?}")));
        }
        None => seam_direction(z),
    };
    let aside = z.cross(&x_dir).norm();
    if aside == 0.0 {
        return Err(Stop::raise("Standard_ConstructionError", "gp_Vec::Normalized() - vector has zero norm"));
    }
    if aside < 1e-6 {
        return Err(Stop::decline("xDir nearly parallel to the normal", format!("{aside:e}")));
    }
    let x = (x_dir - z * x_dir.dot(&z)).normalize();
    Ok(Plane { origin, x, y: z.cross(&x), z })
}

pub fn construct_plane(arguments: Arguments) -> Result<Value, Stop> {
    let bound = arguments.bind("Plane.__init__", &signatures::PLANE)?;
    let [origin, x_dir, normal] = bound.as_slice() else { return Err(Stop::decline("Plane", "")) };
    let origin = origin.as_ref().map_or(Ok(Vec3::zeros()), vector)?;
    let x_dir = x_dir.as_ref().filter(|value| !matches!(value, Value::None)).map(vector).transpose()?;
    let normal = normal.as_ref().map_or(Ok(Vec3::z()), vector)?;
    Ok(Value::Object(Rc::new(PlaneObject(plane(origin, x_dir, normal)?))))
}

/// Returns the constructor `Plane.XY(..)`, `Plane.named(..)` or the like.
pub fn plane_constructor(name: &str) -> Result<Value, Stop> {
    match NAMED.iter().map(|(known, ..)| *known).chain(["named"]).find(|known| *known == name) {
        Some(known) => Ok(Value::Object(Rc::new(NamedPlane(known)))),
        None => Err(Stop::decline("attribute of Plane", name)),
    }
}

impl Object for NamedPlane {
    fn class_name(&self) -> String {
        "method".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Err(Stop::decline("attribute of a method", name))
    }

    fn call(&self, _machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        let (name, origin) = if self.0 == "named" {
            let bound = arguments.bind("Plane.named", &[required("stdName"), optional("origin")])?;
            let Some(Value::Str(name)) = &bound[0] else { return Err(Stop::decline("plane name not text", "")) };
            (name.to_string(), bound[1].clone())
        } else {
            let bound = arguments.bind(&format!("Plane.{}", self.0), &[optional("origin"), optional("xDir")])?;
            if bound[1].is_some() {
                return Err(Stop::decline("named plane with xDir", self.0));
            }
            (self.0.to_owned(), bound[0].clone())
        };
        let origin = origin.as_ref().map_or(Ok(Vec3::zeros()), vector)?;
        Ok(Value::Object(Rc::new(PlaneObject(named_plane(&name, origin)?))))
    }
}

impl Object for VectorObject {
    fn class_name(&self) -> String {
        "Vector".to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Ok(match name {
            "x" => Value::Float(self.0.x),
            "y" => Value::Float(self.0.y),
            "z" => Value::Float(self.0.z),
            "Length" => Value::Float(self.0.norm()),
            "toTuple" => method(this, "toTuple"),
            "add" => method(this, "add"),
            "sub" => method(this, "sub"),
            "cross" => method(this, "cross"),
            "dot" => method(this, "dot"),
            "multiply" => method(this, "multiply"),
            "normalized" => method(this, "normalized"),
            _ => return Err(Stop::decline("attribute of Vector", name)),
        })
    }

    fn equals(&self, other: &Value) -> Result<bool, Stop> {
        // CadQuery compares vectors within a tolerance of the kernel.
        match other.object::<Self>() {
            Some(_) => Err(Stop::decline("operator of Vector", "==")),
            None => Ok(false),
        }
    }

    fn binary(&self, operator: BinaryOperator, other: &Value, reflected: bool) -> Result<Option<Value>, Stop> {
        let vector = |value: &Value| value.object::<VectorObject>().map(|vector| vector.0);
        let result = match (operator, vector(other), other.as_float()) {
            (BinaryOperator::Add, Some(other), _) => self.0 + other,
            (BinaryOperator::Subtract, Some(other), _) if !reflected => self.0 - other,
            (BinaryOperator::Multiply, None, Some(scale)) => self.0 * scale,
            _ => return Err(Stop::decline("operator of Vector", format!("{operator:?}"))),
        };
        Ok(Some(vector_value(check_point(result)?)))
    }

    fn unary(&self, operator: UnaryOperator) -> Result<Value, Stop> {
        match operator {
            UnaryOperator::Minus => Ok(vector_value(-self.0)),
            _ => Err(Stop::decline("operator of Vector", format!("{operator:?}"))),
        }
    }

    fn iterate(&self) -> Result<Vec<Value>, Stop> {
        Ok(self.0.iter().map(|c| Value::Float(*c)).collect())
    }
}

/// Calls a method of a vector.
pub fn call_vector(this: &VectorObject, name: &str, arguments: Arguments) -> Result<Value, Stop> {
    let one = |arguments: Arguments| -> Result<Value, Stop> {
        let bound = arguments.bind(&format!("Vector.{name}"), &[required("v")])?;
        bound.into_iter().next().flatten().ok_or_else(|| Stop::decline("Vector", name))
    };
    match name {
        "toTuple" => {
            arguments.bind("Vector.toTuple", &[])?;
            Ok(Value::Tuple(this.0.iter().map(|c| Value::Float(*c)).collect()))
        }
        "normalized" => {
            arguments.bind("Vector.normalized", &[])?;
            let length = this.0.norm();
            if length < 1e-100 {
                return Err(Stop::decline("normalised null vector", ""));
            }
            Ok(vector_value(this.0 / length))
        }
        "multiply" => Ok(vector_value(check_point(this.0 * number(&one(arguments)?)?)?)),
        _ => {
            let other = one(arguments)?;
            let Some(VectorObject(other)) = other.object::<VectorObject>() else {
                return Err(Stop::decline("argument not a Vector", name));
            };
            match name {
                "add" => Ok(vector_value(this.0 + other)),
                "sub" => Ok(vector_value(this.0 - other)),
                "cross" => Ok(vector_value(check_point(this.0.cross(other))?)),
                _ => Ok(Value::Float(this.0.dot(other))),
            }
        }
    }
}

impl Object for PlaneObject {
    fn class_name(&self) -> String {
        "Plane".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Ok(match name {
            "origin" => vector_value(self.0.origin),
            "zDir" => vector_value(self.0.z),
            _ => return Err(Stop::decline("attribute of Plane", name)),
        })
    }
}
