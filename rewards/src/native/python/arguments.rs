//! Arguments of a call, bound to parameters as CPython binds them.

use ruff_python_ast::Parameters;

use super::machine::Function;
use super::{Machine, Stop, Value};

/// The arguments of a call.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// Positional arguments.
    pub positional: Vec<Value>,
    /// Keyword arguments; names are unique.
    pub keywords: Vec<(String, Value)>,
}

/// A parameter of a function implemented in Rust.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it has no default value.
    pub required: bool,
}

impl From<Vec<Value>> for Arguments {
    fn from(positional: Vec<Value>) -> Self {
        Self { positional, keywords: Vec::new() }
    }
}

impl Arguments {
    /// Binds to a Python signature as CPython does. Returns one entry per parameter; `None` means
    /// that the default applies.
    ///
    /// `function` is the qualified name for messages. For a method such as `Workplane.lineTo`,
    /// CPython counts `self`, but `parameters` does not contain it.
    pub fn bind(self, function: &str, parameters: &[Parameter]) -> Result<Vec<Option<Value>>, Stop> {
        let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name).collect();
        let required = parameters.iter().filter(|parameter| parameter.required).count();
        let bound = usize::from(function.contains('.'));
        let given = self.positional.len();
        let mut values = vec![None; parameters.len()];
        let mut positional = self.positional.into_iter();
        for (slot, value) in values.iter_mut().zip(positional.by_ref()) {
            *slot = Some(value);
        }
        for (name, value) in self.keywords {
            let Some(place) = names.iter().position(|known| *known == name) else {
                return Err(unexpected(function, &name));
            };
            if values[place].is_some() {
                return Err(multiple(function, &name));
            }
            values[place] = Some(value);
        }
        if given > names.len() {
            return Err(too_many(function, required + bound, names.len() + bound, given + bound, 0));
        }
        let missing: Vec<&str> =
            (0..names.len()).filter(|i| parameters[*i].required && values[*i].is_none()).map(|i| names[i]).collect();
        if !missing.is_empty() {
            return Err(missing_arguments(function, "positional", &missing));
        }
        Ok(values)
    }
}

fn unexpected(function: &str, name: &str) -> Stop {
    Stop::type_error(format!("{function}() got an unexpected keyword argument '{name}'"))
}

fn multiple(function: &str, name: &str) -> Stop {
    Stop::type_error(format!("{function}() got multiple values for argument '{name}'"))
}

fn too_many(function: &str, required: usize, accepted: usize, given: usize, keyword_only: usize) -> Stop {
    let plural = if accepted == 1 { "" } else { "s" };
    let takes = if required < accepted { format!("from {required} to {accepted}") } else { accepted.to_string() };
    let plural = if required < accepted { "s" } else { plural };
    let verb = if given == 1 && keyword_only == 0 { "was" } else { "were" };
    let keywords = match keyword_only {
        0 => String::new(),
        count => format!(
            " positional argument{} (and {count} keyword-only argument{})",
            if given == 1 { "" } else { "s" },
            if count == 1 { "" } else { "s" }
        ),
    };
    Stop::type_error(format!(
        "{function}() takes {takes} positional argument{plural} but {given}{keywords} {verb} given"
    ))
}

fn missing_arguments(function: &str, kind: &str, names: &[&str]) -> Stop {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let list = match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [one, other] => format!("{one} and {other}"),
        [first @ .., last] => format!("{}, and {last}", first.join(", ")),
    };
    let (count, plural) = (names.len(), if names.len() == 1 { "" } else { "s" });
    Stop::type_error(format!("{function}() missing {count} required {kind} argument{plural}: {list}"))
}

/// The parameters of a function of the program.
#[derive(Default)]
pub(super) struct Signature<'a> {
    /// Positional parameters with their defaults.
    positional: Vec<(&'a str, Option<&'a Value>)>,
    /// Number of positional-only parameters.
    nameless: usize,
    variadic: Option<&'a str>,
    keyword_only: Vec<(&'a str, Option<&'a Value>)>,
    keywords: Option<&'a str>,
}

