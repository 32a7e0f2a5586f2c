//! The functions and classes of `builtins`.

use std::rc::Rc;

use ruff_python_ast::CmpOp;

use super::iteration::Iter;
use super::value::Range;
use super::{Arguments, BinaryOperator, Machine, Stop, Value, exceptions, format, math, operators, strings};

/// A function implemented in Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    pub(super) module: &'static str,
    pub(super) name: &'static str,
}

const CLASSES: [&str; 12] =
    ["int", "float", "str", "bool", "list", "tuple", "dict", "range", "enumerate", "zip", "map", "filter"];

const FUNCTIONS: &str = "abs all any divmod exit getattr hasattr isinstance len max min next pow print quit repr reversed \
                         round sorted sum type callable iter format chr ord";

/// The other builtins of CPython 3.11, including those that `site` adds.
const OTHERS: &str = "Ellipsis NotImplemented aiter anext ascii bin breakpoint bytearray bytes classmethod compile \
                      complex copyright credits delattr dir eval exec frozenset globals hash help hex id input \
                      issubclass license locals memoryview object oct open property set setattr slice staticmethod \
                      super vars UnicodeDecodeError UnicodeEncodeError UnicodeTranslateError BaseExceptionGroup \
                      ExceptionGroup BrokenPipeError ChildProcessError ConnectionAbortedError ConnectionRefusedError \
                      ConnectionResetError ProcessLookupError BytesWarning EncodingWarning ImportWarning \
                      PendingDeprecationWarning ResourceWarning UnicodeWarning";

/// Looks up a name that has no other binding.
pub(super) fn lookup(name: &str) -> Result<Value, Stop> {
    if let Some(class) = CLASSES.iter().find(|class| **class == name) {
        return Ok(Value::Class(class));
    }
    if let Some(name) = FUNCTIONS.split_whitespace().find(|function| *function == name) {
        return Ok(Value::Builtin(Builtin { module: "builtins", name }));
    }
    if let Some(class) = exceptions::class(name) {
        return Ok(Value::Class(class));
    }
    // `exec` gets no `__name__`, so a program sees that of `builtins`.
    if name == "__name__" {
        return Ok("builtins".into());
    }
    if name.starts_with("__") || OTHERS.split_whitespace().any(|other| other == name) {
        return Err(Stop::decline("builtin not supported", name));
    }
    Err(Stop::raise("NameError", format!("name '{name}' is not defined")))
}

fn unsupported(name: &str) -> Stop {
    Stop::decline("builtin not supported", format!("{name} with these arguments"))
}

fn take(keywords: &mut Vec<(String, Value)>, name: &str) -> Option<Value> {
    let place = keywords.iter().position(|(known, _)| known == name)?;
    Some(keywords.remove(place).1)
}

