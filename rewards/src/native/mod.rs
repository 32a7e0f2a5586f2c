//! The native engine: executes a CadQuery program without CadQuery, or declines it.
//!
//! The engine *certifies or declines*. It answers only if its answer is known to equal CadQuery's:
//! the verdict, the class of an exception, the shape. Any other program is passed on to CadQuery,
//! and the reason is counted.
//!
//! [`python`] interprets the language and `cadquery` the library. `wires` turns wires into faces.
//! `certainty` decides whether a boolean of the modelling kernel certainly equals the set
//! operation.

mod cadquery;
mod certainty;
pub mod python;
mod tapered;
mod turned;
mod wires;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, Outcome, OutcomeClass, Solid};
pub use cadquery::reference;
use cadquery::{Item, ShapeObject, Workplane};
use python::{Namespace, Stop, Value};

/// Why the engine declines a program and passes it on to CadQuery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// The category to count, one of a small fixed set: `unknown name`, `wires touch`, ...
    pub reason: Cow<'static, str>,
    /// The specific cause, for a human reader.
    pub detail: String,
}

impl Decline {
    /// Builds a decline from a reason and its detail.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason: Cow::Borrowed(reason), detail: detail.into() }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.reason, self.detail) }
    }
}

/// The names under which a program may leave its result, in order of precedence. If none is set,
/// the first object in the namespace counts.
const RESULT_NAMES: [&str; 7] = ["solid", "result", "shape", "part", "object", "obj", "res"];

/// Executes a program and returns exactly CadQuery's outcome, or the reason why that outcome is not
/// certain. Time and memory are bounded, and no program makes it panic.
///
/// `program` runs as it is given. It must be dedented and stripped, as a worker does.
pub fn execute(program: &str) -> Result<Outcome, Decline> {
    execute_named(program, None)
}

/// As [`execute`], but a shape in the variable `result_name` is the result, if there is one. Else the
/// published rule decides.
pub fn execute_named(program: &str, result_name: Option<&str>) -> Result<Outcome, Decline> {
    let library = cadquery::module();
    let globals = vec![
        ("cq", library.clone()),
        ("cadquery", library.clone()),
        ("np", python::numpy()),
        ("numpy", python::numpy()),
    ];
    let import = |module: &str| (module == "cadquery").then(|| library.clone());
    let failure = |class, error: String| Ok(Outcome::Failure(Failure { class, error }));
    match python::run(program, globals, &import) {
        Ok(namespace) => pick(&namespace, result_name),
        Err(Stop::Decline(decline)) => Err(decline),
        Err(Stop::Raise(exception)) => {
            let syntax = ["SyntaxError", "IndentationError", "TabError"].contains(&exception.class.as_str());
            let class = if syntax { OutcomeClass::Syntax } else { OutcomeClass::Exception };
            failure(class, format!("{}: {}", exception.class, exception.message))
        }
    }
}

/// Applies the published rule, after `result_name`: picks the object that counts and checks that it
/// holds a solid.
fn pick(namespace: &Namespace, result_name: Option<&str>) -> Result<Outcome, Decline> {
    let no_solid = |class, error: String| Ok(Outcome::Failure(Failure { class, error }));
    let counts = |value: &Value| {
        value.object::<Workplane>().is_some()
            || matches!(value.object::<ShapeObject>(), Some(ShapeObject(Item::Body(_))))
    };
    let mut names = result_name.into_iter().chain(RESULT_NAMES);
    let named = names.find_map(|name| Some((name, namespace.get(name).filter(|value| counts(value))?)));
    let Some((name, value)) = named.or_else(|| namespace.iter().find(|(_, value)| counts(value))) else {
        let message = "the program defines no Workplane, Solid or Compound";
        return no_solid(OutcomeClass::NoSolid, message.to_owned());
    };
    let item = match value.object::<Workplane>() {
        Some(workplane) => workplane.val(),
        None => match value.object::<ShapeObject>() {
            Some(ShapeObject(item)) => item.clone(),
            None => return Err(Decline::new("odd result", name)),
        },
    };
    if let Item::Body(body) = &item
        && let Some(known) = &body.known
    {
        return Ok(Outcome::Solid(Arc::new(Solid::known(
            known.shape.clone(),
            known.mass,
            known.solids,
            known.malformed,
        ))));
    }
    match item {
        Item::Body(body) => match body.shape()? {
            Some(_) if body.tangled => Err(Decline::new("outline crosses itself at a corner", "validity not certain")),
            Some(tree) => {
                certainty::check_centre(tree)?;
                if !tree.is_measurable() {
                    return Err(Decline::new("volume not certain", "curved bodies along several slanted axes"));
                }
                Ok(Outcome::Solid(Arc::new(Solid::native(tree.clone(), false))))
            }
            None => no_solid(OutcomeClass::Empty, format!("'{name}' is empty: nothing is left of it")),
        },
        item => no_solid(OutcomeClass::NoSolid, format!("'{name}' holds a {}, not a solid", item.class_name())),
    }
}
