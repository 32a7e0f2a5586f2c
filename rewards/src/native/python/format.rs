//! Format specifications, `str.format` and `%`.

use super::text::{digits, float, place_point};
use super::{Arguments, Machine, Stop, Value};

/// Declines a larger width or precision.
const WIDEST: usize = 1000;

fn unsupported(detail: &str) -> Stop {
    Stop::decline("format not supported", detail)
}

#[derive(Debug)]
struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self, Stop> {
        let characters: Vec<char> = text.chars().collect();
        let mut at = 0;
        let mut spec =
            Spec { fill: ' ', align: None, sign: '-', width: 0, grouping: None, precision: None, kind: None };
        let is_align = |i: usize| characters.get(i).is_some_and(|c| matches!(c, '<' | '>' | '^' | '='));
        if is_align(1) {
            (spec.fill, spec.align, at) = (characters[0], Some(characters[1]), 2);
        } else if is_align(0) {
            (spec.align, at) = (Some(characters[0]), 1);
        }
        if let Some(sign @ ('+' | '-' | ' ')) = characters.get(at) {
            (spec.sign, at) = (*sign, at + 1);
        }
        if let Some('#' | 'z') = characters.get(at) {
            return Err(unsupported("# or z"));
        }
        if characters.get(at) == Some(&'0') {
            if spec.align.is_some() {
                return Err(unsupported("0 with alignment"));
            }
            (spec.fill, spec.align, at) = ('0', Some('='), at + 1);
        }
        let number = |at: &mut usize| {
            let start = *at;
            while characters.get(*at).is_some_and(char::is_ascii_digit) {
                *at += 1;
            }
            let text: String = characters[start..*at].iter().collect();
            match text.parse::<usize>() {
                Ok(number) if number <= WIDEST => Ok(Some(number)),
                Ok(_) => Err(unsupported("width")),
                Err(_) if text.is_empty() => Ok(None),
                Err(_) => Err(unsupported("width")),
            }
        };
        spec.width = number(&mut at)?.unwrap_or(0);
        if let Some(grouping @ (',' | '_')) = characters.get(at) {
            (spec.grouping, at) = (Some(*grouping), at + 1);
        }
        if characters.get(at) == Some(&'.') {
            at += 1;
            spec.precision = number(&mut at)?;
            if spec.precision.is_none() {
                return Err(Stop::raise("ValueError", "Format specifier missing precision"));
            }
        }
        if let Some(kind) = characters.get(at) {
            (spec.kind, at) = (Some(*kind), at + 1);
        }
        if at < characters.len() {
            return Err(unsupported("specification"));
        }
        Ok(spec)
    }

    fn pad(&self, sign: &str, body: &str, default: char) -> String {
        let length = sign.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        let fill = |count: usize| self.fill.to_string().repeat(count);
        match self.align.unwrap_or(default) {
            '<' => format!("{sign}{body}{}", fill(missing)),
            '^' => format!("{}{sign}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{sign}{}{body}", fill(missing)),
            _ => format!("{}{sign}{body}", fill(missing)),
        }
    }

    fn sign_of(&self, is_negative: bool) -> &'static str {
        match (is_negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        }
    }
}

/// `format(value, spec)`
pub(super) fn value(machine: &mut Machine, value: &Value, spec: &str) -> Result<String, Stop> {
    if spec.is_empty() {
        let text = value.str()?;
        machine.allocate(text.len())?;
        return Ok(text);
    }
    machine.allocate(spec.len())?;
    let text = match value {
        Value::Str(text) => {
            let parsed = Spec::parse(spec)?;
            if parsed.kind.is_some_and(|kind| kind != 's') {
                return unknown(parsed.kind, "str");
            }
            if parsed.align == Some('=') || parsed.sign != '-' || parsed.grouping.is_some() {
                return Err(unsupported("specification of a str"));
            }
            let shown: String = text.chars().take(parsed.precision.unwrap_or(usize::MAX)).collect();
            parsed.pad("", &shown, '<')
        }
        Value::Int(_) | Value::Bool(_) => {
            let number = value.as_int().unwrap_or(0);
            let parsed = Spec::parse(spec)?;
            match parsed.kind {
                None | Some('d') => {
                    if parsed.precision.is_some() {
                        return Err(Stop::raise("ValueError", "Precision not allowed in integer format specifier"));
                    }
                    let body = grouped(&number.unsigned_abs().to_string(), &parsed)?;
                    parsed.pad(parsed.sign_of(number < 0), &body, '>')
                }
                Some('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%') => of_float(number as f64, &parsed)?,
                Some('b' | 'o' | 'x' | 'X' | 'c' | 'n') => return Err(unsupported("type of an int")),
                kind => return unknown(kind, &value.class_name()),
            }
        }
        Value::Float(number) => {
            let parsed = Spec::parse(spec)?;
            match parsed.kind {
                None | Some('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%') => of_float(*number, &parsed)?,
                Some('n') => return Err(unsupported("type of a float")),
                kind => return unknown(kind, "float"),
            }
        }
        Value::None | Value::List(_) | Value::Tuple(_) | Value::Dict(_) => {
            let class = value.class_name();
            return Err(Stop::type_error(format!("unsupported format string passed to {class}.__format__")));
        }
        _ => return Err(unsupported(&value.class_name())),
    };
    machine.allocate(text.len())?;
    Ok(text)
}