/// `builtin(arguments)`
pub(super) fn call(machine: &mut Machine, builtin: Builtin, arguments: Arguments) -> Result<Value, Stop> {
    let name = builtin.name;
    if builtin.module == "math" {
        return math::call(machine, name, &arguments);
    }
    let mut keywords = arguments.keywords;
    let values = arguments.positional.as_slice();
    match (name, values) {
        ("print", _) => {
            for (name, value) in &keywords {
                if !matches!(
                    (name.as_str(), value),
                    ("sep" | "end", Value::Str(_) | Value::None) | ("flush", Value::Bool(_))
                ) {
                    return Err(unsupported(name));
                }
            }
            return Ok(Value::None);
        }
        ("min" | "max", _) => return extreme(machine, name, values, keywords),
        ("sorted", [items]) => {
            let items = machine.collect(items)?;
            let sorted = sort(machine, items, &keywords)?;
            return machine.list(sorted);
        }
        ("sum", [items]) if keywords.len() == 1 => {
            let start = take(&mut keywords, "start").ok_or_else(|| unsupported(name))?;
            return sum(machine, items, start);
        }
        ("round", [_]) if keywords.len() == 1 => {
            let places = take(&mut keywords, "ndigits").ok_or_else(|| unsupported(name))?;
            return round(&values[0], Some(&places));
        }
        _ if !keywords.is_empty() => return Err(unsupported(name)),
        _ => {}
    }
    match (name, values) {
        ("exit" | "quit", []) => Err(Stop::raise("SystemExit", if builtin.module == "sys" { "" } else { "None" })),
        ("exit" | "quit", [code]) => Err(Stop::raise("SystemExit", code.str()?)),
        ("sum", [items]) => sum(machine, items, Value::Int(0)),
        ("sum", [items, start]) => sum(machine, items, start.clone()),
        ("abs", [value]) => match value {
            Value::Float(value) => Ok(Value::Float(value.abs())),
            Value::Int(_) | Value::Bool(_) => {
                let value = value.as_int().unwrap_or(0).checked_abs();
                value.map(Value::Int).ok_or_else(|| Stop::decline("integer too large", "abs"))
            }
            Value::Object(_) => Err(unsupported(name)),
            _ => Err(Stop::type_error(format!("bad operand type for abs(): '{}'", value.class_name()))),
        },
        ("all" | "any", [items]) => {
            let mut iterator = machine.iterate(items)?;
            while let Some(item) = iterator.next(machine)? {
                if item.truth()? == (name == "any") {
                    return Ok(Value::Bool(name == "any"));
                }
            }
            Ok(Value::Bool(name == "all"))
        }
        ("divmod", [a, b]) => {
            match (a, b) {
                (Value::Float(_), _) | (_, Value::Float(_)) => {
                    let (Some(x), Some(y)) = (a.as_float(), b.as_float()) else { return Err(unsupported(name)) };
                    if y == 0.0 {
                        return Err(Stop::raise("ZeroDivisionError", "float divmod()"));
                    }
                    let (quotient, modulo) = operators::divmod(x, y);
                    return machine.tuple(vec![Value::Float(quotient), Value::Float(modulo)]);
                }
                _ if a.as_int().is_none() || b.as_int().is_none() => return Err(unsupported(name)),
                _ => {}
            }
            let quotient = operators::binary(machine, BinaryOperator::FloorDivide, a, b, false)?;
            let modulo = operators::binary(machine, BinaryOperator::Modulo, a, b, false)?;
            machine.tuple(vec![quotient, modulo])
        }
        ("pow", [a, b]) => operators::binary(machine, BinaryOperator::Power, a, b, false),
        ("round", [value]) => round(value, None),
        ("round", [value, places]) => round(value, Some(places)),
        ("len", [value]) => {
            if let Value::Str(text) = value {
                machine.work(text.len())?;
            }
            length(value)
        }
        ("repr", [value]) => {
            let text = value.repr()?;
            machine.allocate(text.len())?;
            Ok(text.into())
        }
        ("format", [value]) => format::value(machine, value, "").map(Value::from),
        ("format", [value, Value::Str(spec)]) => format::value(machine, value, spec).map(Value::from),
        ("chr", [Value::Int(code @ 0..=0x7f)]) => Ok(char::from(*code as u8).to_string().into()),
        ("ord", [Value::Str(text)]) if text.chars().count() == 1 => {
            Ok(Value::Int(text.chars().next().map_or(0, |character| i64::from(u32::from(character)))))
        }
        ("reversed", [value]) => match value {
            Value::List(items) => {
                let length = items.borrow().len();
                machine.iterator(Iter::Reversed(items.clone(), length), values)
            }
            Value::Tuple(_) | Value::Range(_) | Value::Str(_) => {
                let mut items = machine.collect(value)?;
                items.reverse();
                machine.iterator(Iter::Items(items.into_iter()), values)
            }
            _ => Err(unsupported(name)),
        },
        ("iter", [value]) => {
            if let Value::Iterator(_) = value {
                return Ok(value.clone());
            }
            let iterator = machine.iterate(value)?;
            machine.iterator(iterator, values)
        }
        ("next", [Value::Iterator(_), ..]) => {
            let item = machine.iterate(&values[0])?.next(machine)?;
            match (item, values.get(1)) {
                (Some(item), _) => Ok(item),
                (None, Some(default)) => Ok(default.clone()),
                // Within a generator, CPython turns this into a different exception.
                (None, None) => Err(unsupported(name)),
            }
        }
        ("type", [value]) => match value {
            Value::Object(_) | Value::Exception(_) | Value::Module(_) => Err(unsupported(name)),
            _ => CLASSES
                .iter()
                .find(|class| **class == value.class_name())
                .map(|class| Value::Class(class))
                .ok_or_else(|| unsupported(name)),
        },
        ("callable", [value]) => match value {
            Value::Object(_) => Err(unsupported(name)),
            _ => Ok(Value::Bool(matches!(
                value,
                Value::Function(_) | Value::Builtin(_) | Value::Method(_) | Value::Class(_)
            ))),
        },
        ("isinstance", [value, class]) => is_instance(value, class).map(Value::Bool),
        ("hasattr", [value, Value::Str(attribute)]) => match machine.attribute(value, attribute) {
            Ok(_) => Ok(Value::Bool(true)),
            Err(Stop::Raise(exception)) if exception.class == "AttributeError" => Ok(Value::Bool(false)),
            Err(stop) => Err(stop),
        },
        ("getattr", [value, Value::Str(attribute)]) => machine.attribute(value, attribute),
        ("getattr", [value, Value::Str(attribute), default]) => match machine.attribute(value, attribute) {
            Err(Stop::Raise(exception)) if exception.class == "AttributeError" => Ok(default.clone()),
            result => result,
        },
        _ => Err(unsupported(name)),
    }
}

