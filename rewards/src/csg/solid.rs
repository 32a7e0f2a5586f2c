//! Extrusions and boolean trees of them.

use super::{LineCaster, Plane, Region, Vec3};

/// A region of a plane, swept along the plane's normal from height `low` to height `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Extrusion {
    /// The sketch plane.
    pub plane: Plane,
    /// The sketch.
    pub region: Region,
    /// Where the sweep begins, along the normal.
    pub low: f64,
    /// Where it ends; not below `low`.
    pub high: f64,
}

impl Extrusion {
    /// `extrude(distance, both=both)`: a negative distance goes against the normal, `both` the full distance to
    /// either side.
    pub fn new(plane: Plane, region: Region, distance: f64, both: bool) -> Self {
        let (low, high) = if both { (-distance.abs(), distance.abs()) } else { (distance.min(0.0), distance.max(0.0)) };
        Self { plane, region, low, high }
    }

    /// Closed form: area times height.
    pub fn volume(&self) -> f64 {
        self.region.area() * (self.high - self.low)
    }

    /// The largest value of `direction . p` over the body.
    pub fn support(&self, direction: Vec3) -> f64 {
        let local = self.plane.direction_to_local(direction);
        direction.dot(&self.plane.origin)
            + self.region.support(local.xy())
            + (local.z * self.low).max(local.z * self.high)
    }
}

/// How a solid is combined with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Inside either.
    Union,
    /// Inside the first, outside the second.
    Cut,
    /// Inside both.
    Intersect,
}

/// A boolean tree of extrusions.
#[derive(Debug, Clone, PartialEq)]
pub enum CsgSolid {
    /// A leaf.
    Extrusion(Extrusion),
    /// A combination of two solids.
    Boolean(Operation, Box<CsgSolid>, Box<CsgSolid>),
}

impl From<Extrusion> for CsgSolid {
    fn from(extrusion: Extrusion) -> Self {
        Self::Extrusion(extrusion)
    }
}

impl CsgSolid {
    /// `self` combined with `other`.
    #[must_use]
    pub fn combine(self, operation: Operation, other: impl Into<CsgSolid>) -> Self {
        Self::Boolean(operation, Box::new(self), Box::new(other.into()))
    }

    /// The extrusions from left to right. The position is the `primitive` of a [`FaceId`].
    pub fn primitives(&self) -> Vec<&Extrusion> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a Extrusion>) {
        match self {
            Self::Extrusion(extrusion) => found.push(extrusion),
            Self::Boolean(_, left, right) => {
                left.collect(found);
                right.collect(found);
            }
        }
    }

    /// Prepares for many parallel lines along `direction`.
    pub fn caster(&self, direction: Vec3) -> LineCaster<'_> {
        LineCaster::new(self, direction)
    }
}

/// A face of a primitive: 0 is the cap at the low end, 1 the cap at the high end, `2 + k` the side over edge `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaceId {
    /// Position of the extrusion in [`CsgSolid::primitives`].
    pub primitive: u16,
    /// Which of its faces.
    pub face: u16,
}

impl FaceId {
    /// The cap where the sweep begins.
    pub const LOW_CAP: u16 = 0;
    /// The cap where it ends.
    pub const HIGH_CAP: u16 = 1;
    /// The first side face.
    pub const FIRST_SIDE: u16 = 2;
}
