//! Evaluation of expressions.

use std::rc::Rc;

use ruff_python_ast::{
    Arguments as CallArguments, BoolOp, CmpOp, Comprehension, ConversionFlag, Expr, FStringPart,
    InterpolatedStringElement, Number, Parameters,
};
use ruff_text_size::TextRange;

use super::iteration::{Iter, Loops};
use super::machine::{CodeBody, Environment, Function};
use super::{Arguments, Machine, Stop, Value, format, limits, methods, operators, strings};

impl Machine {
    /// Evaluates an expression. Walks chains of calls, attributes and operators in a loop, because
    /// they may be long.
    pub(super) fn eval(&mut self, expr: &Expr, environment: &Environment) -> Result<Value, Stop> {
        let mut chain: Vec<&Expr> = Vec::new();
        let mut innermost = expr;
        loop {
            let next = match innermost {
                Expr::Attribute(attribute) => &attribute.value,
                Expr::Call(call) => &call.func,
                Expr::BinOp(operation) => &operation.left,
                Expr::Subscript(subscript) => &subscript.value,
                _ => break,
            };
            chain.push(innermost);
            innermost = next;
        }
        let mut value = self.guarded(|machine| machine.atom(innermost, environment))?;
        while let Some(link) = chain.pop() {
            self.step()?;
            value = match link {
                Expr::Attribute(attribute) => self.attribute(&value, &attribute.attr)?,
                Expr::Call(call) => {
                    let arguments = self.arguments(&call.arguments, environment)?;
                    self.call(&value, arguments)?
                }
                Expr::BinOp(operation) => {
                    let right = self.eval(&operation.right, environment)?;
                    operators::binary(self, operation.op.into(), &value, &right, false)?
                }
                Expr::Subscript(subscript) => {
                    let key = self.eval(&subscript.slice, environment)?;
                    self.index(&value, &key)?
                }
                _ => value,
            };
        }
        Ok(value)
    }

