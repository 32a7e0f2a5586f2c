//! Bounds and volume.

use super::{CsgSolid, Operation, Vec3};

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lowest coordinates.
    pub min: Vec3,
    /// Highest coordinates.
    pub max: Vec3,
}

impl Bounds {
    /// The box around points; `None` without points.
    pub fn of_points(points: impl IntoIterator<Item = Vec3>) -> Option<Self> {
        points
            .into_iter()
            .fold(None, |bounds: Option<Self>, point| {
                Some(bounds.map_or(
                    Self {
                        min: point,
                        max: point,
                    },
                    |old| Self {
                        min: old.min.inf(&point),
                        max: old.max.sup(&point),
                    },
                ))
            })
    }

    /// Edge lengths.
    pub fn size(&self) -> Vec3 {
        self.max - self.min
    }

    /// The middle.
    pub fn center(&self) -> Vec3 {
        (self.min + self.max) / 2.0
    }

    /// True where the boxes share inner points.
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..3).all(|axis| self.min[axis] < other.max[axis] && other.min[axis] < self.max[axis])
    }
}

impl CsgSolid {
    /// A box that holds the solid: exact for an extrusion and for unions, possibly too large after a cut or an
    /// intersection. `None` where the boxes of an intersection are apart.
    pub fn bounds(&self) -> Option<Bounds> {
        match self {
            Self::Extrusion(extrusion) => {
                let axes = [Vec3::x(), Vec3::y(), Vec3::z()];
                Some(Bounds {
                    min: Vec3::from_fn(|axis, _| -extrusion.support(-axes[axis])),
                    max: Vec3::from_fn(|axis, _| extrusion.support(axes[axis])),
                })
            }
            Self::Boolean(operation, left, right) => {
                match (operation, left.bounds(), right.bounds()) {
                    (Operation::Cut, bounds, _) => bounds,
                    (Operation::Union, Some(a), Some(b)) => Some(Bounds {
                        min: a.min.inf(&b.min),
                        max: a.max.sup(&b.max),
                    }),
                    (Operation::Union, a, b) => a.or(b),
                    (Operation::Intersect, Some(a), Some(b)) if a.overlaps(&b) => Some(Bounds {
                        min: a.min.sup(&b.min),
                        max: a.max.inf(&b.max),
                    }),
                    (Operation::Intersect, ..) => None,
                }
            }
        }
    }

    /// Volume: closed form for one extrusion, else by [`volume_by_rows`] with 256 x 256 rows.
    pub fn volume(&self) -> f64 {
        match self {
            Self::Extrusion(extrusion) => extrusion.volume(),
            Self::Boolean(..) => volume_by_rows(self, 256),
        }
    }
}

/// Volume by integration along `rows` x `rows` lines parallel to the longest axis, each through the middle of its
/// cell. Exact along the lines; the error comes from the outline seen along them and falls as `1 / rows` or better.
pub fn volume_by_rows(solid: &CsgSolid, rows: usize) -> f64 {
    let Some(bounds) = solid.bounds() else {
        return 0.0;
    };
    let size = bounds.size();
    let axis = size.imax();
    let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut direction = Vec3::zeros();
    direction[axis] = 1.0;
    let mut caster = solid.caster(direction);
    let (du, dv) = (size[u] / rows as f64, size[v] / rows as f64);
    let mut length = 0.0;
    for i in 0..rows {
        for j in 0..rows {
            let mut origin = bounds.min;
            origin[u] += (i as f64 + 0.5) * du;
            origin[v] += (j as f64 + 0.5) * dv;
            length += caster
                .spans(origin)
                .iter()
                .map(|span| span.leave.at - span.enter.at)
                .sum::<f64>();
        }
    }
    length * du * dv
}
