//! Attributes and methods of built-in values.

use std::cell::RefCell;
use std::rc::Rc;

use super::value::{Part, View};
use super::{Arguments, Machine, Stop, Value, builtins, operators, strings};

/// The attributes of CPython 3.11 without dunder names. The methods supported here come first.
const ATTRIBUTES: [(&str, &str, &str); 9] = [
    (
        "str",
        "format join zfill upper lower capitalize isdigit isalpha strip lstrip rstrip startswith endswith count find \
         replace split",
        "casefold center encode expandtabs format_map index isalnum isascii isdecimal isidentifier islower isnumeric \
         isprintable isspace istitle isupper ljust maketrans partition removeprefix removesuffix rfind rindex rjust \
         rpartition rsplit splitlines swapcase title translate",
    ),
    ("list", "append clear copy count extend index insert pop remove reverse sort", ""),
    ("tuple", "count index", ""),
    ("dict", "clear copy get items keys pop setdefault update values", "fromkeys popitem"),
    ("int", "", "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real to_bytes"),
    ("bool", "", "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real to_bytes"),
    ("float", "is_integer", "as_integer_ratio conjugate fromhex hex imag real"),
    ("NoneType", "", ""),
    ("function", "", ""),
];

/// `value.name` for a built-in value.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Stop> {
    if let (Value::Class(class), "__name__") = (value, name) {
        return Ok((*class).into());
    }
    let class = value.class_name();
    let not_supported = || Stop::decline("method not supported", format!("{class}.{name}"));
    if name.starts_with("__") {
        return Err(not_supported());
    }
    let entry = match value {
        Value::Exception(_) => None,
        _ => ATTRIBUTES.iter().find(|(known, ..)| *known == class),
    };
    let Some((_, methods, others)) = entry else { return Err(not_supported()) };
    if let Some(method) = methods.split_whitespace().find(|method| *method == name) {
        return Ok(Value::Method(Rc::new((value.clone(), method))));
    }
    if others.split_whitespace().any(|other| other == name) {
        return Err(not_supported());
    }
    Err(Stop::raise("AttributeError", format!("'{class}' object has no attribute '{name}'")))
}

