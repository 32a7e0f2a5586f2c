//! Ground truths: the parts that predictions are compared with.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cadwright_rewards::stl::is_stl;

/// The part that a prediction should build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroundTruth {
    /// The part that this program builds.
    Program(Arc<str>),
    /// The part in this file.
    Shape(Arc<Shape>),
}

impl GroundTruth {
    /// The program, if the ground truth is one.
    pub fn program(&self) -> Option<&str> {
        match self {
            Self::Program(program) => Some(program),
            Self::Shape(_) => None,
        }
    }

    /// The shape from a file, if the ground truth is one.
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

/// The file format of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeFormat {
    /// A mesh, binary or text. [`read_stl`](cadwright_rewards::read_stl) reads it.
    Stl,
    /// Exact surfaces (ISO 10303-21) in millimetres. CadQuery's workers read and tessellate it.
    Step,
    /// Neither, so it holds no solid.
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
    /// A shape whose format follows from the content. Whether there is a solid in it shows when the
    /// shape is used.
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
    /// The file cannot be read.
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
