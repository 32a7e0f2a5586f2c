//! Meshes, bounding boxes and mass properties: the data that describe a solid in any
//! representation.

use serde::{Deserialize, Serialize};

/// Mass properties at unit density.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MassProperties {
    /// Volume in units^3. Zero or negative only for degenerate or malformed solids.
    pub volume: f64,
    /// Centre of mass `[x, y, z]`.
    pub centroid: [f64; 3],
    /// Inertia tensor about the centroid, in units^5, row by row.
    pub inertia: [[f64; 3]; 3],
    /// Axis-aligned bounding box.
    pub bounds: Bounds,
}

impl MassProperties {
    /// Mass properties of a solid that occupies nothing.
    pub const NOTHING: Self = Self {
        volume: 0.0,
        centroid: [0.0; 3],
        inertia: [[0.0; 3]; 3],
        bounds: Bounds { min: [0.0; 3], max: [0.0; 3] },
    };

    /// Mass properties of two disjoint solids together: sums about the common centroid, by
    /// Steiner's theorem.
    #[must_use]
    pub fn beside(&self, other: &Self) -> Self {
        let volume = self.volume + other.volume;
        let bounds = self.bounds.union(&other.bounds);
        if volume == 0.0 {
            return Self { bounds, ..Self::NOTHING };
        }
        let share = |k: usize| (self.volume * self.centroid[k] + other.volume * other.centroid[k]) / volume;
        let centroid: [f64; 3] = std::array::from_fn(share);
        let moved = |part: &Self, row: usize, column: usize| {
            let shift: [f64; 3] = std::array::from_fn(|k| part.centroid[k] - centroid[k]);
            let square = if row == column { shift.iter().map(|s| s * s).sum() } else { 0.0 };
            part.inertia[row][column] + part.volume * (square - shift[row] * shift[column])
        };
        let inertia = std::array::from_fn(|row| {
            std::array::from_fn(|column| moved(self, row, column) + moved(other, row, column))
        });
        Self { volume, centroid, inertia, bounds }
    }

    /// Radius of gyration `sqrt(trace(inertia) / (2 volume))`: the scale of the normalised frame.
    /// `None` if it is undefined, because the volume or the trace is not positive and finite.
    pub fn radius_of_gyration(&self) -> Option<f64> {
        let trace = self.inertia[0][0] + self.inertia[1][1] + self.inertia[2][2];
        let radius = (trace / (2.0 * self.volume)).sqrt();
        (radius.is_finite() && radius > 0.0 && self.volume > 0.0).then_some(radius)
    }
}

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// Lowest corner.
    pub min: [f64; 3],
    /// Highest corner.
    pub max: [f64; 3],
}

impl Bounds {
    /// The empty box: the neutral element of [`Bounds::union`].
    pub const EMPTY: Self = Self { min: [f64::INFINITY; 3], max: [f64::NEG_INFINITY; 3] };

    /// The smallest box around `points`; [`Bounds::EMPTY`] if there are none.
    pub fn of<'a>(points: impl IntoIterator<Item = &'a [f64; 3]>) -> Self {
        points.into_iter().fold(Self::EMPTY, |mut bounds, point| {
            for axis in 0..3 {
                bounds.min[axis] = bounds.min[axis].min(point[axis]);
                bounds.max[axis] = bounds.max[axis].max(point[axis]);
            }
            bounds
        })
    }

    /// The smallest box around both.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            min: std::array::from_fn(|axis| self.min[axis].min(other.min[axis])),
            max: std::array::from_fn(|axis| self.max[axis].max(other.max[axis])),
        }
    }

    /// The intersection of both boxes. If they do not overlap, it is empty, with `max` below `min`.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            min: std::array::from_fn(|axis| self.min[axis].max(other.min[axis])),
            max: std::array::from_fn(|axis| self.max[axis].min(other.max[axis])),
        }
    }
}

/// A triangulated boundary. The corners of a triangle are counter-clockwise seen from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mesh {
    /// Points in the program's units. Neighbouring faces do not share vertices.
    pub vertices: Vec<[f64; 3]>,
    /// Indices into `vertices`.
    pub triangles: Vec<[u32; 3]>,
    /// `faces[i]`: index of the B-rep face of triangle `i`. A renderer draws an edge between faces.
    /// Same length as `triangles`.
    pub faces: Vec<u32>,
}

/// Why a mesh is inconsistent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// One face index per triangle is required.
    #[error("mesh: expected one face index per triangle ({triangles}), got {faces}")]
    Faces {
        /// Number of triangles.
        triangles: usize,
        /// Number of face indices.
        faces: usize,
    },
    /// A triangle refers to a vertex that does not exist.
    #[error("mesh: triangle {triangle} names vertex {vertex}, but there are only {vertices}")]
    Vertex {
        /// Index of the triangle.
        triangle: usize,
        /// The vertex index in the triangle.
        vertex: u32,
        /// Number of vertices.
        vertices: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("mesh: vertex {vertex} has a coordinate that is not finite")]
    NotFinite {
        /// Index of the vertex.
        vertex: usize,
    },
}

impl Mesh {
    /// Checks that indices are in range, lengths agree and coordinates are finite.
    pub fn check(&self) -> Result<(), MeshError> {
        if self.faces.len() != self.triangles.len() {
            return Err(MeshError::Faces { triangles: self.triangles.len(), faces: self.faces.len() });
        }
        let vertices = self.vertices.len();
        for (triangle, corners) in self.triangles.iter().enumerate() {
            if let Some(&vertex) = corners.iter().find(|&&v| v as usize >= vertices) {
                return Err(MeshError::Vertex { triangle, vertex, vertices });
            }
        }
        match self.vertices.iter().position(|v| v.iter().any(|c| !c.is_finite())) {
            Some(vertex) => Err(MeshError::NotFinite { vertex }),
            None => Ok(()),
        }
    }

    /// The same mesh with every vertex mapped by `map`, which must preserve orientation.
    pub fn mapped(&self, map: impl Fn([f64; 3]) -> [f64; 3]) -> Self {
        Self {
            vertices: self.vertices.iter().map(|&v| map(v)).collect(),
            triangles: self.triangles.clone(),
            faces: self.faces.clone(),
        }
    }

    /// Bounds of the vertices.
    pub fn bounds(&self) -> Bounds {
        Bounds::of(&self.vertices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inconsistent_mesh_is_refused() {
        let mesh = Mesh { vertices: vec![[0.0; 3]; 3], triangles: vec![[0, 1, 3]], faces: vec![0] };
        assert_eq!(mesh.check(), Err(MeshError::Vertex { triangle: 0, vertex: 3, vertices: 3 }));
        let mesh = Mesh { faces: vec![], triangles: vec![[0, 1, 2]], ..mesh };
        assert_eq!(mesh.check(), Err(MeshError::Faces { triangles: 1, faces: 0 }));
        let mesh = Mesh { vertices: vec![[0.0, f64::NAN, 0.0]; 3], triangles: vec![], faces: vec![] };
        assert_eq!(mesh.check(), Err(MeshError::NotFinite { vertex: 0 }));
    }
}
