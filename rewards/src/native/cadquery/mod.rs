//! CadQuery's objects as the interpreter sees them.
//!
//! Each method does what its counterpart in CadQuery 2.8 does, including the order in which it
//! checks for errors, or declines. Each surprising rule has a test that names the experiment with
//! the real method (`scripts/reference/cadquery_rules.py`).

mod blend;
mod features;
mod geometry;
mod methods;
mod places;
mod reference;
mod select;
mod shapes;
mod shell;
mod signatures;
mod sketch;
mod solids;
mod stack;
mod taper;
mod topology;
mod workplane;

use std::rc::Rc;

use super::python::{Arguments, Machine, Object, Parameter, Stop, Value};
pub use reference::reference;
pub use shapes::{Item, ShapeObject};
pub use workplane::Workplane;

/// Returns the module that `import cadquery` binds.
pub fn module() -> Value {
    Value::Object(Rc::new(CadQueryModule))
}

/// The module `cadquery`, also known as `cq`.
#[derive(Debug)]
struct CadQueryModule;

/// `cq.exporters`, and its function `export`.
#[derive(Debug)]
struct Exporters;

impl Object for Exporters {
    fn class_name(&self) -> String {
        "module".to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        match name {
            "export" => Ok(method(this, "export")),
            _ => Err(Stop::decline("attribute of exporters", name)),
        }
    }
}

/// `exporters.export(shape, "part.stl")`. If an STL or STEP file cannot be written, the call fails
/// silently (experiment `export`), so the program continues either way.
fn export(arguments: Arguments) -> Result<Value, Stop> {
    let file = match arguments.positional.as_slice() {
        [shape, Value::Str(file)] if shape.object::<Workplane>().is_some() && arguments.keywords.is_empty() => {
            let holds_body = shape.object::<Workplane>().is_some_and(|wp| !wp.bodies().is_empty());
            if holds_body { file.to_lowercase() } else { return Err(Stop::decline("export of no solid", "")) }
        }
        _ => return Err(Stop::decline("export with odd arguments", "")),
    };
    if [".stl", ".step", ".stp"].iter().any(|ending| file.ends_with(ending)) {
        Ok(Value::None)
    } else {
        Err(Stop::decline("export to another format", file))
    }
}

/// A callable class of CadQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Workplane,
    Plane,
    Vector,
    Sketch,
}

impl Object for CadQueryModule {
    fn class_name(&self) -> String {
        "module".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        let class = match name {
            "Workplane" => Class::Workplane,
            "Plane" => Class::Plane,
            "Vector" => Class::Vector,
            "Sketch" => Class::Sketch,
            "exporters" => return Ok(Value::Object(Rc::new(Exporters))),
            "Solid" => return Ok(Value::Object(Rc::new(solids::SolidClass))),
            _ if EXPORTED.contains(&name) || name.starts_with("__") => {
                return Err(Stop::decline("CadQuery class not supported", name));
            }
            _ => {
                let message = format!("module 'cadquery' has no attribute '{name}'");
                return Err(Stop::raise("AttributeError", message));
            }
        };
        Ok(Value::Object(Rc::new(class)))
    }
}

/// The other names that the module `cadquery` has.
const EXPORTED: &[&str] = &[
    "Assembly",
    "BoundBox",
    "CQ",
    "Color",
    "Compound",
    "Constraint",
    "DirectionMinMaxSelector",
    "DirectionSelector",
    "Edge",
    "Face",
    "Location",
    "Material",
    "Matrix",
    "NearestToPointSelector",
    "PackageNotFoundError",
    "ParallelDirSelector",
    "PerpendicularDirSelector",
    "Selector",
    "Shape",
    "Shell",
    "Sketch",
    "StringSyntaxSelector",
    "TypeSelector",
    "UnitLiterals",
    "Vertex",
    "Wire",
    "assembly",
    "cq",
    "hull",
    "importers",
    "occ_impl",
    "plugins",
    "selectors",
    "sketch",
    "sortWiresByBuildOrder",
    "types",
    "units",
    "utils",
    "version",
];

impl Object for Class {
    fn class_name(&self) -> String {
        "type".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        match self {
            Self::Plane => geometry::plane_constructor(name),
            _ => Err(Stop::decline("class attribute", name)),
        }
    }

    fn call(&self, _machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        let made = match self {
            Self::Workplane => workplane::construct(arguments),
            Self::Plane => geometry::construct_plane(arguments),
            Self::Vector => geometry::construct_vector(arguments),
            Self::Sketch => sketch::construct(arguments),
        };
        made.map_err(Stop::paraphrased)
    }
}

/// A method bound to its object.
#[derive(Debug)]
pub struct Method {
    this: Rc<dyn Object>,
    name: &'static str,
}

impl Object for Method {
    fn class_name(&self) -> String {
        "method".to_owned()
    }

    fn attribute(&self, _this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Err(Stop::decline("attribute of a method", name))
    }

    fn call(&self, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        machine.step()?;
        methods::call(&self.this, self.name, machine, arguments).map_err(Stop::paraphrased)
    }
}

/// Returns a method bound to `this`.
fn method(this: &Rc<dyn Object>, name: &'static str) -> Value {
    Value::Object(Rc::new(Method { this: Rc::clone(this), name }))
}

/// Declares a required parameter.
const fn required(name: &'static str) -> Parameter {
    Parameter { name, required: true }
}

/// Declares an optional parameter.
const fn optional(name: &'static str) -> Parameter {
    Parameter { name, required: false }
}

/// Reads a number that CadQuery computes with or passes to the kernel. Both reject text and `None`.
fn number(value: &Value) -> Result<f64, Stop> {
    match value.as_float() {
        Some(number) if number.is_finite() => Ok(number),
        Some(number) => Err(Stop::decline("number not finite", number.to_string())),
        None if matches!(value, Value::Str(_) | Value::None | Value::Tuple(_) | Value::List(_)) => {
            Err(Stop::raise("TypeError", format!("a number is needed, found {}", value.class_name())))
        }
        None => Err(Stop::decline("argument not a number", value.class_name())),
    }
}

/// Reads a number that CadQuery checks late: any other error raises first.
fn late_number(value: &Value) -> Result<f64, Stop> {
    match number(value) {
        Err(Stop::Raise(_)) => Err(Stop::decline("argument not a number", value.class_name())),
        result => result,
    }
}

/// Reads an optional number.
fn number_or(value: Option<&Value>, default: f64) -> Result<f64, Stop> {
    value.map_or(Ok(default), number)
}

/// Reads an optional flag.
fn flag_or(value: Option<&Value>, default: bool) -> Result<bool, Stop> {
    match value {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Stop::decline("argument not a bool", other.class_name())),
    }
}
