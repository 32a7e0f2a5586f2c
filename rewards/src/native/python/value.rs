//! Values and the operations that every type supports: class, truth, equality.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use super::builtins::Builtin;
use super::exceptions::Raised;
use super::iteration::Iter;
use super::machine::Function;
use super::math::Module;
use super::{Dict, Object, Stop};

/// A Python value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// `int` that fits in 64 bits; larger ones are declined.
    Int(i64),
    /// `float`
    Float(f64),
    /// `str`
    Str(Rc<str>),
    /// `tuple`
    Tuple(Rc<[Value]>),
    /// `list`
    List(Rc<RefCell<Vec<Value>>>),
    /// `dict`
    Dict(Rc<RefCell<Dict>>),
    /// `dict_keys`, `dict_values`, `dict_items`
    View(Rc<View>),
    /// `range`
    Range(Rc<Range>),
    /// `slice`
    Slice(Rc<[Value; 3]>),
    /// Any iterator; iteration consumes it.
    Iterator(Rc<RefCell<Iter>>),
    /// A function created by `def` or `lambda`.
    Function(Rc<Function>),
    /// A function of `builtins` or `math`.
    Builtin(Builtin),
    /// A bound method of a value.
    Method(Rc<(Value, &'static str)>),
    /// A class of `builtins`, by name.
    Class(&'static str),
    /// An instance of an exception.
    Exception(Rc<Raised>),
    /// A module that the interpreter knows.
    Module(Module),
    /// Any other object.
    Object(Rc<dyn Object>),
}

/// `range(start, stop, step)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// First number.
    pub start: i64,
    /// End, exclusive.
    pub stop: i64,
    /// Step; not zero.
    pub step: i64,
}

impl Range {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        let (start, stop, step) = (i128::from(self.start), i128::from(self.stop), i128::from(self.step));
        let distance = if step > 0 { stop - start } else { start - stop };
        if distance <= 0 { 0 } else { ((distance - 1) / step.abs() + 1) as u64 }
    }

    /// Whether the range is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at an index below `len`.
    pub fn get(&self, index: u64) -> i64 {
        (i128::from(self.start) + i128::from(index) * i128::from(self.step)) as i64
    }
}

/// A view of a dict: `dict.keys()`, `dict.values()` or `dict.items()`.
#[derive(Debug)]
pub struct View {
    /// The dict that it shows.
    pub dict: Rc<RefCell<Dict>>,
    /// The part of the entries that it shows.
    pub part: Part,
}

/// The part of the entries that a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `keys()`
    Keys,
    /// `values()`
    Values,
    /// `items()`
    Items,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Str(text.into())
    }
}

impl Value {
    /// Creates a list without counting its elements. The interpreter itself uses `Machine::list`,
    /// which counts them.
    pub fn list(items: Vec<Value>) -> Self {
        Value::List(Rc::new(RefCell::new(items)))
    }

    /// Creates a tuple.
    pub fn tuple(items: Vec<Value>) -> Self {
        Value::Tuple(items.into())
    }

    /// Downcasts the object to `T`, if it is a `T`.
    pub fn object<T: Object>(&self) -> Option<&T> {
        match self {
            Value::Object(object) => (object.as_ref() as &dyn Any).downcast_ref::<T>(),
            _ => None,
        }
    }

    /// `type(self).__name__`
    pub fn class_name(&self) -> String {
        match self {
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Tuple(_) => "tuple",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
            Value::View(view) => match view.part {
                Part::Keys => "dict_keys",
                Part::Values => "dict_values",
                Part::Items => "dict_items",
            },
            Value::Range(_) => "range",
            Value::Slice(_) => "slice",
            Value::Iterator(iterator) => iterator.try_borrow().map_or("generator", |iterator| iterator.class_name()),
            Value::Function(_) => "function",
            Value::Builtin(_) | Value::Method(_) => "builtin_function_or_method",
            Value::Class(_) => "type",
            Value::Exception(raised) => return raised.class.to_owned(),
            Value::Module(_) => "module",
            Value::Object(object) => return object.class_name(),
        }
        .to_owned()
    }

    /// Converts a bool, an int or a float to a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Bool(value) => Some(f64::from(u8::from(*value))),
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// Converts a bool or an int to an int.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Bool(value) => Some(i64::from(*value)),
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The items of a tuple or a list.
    pub fn sequence(&self) -> Option<Vec<Value>> {
        match self {
            Value::Tuple(items) => Some(items.to_vec()),
            Value::List(items) => Some(items.borrow().clone()),
            _ => None,
        }
    }

    /// `bool(self)`
    pub fn truth(&self) -> Result<bool, Stop> {
        Ok(match self {
            Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::Tuple(items) => !items.is_empty(),
            Value::List(items) => !items.borrow().is_empty(),
            Value::Dict(dict) => !dict.borrow().is_empty(),
            Value::View(view) => !view.dict.borrow().is_empty(),
            Value::Range(range) => !range.is_empty(),
            Value::Object(object) => return object.truth(),
            Value::Slice(_)
            | Value::Iterator(_)
            | Value::Function(_)
            | Value::Builtin(_)
            | Value::Method(_)
            | Value::Class(_)
            | Value::Exception(_)
            | Value::Module(_) => true,
        })
    }

    /// Amount to scan: elements or bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Value::Str(text) => text.len(),
            Value::Tuple(items) => items.len(),
            Value::List(items) => items.borrow().len(),
            Value::Dict(dict) => dict.borrow().size(),
            Value::View(view) => view.dict.borrow().size(),
            _ => 0,
        }
    }

    /// Whether a value contains no other values, so that nothing nests in it.
    pub(super) fn is_plain(&self) -> bool {
        matches!(
            self,
            Value::None
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Float(_)
                | Value::Str(_)
                | Value::Range(_)
                | Value::Builtin(_)
                | Value::Class(_)
                | Value::Module(_)
                | Value::Exception(_)
                | Value::Object(_)
        )
    }

    /// Whether two values are identical. Declines if that is not certain, because CPython shares
    /// some equal numbers and strings.
    pub(super) fn is(&self, other: &Value) -> Result<bool, Stop> {
        Ok(match (self, other) {
            (Value::None, Value::None) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::List(a), Value::List(b)) => Rc::ptr_eq(a, b),
            (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
            (Value::Function(a), Value::Function(b)) => Rc::ptr_eq(a, b),
            (Value::Iterator(a), Value::Iterator(b)) => Rc::ptr_eq(a, b),
            (Value::Class(a), Value::Class(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => std::ptr::addr_eq(Rc::as_ptr(a), Rc::as_ptr(b)),
            (Value::Int(a), Value::Int(b)) if a != b => false,
            (Value::Str(a), Value::Str(b)) if a != b => false,
            (Value::Float(a), Value::Float(b)) if a.to_bits() != b.to_bits() => false,
            (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => {
                if matches!(a, Value::Object(_)) && !b.is_plain() || matches!(b, Value::Object(_)) && !a.is_plain() {
                    return Err(Stop::decline("identity not certain", a.class_name()));
                }
                false
            }
            (a, _) => return Err(Stop::decline("identity not certain", a.class_name())),
        })
    }
}
