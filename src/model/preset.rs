//! The named architectures.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ModelError;

/// The architecture of a model that is made from random weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Preset {
    /// A model of a few million parameters for CPUs and tests. It has a tokenizer of its own.
    Nano,
    /// InternVL3-1B.
    InternVl3_1b,
    /// InternVL3-2B.
    InternVl3_2b,
    /// InternVL3-8B.
    InternVl3_8b,
    /// InternVL3-14B.
    InternVl3_14b,
    /// InternVL3-38B.
    InternVl3_38b,
    /// InternVL3-78B.
    InternVl3_78b,
}

impl Preset {
    /// Every preset, the smallest first.
    pub const ALL: [Self; 7] = [
        Self::Nano,
        Self::InternVl3_1b,
        Self::InternVl3_2b,
        Self::InternVl3_8b,
        Self::InternVl3_14b,
        Self::InternVl3_38b,
        Self::InternVl3_78b,
    ];

    /// The name in configurations and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::InternVl3_1b => "internvl3-1b",
            Self::InternVl3_2b => "internvl3-2b",
            Self::InternVl3_8b => "internvl3-8b",
            Self::InternVl3_14b => "internvl3-14b",
            Self::InternVl3_38b => "internvl3-38b",
            Self::InternVl3_78b => "internvl3-78b",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| ModelError::Preset { name: name.to_owned() })
    }
}

impl TryFrom<String> for Preset {
    type Error = ModelError;

    fn try_from(name: String) -> Result<Self, ModelError> {
        name.parse()
    }
}

impl From<Preset> for String {
    fn from(preset: Preset) -> Self {
        preset.name().to_owned()
    }
}
