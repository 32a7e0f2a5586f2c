//! Operators on numbers, strings and sequences.

use std::cmp::Ordering;
use std::rc::Rc;

use ruff_python_ast::{CmpOp, Operator, UnaryOp};

use super::{Machine, Stop, Value, format, limits};

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    MatrixMultiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
    LeftShift,
    RightShift,
    Or,
    Xor,
    And,
}

impl BinaryOperator {
    /// The operator as written in a program.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::MatrixMultiply => "@",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "%",
            Self::Power => "**",
            Self::LeftShift => "<<",
            Self::RightShift => ">>",
            Self::Or => "|",
            Self::Xor => "^",
            Self::And => "&",
        }
    }
}

impl From<Operator> for BinaryOperator {
    fn from(operator: Operator) -> Self {
        match operator {
            Operator::Add => Self::Add,
            Operator::Sub => Self::Subtract,
            Operator::Mult => Self::Multiply,
            Operator::MatMult => Self::MatrixMultiply,
            Operator::Div => Self::Divide,
            Operator::FloorDiv => Self::FloorDivide,
            Operator::Mod => Self::Modulo,
            Operator::Pow => Self::Power,
            Operator::LShift => Self::LeftShift,
            Operator::RShift => Self::RightShift,
            Operator::BitOr => Self::Or,
            Operator::BitXor => Self::Xor,
            Operator::BitAnd => Self::And,
        }
    }
}

/// A unary operator other than `not`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum UnaryOperator {
    Plus,
    Minus,
    Invert,
}

impl UnaryOperator {
    /// The operator as written in a program.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Invert => "~",
        }
    }
}

fn overflow() -> Stop {
    Stop::decline("integer too large", "")
}

fn divided_by_zero(message: &str) -> Stop {
    Stop::raise("ZeroDivisionError", message)
}

/// `operator value`; the machine handles `not`.
pub(super) fn unary(operator: UnaryOp, value: &Value) -> Result<Value, Stop> {
    let operator = match operator {
        UnaryOp::Not => return Ok(Value::Bool(!value.truth()?)),
        UnaryOp::UAdd => UnaryOperator::Plus,
        UnaryOp::USub => UnaryOperator::Minus,
        UnaryOp::Invert => UnaryOperator::Invert,
    };
    match (operator, value) {
        (_, Value::Object(object)) => object.unary(operator),
        (UnaryOperator::Plus, Value::Float(value)) => Ok(Value::Float(*value)),
        (UnaryOperator::Minus, Value::Float(value)) => Ok(Value::Float(-value)),
        (_, Value::Int(_) | Value::Bool(_)) => {
            let value = value.as_int().unwrap_or(0);
            Ok(Value::Int(match operator {
                UnaryOperator::Plus => value,
                UnaryOperator::Minus => value.checked_neg().ok_or_else(overflow)?,
                UnaryOperator::Invert => !value,
            }))
        }
        _ => {
            Err(Stop::type_error(format!("bad operand type for unary {}: '{}'", operator.symbol(), value.class_name())))
        }
    }
}