fn unknown(kind: Option<char>, class: &str) -> Result<String, Stop> {
    let kind = kind.unwrap_or(' ');
    if !kind.is_ascii_alphabetic() {
        return Err(unsupported("type"));
    }
    Err(Stop::raise("ValueError", format!("Unknown format code '{kind}' for object of type '{class}'")))
}

fn grouped(digits: &str, spec: &Spec) -> Result<String, Stop> {
    let Some(separator) = spec.grouping else { return Ok(digits.to_owned()) };
    if spec.fill == '0' && spec.align == Some('=') {
        return Err(unsupported("grouping with zeros"));
    }
    let (whole, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    let mut text = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            text.push(separator);
        }
        text.push(digit);
    }
    Ok(text + rest)
}

fn of_float(number: f64, spec: &Spec) -> Result<String, Stop> {
    if !number.is_finite() {
        return Err(unsupported("infinity or nan"));
    }
    let body = match spec.kind {
        Some('%') => {
            let percent = number.abs() * 100.0;
            if !percent.is_finite() {
                return Err(unsupported("infinity or nan"));
            }
            format!("{:.*}%", spec.precision.unwrap_or(6), percent)
        }
        Some('f' | 'F') => format!("{:.*}", spec.precision.unwrap_or(6), number.abs()),
        Some(kind @ ('e' | 'E')) => {
            let text = exponential(number, spec.precision.unwrap_or(6));
            if kind == 'E' { text.to_uppercase() } else { text }
        }
        Some(kind @ ('g' | 'G')) => {
            let text = general(number, spec.precision.unwrap_or(6).max(1), 0);
            if kind == 'G' { text.to_uppercase() } else { text }
        }
        _ => match spec.precision {
            None => float(number.abs()),
            Some(precision) => general(number, precision.max(1), 1),
        },
    };
    let body = grouped(&body, spec)?;
    Ok(spec.pad(spec.sign_of(number.is_sign_negative()), &body, '>'))
}

fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{:.*e}", precision, number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Formats as `g`. With `fraction` 1, formats as a precision without a type does: always with a
/// digit after the point.
fn general(number: f64, precision: usize, fraction: i32) -> String {
    let text = format!("{:.*e}", precision - 1, number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    place_point(digits, exponent, -4..(precision as i32 - fraction), fraction == 1)
}

/// `template.format(..)`
pub(super) fn format(machine: &mut Machine, template: &str, arguments: &Arguments) -> Result<String, Stop> {
    let value_error = |message: &str| Stop::raise("ValueError", message);
    let mut text = String::new();
    let mut rest = template;
    let mut automatic = 0;
    let mut is_manual = false;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let bracket = rest.as_bytes()[at];
        let after = &rest[at + 1..];
        if after.as_bytes().first() == Some(&bracket) {
            text.push(char::from(bracket));
            rest = &after[1..];
            continue;
        }
        if bracket == b'}' {
            return Err(value_error("Single '}' encountered in format string"));
        }
        if after.is_empty() {
            return Err(value_error("Single '{' encountered in format string"));
        }
        let Some(end) = after.find(['{', '}', '[']) else { return Err(unsupported("unclosed field")) };
        if after.as_bytes()[end] != b'}' {
            return Err(unsupported("nested field"));
        }
        let field = &after[..end];
        rest = &after[end + 1..];
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = name.split_once('!').map_or((name, None), |(name, c)| (name, Some(c)));
        if name.contains('.') || !name.is_ascii() {
            return Err(unsupported("attribute of a field"));
        }
        let by_place = |place: usize| {
            arguments.positional.get(place).cloned().ok_or_else(|| {
                let message = format!("Replacement index {place} out of range for positional args tuple");
                Stop::raise("IndexError", message)
            })
        };
        let mut value = if name.is_empty() {
            if is_manual {
                return Err(unsupported("numbering"));
            }
            automatic += 1;
            by_place(automatic - 1)?
        } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
            if automatic > 0 {
                return Err(unsupported("numbering"));
            }
            is_manual = true;
            by_place(name.parse().map_err(|_| unsupported("numbering"))?)?
        } else {
            match arguments.keywords.iter().find(|(known, _)| known == name) {
                Some((_, value)) => value.clone(),
                None => return Err(Stop::raise("KeyError", Value::from(name).repr()?)),
            }
        };
        match conversion {
            None => {}
            Some("r") => value = value.repr()?.into(),
            Some("s") => value = value.str()?.into(),
            Some(_) => return Err(unsupported("conversion")),
        }
        text.push_str(&self::value(machine, &value, spec)?);
    }
    text.push_str(rest);
    machine.allocate(text.len())?;
    Ok(text)
}