/// `class(arguments)` for a class that is not an exception.
pub(super) fn construct(machine: &mut Machine, class: &'static str, arguments: Arguments) -> Result<Value, Stop> {
    let mut keywords = arguments.keywords;
    let values = arguments.positional.as_slice();
    match (class, values) {
        ("dict", []) => {
            let entries = keywords.into_iter().map(|(name, value)| (name.into(), value)).collect();
            return machine.dict(entries);
        }
        ("enumerate", [items]) if keywords.len() == 1 => {
            let start = take(&mut keywords, "start").and_then(|start| start.as_int());
            let start = start.ok_or_else(|| unsupported(class))?;
            let iterator = machine.iterate(items)?;
            return machine.iterator(Iter::Enumerate(Box::new(iterator), start), values);
        }
        _ if !keywords.is_empty() => return Err(unsupported(class)),
        _ => {}
    }
    match (class, values) {
        ("int", []) => Ok(Value::Int(0)),
        ("float", []) => Ok(Value::Float(0.0)),
        ("str", []) => Ok("".into()),
        ("bool", []) => Ok(Value::Bool(false)),
        ("list", []) => machine.list(Vec::new()),
        ("tuple", []) => machine.tuple(Vec::new()),
        ("bool", [value]) => value.truth().map(Value::Bool),
        ("int", [value]) => match value {
            Value::Float(value) => math::to_int(value.trunc()),
            Value::Str(text) => strings::int(text),
            Value::Int(_) | Value::Bool(_) => Ok(Value::Int(value.as_int().unwrap_or(0))),
            Value::Object(_) => Err(unsupported(class)),
            _ => Err(Stop::type_error(format!(
                "int() argument must be a string, a bytes-like object or a real number, not '{}'",
                value.class_name()
            ))),
        },
        ("float", [value]) => match value {
            Value::Str(text) => strings::float(text),
            Value::Object(_) => Err(unsupported(class)),
            _ => value.as_float().map(Value::Float).ok_or_else(|| {
                let class = value.class_name();
                Stop::type_error(format!("float() argument must be a string or a real number, not '{class}'"))
            }),
        },
        ("str", [value]) => {
            let text = value.str()?;
            machine.allocate(text.len())?;
            Ok(text.into())
        }
        ("list", [items]) => {
            let items = machine.collect(items)?;
            machine.list(items)
        }
        ("tuple", [Value::Tuple(_)]) => Ok(values[0].clone()),
        ("tuple", [items]) => {
            let items = machine.collect(items)?;
            machine.tuple(items)
        }
        ("dict", [Value::Dict(dict)]) => {
            let entries = dict.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            machine.dict(entries)
        }
        ("dict", [Value::Iterator(_) | Value::List(_)]) => {
            let mut entries = Vec::new();
            for item in machine.collect(&values[0])? {
                match item.sequence().as_deref() {
                    Some([key, value]) => entries.push((key.clone(), value.clone())),
                    _ => return Err(unsupported(class)),
                }
            }
            machine.dict(entries)
        }
        ("range", [_] | [_, _] | [_, _, _]) => {
            let mut numbers = Vec::new();
            for value in values {
                match value {
                    Value::Object(_) => return Err(unsupported(class)),
                    _ => numbers.push(value.as_int().ok_or_else(|| {
                        let class = value.class_name();
                        Stop::type_error(format!("'{class}' object cannot be interpreted as an integer"))
                    })?),
                }
            }
            let (start, stop, step) = match numbers.as_slice() {
                [stop] => (0, *stop, 1),
                [start, stop] => (*start, *stop, 1),
                _ => (numbers[0], numbers[1], numbers[2]),
            };
            if step == 0 {
                return Err(Stop::raise("ValueError", "range() arg 3 must not be zero"));
            }
            Ok(Value::Range(Rc::new(Range { start, stop, step })))
        }
        ("enumerate", [items] | [items, Value::Int(_)]) => {
            let start = values.get(1).and_then(Value::as_int).unwrap_or(0);
            let iterator = machine.iterate(items)?;
            machine.iterator(Iter::Enumerate(Box::new(iterator), start), values)
        }
        ("zip", _) => {
            let iterators = iterators(machine, values)?;
            machine.iterator(Iter::Zip(iterators), values)
        }
        ("map", [function, items @ ..]) if !items.is_empty() => {
            let iterators = iterators(machine, items)?;
            machine.iterator(Iter::Map(function.clone(), iterators), values)
        }
        ("filter", [function, items]) => {
            let iterator = machine.iterate(items)?;
            machine.iterator(Iter::Filter(function.clone(), Box::new(iterator)), values)
        }
        _ => Err(unsupported(class)),
    }
}