/// `a operator b`, or `a operator= b`, which differs in messages and for lists.
pub(super) fn binary(
    machine: &mut Machine,
    operator: BinaryOperator,
    a: &Value,
    b: &Value,
    in_place: bool,
) -> Result<Value, Stop> {
    use BinaryOperator::{Add, Modulo, Multiply, Or};
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        let both_bool = matches!((a, b), (Value::Bool(_), Value::Bool(_)));
        if let Some(value) = of_ints(operator, x, y, both_bool)? {
            return Ok(value);
        }
    } else if let (Some(x), Some(y)) = (a.as_float(), b.as_float())
        && let Some(value) = of_floats(operator, x, y)?
    {
        return Ok(value);
    }
    if let Value::Object(object) = a
        && let Some(value) = object.binary(operator, b, false)?
    {
        return Ok(value);
    }
    if let (Add, true, Value::List(items)) = (operator, in_place, a) {
        let items = items.clone();
        machine.extend(&items, b)?;
        return Ok(a.clone());
    }
    if let (Modulo, Value::Str(text)) = (operator, a) {
        return format::percent(machine, text, b);
    }
    if let Value::Object(object) = b
        && let Some(value) = object.binary(operator, a, true)?
    {
        return Ok(value);
    }
    match (operator, a, b) {
        (Add, Value::Str(x), Value::Str(y)) => {
            machine.allocate(x.len() + y.len())?;
            return Ok(format!("{x}{y}").into());
        }
        (Add, Value::List(x), Value::List(y)) => {
            let items = [x.borrow().as_slice(), y.borrow().as_slice()].concat();
            return machine.list(items);
        }
        (Add, Value::Tuple(x), Value::Tuple(y)) => return machine.tuple([&x[..], &y[..]].concat()),
        (Add, Value::Str(_) | Value::List(_) | Value::Tuple(_), _) => {
            let class = a.class_name();
            let other = b.class_name();
            return Err(Stop::type_error(format!("can only concatenate {class} (not \"{other}\") to {class}")));
        }
        (Multiply, Value::Str(_) | Value::List(_) | Value::Tuple(_), _) => return repeat(machine, a, b, in_place),
        (Multiply, _, Value::Str(_) | Value::List(_) | Value::Tuple(_)) => return repeat(machine, b, a, false),
        (Or, Value::Dict(_), Value::Dict(_)) => return Err(Stop::decline("operator not supported", "|")),
        (Or, Value::Class(_) | Value::None | Value::Object(_), Value::Class(_) | Value::None | Value::Object(_)) => {
            return Err(Stop::decline("operator not supported", "|"));
        }
        (_, Value::View(_), _) | (_, _, Value::View(_)) => {
            return Err(Stop::decline("operator not supported", "views"));
        }
        _ => {}
    }
    let symbol = match operator {
        BinaryOperator::Power if !in_place => "** or pow()".to_owned(),
        _ => format!("{}{}", operator.symbol(), if in_place { "=" } else { "" }),
    };
    let (a, b) = (a.class_name(), b.class_name());
    Err(Stop::type_error(format!("unsupported operand type(s) for {symbol}: '{a}' and '{b}'")))
}

fn repeat(machine: &mut Machine, sequence: &Value, times: &Value, in_place: bool) -> Result<Value, Stop> {
    let Some(times) = times.as_int() else {
        let class = times.class_name();
        return Err(Stop::type_error(format!("can't multiply sequence by non-int of type '{class}'")));
    };
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    let mut size = |length: usize| match length.checked_mul(times) {
        Some(size) => machine.allocate(size),
        None => Err(limits::too_long("repeated sequence")),
    };
    match sequence {
        Value::Str(text) => {
            size(text.len())?;
            Ok(text.repeat(times).into())
        }
        Value::Tuple(items) => {
            size(items.len())?;
            machine.tuple(repeated(items, times))
        }
        Value::List(items) => {
            size(items.borrow().len())?;
            let repeated = repeated(&items.borrow(), times);
            if in_place {
                *items.borrow_mut() = repeated;
                return Ok(sequence.clone());
            }
            machine.list(repeated)
        }
        _ => Err(Stop::decline("operator not supported", "*")),
    }
}

fn repeated(items: &[Value], times: usize) -> Vec<Value> {
    std::iter::repeat_n(items, if items.is_empty() { 0 } else { times }).flatten().cloned().collect()
}

