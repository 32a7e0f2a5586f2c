//! The module `math`, and the exact part of `numpy`: its constants.
//!
//! CPython calls the C library for `sin`, `exp`, ..., and so does Rust's standard library. On Linux
//! with glibc both call the same functions. Functions that CPython computes itself are
//! reimplemented here or declined.

use std::f64::consts;

use super::builtins::Builtin;
use super::{Arguments, BinaryOperator, Machine, Stop, Value, operators};

/// A module that the interpreter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// `math`
    Math,
    /// `numpy`
    Numpy,
    /// `sys`
    Sys,
}

/// The module `math`.
pub fn math() -> Value {
    Value::Module(Module::Math)
}

/// The module `numpy`, of which only a few constants are known.
pub fn numpy() -> Value {
    Value::Module(Module::Numpy)
}

pub(super) fn module(name: &str) -> Option<Value> {
    Some(Value::Module(match name {
        "math" => Module::Math,
        "numpy" => Module::Numpy,
        "sys" => Module::Sys,
        _ => return None,
    }))
}

/// All names of `math`; the functions supported here come first.
const FUNCTIONS: &str = "acos asin atan atan2 ceil copysign cos cosh degrees exp fabs factorial floor fmod gcd isclose \
                         isfinite isinf isnan log log10 log2 pow radians sin sinh sqrt tan tanh trunc hypot dist";
const OTHERS: &str = "acosh asinh atanh cbrt comb erf erfc exp2 expm1 frexp fsum gamma isqrt lcm ldexp lgamma \
                      log1p modf nextafter perm prod remainder ulp";