/// `template % values`
pub(super) fn percent(machine: &mut Machine, template: &str, values: &Value) -> Result<Value, Stop> {
    let values = match values {
        Value::Tuple(items) => items.to_vec(),
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => vec![values.clone()],
        _ => return Err(unsupported("% of this type")),
    };
    let mut values = values.into_iter();
    let mut text = String::new();
    let mut characters = template.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut spec =
            Spec { fill: ' ', align: None, sign: '-', width: 0, grouping: None, precision: None, kind: None };
        let (mut left, mut zero) = (false, false);
        while let Some(flag @ ('-' | '0' | '+' | ' ')) = characters.peek() {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                _ if spec.sign == '+' => {}
                sign => spec.sign = *sign,
            }
            characters.next();
        }
        let number = |characters: &mut std::iter::Peekable<std::str::Chars>| {
            let mut number = 0;
            while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
                number = number * 10 + digit as usize;
                if number > WIDEST {
                    return Err(unsupported("width"));
                }
                characters.next();
            }
            Ok(number)
        };
        spec.width = number(&mut characters)?;
        if characters.peek() == Some(&'.') {
            characters.next();
            spec.precision = Some(number(&mut characters)?);
        }
        let kind = characters.next().ok_or_else(|| unsupported("incomplete format"))?;
        if kind == '%' {
            if left || zero || spec.width > 0 || spec.precision.is_some() || spec.sign != '-' {
                return Err(unsupported("%%"));
            }
            text.push('%');
            continue;
        }
        if !matches!(kind, 's' | 'r' | 'd' | 'i' | 'f' | 'F' | 'e' | 'E' | 'g' | 'G') {
            return Err(unsupported("conversion"));
        }
        let value = values.next().ok_or_else(|| Stop::type_error("not enough arguments for format string"))?;
        let is_text = matches!(kind, 's' | 'r');
        if left {
            spec.align = Some('<');
        } else if zero && !is_text {
            (spec.fill, spec.align) = ('0', Some('='));
        }
        let formatted = match kind {
            's' | 'r' => {
                let shown = if kind == 's' { value.str()? } else { value.repr()? };
                let shown: String = shown.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
                spec.pad("", &shown, '>')
            }
            'd' | 'i' => {
                let number = match &value {
                    Value::Float(number) if number.is_finite() && number.abs() < 9e18 => number.trunc() as i64,
                    Value::Float(_) | Value::Object(_) => return Err(unsupported("%d")),
                    value => value.as_int().ok_or_else(|| {
                        let class = value.class_name();
                        Stop::type_error(format!("%{kind} format: a real number is required, not {class}"))
                    })?,
                };
                let digits = number.unsigned_abs().to_string();
                let zeros = spec.precision.unwrap_or(0).saturating_sub(digits.len());
                let body = format!("{}{digits}", "0".repeat(zeros));
                spec.pad(spec.sign_of(number < 0), &body, '>')
            }
            kind => {
                if let Value::Object(_) | Value::Str(_) = value {
                    return Err(unsupported("%f"));
                }
                let number = value
                    .as_float()
                    .ok_or_else(|| Stop::type_error(format!("must be real number, not {}", value.class_name())))?;
                spec.kind = Some(kind);
                of_float(number, &spec)?
            }
        };
        machine.allocate(formatted.len())?;
        text.push_str(&formatted);
    }
    if values.next().is_some() {
        return Err(Stop::type_error("not all arguments converted during string formatting"));
    }
    machine.allocate(text.len())?;
    Ok(text.into())
}

/// `round(number, digits)` of a float, for non-negative digits: to the nearest decimal, ties to
/// even.
pub(super) fn round(number: f64, places: usize) -> f64 {
    let (shortest, exponent) = digits(number);
    // With more digits than any float has, the number is its own rounding.
    if !number.is_finite() || places as i32 >= 324 || (shortest.len() as i32 - exponent) < places as i32 - 20 {
        return number;
    }
    format!("{number:.places$}").parse().unwrap_or(number)
}