fn of_ints(operator: BinaryOperator, x: i64, y: i64, both_bool: bool) -> Result<Option<Value>, Stop> {
    use BinaryOperator as Op;
    let value = match operator {
        Op::Add => x.checked_add(y).ok_or_else(overflow)?,
        Op::Subtract => x.checked_sub(y).ok_or_else(overflow)?,
        Op::Multiply => x.checked_mul(y).ok_or_else(overflow)?,
        Op::Divide => {
            if y == 0 {
                return Err(divided_by_zero("division by zero"));
            }
            // Both operands are exact as floats up to here, so one division rounds once.
            const EXACT: u64 = 1 << 53;
            if x.unsigned_abs() > EXACT || y.unsigned_abs() > EXACT {
                return Err(overflow());
            }
            return Ok(Some(Value::Float(x as f64 / y as f64)));
        }
        Op::FloorDivide | Op::Modulo => {
            if y == 0 {
                let modulo = operator == Op::Modulo;
                return Err(divided_by_zero(if modulo {
                    "integer modulo by zero"
                } else {
                    "integer division or modulo by zero"
                }));
            }
            let (quotient, remainder) =
                (x.checked_div(y).ok_or_else(overflow)?, x.checked_rem(y).ok_or_else(overflow)?);
            let below = remainder != 0 && (remainder < 0) != (y < 0);
            if operator == Op::Modulo {
                if below { remainder + y } else { remainder }
            } else {
                quotient - i64::from(below)
            }
        }
        Op::Power if y < 0 => return power(x as f64, y as f64).map(Some),
        Op::Power => match x {
            0 | 1 => {
                if y == 0 {
                    1
                } else {
                    x
                }
            }
            -1 => 1 - 2 * (y & 1),
            _ => x.checked_pow(u32::try_from(y).map_err(|_| overflow())?).ok_or_else(overflow)?,
        },
        Op::LeftShift | Op::RightShift if y < 0 => return Err(Stop::raise("ValueError", "negative shift count")),
        Op::LeftShift => {
            let factor = u32::try_from(y).ok().and_then(|y| 1_i64.checked_shl(y)).filter(|factor| *factor > 0);
            match factor {
                Some(factor) => x.checked_mul(factor).ok_or_else(overflow)?,
                None if x == 0 => 0,
                None => return Err(overflow()),
            }
        }
        Op::RightShift => x >> y.min(63),
        Op::Or | Op::Xor | Op::And => {
            let value = match operator {
                Op::Or => x | y,
                Op::Xor => x ^ y,
                _ => x & y,
            };
            return Ok(Some(if both_bool { Value::Bool(value != 0) } else { Value::Int(value) }));
        }
        Op::MatrixMultiply => return Ok(None),
    };
    Ok(Some(Value::Int(value)))
}

fn of_floats(operator: BinaryOperator, x: f64, y: f64) -> Result<Option<Value>, Stop> {
    use BinaryOperator as Op;
    Ok(Some(Value::Float(match operator {
        Op::Add => x + y,
        Op::Subtract => x - y,
        Op::Multiply => x * y,
        Op::Divide if y == 0.0 => return Err(divided_by_zero("float division by zero")),
        Op::Divide => x / y,
        Op::FloorDivide if y == 0.0 => return Err(divided_by_zero("float floor division by zero")),
        Op::FloorDivide => divmod(x, y).0,
        Op::Modulo if y == 0.0 => return Err(divided_by_zero("float modulo")),
        Op::Modulo => divmod(x, y).1,
        Op::Power => return power(x, y).map(Some),
        _ => return Ok(None),
    })))
}

/// `divmod` of floats with `y != 0`: CPython's `_float_div_mod`.
pub(super) fn divmod(x: f64, y: f64) -> (f64, f64) {
    let mut modulo = x % y;
    let mut quotient = (x - modulo) / y;
    if modulo != 0.0 {
        if (y < 0.0) != (modulo < 0.0) {
            modulo += y;
            quotient -= 1.0;
        }
    } else {
        modulo = 0.0_f64.copysign(y);
    }
    let floor = if quotient != 0.0 {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    } else {
        0.0_f64.copysign(x / y)
    };
    // If `x % y` is nan, all later results are nan too.
    (floor, modulo)
}

