//! Iterators, including the generators of comprehensions.

use std::cell::RefCell;
use std::rc::Rc;

use super::machine::{Code, CodeBody, Environment, Scope};
use super::value::{Part, Range};
use super::{Dict, Machine, Stop, Value};

/// The state of an iterator.
#[derive(Debug)]
pub enum Iter {
    /// Over a list, which may change meanwhile.
    List(Rc<RefCell<Vec<Value>>>, usize),
    /// Over a tuple.
    Tuple(Rc<[Value]>, usize),
    /// Over the items that an object returned.
    Items(std::vec::IntoIter<Value>),
    /// Over a range; the next index.
    Range(Rc<Range>, u64),
    /// Over the characters of a string, from a byte offset.
    Str(Rc<str>, usize),
    /// Over a dict: the part, the next place, and the length that the dict must keep.
    Dict(Rc<RefCell<Dict>>, Part, usize, usize),
    /// Over another iterator value.
    Shared(Rc<RefCell<Iter>>),
    /// `enumerate`
    Enumerate(Box<Iter>, i64),
    /// `zip`
    Zip(Vec<Iter>),
    /// `map`
    Map(Value, Vec<Iter>),
    /// `filter`
    Filter(Value, Box<Iter>),
    /// `reversed` of a list, which may change meanwhile; the number of items left.
    Reversed(Rc<RefCell<Vec<Value>>>, usize),
    /// A generator expression.
    Generator(Box<Loops>),
    /// Exhausted.
    Done,
}

/// A comprehension in progress.
#[derive(Debug)]
pub struct Loops {
    code: Rc<Code>,
    environment: Environment,
    /// One iterator for each loop entered so far.
    iterators: Vec<Iter>,
}

impl Iter {
    pub(super) fn class_name(&self) -> &'static str {
        match self {
            Iter::List(..) => "list_iterator",
            Iter::Tuple(..) => "tuple_iterator",
            Iter::Range(..) => "range_iterator",
            Iter::Enumerate(..) => "enumerate",
            Iter::Zip(..) => "zip",
            Iter::Map(..) => "map",
            Iter::Filter(..) => "filter",
            Iter::Reversed(..) => "list_reverseiterator",
            Iter::Generator(..) => "generator",
            _ => "iterator",
        }
    }

    /// The next value, or `None` at the end.
    pub(super) fn next(&mut self, machine: &mut Machine) -> Result<Option<Value>, Stop> {
        machine.step()?;
        Ok(match self {
            Iter::List(items, at) => {
                let item = items.borrow().get(*at).cloned();
                match &item {
                    Some(_) => *at += 1,
                    None => *self = Iter::Done,
                }
                item
            }
            Iter::Tuple(items, at) => {
                *at += 1;
                items.get(*at - 1).cloned()
            }
            Iter::Items(items) => items.next(),
            Iter::Range(range, at) => {
                let item = (*at < range.len()).then(|| Value::Int(range.get(*at)));
                *at += 1;
                item
            }
            Iter::Str(text, at) => text[*at..].chars().next().map(|character| {
                *at += character.len_utf8();
                Value::from(character.encode_utf8(&mut [0; 4]) as &str)
            }),
            Iter::Dict(dict, part, place, length) => {
                let dict = dict.borrow();
                let before = *place;
                if dict.len() != *length {
                    return Err(Stop::raise("RuntimeError", "dictionary changed size during iteration"));
                }
                let entry = dict.next_from(*place).map(|(next, key, value)| (next, key.clone(), value.clone()));
                match entry {
                    None => {
                        machine.work(dict.size() - before.min(dict.size()))?;
                        None
                    }
                    Some((next, key, value)) => {
                        *place = next;
                        machine.work(next - before)?;
                        Some(match part {
                            Part::Keys => key,
                            Part::Values => value,
                            Part::Items => Value::tuple(vec![key, value]),
                        })
                    }
                }
            }
            Iter::Shared(iterator) => {
                let iterator = iterator.clone();
                let Ok(mut iterator) = iterator.try_borrow_mut() else {
                    return Err(Stop::decline("iterator not supported", "used within itself"));
                };
                machine.guarded(|machine| iterator.next(machine))?
            }
            Iter::Enumerate(iterator, at) => match machine.guarded(|machine| iterator.next(machine))? {
                None => None,
                Some(item) => {
                    let index = Value::Int(*at);
                    *at = at.checked_add(1).ok_or_else(|| Stop::decline("integer too large", "enumerate"))?;
                    Some(machine.tuple(vec![index, item])?)
                }
            },
            Iter::Zip(iterators) => match next_of_all(machine, iterators)? {
                None => None,
                Some(items) => Some(machine.tuple(items)?),
            },
            Iter::Map(function, iterators) => match next_of_all(machine, iterators)? {
                None => None,
                Some(items) => {
                    let function = function.clone();
                    Some(machine.call(&function, items.into())?)
                }
            },
            Iter::Filter(function, iterator) => loop {
                let Some(item) = machine.guarded(|machine| iterator.next(machine))? else { break None };
                let function = function.clone();
                let keep = match function {
                    Value::None => item.truth()?,
                    _ => machine.call(&function, vec![item.clone()].into())?.truth()?,
                };
                if keep {
                    break Some(item);
                }
            },
            Iter::Reversed(items, left) => {
                let item = left.checked_sub(1).and_then(|at| items.borrow().get(at).cloned());
                match &item {
                    Some(_) => *left -= 1,
                    None => *self = Iter::Done,
                }
                item
            }
            Iter::Generator(loops) => match machine.guarded(|machine| loops.advance(machine)) {
                Ok(true) => {
                    let item = machine.guarded(|machine| loops.element(machine));
                    if item.is_err() {
                        loops.iterators.clear();
                    }
                    Some(item?.0)
                }
                Ok(false) => None,
                Err(stop) => {
                    *self = Iter::Done;
                    return Err(stop);
                }
            },
            Iter::Done => None,
        })
    }
}

