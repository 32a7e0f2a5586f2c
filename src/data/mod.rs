//! Data: tables in files or on the hub, folders, synthetic parts, pictures.

mod checked;
mod content;
pub mod convert;
pub mod dataset;
pub mod design;
pub mod disturb;
mod error;
pub mod folder;
pub mod image;
mod jpeg;
mod jsonl;
mod listing;
pub mod names;
pub mod nearest;
pub mod parquet;
pub mod render;
pub mod rows;
pub mod shapes;
pub mod source;
pub mod stats;
pub mod synth;

use std::fmt;
use std::str::FromStr;

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

pub use dataset::{Dataset, Example, Selection, SkippedRow, open_dataset};
pub use error::DataError;
pub use folder::Folder;
pub use names::{Columns, SplitNames};
pub use source::{DataSource, Place};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The rows that a model learns from.
    Train,
    /// The rows that choose checkpoints.
    Validation,
    /// The rows that reports are about.
    Test,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name in file names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|split| split.name() == text)
            .ok_or_else(|| format!("unknown split {text:?}: expected train, validation or test"))
    }
}

/// Encodes a picture as PNG.
///
/// # Errors
/// The encoder fails.
pub fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, ::image::ImageError> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ::image::ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
