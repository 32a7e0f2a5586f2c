//! The answers of the engines about a program, and the files of its solid.

use std::sync::Arc;

use cadwright_rewards::native::Decline;
use cadwright_rewards::{Outcome, OutcomeClass, Solid};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Engine;

/// The answer of the engines about a program.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// A solid or a failure. `None` if the native engine declined and was asked alone, or if our
    /// own code panicked.
    pub outcome: Option<Outcome>,
    /// The engine that answered or declined; never [`Engine::Auto`].
    pub engine: Engine,
    /// Why the native engine, if it was asked, handed the program on.
    pub declined: Option<Decline>,
    /// The message of a panic of our own code while it worked on the program.
    pub panic: Option<String>,
}

impl Answer {
    /// An engine's outcome.
    pub fn known(outcome: Outcome, engine: Engine, declined: Option<Decline>) -> Self {
        Self { outcome: Some(outcome), engine, declined, panic: None }
    }

    /// No outcome: the native engine was asked alone and declined.
    pub fn declined(declined: Decline) -> Self {
        Self { outcome: None, engine: Engine::Native, declined: Some(declined), panic: None }
    }

    /// The outcome's class, or why there is none.
    pub fn verdict(&self) -> Verdict {
        match (&self.panic, &self.outcome) {
            (Some(_), _) => Verdict::Panicked,
            (None, Some(outcome)) => Verdict::Known(outcome.class()),
            (None, None) => Verdict::Declined,
        }
    }

    /// The solid, if there is one.
    pub fn solid(&self) -> Option<&Arc<Solid>> {
        self.outcome.as_ref().and_then(Outcome::solid)
    }

    /// Why there is no solid.
    pub fn error(&self) -> Option<String> {
        match (&self.panic, &self.outcome) {
            (Some(message), _) => Some(format!("cadwright panicked: {message}")),
            (None, Some(outcome)) => outcome.error().map(str::to_owned),
            (None, None) => self.declined.as_ref().map(Decline::to_string),
        }
    }
}

/// The solid of a program as files, by CadQuery, in millimetres.
///
/// The process that made them had run the program. Their form is checked, but a program that
/// tampers with its own process decides what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Exact surfaces (ISO 10303-21), as CadQuery's exporter writes them.
    pub step: Vec<u8>,
    /// Binary STL of the triangles that scoring uses. A solid that the kernel cannot tessellate has
    /// none.
    pub stl: Vec<u8>,
}

/// The `outcome` of a row: the class of the program's outcome, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program has an outcome.
    Known(OutcomeClass),
    /// The native engine was asked alone and is not certain. This says nothing about the program.
    Declined,
    /// Our own code panicked: a fault of ours, which says nothing about the program.
    Panicked,
}

impl Verdict {
    /// The name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Known(class) => class.name(),
            Self::Declined => "declined",
            Self::Panicked => "panicked",
        }
    }

    /// The class of the outcome, if there is one.
    pub fn class(self) -> Option<OutcomeClass> {
        match self {
            Self::Known(class) => Some(class),
            Self::Declined | Self::Panicked => None,
        }
    }

    /// Whether the program is known to be valid by the published rule.
    pub fn is_valid(self) -> bool {
        self.class().is_some_and(OutcomeClass::is_valid)
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = [Self::Declined, Self::Panicked].into_iter().chain(OutcomeClass::ALL.map(Self::Known));
        let mut found = known.filter(|verdict| verdict.name() == name);
        found.next().ok_or_else(|| D::Error::custom(format!("unknown outcome {name:?}")))
    }
}
