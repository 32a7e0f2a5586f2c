//! What predictions are compared with.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cadwright_rewards::stl::is_stl;

/// The part that a prediction should build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroundTruth {
    /// What this program builds.
    Program(Arc<str>),
    /// What this file holds.
    Shape(Arc<Shape>),
}

impl GroundTruth {
    /// The program, if it is one.
    pub fn program(&self) -> Option<&str> {
        match self {
            Self::Program(program) => Some(program),
            Self::Shape(_) => None,
        }
    }

    /// The file, if it is one.
    pub fn shape(&self) -> Option<&Arc<Shape>> {
        match self {
            Self::Program(_) => None,
            Self::Shape(shape) => Some(shape),
        }
    }
}

impl<T: Into<Arc<str>>> From<T> for GroundTruth {
    fn from(program: T) -> Self {
        Self::Program(program.into())
    }
}

/// How a shape is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeFormat {
    /// A mesh, binary or text; read by [`read_stl`](cadwright_rewards::read_stl).
    Stl,
    /// Exact surfaces (ISO 10303-21), in millimetres; read and tessellated by CadQuery's workers.
    Step,
    /// Neither; holds no solid.
    Unknown,
}

/// A part in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape {
    format: ShapeFormat,
    bytes: Vec<u8>,
    digest: String,
}

impl Shape {
    /// Tells the format by the content. Whether a solid is in it shows when it is used.
    pub fn new(bytes: Vec<u8>) -> Self {
        let format = if bytes.trim_ascii_start().starts_with(b"ISO-10303-21") {
            ShapeFormat::Step
        } else if is_stl(&bytes) {
            ShapeFormat::Stl
        } else {
            ShapeFormat::Unknown
        };
        let digest = blake3::hash(&bytes).to_hex().to_string();
        Self { format, bytes, digest }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The system's.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        fs::read(path).map(Self::new)
    }

    /// The format.
    pub fn format(&self) -> ShapeFormat {
        self.format
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of the content, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes, {}", self.format, self.bytes.len(), &self.digest[..12])
    }
}