/// `x ** y` of floats.
pub(super) fn power(x: f64, y: f64) -> Result<Value, Stop> {
    if x == 0.0 && y < 0.0 && y.is_finite() {
        return Err(divided_by_zero("0.0 cannot be raised to a negative power"));
    }
    if x < 0.0 && x.is_finite() && y.is_finite() && y != y.floor() {
        return Err(Stop::decline("complex number", ""));
    }
    let value = x.powf(y);
    if value.is_infinite() && x.is_finite() && y.is_finite() {
        return Err(Stop::raise("OverflowError", "(34, 'Numerical result out of range')"));
    }
    Ok(Value::Float(value))
}

/// Exact comparison of an int with a float; `None` for a nan.
fn order_of_int_and_float(x: i64, y: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if y.is_nan() {
        return None;
    }
    if y >= LIMIT {
        return Some(Ordering::Less);
    }
    if y < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = y.trunc();
    Some(x.cmp(&(whole as i64)).then_with(|| 0.0_f64.partial_cmp(&(y - whole)).unwrap_or(Ordering::Equal)))
}

/// Compares two numbers. The outer `None` means that one is not a number, the inner one that one is
/// nan.
fn order_of_numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Float(x), Value::Float(y)) => x.partial_cmp(y),
        (Value::Float(x), _) => order_of_int_and_float(b.as_int()?, *x).map(Ordering::reverse),
        (_, Value::Float(y)) => order_of_int_and_float(a.as_int()?, *y),
        _ => Some(a.as_int()?.cmp(&b.as_int()?)),
    })
}

/// Bytes that one comparison scans; items of containers are counted one by one.
fn text_size(value: &Value) -> usize {
    if let Value::Str(text) = value { text.len() } else { 0 }
}