impl<'a> Signature<'a> {
    pub(super) fn of(parameters: &'a Parameters, function: &'a Function) -> Self {
        let names = parameters.posonlyargs.iter().chain(&parameters.args).map(|p| p.parameter.name.as_str());
        let mut positional: Vec<_> = names.map(|name| (name, None)).collect();
        let first = positional.len().saturating_sub(function.defaults.len());
        for (parameter, default) in positional[first..].iter_mut().zip(&function.defaults) {
            parameter.1 = Some(default);
        }
        let default_of = |name: &str| function.keyword_defaults.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        Self {
            positional,
            nameless: parameters.posonlyargs.len(),
            variadic: parameters.vararg.as_ref().map(|parameter| parameter.name.as_str()),
            keyword_only: parameters
                .kwonlyargs
                .iter()
                .map(|p| p.parameter.name.as_str())
                .map(|name| (name, default_of(name)))
                .collect(),
            keywords: parameters.kwarg.as_ref().map(|parameter| parameter.name.as_str()),
        }
    }

    /// Parameter names, in the order of `bind`'s values.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        let positional = self.positional.iter().map(|(name, _)| *name);
        let only = self.keyword_only.iter().map(|(name, _)| *name);
        positional.chain(only).chain(self.variadic).chain(self.keywords)
    }

    /// Binds the arguments. Returns one value for each of `names`.
    pub(super) fn bind(&self, machine: &mut Machine, function: &str, arguments: Arguments) -> Result<Vec<Value>, Stop> {
        let count = self.positional.len();
        let given = arguments.positional.len();
        let mut values: Vec<Option<Value>> = vec![None; count + self.keyword_only.len()];
        let mut positional = arguments.positional.into_iter();
        for (slot, value) in values[..count].iter_mut().zip(positional.by_ref()) {
            *slot = Some(value);
        }
        let rest: Vec<Value> = positional.collect();
        let mut others = Vec::new();
        for (name, value) in arguments.keywords {
            let named = self.positional.iter().map(|(known, _)| *known).enumerate().skip(self.nameless);
            let only = self.keyword_only.iter().map(|(known, _)| *known).zip(count..).map(|(known, i)| (i, known));
            match named.chain(only).find(|(_, known)| *known == name) {
                Some((place, _)) if values[place].is_some() => return Err(multiple(function, &name)),
                Some((place, _)) => values[place] = Some(value),
                None if self.keywords.is_some() => others.push((Value::from(name), value)),
                None if self.nameless > 0 => {
                    return Err(Stop::decline("expression not supported", "positional-only by name"));
                }
                None => return Err(unexpected(function, &name)),
            }
        }
        if !rest.is_empty() && self.variadic.is_none() {
            let required = self.positional.iter().filter(|(_, default)| default.is_none()).count();
            let only = values[count..].iter().flatten().count();
            return Err(too_many(function, required, count, given, only));
        }
        let parameters = self.positional.iter().chain(&self.keyword_only);
        let mut missing = [Vec::new(), Vec::new()];
        for (i, (slot, (name, default))) in values.iter_mut().zip(parameters).enumerate() {
            if slot.is_none() {
                *slot = default.cloned();
            }
            if slot.is_none() {
                missing[usize::from(i >= count)].push(*name);
            }
        }
        for (kind, names) in ["positional", "keyword-only"].iter().zip(&missing) {
            if !names.is_empty() {
                return Err(missing_arguments(function, kind, names));
            }
        }
        let mut values: Vec<Value> = values.into_iter().flatten().collect();
        if self.variadic.is_some() {
            values.push(machine.tuple(rest)?);
        }
        if self.keywords.is_some() {
            values.push(machine.dict(others)?);
        }
        Ok(values)
    }
}
