//! Determines which names are local to a function.

use std::collections::{HashMap, HashSet};

/// The local names of a function or a comprehension, each with its slot.
#[derive(Debug, Default)]
pub(super) struct Names {
    slots: HashMap<Box<str>, usize>,
    globals: HashSet<Box<str>>,
}

impl Names {
    pub(super) fn bind(&mut self, name: &str) {
        let slot = self.slots.len();
        if !self.slots.contains_key(name) {
            self.slots.insert(name.into(), slot);
        }
    }

    /// `global name`
    pub(super) fn declare_global(&mut self, name: &str) {
        self.globals.insert(name.into());
    }

    /// Called when all names are known: removes the slots of global names.
    pub(super) fn finish(&mut self) {
        if !self.globals.is_empty() {
            let names: Vec<_> =
                self.slots.drain().map(|(name, _)| name).filter(|n| !self.globals.contains(n)).collect();
            self.slots = names.into_iter().enumerate().map(|(slot, name)| (name, slot)).collect();
        }
    }

    pub(super) fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).copied()
    }

    pub(super) fn is_global(&self, name: &str) -> bool {
        !self.globals.is_empty() && self.globals.contains(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