    fn atom(&mut self, expr: &Expr, environment: &Environment) -> Result<Value, Stop> {
        self.step()?;
        match expr {
            Expr::Name(name) => self.load(&name.id, environment),
            Expr::NumberLiteral(number) => match &number.value {
                Number::Int(value) => {
                    value.as_i64().map(Value::Int).ok_or_else(|| Stop::decline("integer too large", "literal"))
                }
                Number::Float(value) => Ok(Value::Float(*value)),
                Number::Complex { .. } => Err(Stop::decline("complex number", "")),
            },
            Expr::StringLiteral(text) => {
                let text = text.value.to_str();
                self.allocate(text.len())?;
                Ok(text.into())
            }
            Expr::BooleanLiteral(literal) => Ok(Value::Bool(literal.value)),
            Expr::NoneLiteral(_) => Ok(Value::None),
            Expr::Tuple(tuple) => {
                let items = self.items(&tuple.elts, environment)?;
                self.tuple(items)
            }
            Expr::List(list) => {
                let items = self.items(&list.elts, environment)?;
                self.list(items)
            }
            Expr::Dict(dict) => {
                let mut entries = Vec::with_capacity(dict.items.len());
                for item in &dict.items {
                    let Some(key) = &item.key else {
                        return Err(Stop::decline("expression not supported", "** in dict"));
                    };
                    let key = self.eval(key, environment)?;
                    if dict.items.len() > 15 && super::dict::Key::new(&key).is_err() {
                        // CPython builds long displays in several steps.
                        return Err(Stop::decline("expression not supported", "long dict"));
                    }
                    entries.push((key, self.eval(&item.value, environment)?));
                }
                self.dict(entries)
            }
            Expr::UnaryOp(operation) => {
                let value = self.eval(&operation.operand, environment)?;
                operators::unary(operation.op, &value)
            }
            Expr::BoolOp(operation) => {
                let mut value = Value::None;
                for operand in &operation.values {
                    value = self.eval(operand, environment)?;
                    if value.truth()? == (operation.op == BoolOp::Or) {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Compare(comparison) => {
                let mut left = self.eval(&comparison.left, environment)?;
                let mut result = true;
                for (operator, right) in comparison.ops.iter().zip(&comparison.comparators) {
                    let right = self.eval(right, environment)?;
                    result = self.compare(*operator, &left, &right)?;
                    if !result {
                        break;
                    }
                    left = right;
                }
                Ok(Value::Bool(result))
            }
            Expr::If(conditional) => {
                let holds = self.eval(&conditional.test, environment)?.truth()?;
                self.eval(if holds { &conditional.body } else { &conditional.orelse }, environment)
            }
            Expr::Named(named) => {
                let value = self.eval(&named.value, environment)?;
                self.assign(&named.target, value.clone(), environment)?;
                Ok(value)
            }
            Expr::Slice(slice) => {
                let mut bound = |bound: &Option<Box<Expr>>| match bound {
                    Some(bound) => self.eval(bound, environment),
                    None => Ok(Value::None),
                };
                let bounds = [bound(&slice.lower)?, bound(&slice.upper)?, bound(&slice.step)?];
                Ok(Value::Slice(Rc::new(bounds)))
            }
            Expr::Lambda(lambda) => {
                let make = || (lambda.parameters.clone(), CodeBody::Expression((*lambda.body).clone()));
                self.function("<lambda>", lambda.range, lambda.parameters.as_deref(), make, environment)
            }
            Expr::ListComp(comprehension) => {
                let (name, elements) = ("<listcomp>", (&*comprehension.elt, None));
                let (mut loops, _) =
                    self.loops(name, comprehension.range, elements, &comprehension.generators, environment)?;
                let mut items = Vec::new();
                while loops.advance(self)? {
                    self.allocate(1)?;
                    items.push(loops.element(self)?.0);
                }
                self.list(items)
            }
            Expr::DictComp(comprehension) => {
                let (name, elements) = ("<dictcomp>", (&*comprehension.key, Some(&*comprehension.value)));
                let (mut loops, _) =
                    self.loops(name, comprehension.range, elements, &comprehension.generators, environment)?;
                let mut entries = Vec::new();
                while loops.advance(self)? {
                    self.allocate(2)?;
                    let (key, value) = loops.element(self)?;
                    // CPython detects an unhashable key before it evaluates the next element.
                    super::dict::Key::new(&key)?;
                    entries.push((key, value));
                }
                self.dict(entries)
            }
            Expr::Generator(generator) => {
                let elements = (&*generator.elt, None);
                let (loops, first) =
                    self.loops("<genexpr>", generator.range, elements, &generator.generators, environment)?;
                if environment.is_some() {
                    self.levels(1)?;
                }
                self.iterator(Iter::Generator(Box::new(loops)), &[first])
            }
            Expr::FString(string) => {
                let mut text = String::new();
                for part in &string.value {
                    match part {
                        FStringPart::Literal(literal) => text.push_str(&literal.value),
                        FStringPart::FString(part) => {
                            for element in &part.elements {
                                self.field(element, &mut text, environment)?;
                            }
                        }
                    }
                }
                self.allocate(text.len())?;
                Ok(text.into())
            }
            _ => Err(Stop::decline("expression not supported", "")),
        }
    }

    fn field(
        &mut self,
        element: &InterpolatedStringElement,
        text: &mut String,
        environment: &Environment,
    ) -> Result<(), Stop> {
        let field = match element {
            InterpolatedStringElement::Literal(literal) => {
                text.push_str(&literal.value);
                return Ok(());
            }
            InterpolatedStringElement::Interpolation(field) => field,
        };
        let mut value = self.eval(&field.expression, environment)?;
        value = match field.conversion {
            ConversionFlag::None => value,
            ConversionFlag::Str => value.str()?.into(),
            ConversionFlag::Repr => value.repr()?.into(),
            ConversionFlag::Ascii => return Err(Stop::decline("format not supported", "!a")),
        };
        let mut spec = String::new();
        if let Some(elements) = &field.format_spec {
            for element in &elements.elements {
                self.field(element, &mut spec, environment)?;
            }
        }
        let formatted = format::value(self, &value, &spec)?;
        text.push_str(&formatted);
        self.allocate(formatted.len())
    }

    fn items(&mut self, elements: &[Expr], environment: &Environment) -> Result<Vec<Value>, Stop> {
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            match element {
                Expr::Starred(starred) => {
                    let iterable = self.eval(&starred.value, environment)?;
                    if let Err(Stop::Raise(_)) = self.iterate(&iterable) {
                        let class = iterable.class_name();
                        return Err(Stop::type_error(format!("Value after * must be an iterable, not {class}")));
                    }
                    items.extend(self.collect(&iterable)?);
                }
                element => items.push(self.eval(element, environment)?),
            }
        }
        Ok(items)
    }

    fn arguments(&mut self, arguments: &CallArguments, environment: &Environment) -> Result<Arguments, Stop> {
        let mut positional = Vec::with_capacity(arguments.args.len());
        for argument in &arguments.args {
            match argument {
                Expr::Starred(starred) => {
                    let iterable = self.eval(&starred.value, environment)?;
                    let late = arguments.args.len() == 1 && !arguments.keywords.is_empty();
                    if late && !matches!(iterable, Value::List(_) | Value::Tuple(_)) {
                        // CPython iterates over it only after it has evaluated the keywords.
                        return Err(Stop::decline("expression not supported", "* with keywords"));
                    }
                    if let Err(Stop::Raise(_)) = self.iterate(&iterable) {
                        return Err(Stop::decline("expression not supported", "* of no iterable"));
                    }
                    positional.extend(self.collect(&iterable)?);
                }
                argument => positional.push(self.eval(argument, environment)?),
            }
        }
        let mut keywords: Vec<(String, Value)> = Vec::with_capacity(arguments.keywords.len());
        for keyword in &arguments.keywords {
            let value = self.eval(&keyword.value, environment)?;
            match &keyword.arg {
                Some(name) => keywords.push((name.to_string(), value)),
                None => {
                    let Value::Dict(dict) = &value else {
                        return Err(Stop::decline("expression not supported", "** of no dict"));
                    };
                    self.work(dict.borrow().size())?;
                    for (name, value) in dict.borrow().iter() {
                        let Value::Str(name) = name else { return Err(Stop::type_error("keywords must be strings")) };
                        keywords.push((name.to_string(), value.clone()));
                    }
                }
            }
        }
        if keywords.len() > limits::KEYWORDS {
            return Err(limits::too_long("keywords"));
        }
        for (i, (name, _)) in keywords.iter().enumerate() {
            if keywords[..i].iter().any(|(other, _)| other == name) {
                return Err(Stop::decline("expression not supported", "keyword from two sides"));
            }
        }
        Ok(Arguments { positional, keywords })
    }

    fn loops(
        &mut self,
        name: &str,
        range: TextRange,
        elements: (&Expr, Option<&Expr>),
        generators: &[Comprehension],
        environment: &Environment,
    ) -> Result<(Loops, Value), Stop> {
        let iterable = self.eval(&generators[0].iter, environment)?;
        let first = self.iterate(&iterable)?;
        let make = || {
            let elements = Box::new((elements.0.clone(), elements.1.cloned()));
            (None, CodeBody::Loops(elements, generators.to_vec()))
        };
        let code = self.code(range, make)?;
        let name = match environment {
            Some(scope) => format!("{}.<locals>.{name}", scope.name),
            None => name.to_owned(),
        };
        Ok((Loops::new(code, &name, environment.clone(), first), iterable))
    }

    /// Creates a function; evaluates its defaults here.
    pub(super) fn function(
        &mut self,
        name: &str,
        range: TextRange,
        parameters: Option<&Parameters>,
        make: impl FnOnce() -> (Option<Box<Parameters>>, CodeBody),
        environment: &Environment,
    ) -> Result<Value, Stop> {
        let mut defaults = Vec::new();
        let mut keyword_defaults = Vec::new();
        if let Some(parameters) = parameters {
            for parameter in parameters.posonlyargs.iter().chain(&parameters.args) {
                if let Some(default) = parameter.default() {
                    defaults.push(self.eval(default, environment)?);
                }
            }
            for parameter in &parameters.kwonlyargs {
                if let Some(default) = parameter.default() {
                    keyword_defaults.push((parameter.name().to_string(), self.eval(default, environment)?));
                }
            }
        }
        for value in defaults.iter().chain(keyword_defaults.iter().map(|(_, value)| value)) {
            self.put_into(value)?;
        }
        if environment.is_some() {
            self.levels(1)?;
        }
        let name = match environment {
            Some(scope) => format!("{}.<locals>.{name}", scope.name),
            None => name.to_owned(),
        };
        let code = self.code(range, make)?;
        let scope = environment.clone();
        Ok(Value::Function(Rc::new(Function { code, name, defaults, keyword_defaults, scope })))
    }

    /// `a operator b`
    pub(super) fn compare(&mut self, operator: CmpOp, a: &Value, b: &Value) -> Result<bool, Stop> {
        match operator {
            CmpOp::Eq => operators::equal(self, a, b),
            CmpOp::NotEq => operators::equal(self, a, b).map(|equal| !equal),
            CmpOp::Is => a.is(b),
            CmpOp::IsNot => a.is(b).map(|is| !is),
            CmpOp::In => operators::contains(self, a, b),
            CmpOp::NotIn => operators::contains(self, a, b).map(|contains| !contains),
            CmpOp::Lt | CmpOp::LtE | CmpOp::Gt | CmpOp::GtE => operators::ordered(self, operator, a, b),
        }
    }

    /// `value.name`
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Result<Value, Stop> {
        match value {
            Value::Object(object) => object.attribute(object, name),
            Value::Module(module) => module.attribute(name),
            _ => methods::attribute(value, name),
        }
    }

    /// `value[key]`
    pub(super) fn index(&mut self, value: &Value, key: &Value) -> Result<Value, Stop> {
        match (value, key) {
            (Value::Object(object), _) => object.index(key),
            (Value::Dict(dict), _) => match dict.borrow().get(key)? {
                Some(value) => Ok(value),
                None => Err(Stop::raise("KeyError", key.repr()?)),
            },
            (Value::List(items), Value::Slice(bounds)) => {
                let picked = {
                    let items = items.borrow();
                    slice(bounds, items.len())?.map(|i| items[i].clone()).collect()
                };
                self.list(picked)
            }
            (Value::Tuple(items), Value::Slice(bounds)) => {
                let picked = slice(bounds, items.len())?.map(|i| items[i].clone()).collect();
                self.tuple(picked)
            }
            (Value::Str(text), Value::Slice(bounds)) => {
                let characters: Vec<char> = text.chars().collect();
                self.allocate(characters.len())?;
                Ok(slice(bounds, characters.len())?.map(|i| characters[i]).collect::<String>().into())
            }
            (Value::List(items), _) => {
                let place = strings::place(key, items.borrow().len(), "list")?;
                Ok(items.borrow()[place].clone())
            }
            (Value::Tuple(items), _) => strings::place(key, items.len(), "tuple").map(|place| items[place].clone()),
            (Value::Str(text), _) => {
                self.allocate(1)?;
                self.work(text.len())?;
                let count = if text.is_ascii() { text.len() } else { text.chars().count() };
                let place = strings::place(key, count, "string")?;
                let character = text.chars().nth(place).unwrap_or(' ');
                Ok(character.to_string().into())
            }
            (Value::Range(_), Value::Slice(_)) => Err(Stop::decline("operator not supported", "slice of range")),
            (Value::Range(range), _) => {
                let length = usize::try_from(range.len()).map_err(|_| Stop::decline("integer too large", "range"))?;
                let place = strings::place(key, length, "range object")?;
                Ok(Value::Int(range.get(place as u64)))
            }
            (Value::Class(class), _) => Err(Stop::decline("operator not supported", format!("{class}[..]"))),
            _ => Err(Stop::type_error(format!("'{}' object is not subscriptable", value.class_name()))),
        }
    }
}

/// The indices that a slice selects from a sequence of the given length.
pub(super) fn slice(bounds: &[Value; 3], length: usize) -> Result<impl Iterator<Item = usize> + use<>, Stop> {
    let bound = |value: &Value| match value {
        Value::None => Ok(None),
        Value::Object(_) => Err(Stop::decline("operator not supported", "slice")),
        value => value
            .as_int()
            .map(Some)
            .ok_or_else(|| Stop::type_error("slice indices must be integers or None or have an __index__ method")),
    };
    // CPython checks the step first.
    let step = bound(&bounds[2])?.unwrap_or(1);
    if step == 0 {
        return Err(Stop::raise("ValueError", "slice step cannot be zero"));
    }
    let length = length as i64;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |value: i64| if value < 0 { (value.saturating_add(length)).max(low) } else { value.min(high) };
    let start = bound(&bounds[0])?.map_or(if step > 0 { low } else { high }, clamp);
    let stop = bound(&bounds[1])?.map_or(if step > 0 { high } else { low }, clamp);
    let mut at = Some(start);
    Ok(std::iter::from_fn(move || {
        let here = at.filter(|here| if step > 0 { *here < stop } else { *here > stop })?;
        at = here.checked_add(step);
        usize::try_from(here).ok()
    }))
}
