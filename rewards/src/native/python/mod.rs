//! The part of Python that models use in CadQuery programs: small, exact and bounded.
//!
//! It *certifies or declines*. The answer of [`run`] is that of CPython 3.11, as a value or as a
//! class of exception. Anything uncertain is a [`Decline`]. It never panics, and its time, memory
//! and stack are bounded: steps, elements and depth are counted (`limits`).
//!
//! * `scan`: which texts the parser may get; `check`: what CPython's compiler refuses beyond the
//!   grammar;
//! * `machine`, `statements`, `expressions`, `iteration`: evaluation of the parsed tree;
//! * `value`, `dict`, `operators`, `text`, `format`, `methods`, `builtins`, `math`, `exceptions`:
//!   types and functions.
//!
//! Floats: CPython and Rust's standard library both take `math.sin` and similar functions from the
//! C library. On Linux with glibc these are the same functions.
//!
//! CadQuery's objects come from other modules, as [`Object`]s.

mod arguments;
mod builtins;
mod check;
mod dict;
mod exceptions;
mod expressions;
mod format;
mod functions;
mod iteration;
mod limits;
mod machine;
mod math;
mod methods;
mod names;
mod operators;
mod scan;
mod statements;
mod strings;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt::Debug;
use std::rc::Rc;

pub use arguments::{Arguments, Parameter};
pub use dict::Dict;
pub use machine::{Machine, Namespace};
pub use math::{math, numpy};
pub use operators::{BinaryOperator, UnaryOperator};
pub use value::Value;

use super::Decline;

/// The reason why an evaluation ends without a value.
#[derive(Debug, Clone)]
pub enum Stop {
    /// Python raises this exception here.
    Raise(Exception),
    /// The behaviour of Python is not certain here.
    Decline(Decline),
}

/// An exception of Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// `type(exception).__name__`
    pub class: String,
    /// `str(exception)`, except for the wording of libraries.
    pub message: String,
    /// Whether a program that inspects the message sees exactly this text.
    pub is_verbatim: bool,
}

impl Stop {
    /// The same, marked as an exception whose message is known only in substance.
    #[must_use]
    pub fn paraphrased(self) -> Self {
        match self {
            Self::Raise(exception) => Self::Raise(Exception { is_verbatim: false, ..exception }),
            stop => stop,
        }
    }

    /// An exception of a given class.
    pub fn raise(class: &str, message: impl Into<String>) -> Self {
        Self::Raise(Exception { class: class.to_owned(), message: message.into(), is_verbatim: true })
    }

    /// A decline.
    pub fn decline(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::Decline(Decline::new(reason, detail))
    }

    pub(crate) fn type_error(message: impl Into<String>) -> Self {
        Self::raise("TypeError", message)
    }
}

impl From<Decline> for Stop {
    fn from(decline: Decline) -> Self {
        Self::Decline(decline)
    }
}

/// A value of a type that the interpreter itself does not know.
pub trait Object: Debug + Any {
    /// Python's name of the class, for messages.
    fn class_name(&self) -> String;

    /// `this.name`: a value (possibly a bound method, which is also an object), or
    /// `AttributeError`.
    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop>;

    /// `self(arguments)`.
    fn call(&self, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        let _ = (machine, arguments);
        Err(Stop::type_error(format!("'{}' object is not callable", self.class_name())))
    }

    /// `self operator other`, or `other operator self` if `reflected`. `None` is Python's
    /// `NotImplemented`.
    fn binary(&self, operator: BinaryOperator, other: &Value, reflected: bool) -> Result<Option<Value>, Stop> {
        let _ = (operator, other, reflected);
        Ok(None)
    }

    /// `operator self`.
    fn unary(&self, operator: UnaryOperator) -> Result<Value, Stop> {
        Err(unsupported(self, operator.symbol()))
    }

    /// The items that iteration yields.
    fn iterate(&self) -> Result<Vec<Value>, Stop> {
        Err(unsupported(self, "iteration"))
    }

    /// `self[key]`.
    fn index(&self, key: &Value) -> Result<Value, Stop> {
        let _ = key;
        Err(unsupported(self, "index"))
    }

    /// `bool(self)`.
    fn truth(&self) -> Result<bool, Stop> {
        Ok(true)
    }

    /// `self.name = value`.
    fn set_attribute(&self, name: &str, value: Value) -> Result<(), Stop> {
        let _ = value;
        Err(unsupported(self, name))
    }

    /// `self == other`. The default compares identity.
    fn equals(&self, other: &Value) -> Result<bool, Stop> {
        Ok(match other {
            Value::Object(other) => std::ptr::addr_eq(Rc::as_ptr(other), self),
            _ => false,
        })
    }
}

fn unsupported<T: Object + ?Sized>(object: &T, what: &str) -> Stop {
    Stop::decline("object not supported", format!("{} of {}", what, object.class_name()))
}

/// Runs a program as CPython runs `exec(compile(textwrap.dedent(program).strip(), ..), globals)`.
///
/// `import` returns the value that `import x` binds. If it returns `None`, the name is looked up
/// among the few modules known here. The result is the final content of `globals`, including the
/// initial entries.
pub fn run(
    program: &str,
    globals: Vec<(&str, Value)>,
    import: &dyn Fn(&str) -> Option<Value>,
) -> Result<Namespace, Stop> {
    let text = scan::normalise(program)?;
    scan::scan(&text).map_err(|error| check::broken(&text, error))?;
    let program = check::parse(&text)?;
    Machine::new(&program, globals, import).run(&program.body)
}

/// Checks whether the program compiles: the steps of `run` before it executes anything.
pub fn compiles(program: &str) -> Result<(), Stop> {
    let text = scan::normalise(program)?;
    scan::scan(&text).map_err(|error| check::broken(&text, error))?;
    check::parse(&text).map(drop)
}
