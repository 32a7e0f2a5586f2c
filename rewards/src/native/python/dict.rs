//! A dict: entries in insertion order of their keys.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Stop, Value, limits};

/// Canonical form that equal keys share: `1`, `1.0` and `True` are one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    None,
    Int(i64),
    Float(u64),
    Str(Rc<str>),
    Tuple(Rc<[Key]>),
    Class(&'static str),
}

impl Key {
    pub(super) fn new(value: &Value) -> Result<Self, Stop> {
        Self::at_depth(value, 0, &mut 0)
    }

    fn at_depth(value: &Value, depth: usize, parts: &mut usize) -> Result<Self, Stop> {
        *parts += 1 + if let Value::Str(text) = value { text.len() / limits::PER_STEP } else { 0 };
        if *parts > limits::KEY {
            return Err(limits::too_long("key"));
        }
        Ok(match value {
            Value::None => Key::None,
            Value::Bool(value) => Key::Int(i64::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.is_nan() => return Err(Stop::decline("identity not certain", "nan as key")),
            Value::Float(value) if *value == value.trunc() && value.abs() < 9e18 => Key::Int(*value as i64),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Str(text) => Key::Str(text.clone()),
            Value::Tuple(_) if depth > limits::NESTING => return Err(limits::too_deep("key")),
            Value::Tuple(items) => {
                Key::Tuple(items.iter().map(|item| Key::at_depth(item, depth + 1, parts)).collect::<Result<_, _>>()?)
            }
            Value::Class(name) => Key::Class(name),
            Value::List(_) | Value::Dict(_) | Value::Slice(_) => {
                return Err(Stop::type_error(format!("unhashable type: '{}'", value.class_name())));
            }
            _ => return Err(Stop::decline("key not supported", value.class_name())),
        })
    }
}

/// The entries of a `dict`.
#[derive(Debug, Default)]
pub struct Dict {
    places: HashMap<Key, usize>,
    /// `None` for a removed entry.
    entries: Vec<Option<(Key, Value, Value)>>,
}

impl Dict {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the dict is empty.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Number of entries and gaps.
    pub(super) fn size(&self) -> usize {
        self.entries.len()
    }

    /// The value of a key. Raises `TypeError` for an unhashable key.
    pub fn get(&self, key: &Value) -> Result<Option<Value>, Stop> {
        let key = Key::new(key)?;
        Ok(self.places.get(&key).and_then(|place| self.entries[*place].as_ref()).map(|entry| entry.2.clone()))
    }

    /// `self[key] = value`; an existing equal key stays.
    pub fn insert(&mut self, key: Value, value: Value) -> Result<(), Stop> {
        let normal = Key::new(&key)?;
        if let Some(place) = self.places.get(&normal)
            && let Some(entry) = &mut self.entries[*place]
        {
            entry.2 = value;
            return Ok(());
        }
        self.places.insert(normal.clone(), self.entries.len());
        self.entries.push(Some((normal, key, value)));
        Ok(())
    }

    /// Removes an entry and returns it.
    pub fn remove(&mut self, key: &Value) -> Result<Option<Value>, Stop> {
        let key = Key::new(key)?;
        Ok(self.places.remove(&key).and_then(|place| self.entries[place].take()).map(|entry| entry.2))
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keys and values in insertion order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Value, &Value)> {
        self.entries.iter().flatten().map(|(_, key, value)| (key, value))
    }

    /// The first entry at or after a place, and the place that follows it.
    pub(super) fn next_from(&self, place: usize) -> Option<(usize, &Value, &Value)> {
        let entries = self.entries.get(place..)?;
        entries
            .iter()
            .enumerate()
            .find_map(|(i, entry)| entry.as_ref().map(|(_, key, value)| (place + i + 1, key, value)))
    }
}
