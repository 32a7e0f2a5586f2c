//! `repr` and `str`.

use super::value::Part;
use super::{Stop, Value, limits};

/// Maximum bytes of one representation.
const LONGEST: usize = 100_000;

impl Value {
    /// `repr(self)`
    pub fn repr(&self) -> Result<String, Stop> {
        let mut text = String::new();
        write(self, &mut text, 0)?;
        Ok(text)
    }

    /// `str(self)`
    pub fn str(&self) -> Result<String, Stop> {
        match self {
            Value::Str(text) => Ok(text.to_string()),
            Value::Exception(raised) if raised.is_verbatim => Ok(raised.message.clone()),
            Value::Exception(raised) => Err(Stop::decline("text of a library's exception", raised.class.clone())),
            _ => self.repr(),
        }
    }
}

fn write(value: &Value, text: &mut String, depth: usize) -> Result<(), Stop> {
    if depth > limits::NESTING {
        return Err(limits::too_deep("repr"));
    }
    if text.len() > LONGEST {
        return Err(limits::too_long("repr"));
    }
    match value {
        Value::None => text.push_str("None"),
        Value::Bool(value) => text.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => text.push_str(&value.to_string()),
        Value::Float(value) => text.push_str(&float(*value)),
        Value::Str(value) => quote(value, text)?,
        Value::Tuple(items) => {
            list(items, '(', ')', text, depth)?;
            if items.len() == 1 {
                text.insert(text.len() - 1, ',');
            }
        }
        Value::List(items) => list(&items.borrow(), '[', ']', text, depth)?,
        Value::Dict(dict) => {
            text.push('{');
            for (i, (key, value)) in dict.borrow().iter().enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                write(key, text, depth + 1)?;
                text.push_str(": ");
                write(value, text, depth + 1)?;
            }
            text.push('}');
        }
        Value::View(view) => {
            let dict = view.dict.borrow();
            let items: Vec<Value> = dict
                .iter()
                .map(|(key, value)| match view.part {
                    Part::Keys => key.clone(),
                    Part::Values => value.clone(),
                    Part::Items => Value::tuple(vec![key.clone(), value.clone()]),
                })
                .collect();
            text.push_str(&value.class_name());
            text.push('(');
            list(&items, '[', ']', text, depth + 1)?;
            text.push(')');
        }
        Value::Range(range) => {
            text.push_str(&format!("range({}, {}", range.start, range.stop));
            if range.step != 1 {
                text.push_str(&format!(", {}", range.step));
            }
            text.push(')');
        }
        Value::Class(name) => text.push_str(&format!("<class '{name}'>")),
        Value::Slice(_)
        | Value::Iterator(_)
        | Value::Function(_)
        | Value::Builtin(_)
        | Value::Method(_)
        | Value::Exception(_)
        | Value::Module(_)
        | Value::Object(_) => return Err(Stop::decline("text not certain", value.class_name())),
    }
    Ok(())
}

fn list(items: &[Value], open: char, close: char, text: &mut String, depth: usize) -> Result<(), Stop> {
    text.push(open);
    for (i, item) in items.iter().enumerate() {
        text.push_str(if i > 0 { ", " } else { "" });
        write(item, text, depth + 1)?;
    }
    text.push(close);
    Ok(())
}

fn quote(value: &str, text: &mut String) -> Result<(), Stop> {
    let quote = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            _ if character == quote => {
                text.push('\\');
                text.push(quote);
            }
            '\0'..='\x1f' | '\x7f' => text.push_str(&format!("\\x{:02x}", character as u32)),
            ' '..='~' => text.push(character),
            // The version of Unicode determines which characters are printable.
            '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}' | '\u{391}'..='\u{3a1}' | '\u{3b1}'..='\u{3c9}' => {
                text.push(character);
            }
            _ => return Err(Stop::decline("text not certain", "repr beyond Latin")),
        }
    }
    text.push(quote);
    Ok(())
}

/// The shortest digits that reproduce the float, and its decimal exponent: `d.ddd * 10^exponent`.
pub(super) fn digits(value: f64) -> (String, i32) {
    let value = value.abs();
    let mut text = format!("{value:e}");
    // If two shortest candidates are equally near, Python takes the even one.
    let places = text.find('e').unwrap_or(1).saturating_sub(2);
    let nearest = format!("{value:.places$e}");
    if nearest != text && nearest.parse() == Ok(value) {
        text = nearest;
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

/// `repr` of a float.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}inf");
    }
    let (digits, exponent) = digits(value);
    format!("{sign}{}", place_point(&digits, exponent, -4..16, true))
}

/// Digits with their point: positional if the exponent is in the range, otherwise with an exponent.
pub(super) fn place_point(digits: &str, exponent: i32, full: std::ops::Range<i32>, with_fraction: bool) -> String {
    if !full.contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{first}{point}{rest}e{sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        let zeros = "0".repeat(whole - digits.len());
        return format!("{digits}{zeros}{}", if with_fraction { ".0" } else { "" });
    }
    format!("{}.{}", &digits[..whole], &digits[whole..])
}
