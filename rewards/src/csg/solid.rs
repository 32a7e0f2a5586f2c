//! Primitives and boolean trees of them.

use super::{LineCaster, Plane, Polyhedron, Region, Revolution, Vec3};

/// A region of a plane, swept along the plane's normal from height `low` to height `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Extrusion {
    /// The sketch plane.
    pub plane: Plane,
    /// The sketch.
    pub region: Region,
    /// Start of the sweep along the normal.
    pub low: f64,
    /// End of the sweep; not below `low`.
    pub high: f64,
}

impl Extrusion {
    /// `extrude(distance, both=both)`: a negative distance goes against the normal; `both` extrudes
    /// the full distance to either side.
    pub fn new(plane: Plane, region: Region, distance: f64, both: bool) -> Self {
        let (low, high) = if both { (-distance.abs(), distance.abs()) } else { (distance.min(0.0), distance.max(0.0)) };
        Self { plane, region, low, high }
    }

    /// Volume in closed form: area times height.
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

/// A ball.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ball {
    /// Its centre.
    pub center: Vec3,
    /// Radius; positive.
    pub radius: f64,
}

/// A leaf of a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Primitive<'a> {
    /// A swept region.
    Extrusion(&'a Extrusion),
    /// A ball.
    Ball(&'a Ball),
    /// A polygon turned about an axis.
    Revolution(&'a Revolution),
    /// A convex body with flat faces.
    Polyhedron(&'a Polyhedron),
}

impl Primitive<'_> {
    /// The largest value of `direction . p` over the body.
    pub fn support(&self, direction: Vec3) -> f64 {
        match self {
            Self::Extrusion(extrusion) => extrusion.support(direction),
            Self::Ball(ball) => direction.dot(&ball.center) + ball.radius * direction.norm(),
            Self::Revolution(revolution) => revolution.support(direction),
            Self::Polyhedron(polyhedron) => polyhedron.support(direction),
        }
    }
}

/// Boolean operation that combines a solid with the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Inside of either.
    Union,
    /// Inside of the first, outside of the second.
    Cut,
    /// Inside of both.
    Intersect,
}

/// A boolean tree of extrusions, balls and solids of revolution.
#[derive(Debug, Clone, PartialEq)]
pub enum CsgSolid {
    /// A leaf.
    Extrusion(Extrusion),
    /// A leaf.
    Ball(Ball),
    /// A leaf.
    Revolution(Revolution),
    /// A leaf.
    Polyhedron(Polyhedron),
    /// A combination of two solids.
    Boolean(Operation, Box<CsgSolid>, Box<CsgSolid>),
}

impl From<Extrusion> for CsgSolid {
    fn from(extrusion: Extrusion) -> Self {
        Self::Extrusion(extrusion)
    }
}

impl From<Ball> for CsgSolid {
    fn from(ball: Ball) -> Self {
        Self::Ball(ball)
    }
}

impl From<Polyhedron> for CsgSolid {
    fn from(polyhedron: Polyhedron) -> Self {
        Self::Polyhedron(polyhedron)
    }
}

impl From<Revolution> for CsgSolid {
    fn from(revolution: Revolution) -> Self {
        Self::Revolution(revolution)
    }
}

impl CsgSolid {
    /// `self` combined with `other`.
    #[must_use]
    pub fn combine(self, operation: Operation, other: impl Into<CsgSolid>) -> Self {
        Self::Boolean(operation, Box::new(self), Box::new(other.into()))
    }

    /// The same tree with every leaf replaced by `leaf` of it.
    pub fn mapped(&self, leaf: &impl Fn(Primitive<'_>) -> Self) -> Self {
        match self {
            Self::Extrusion(extrusion) => leaf(Primitive::Extrusion(extrusion)),
            Self::Ball(ball) => leaf(Primitive::Ball(ball)),
            Self::Revolution(revolution) => leaf(Primitive::Revolution(revolution)),
            Self::Polyhedron(polyhedron) => leaf(Primitive::Polyhedron(polyhedron)),
            Self::Boolean(operation, left, right) => {
                Self::Boolean(*operation, Box::new(left.mapped(leaf)), Box::new(right.mapped(leaf)))
            }
        }
    }

    /// The leaf, or `None` for a combination.
    pub fn as_primitive(&self) -> Option<Primitive<'_>> {
        match self {
            Self::Extrusion(extrusion) => Some(Primitive::Extrusion(extrusion)),
            Self::Ball(ball) => Some(Primitive::Ball(ball)),
            Self::Revolution(revolution) => Some(Primitive::Revolution(revolution)),
            Self::Polyhedron(polyhedron) => Some(Primitive::Polyhedron(polyhedron)),
            Self::Boolean(..) => None,
        }
    }

    /// Number of leaves.
    pub fn leaves(&self) -> usize {
        match self {
            Self::Boolean(_, left, right) => left.leaves() + right.leaves(),
            _ => 1,
        }
    }

    /// Number of faces of all leaves.
    pub fn faces(&self) -> usize {
        match self {
            Self::Extrusion(extrusion) => 2 + extrusion.region.edges().count(),
            Self::Ball(_) => 1,
            Self::Revolution(revolution) => revolution.sides.len() + if revolution.is_whole() { 0 } else { 2 },
            Self::Polyhedron(polyhedron) => polyhedron.faces.len(),
            Self::Boolean(_, left, right) => left.faces() + right.faces(),
        }
    }

    /// The leaves from left to right. Their position is the `primitive` of a [`FaceId`].
    pub fn primitives(&self) -> Vec<Primitive<'_>> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<Primitive<'a>>) {
        match self {
            Self::Boolean(_, left, right) => {
                left.collect(found);
                right.collect(found);
            }
            leaf => found.extend(leaf.as_primitive()),
        }
    }

    /// Approximate size of the tree in memory.
    pub fn size_in_bytes(&self) -> usize {
        let of = |leaf: Primitive<'_>| match leaf {
            Primitive::Extrusion(e) => size_of_val(e) + e.region.edges().count() * size_of::<super::Edge>(),
            Primitive::Ball(ball) => size_of_val(ball),
            Primitive::Revolution(revolution) => size_of_val(revolution) + size_of_val(&*revolution.sides),
            Primitive::Polyhedron(body) => {
                let around: usize = body.faces.iter().map(|face| size_of_val(&*face.around)).sum();
                size_of_val(body) + size_of_val(&*body.corners) + size_of_val(&*body.faces) + around
            }
        };
        self.primitives().into_iter().map(of).sum()
    }

    /// Prepares a caster for many parallel lines along `direction`.
    pub fn caster(&self, direction: Vec3) -> LineCaster<'_> {
        LineCaster::new(self, direction)
    }
}

/// A face of a primitive.
///
/// * Extrusion: 0 is the cap at the low end, 1 the cap at the high end, `2 + k` the side over edge
///   `k`.
/// * Ball: 0 is the whole surface.
/// * Solid of revolution: `k` is the surface that side `k` sweeps; if the turn is less than a full
///   one, its two flat ends follow.
/// * Polyhedron: `k` is face `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaceId {
    /// Position of the leaf in [`CsgSolid::primitives`].
    pub primitive: u16,
    /// Number of the face within the primitive.
    pub face: u16,
}

impl FaceId {
    /// The cap at the start of the sweep.
    pub const LOW_CAP: u16 = 0;
    /// The cap at the end of the sweep.
    pub const HIGH_CAP: u16 = 1;
    /// The first side face.
    pub const FIRST_SIDE: u16 = 2;
}