fn iterators(machine: &mut Machine, values: &[Value]) -> Result<Vec<Iter>, Stop> {
    machine.allocate(values.len())?;
    values.iter().map(|value| machine.iterate(value)).collect()
}

fn length(value: &Value) -> Result<Value, Stop> {
    let length = match value {
        Value::Str(text) => text.chars().count(),
        Value::List(items) => items.borrow().len(),
        Value::Tuple(items) => items.len(),
        Value::Dict(dict) => dict.borrow().len(),
        Value::View(view) => view.dict.borrow().len(),
        Value::Range(range) => {
            return i64::try_from(range.len()).map(Value::Int).map_err(|_| unsupported("len"));
        }
        Value::Object(_) | Value::Iterator(_) => return Err(unsupported("len")),
        _ => return Err(Stop::type_error(format!("object of type '{}' has no len()", value.class_name()))),
    };
    Ok(Value::Int(length as i64))
}

fn is_instance(value: &Value, class: &Value) -> Result<bool, Stop> {
    match class {
        Value::Tuple(classes) => {
            for class in classes.iter() {
                if is_instance(value, class)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Class(class) => match value {
            Value::Bool(_) => Ok(matches!(*class, "bool" | "int")),
            Value::Exception(raised) if exceptions::class(class).is_some() => {
                exceptions::is_subclass(&raised.class, class).ok_or_else(|| unsupported("isinstance"))
            }
            Value::Object(_) | Value::Exception(_) => Err(unsupported("isinstance")),
            _ => Ok(value.class_name() == *class),
        },
        _ => Err(unsupported("isinstance")),
    }
}

fn sum(machine: &mut Machine, items: &Value, start: Value) -> Result<Value, Stop> {
    if let Value::Str(_) = start {
        return Err(Stop::type_error("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    let mut total = start;
    let mut iterator = machine.iterate(items)?;
    while let Some(item) = iterator.next(machine)? {
        total = operators::binary(machine, BinaryOperator::Add, &total, &item, false)?;
    }
    Ok(total)
}

/// `round(value, places)`
fn round(value: &Value, places: Option<&Value>) -> Result<Value, Stop> {
    let places = match places {
        None | Some(Value::None) => None,
        Some(places) => match places.as_int() {
            Some(places) => Some(places),
            None if matches!(value, Value::Float(_) | Value::Int(_)) && !matches!(places, Value::Object(_)) => {
                let class = places.class_name();
                return Err(Stop::type_error(format!("'{class}' object cannot be interpreted as an integer")));
            }
            None => return Err(unsupported("round")),
        },
    };
    match (value, places) {
        (Value::Float(value), None) => {
            let rounded = value.round();
            let to_even = if (value - rounded).abs() == 0.5 { 2.0 * (value / 2.0).round() } else { rounded };
            math::to_int(to_even)
        }
        (Value::Float(value), Some(places @ 0..=400)) => Ok(Value::Float(format::round(*value, places as usize))),
        (Value::Int(_) | Value::Bool(_), None | Some(0..)) => Ok(Value::Int(value.as_int().unwrap_or(0))),
        (Value::Str(_) | Value::None | Value::List(_) | Value::Tuple(_) | Value::Dict(_), _) => {
            let class = value.class_name();
            Err(Stop::type_error(format!("type {class} doesn't define __round__ method")))
        }
        _ => Err(unsupported("round")),
    }
}

fn extreme(
    machine: &mut Machine,
    name: &str,
    values: &[Value],
    mut keywords: Vec<(String, Value)>,
) -> Result<Value, Stop> {
    let key = take(&mut keywords, "key").filter(|key| !matches!(key, Value::None));
    let default = take(&mut keywords, "default");
    if !keywords.is_empty() || default.is_some() && values.len() != 1 {
        return Err(unsupported(name));
    }
    let mut iterator = match values {
        [] => return Err(Stop::type_error(format!("{name} expected at least 1 argument, got 0"))),
        [items] => machine.iterate(items)?,
        values => Iter::Items(Vec::from(values).into_iter()),
    };
    let mut best: Option<(Value, Value)> = None;
    while let Some(item) = iterator.next(machine)? {
        let rank = match &key {
            Some(key) => machine.call(key, vec![item.clone()].into())?,
            None => item.clone(),
        };
        let is_better = match &best {
            None => true,
            Some((_, best)) => {
                let operator = if name == "max" { CmpOp::Gt } else { CmpOp::Lt };
                operators::ordered(machine, operator, &rank, best)?
            }
        };
        if is_better {
            best = Some((item, rank));
        }
    }
    match (best, default) {
        (Some((item, _)), _) => Ok(item),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(Stop::raise("ValueError", format!("{name}() arg is an empty sequence"))),
    }
}

/// Stable sort, as `sorted(items, **keywords)`.
pub(super) fn sort(machine: &mut Machine, items: Vec<Value>, keywords: &[(String, Value)]) -> Result<Vec<Value>, Stop> {
    let (mut key, mut reverse) = (None, false);
    for (name, value) in keywords {
        match name.as_str() {
            "key" => key = Some(value).filter(|value| !matches!(value, Value::None)),
            "reverse" => reverse = value.as_int().ok_or_else(|| unsupported("sorted"))? != 0,
            _ => return Err(unsupported("sorted")),
        }
    }
    let mut ranked = Vec::with_capacity(items.len());
    for item in items {
        machine.allocate(1)?;
        let rank = match key {
            Some(key) => machine.call(key, vec![item.clone()].into())?,
            None => item.clone(),
        };
        certain_order(machine, &rank, 0)?;
        ranked.push((rank, item));
    }
    // Equal items keep their order, because the list is reversed twice.
    if reverse {
        ranked.reverse();
    }
    let mut ranked = merge_sort(machine, ranked)?;
    if reverse {
        ranked.reverse();
    }
    Ok(ranked.into_iter().map(|(_, item)| item).collect())
}

/// Declines if some items are unordered, because the result then depends on the order of
/// comparisons.
fn certain_order(machine: &mut Machine, rank: &Value, depth: usize) -> Result<(), Stop> {
    machine.step()?;
    match rank {
        Value::Float(value) if value.is_nan() => Err(Stop::decline("order not certain", "nan")),
        Value::Tuple(items) if depth < 4 => items.iter().try_for_each(|item| certain_order(machine, item, depth + 1)),
        Value::List(items) if depth < 4 => {
            items.borrow().iter().try_for_each(|item| certain_order(machine, item, depth + 1))
        }
        Value::Tuple(_) | Value::List(_) | Value::Object(_) => Err(Stop::decline("order not certain", "")),
        _ => Ok(()),
    }
}

fn merge_sort(machine: &mut Machine, mut items: Vec<(Value, Value)>) -> Result<Vec<(Value, Value)>, Stop> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = items.split_off(items.len() / 2);
    let mut left = merge_sort(machine, items)?.into_iter().peekable();
    let mut right = merge_sort(machine, right)?.into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let goes_first = operators::ordered(machine, CmpOp::Lt, &b.0, &a.0).map_err(|stop| match stop {
            // CPython's algorithm determines which two items are compared first, and so the
            // message.
            Stop::Raise(_) => Stop::decline("order not certain", "of different types"),
            decline => decline,
        })?;
        merged.extend(if goes_first { right.next() } else { left.next() });
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}
