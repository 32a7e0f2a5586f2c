//! Indices into sequences, numbers from text, and methods of `str`.

use super::{Arguments, Machine, Stop, Value, format};

/// The place that an index denotes. Raises `IndexError` if it is out of range.
pub(super) fn place(key: &Value, length: usize, what: &str) -> Result<usize, Stop> {
    let Some(index) = key.as_int() else {
        if let Value::Object(_) = key {
            return Err(Stop::decline("operator not supported", "index"));
        }
        let what = what.split(' ').next().unwrap_or(what);
        let class = key.class_name();
        return Err(Stop::type_error(match what {
            "string" => format!("string indices must be integers, not '{class}'"),
            _ => format!("{what} indices must be integers or slices, not {class}"),
        }));
    };
    let place = if index < 0 { index.checked_add(length as i64) } else { Some(index) };
    place
        .and_then(|place| usize::try_from(place).ok())
        .filter(|place| *place < length)
        .ok_or_else(|| Stop::raise("IndexError", format!("{what} index out of range")))
}

/// Whether `str.strip` removes this character.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

fn digits_without_underscores(text: &str) -> Option<String> {
    let text = text.trim_matches(is_space);
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    let around = |i: usize| {
        let bytes = text.as_bytes();
        bytes[i - 1].is_ascii_digit() && bytes[i + 1].is_ascii_digit()
    };
    text.match_indices('_').all(|(i, _)| around(i)).then(|| text.replace('_', ""))
}

/// `int(text)`
pub(super) fn int(text: &str) -> Result<Value, Stop> {
    if !text.is_ascii() {
        return Err(Stop::decline("text not certain", "int beyond ASCII"));
    }
    let digits = digits_without_underscores(text).filter(|text| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    match digits {
        Some(digits) => digits.parse().map(Value::Int).map_err(|_| Stop::decline("integer too large", "int(str)")),
        None => {
            let shown = Value::from(text).repr()?;
            Err(Stop::raise("ValueError", format!("invalid literal for int() with base 10: {shown}")))
        }
    }
}

/// `float(text)`
pub(super) fn float(text: &str) -> Result<Value, Stop> {
    if !text.is_ascii() {
        return Err(Stop::decline("text not certain", "float beyond ASCII"));
    }
    // Rust and Python accept the same: digits with a point and an exponent, `inf`, `infinity`,
    // `nan` in any case.
    let number = digits_without_underscores(text).and_then(|text| text.parse().ok());
    match number {
        Some(number) => Ok(Value::Float(number)),
        None => {
            let shown = Value::from(text).repr()?;
            Err(Stop::raise("ValueError", format!("could not convert string to float: {shown}")))
        }
    }
}

/// `text.name(arguments)`
pub(super) fn call(machine: &mut Machine, text: &str, name: &str, arguments: Arguments) -> Result<Value, Stop> {
    machine.allocate(text.len())?;
    if name == "format" {
        return format::format(machine, text, &arguments).map(Value::from);
    }
    let unsupported = || Stop::decline("method not supported", format!("str.{name} with these arguments"));
    if !arguments.keywords.is_empty() {
        return Err(unsupported());
    }
    let strings: Option<Vec<&str>> = arguments
        .positional
        .iter()
        .map(|argument| match argument {
            Value::Str(text) => Some(&**text),
            _ => None,
        })
        .collect();
    if name == "join" {
        let [items] = arguments.positional.as_slice() else { return Err(unsupported()) };
        let items = machine.collect(items)?;
        let mut joined = String::new();
        for (i, item) in items.iter().enumerate() {
            let Value::Str(item) = item else {
                let class = item.class_name();
                return Err(Stop::type_error(format!("sequence item {i}: expected str instance, {class} found")));
            };
            machine.allocate(item.len() + text.len())?;
            joined.push_str(if i > 0 { text } else { "" });
            joined.push_str(item);
        }
        return Ok(joined.into());
    }
    if let ("zfill", [Value::Int(width)]) = (name, arguments.positional.as_slice())
        && text.is_ascii()
    {
        let missing = usize::try_from(*width).unwrap_or(0).saturating_sub(text.len());
        machine.allocate(missing)?;
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
        return Ok(format!("{sign}{}{digits}", "0".repeat(missing)).into());
    }
    let strings = strings.ok_or_else(unsupported)?;
    let is_ascii = text.is_ascii();
    Ok(match (name, strings.as_slice()) {
        ("upper", []) if is_ascii => text.to_ascii_uppercase().into(),
        ("lower", []) if is_ascii => text.to_ascii_lowercase().into(),
        ("capitalize", []) if is_ascii => {
            let (first, rest) = text.split_at(text.len().min(1));
            (first.to_ascii_uppercase() + &rest.to_ascii_lowercase()).into()
        }
        ("isdigit", []) if is_ascii => Value::Bool(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())),
        ("isalpha", []) if is_ascii => Value::Bool(!text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic())),
        ("strip", []) => text.trim_matches(is_space).into(),
        ("lstrip", []) => text.trim_start_matches(is_space).into(),
        ("rstrip", []) => text.trim_end_matches(is_space).into(),
        ("strip", [set]) => text.trim_matches(|c| set.contains(c)).into(),
        ("lstrip", [set]) => text.trim_start_matches(|c| set.contains(c)).into(),
        ("rstrip", [set]) => text.trim_end_matches(|c| set.contains(c)).into(),
        ("startswith", [part]) => Value::Bool(text.starts_with(part)),
        ("endswith", [part]) => Value::Bool(text.ends_with(part)),
        ("count", [part]) if !part.is_empty() => Value::Int(text.matches(part).count() as i64),
        ("find", [part]) if is_ascii => Value::Int(text.find(part).map_or(-1, |at| at as i64)),
        ("replace", [old, new]) if !old.is_empty() => {
            machine.allocate(text.matches(old).count().saturating_mul(new.len()))?;
            text.replace(old, new).into()
        }
        ("split", []) => {
            let parts = text.split(is_space).filter(|part| !part.is_empty()).map(Value::from).collect();
            machine.list(parts)?
        }
        ("split", [separator]) if !separator.is_empty() => {
            machine.list(text.split(separator).map(Value::from).collect())?
        }
        _ => return Err(unsupported()),
    })
}