/// `a == b`
pub(super) fn equal(machine: &mut Machine, a: &Value, b: &Value) -> Result<bool, Stop> {
    machine.work(text_size(a).min(text_size(b)))?;
    if let Some(order) = order_of_numbers(a, b) {
        return Ok(order == Some(Ordering::Equal));
    }
    match (a, b) {
        (Value::Object(object), _) => object.equals(b),
        (_, Value::Object(object)) => object.equals(a),
        (Value::Str(x), Value::Str(y)) => Ok(x == y),
        (Value::Tuple(_), Value::Tuple(_)) => items_equal(machine, a, b),
        (Value::List(x), Value::List(y)) => {
            if Rc::ptr_eq(x, y) {
                return Ok(true);
            }
            items_equal(machine, a, b)
        }
        (Value::Dict(x), Value::Dict(y)) => {
            if x.borrow().len() != y.borrow().len() {
                return Ok(false);
            }
            machine.work(a.size())?;
            let entries: Vec<_> = x.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            for (key, value) in entries {
                let other = y.borrow().get(&key)?;
                match other {
                    Some(other) if item_equal(machine, &value, &other)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::Range(x), Value::Range(y)) => {
            let length = x.len();
            Ok(length == y.len() && (length == 0 || x.start == y.start && (length == 1 || x.step == y.step)))
        }
        (Value::View(_) | Value::Slice(_) | Value::Method(_), Value::View(_) | Value::Slice(_) | Value::Method(_)) => {
            Err(Stop::decline("operator not supported", "=="))
        }
        (Value::Builtin(x), Value::Builtin(y)) => Ok(x == y),
        (Value::Module(x), Value::Module(y)) => Ok(x == y),
        (Value::Exception(x), Value::Exception(y)) => Ok(Rc::ptr_eq(x, y)),
        _ => a.is(b),
    }
}

/// Whether an element is identical or equal to another. Declines for two nans, which may be
/// identical.
pub(super) fn item_equal(machine: &mut Machine, a: &Value, b: &Value) -> Result<bool, Stop> {
    if let (Value::Float(x), Value::Float(y)) = (a, b)
        && x.is_nan()
        && y.is_nan()
    {
        return Err(Stop::decline("identity not certain", "nan"));
    }
    match (a, b) {
        (Value::List(x), Value::List(y)) if Rc::ptr_eq(x, y) => Ok(true),
        (Value::Dict(x), Value::Dict(y)) if Rc::ptr_eq(x, y) => Ok(true),
        (Value::Object(x), Value::Object(y)) if std::ptr::addr_eq(Rc::as_ptr(x), Rc::as_ptr(y)) => Ok(true),
        _ => machine.guarded(|machine| equal(machine, a, b)),
    }
}

/// The item of a tuple or a list at a place, or `None` past its end.
fn item(value: &Value, place: usize) -> Option<Value> {
    match value {
        Value::Tuple(items) => items.get(place).cloned(),
        Value::List(items) => items.borrow().get(place).cloned(),
        _ => None,
    }
}

fn items_equal(machine: &mut Machine, a: &Value, b: &Value) -> Result<bool, Stop> {
    if a.size() != b.size() {
        return Ok(false);
    }
    Ok(first_difference(machine, a, b)?.is_none())
}

/// The first pair of items in which two sequences differ, up to the shorter length.
fn first_difference(machine: &mut Machine, a: &Value, b: &Value) -> Result<Option<(Value, Value)>, Stop> {
    for place in 0.. {
        let (Some(x), Some(y)) = (item(a, place), item(b, place)) else { break };
        if !item_equal(machine, &x, &y)? {
            return Ok(Some((x, y)));
        }
    }
    Ok(None)
}

/// `a operator b` for an ordering operator.
pub(super) fn ordered(machine: &mut Machine, operator: CmpOp, a: &Value, b: &Value) -> Result<bool, Stop> {
    machine.work(text_size(a).min(text_size(b)))?;
    let holds = |order: Option<Ordering>| match operator {
        CmpOp::Lt => order == Some(Ordering::Less),
        CmpOp::LtE => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        CmpOp::Gt => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    };
    if let Some(order) = order_of_numbers(a, b) {
        return Ok(holds(order));
    }
    match (a, b) {
        (Value::Str(x), Value::Str(y)) => Ok(holds(Some(x.cmp(y)))),
        (Value::List(_), Value::List(_)) | (Value::Tuple(_), Value::Tuple(_)) => match first_difference(machine, a, b)?
        {
            Some((x, y)) => machine.guarded(|machine| ordered(machine, operator, &x, &y)),
            None => Ok(holds(Some(a.size().cmp(&b.size())))),
        },
        (Value::Object(_) | Value::View(_), _) | (_, Value::Object(_) | Value::View(_)) => {
            Err(Stop::decline("operator not supported", operator.as_str()))
        }
        _ => {
            let (symbol, a, b) = (operator.as_str(), a.class_name(), b.class_name());
            Err(Stop::type_error(format!("'{symbol}' not supported between instances of '{a}' and '{b}'")))
        }
    }
}

/// `a in b`
pub(super) fn contains(machine: &mut Machine, a: &Value, b: &Value) -> Result<bool, Stop> {
    if let Value::Str(text) = b {
        machine.work(text.len())?;
    }
    match b {
        Value::Str(text) => match a {
            Value::Str(part) => Ok(text.contains(&**part)),
            _ => {
                let class = a.class_name();
                Err(Stop::type_error(format!("'in <string>' requires string as left operand, not {class}")))
            }
        },
        Value::Dict(dict) => Ok(dict.borrow().get(a)?.is_some()),
        Value::Range(range) if a.as_int().is_some() => {
            let value = i128::from(a.as_int().unwrap_or(0));
            let distance = value - i128::from(range.start);
            let step = i128::from(range.step);
            Ok(distance % step == 0 && distance / step >= 0 && distance / step < i128::from(range.len()))
        }
        Value::Object(_) | Value::Iterator(_) => Err(Stop::decline("operator not supported", "in")),
        Value::List(_) | Value::Tuple(_) | Value::Range(_) | Value::View(_) => {
            let mut items = machine.iterate(b)?;
            while let Some(item) = items.next(machine)? {
                if item_equal(machine, &item, a)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(Stop::type_error(format!("argument of type '{}' is not iterable", b.class_name()))),
    }
}