fn next_of_all(machine: &mut Machine, iterators: &mut [Iter]) -> Result<Option<Vec<Value>>, Stop> {
    let mut items = Vec::with_capacity(iterators.len());
    for iterator in iterators {
        match machine.guarded(|machine| iterator.next(machine))? {
            Some(item) => items.push(item),
            None => return Ok(None),
        }
    }
    Ok((!items.is_empty()).then_some(items))
}

impl Loops {
    /// Starts a comprehension, given the iterator of its first iterable.
    pub(super) fn new(code: Rc<Code>, name: &str, parent: Environment, first: Iter) -> Self {
        let environment = Some(Scope::new(name, &code.names, parent));
        Self { code, environment, iterators: vec![first] }
    }

    /// Advances to the next element; returns whether there is one.
    pub(super) fn advance(&mut self, machine: &mut Machine) -> Result<bool, Stop> {
        let code = self.code.clone();
        let CodeBody::Loops(_, generators) = &code.body else { return Ok(false) };
        'next: while let Some(iterator) = self.iterators.last_mut() {
            let Some(item) = iterator.next(machine)? else {
                self.iterators.pop();
                continue;
            };
            let depth = self.iterators.len();
            let generator = &generators[depth - 1];
            machine.assign(&generator.target, item, &self.environment)?;
            for condition in &generator.ifs {
                if !machine.eval(condition, &self.environment)?.truth()? {
                    continue 'next;
                }
            }
            match generators.get(depth) {
                None => return Ok(true),
                Some(inner) => {
                    let iterable = machine.eval(&inner.iter, &self.environment)?;
                    let iterator = machine.iterate(&iterable)?;
                    self.iterators.push(iterator);
                }
            }
        }
        Ok(false)
    }

    /// The current element; for a dict comprehension, key and value.
    pub(super) fn element(&mut self, machine: &mut Machine) -> Result<(Value, Value), Stop> {
        let code = self.code.clone();
        let CodeBody::Loops(elements, _) = &code.body else { return Ok((Value::None, Value::None)) };
        let first = machine.eval(&elements.0, &self.environment)?;
        let second = match &elements.1 {
            Some(value) => machine.eval(value, &self.environment)?,
            None => Value::None,
        };
        Ok((first, second))
    }
}

impl Machine {
    /// `iter(value)`
    pub(super) fn iterate(&mut self, value: &Value) -> Result<Iter, Stop> {
        Ok(match value {
            Value::List(items) => Iter::List(items.clone(), 0),
            Value::Tuple(items) => Iter::Tuple(items.clone(), 0),
            Value::Range(range) => Iter::Range(range.clone(), 0),
            Value::Str(text) => Iter::Str(text.clone(), 0),
            Value::Dict(dict) => Iter::Dict(dict.clone(), Part::Keys, 0, dict.borrow().len()),
            Value::View(view) => Iter::Dict(view.dict.clone(), view.part, 0, view.dict.borrow().len()),
            Value::Iterator(iterator) => Iter::Shared(iterator.clone()),
            Value::Object(object) => Iter::Items(object.iterate()?.into_iter()),
            _ => return Err(Stop::type_error(format!("'{}' object is not iterable", value.class_name()))),
        })
    }

    /// Collects all items of an iterable.
    pub(super) fn collect(&mut self, value: &Value) -> Result<Vec<Value>, Stop> {
        let mut iterator = self.iterate(value)?;
        let mut items = Vec::new();
        while let Some(item) = iterator.next(self)? {
            self.allocate(1)?;
            items.push(item);
        }
        Ok(items)
    }

    /// `items += value`
    pub(super) fn extend(&mut self, items: &Rc<RefCell<Vec<Value>>>, value: &Value) -> Result<(), Stop> {
        if matches!(value, Value::Iterator(_)) {
            // The iterator could observe the list while it grows.
            return Err(Stop::decline("operator not supported", "list += iterator"));
        }
        let new = self.collect(value)?;
        for item in &new {
            self.put_into(item)?;
        }
        items.borrow_mut().extend(new);
        Ok(())
    }

    /// Creates a dict from these entries.
    pub(super) fn dict(&mut self, entries: Vec<(Value, Value)>) -> Result<Value, Stop> {
        let mut dict = Dict::default();
        for (key, value) in entries {
            self.held(&[key.clone(), value.clone()])?;
            dict.insert(key, value)?;
        }
        Ok(Value::Dict(Rc::new(RefCell::new(dict))))
    }
}