/// `receiver.name(arguments)`
pub(super) fn call(
    machine: &mut Machine,
    receiver: &Value,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value, Stop> {
    match receiver {
        Value::Str(text) => strings::call(machine, text, name, arguments),
        Value::List(items) => of_list(machine, items, name, arguments),
        Value::Dict(dict) => {
            let unsupported = || Stop::decline("method not supported", format!("dict.{name} with these arguments"));
            if !arguments.keywords.is_empty() {
                return Err(unsupported());
            }
            let view = |part| Ok(Value::View(Rc::new(View { dict: dict.clone(), part })));
            match (name, arguments.positional.as_slice()) {
                ("keys", []) => view(Part::Keys),
                ("values", []) => view(Part::Values),
                ("items", []) => view(Part::Items),
                ("clear", []) => {
                    dict.borrow_mut().clear();
                    Ok(Value::None)
                }
                ("copy", []) => {
                    let entries = dict.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                    machine.dict(entries)
                }
                ("get", [key]) => Ok(dict.borrow().get(key)?.unwrap_or(Value::None)),
                ("get", [key, default]) => Ok(dict.borrow().get(key)?.unwrap_or_else(|| default.clone())),
                ("pop", [key, rest @ ..]) if rest.len() < 2 => {
                    let old = dict.borrow_mut().remove(key)?;
                    match old.or_else(|| rest.first().cloned()) {
                        Some(value) => Ok(value),
                        None => Err(Stop::raise("KeyError", key.repr()?)),
                    }
                }
                ("setdefault", [key, default]) => {
                    if let Some(value) = dict.borrow().get(key)? {
                        return Ok(value);
                    }
                    machine.put_into(key)?;
                    machine.put_into(default)?;
                    dict.borrow_mut().insert(key.clone(), default.clone())?;
                    Ok(default.clone())
                }
                ("update", [Value::Dict(other)]) => {
                    let entries: Vec<_> = other.borrow().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                    for (key, value) in entries {
                        machine.put_into(&key)?;
                        machine.put_into(&value)?;
                        dict.borrow_mut().insert(key, value)?;
                    }
                    Ok(Value::None)
                }
                _ => Err(unsupported()),
            }
        }
        Value::Tuple(items) => of_sequence(machine, items, "tuple", name, &arguments),
        Value::Float(value) if name == "is_integer" && arguments.positional.is_empty() => {
            Ok(Value::Bool(value.is_finite() && *value == value.trunc()))
        }
        _ => Err(Stop::decline("method not supported", name)),
    }
}

fn of_sequence(
    machine: &mut Machine,
    items: &[Value],
    class: &str,
    name: &str,
    arguments: &Arguments,
) -> Result<Value, Stop> {
    let ([wanted], true) = (arguments.positional.as_slice(), arguments.keywords.is_empty()) else {
        return Err(Stop::decline("method not supported", format!("{class}.{name} with these arguments")));
    };
    let mut count = 0;
    for (i, item) in items.iter().enumerate() {
        if operators::item_equal(machine, item, wanted)? {
            count += 1;
            if name == "index" {
                return Ok(Value::Int(i as i64));
            }
        }
    }
    if name == "count" {
        return Ok(Value::Int(count));
    }
    let message = match class {
        "tuple" => "tuple.index(x): x not in tuple".to_owned(),
        _ => format!("{} is not in list", wanted.repr()?),
    };
    Err(Stop::raise("ValueError", message))
}

fn of_list(
    machine: &mut Machine,
    list: &Rc<RefCell<Vec<Value>>>,
    name: &'static str,
    arguments: Arguments,
) -> Result<Value, Stop> {
    let unsupported = || Stop::decline("method not supported", format!("list.{name} with these arguments"));
    if name == "sort" {
        if !arguments.positional.is_empty() {
            return Err(unsupported());
        }
        // While CPython sorts a list, the list is empty.
        let items = std::mem::take(&mut *list.borrow_mut());
        let sorted = builtins::sort(machine, items, &arguments.keywords)?;
        if !list.borrow().is_empty() {
            return Err(unsupported());
        }
        *list.borrow_mut() = sorted;
        return Ok(Value::None);
    }
    if !arguments.keywords.is_empty() {
        return Err(unsupported());
    }
    if name != "append" && !(name == "pop" && arguments.positional.is_empty()) {
        machine.work(list.borrow().len())?;
    }
    match (name, arguments.positional.as_slice()) {
        ("append", [item]) => {
            machine.put_into(item)?;
            list.borrow_mut().push(item.clone());
        }
        ("extend", [items]) => machine.extend(list, items)?,
        ("insert", [place, item]) => {
            let Some(place) = place.as_int() else { return Err(unsupported()) };
            machine.put_into(item)?;
            let length = list.borrow().len() as i64;
            let place = if place < 0 { place.saturating_add(length).max(0) } else { place.min(length) };
            list.borrow_mut().insert(place as usize, item.clone());
        }
        ("clear", []) => {
            let old = std::mem::take(&mut *list.borrow_mut());
            drop(old);
        }
        ("reverse", []) => list.borrow_mut().reverse(),
        ("copy", []) => {
            let items = list.borrow().clone();
            return machine.list(items);
        }
        ("pop", rest) if rest.len() < 2 => {
            let length = list.borrow().len();
            let key = rest.first().cloned().unwrap_or(Value::Int(-1));
            if key.as_int().is_none() {
                return Err(unsupported());
            }
            if length == 0 {
                return Err(Stop::raise("IndexError", "pop from empty list"));
            }
            let place = strings::place(&key, length, "pop").map_err(|stop| match stop {
                Stop::Raise(_) => Stop::raise("IndexError", "pop index out of range"),
                decline => decline,
            })?;
            return Ok(list.borrow_mut().remove(place));
        }
        ("remove", [wanted]) => {
            let items = list.borrow().clone();
            for (i, item) in items.iter().enumerate() {
                if operators::item_equal(machine, item, wanted)? {
                    let old = list.borrow_mut().remove(i);
                    drop(old);
                    return Ok(Value::None);
                }
            }
            return Err(Stop::raise("ValueError", "list.remove(x): x not in list"));
        }
        ("count" | "index", _) => {
            let items = list.borrow().clone();
            return of_sequence(machine, &items, "list", name, &arguments);
        }
        _ => return Err(unsupported()),
    }
    Ok(Value::None)
}