impl Module {
    pub(super) fn attribute(self, name: &str) -> Result<Value, Stop> {
        let constant = match name {
            "pi" => Some(consts::PI),
            "e" => Some(consts::E),
            "inf" => Some(f64::INFINITY),
            "nan" => Some(f64::NAN),
            "tau" if self == Module::Math => Some(consts::TAU),
            _ => None,
        };
        if let Some(value) = constant.filter(|_| self != Module::Sys) {
            return Ok(Value::Float(value));
        }
        match self {
            Module::Math => {
                if let Some(name) = FUNCTIONS.split_whitespace().find(|function| *function == name) {
                    return Ok(Value::Builtin(Builtin { module: self.name(), name }));
                }
                if name.starts_with("__") || OTHERS.split_whitespace().any(|other| other == name) {
                    return Err(Stop::decline("builtin not supported", format!("math.{name}")));
                }
                Err(Stop::raise("AttributeError", format!("module 'math' has no attribute '{name}'")))
            }
            Module::Sys if name == "exit" => Ok(Value::Builtin(Builtin { module: "sys", name: "exit" })),
            _ => Err(Stop::decline("builtin not supported", format!("{}.{name}", self.name()))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Module::Math => "math",
            Module::Numpy => "numpy",
            Module::Sys => "sys",
        }
    }
}

fn domain() -> Stop {
    Stop::raise("ValueError", "math domain error")
}

fn range() -> Stop {
    Stop::raise("OverflowError", "math range error")
}

fn unsupported(name: &str) -> Stop {
    Stop::decline("builtin not supported", format!("math.{name} with these arguments"))
}

/// Converts a float to an int, or raises the exception of `int`, `floor`, `round`, ...
pub(super) fn to_int(value: f64) -> Result<Value, Stop> {
    if value.is_nan() {
        return Err(Stop::raise("ValueError", "cannot convert float NaN to integer"));
    }
    if value.is_infinite() {
        return Err(Stop::raise("OverflowError", "cannot convert float infinity to integer"));
    }
    if value.abs() < 9.2e18 {
        Ok(Value::Int(value as i64))
    } else {
        Err(Stop::decline("integer too large", "of float"))
    }
}

/// `math.name(arguments)`
pub(super) fn call(machine: &mut Machine, name: &str, arguments: &Arguments) -> Result<Value, Stop> {
    if !arguments.keywords.is_empty() && name != "isclose" {
        return Err(unsupported(name));
    }
    let values = arguments.positional.as_slice();
    if let ("gcd" | "factorial" | "floor" | "ceil" | "trunc", [Value::Int(_) | Value::Bool(_), ..]) = (name, values) {
        return of_ints(name, values);
    }
    if let ("log", [x, base @ ..]) = (name, values)
        && !base.is_empty()
    {
        // CPython finishes the first argument before it looks at the second.
        let first = call(machine, name, &vec![x.clone()].into())?;
        let second = call(machine, name, &base.to_vec().into())?;
        if second.as_float() == Some(0.0) {
            return Err(Stop::raise("ZeroDivisionError", "float division by zero"));
        }
        return operators::binary(machine, BinaryOperator::Divide, &first, &second, false);
    }
    if let ("dist", [p, q]) = (name, values) {
        let (Some(p), Some(q)) = (p.sequence(), q.sequence()) else { return Err(unsupported(name)) };
        if p.len() != q.len() || p.len() > 3 {
            return Err(unsupported(name));
        }
        let mut differences = Vec::new();
        for (a, b) in p.iter().zip(&q) {
            let (Some(a), Some(b)) = (a.as_float(), b.as_float()) else { return Err(unsupported(name)) };
            differences.push(a - b);
        }
        return norm(&differences).map(Value::Float);
    }
    let mut numbers = Vec::with_capacity(values.len());
    for value in values {
        machine.step()?;
        match value.as_float() {
            Some(number) => numbers.push(number),
            None if matches!(value, Value::Object(_)) => return Err(unsupported(name)),
            None if matches!(name, "gcd" | "factorial" | "floor" | "ceil" | "trunc" | "dist") => {
                return Err(unsupported(name));
            }
            None => return Err(Stop::type_error(format!("must be real number, not {}", value.class_name()))),
        }
    }
    let float = |value: f64| Ok(Value::Float(value));
    match (name, numbers.as_slice()) {
        ("hypot", numbers) => norm(numbers).map(Value::Float),
        ("floor", [x]) => to_int(x.floor()),
        ("ceil", [x]) => to_int(x.ceil()),
        ("trunc", [x]) => to_int(x.trunc()),
        ("isnan", [x]) => Ok(Value::Bool(x.is_nan())),
        ("isinf", [x]) => Ok(Value::Bool(x.is_infinite())),
        ("isfinite", [x]) => Ok(Value::Bool(x.is_finite())),
        ("fabs", [x]) => float(x.abs()),
        ("radians", [x]) => float(x * (consts::PI / 180.0)),
        ("degrees", [x]) => float(x * (180.0 / consts::PI)),
        ("copysign", [x, y]) => float(x.copysign(*y)),
        ("atan2", [y, x]) => float(y.atan2(*x)),
        ("pow", [x, y]) => power(*x, *y),
        ("fmod", [x, y]) => {
            let value = x % y;
            if value.is_nan() && !x.is_nan() && !y.is_nan() { Err(domain()) } else { float(value) }
        }
        ("log" | "log2" | "log10", [x]) => logarithm(name, *x).map(Value::Float),
        ("isclose", [a, b]) => is_close(*a, *b, &arguments.keywords),
        (_, [x]) => {
            let (value, may_overflow) = match name {
                "sin" => (x.sin(), false),
                "cos" => (x.cos(), false),
                "tan" => (x.tan(), false),
                "asin" => (x.asin(), false),
                "acos" => (x.acos(), false),
                "atan" => (x.atan(), false),
                "sqrt" => (x.sqrt(), false),
                "tanh" => (x.tanh(), false),
                "sinh" => (x.sinh(), true),
                "cosh" => (x.cosh(), true),
                "exp" => (x.exp(), true),
                _ => return Err(unsupported(name)),
            };
            if value.is_nan() && !x.is_nan() {
                return Err(domain());
            }
            if value.is_infinite() && x.is_finite() {
                return Err(if may_overflow { range() } else { domain() });
            }
            float(value)
        }
        _ => Err(unsupported(name)),
    }
}

fn of_ints(name: &str, values: &[Value]) -> Result<Value, Stop> {
    let ints: Option<Vec<i64>> = values.iter().map(Value::as_int).collect();
    let ints = ints.ok_or_else(|| unsupported(name))?;
    match (name, ints.as_slice()) {
        ("floor" | "ceil" | "trunc", [x]) => Ok(Value::Int(*x)),
        ("factorial", [x]) if *x < 0 => Err(Stop::raise("ValueError", "factorial() not defined for negative values")),
        ("factorial", [x @ ..=20]) => Ok(Value::Int((1..=*x).product())),
        ("gcd", ints) if ints.iter().all(|x| *x != i64::MIN) => Ok(Value::Int(ints.iter().fold(0, |mut a, x| {
            let mut b = x.abs();
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        }))),
        _ => Err(unsupported(name)),
    }
}

fn logarithm(name: &str, x: f64) -> Result<f64, Stop> {
    if x <= 0.0 {
        return Err(domain());
    }
    Ok(match name {
        "log2" => x.log2(),
        "log10" => x.log10(),
        _ => x.ln(),
    })
}

fn power(x: f64, y: f64) -> Result<Value, Stop> {
    if x == 0.0 && y.is_infinite() {
        return Err(unsupported("pow"));
    }
    let value = x.powf(y);
    if x.is_finite() && y.is_finite() {
        if value.is_nan() || value.is_infinite() && x == 0.0 {
            return Err(domain());
        }
        if value.is_infinite() {
            return Err(range());
        }
    }
    Ok(Value::Float(value))
}

fn is_close(a: f64, b: f64, keywords: &[(String, Value)]) -> Result<Value, Stop> {
    let (mut relative, mut absolute) = (1e-9, 0.0);
    for (name, value) in keywords {
        let value = value.as_float().ok_or_else(|| unsupported("isclose"))?;
        match name.as_str() {
            "rel_tol" => relative = value,
            "abs_tol" => absolute = value,
            _ => return Err(unsupported("isclose")),
        }
    }
    if relative < 0.0 || absolute < 0.0 {
        return Err(Stop::raise("ValueError", "tolerances must be non-negative"));
    }
    if a == b {
        return Ok(Value::Bool(true));
    }
    if a.is_infinite() || b.is_infinite() {
        return Ok(Value::Bool(false));
    }
    let distance = (b - a).abs();
    let bound = |x: f64| distance <= (relative * x).abs();
    Ok(Value::Bool(bound(b) || bound(a) || distance <= absolute))
}

/// The Euclidean norm as CPython 3.11 computes it: scaled by a power of two, squares split into two
/// halves, compensated sums, and one step of Newton's method on the root. The order of operations
/// determines the last bit.
fn norm(numbers: &[f64]) -> Result<f64, Stop> {
    let largest = numbers.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let is_usual = |x: f64| x.is_finite() && (x == 0.0 || (1e-250..1e250).contains(&x.abs()));
    if !numbers.iter().all(|x| is_usual(*x)) {
        return Err(unsupported("hypot"));
    }
    if largest == 0.0 || numbers.len() < 2 {
        return Ok(largest);
    }
    // Scales the largest number to between 0.5 and 1.
    let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    let scale = 2.0_f64.powi(-exponent);
    let split = |x: f64| {
        let t = x * 134_217_729.0;
        let high = t - (t - x);
        (high, x - high)
    };
    let mut sum = 1.0_f64;
    let mut lost = [0.0_f64; 3];
    let add = |sum: &mut f64, lost: &mut f64, x: f64| {
        let before = *sum;
        *sum += x;
        *lost += (before - *sum) + x;
    };
    for number in numbers {
        let (high, low) = split(number.abs() * scale);
        add(&mut sum, &mut lost[0], high * high);
        add(&mut sum, &mut lost[1], 2.0 * high * low);
        lost[2] += low * low;
    }
    let root = (sum - 1.0 + (lost[0] + lost[1] + lost[2])).sqrt();
    let (high, low) = split(root);
    add(&mut sum, &mut lost[0], -high * high);
    add(&mut sum, &mut lost[1], -2.0 * high * low);
    add(&mut sum, &mut lost[2], -low * low);
    let error = sum - 1.0 + (lost[0] + lost[1] + lost[2]);
    Ok((root + error / (2.0 * root)) / scale)
}
