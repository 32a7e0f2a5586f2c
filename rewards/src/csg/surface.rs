//! Groups faces by the surface on which they lie.

use super::{CsgSolid, Edge, FaceId, Primitive, Revolution, Vec2, Vec3};

/// The unbounded surface that carries a face.
#[derive(Debug, Clone, PartialEq)]
pub enum Surface {
    /// A plane: `normal . p = offset`.
    Plane {
        /// Unit normal, its first non-zero component positive.
        normal: Vec3,
        /// Distance from the origin along the normal.
        offset: f64,
    },
    /// A circular cylinder.
    Cylinder {
        /// A point on the axis.
        center: Vec3,
        /// Unit direction of the axis.
        axis: Vec3,
        /// Radius.
        radius: f64,
        /// Direction from the axis to the seam of a full circle's face: see [`seam_direction`].
        seam: Option<Vec3>,
    },
    /// A cone, or part of one.
    Cone {
        /// A point on the axis.
        center: Vec3,
        /// Unit direction of the axis.
        axis: Vec3,
        /// Radius at `center`.
        radius: f64,
        /// Increase of the radius per unit along the axis.
        slope: f64,
    },
    /// A sphere.
    Sphere {
        /// Its centre.
        center: Vec3,
        /// Its radius.
        radius: f64,
    },
}

/// Maps the faces of a solid to surfaces. After a boolean the modelling kernel joins neighbouring
/// faces on one surface, so there is no edge between them.
#[derive(Debug, Clone)]
pub struct SurfaceTable {
    surfaces: Vec<Surface>,
    /// Surface number of each face of each primitive.
    faces: Vec<Vec<u16>>,
}

impl SurfaceTable {
    /// The surfaces of all faces of a solid.
    pub fn new(solid: &CsgSolid) -> Self {
        let mut surfaces: Vec<Surface> = Vec::new();
        let mut number = |surface: Surface| -> u16 {
            let known = surfaces.iter().position(|known| known.same_as(&surface));
            known.unwrap_or_else(|| {
                surfaces.push(surface);
                surfaces.len() - 1
            }) as u16
        };
        let faces =
            solid.primitives().into_iter().map(|p| faces_of(p).into_iter().map(&mut number).collect()).collect();
        Self { surfaces, faces }
    }

    /// The surface number of a face.
    pub fn number(&self, face: FaceId) -> u16 {
        self.faces[usize::from(face.primitive)][usize::from(face.face)]
    }

    /// The surface with a given number.
    pub fn surface(&self, number: u16) -> &Surface {
        &self.surfaces[usize::from(number)]
    }

    /// Number of surfaces.
    pub fn len(&self) -> usize {
        self.surfaces.len()
    }

    /// Whether there is no surface; never true for a solid.
    pub fn is_empty(&self) -> bool {
        self.surfaces.is_empty()
    }
}

/// The surfaces of a primitive in the order of [`FaceId`].
pub(crate) fn faces_of(primitive: Primitive<'_>) -> Vec<Surface> {
    let extrusion = match primitive {
        Primitive::Extrusion(extrusion) => extrusion,
        Primitive::Revolution(revolution) => return swept_sides(revolution),
        Primitive::Polyhedron(body) => {
            return body.faces.iter().map(|face| Surface::plane(face.normal, face.normal * face.offset)).collect();
        }
        Primitive::Ball(ball) => return vec![Surface::Sphere { center: ball.center, radius: ball.radius }],
    };
    let plane = &extrusion.plane;
    let cap = |height: f64| Surface::plane(plane.z, plane.origin + plane.z * height);
    let mut surfaces = vec![cap(extrusion.low), cap(extrusion.high)];
    surfaces.extend(extrusion.region.edges().map(|edge| match *edge {
        Edge::Line { from, .. } => {
            let normal = edge.normal_at(from);
            Surface::plane(plane.x * normal.x + plane.y * normal.y, plane.to_space(from, 0.0))
        }
        Edge::Arc { center, radius, .. } => {
            Surface::Cylinder { center: plane.to_space(center, 0.0), axis: plane.z, radius, seam: None }
        }
        Edge::Circle { center, radius } => Surface::Cylinder {
            center: plane.to_space(center, 0.0),
            axis: plane.z,
            radius,
            seam: Some(seam_direction(plane.z)),
        },
    }));
    surfaces
}

/// The surfaces that the profile's sides sweep, then those of the flat ends.
fn swept_sides(revolution: &Revolution) -> Vec<Surface> {
    let plane = &revolution.plane;
    let swept = |[a, b]: &[Vec2; 2]| {
        let rise = b.y - a.y;
        let center = plane.origin + plane.z * a.y;
        if rise.abs() < 1e-12 {
            Surface::plane(plane.z, center)
        } else if (b.x - a.x).abs() < 1e-12 {
            Surface::Cylinder { center, axis: plane.z, radius: a.x, seam: None }
        } else {
            Surface::Cone { center, axis: plane.z, radius: a.x, slope: (b.x - a.x) / rise }
        }
    };
    let mut surfaces: Vec<Surface> = revolution.sides.iter().map(swept).collect();
    if !revolution.is_whole() {
        let normals = revolution.end_normals();
        surfaces.extend(normals.map(|flat| Surface::plane(plane.x * flat.x + plane.y * flat.y, plane.origin)));
    }
    surfaces
}

/// Direction from the axis to the start of a circle given by centre, axis and radius alone, as in
/// GenCAD-Code's pictures: the kernel's own choice of an x direction (`gp_Ax2(P, V)`). It is +x for
/// upright cylinders, -z (out of sight) for cylinders along -y, and +z for cylinders along x.
pub fn seam_direction(axis: Vec3) -> Vec3 {
    // Suppresses rounding noise in the axis.
    let [a, b, c]: [f64; 3] = axis.map(|component| if component.abs() < 1e-9 { 0.0 } else { component }).into();
    let [a_abs, b_abs, c_abs] = [a.abs(), b.abs(), c.abs()];
    let direction = if b_abs <= a_abs && b_abs <= c_abs {
        if a_abs > c_abs { Vec3::new(-c, 0.0, a) } else { Vec3::new(c, 0.0, -a) }
    } else if a_abs <= b_abs && a_abs <= c_abs {
        if b_abs > c_abs { Vec3::new(0.0, -c, b) } else { Vec3::new(0.0, c, -b) }
    } else if a_abs > b_abs {
        Vec3::new(-b, a, 0.0)
    } else {
        Vec3::new(b, -a, 0.0)
    };
    direction.normalize()
}

impl Surface {
    fn plane(normal: Vec3, point: Vec3) -> Self {
        let leading = normal.iter().copied().find(|component| component.abs() > 1e-9).unwrap_or(1.0);
        let normal = if leading < 0.0 { -normal } else { normal };
        Self::Plane { normal, offset: normal.dot(&point) }
    }

    fn same_as(&self, other: &Self) -> bool {
        const NEAR: f64 = 1e-7;
        match (self, other) {
            (Self::Plane { normal: a, offset: p }, Self::Plane { normal: b, offset: q }) => {
                (a - b).norm() < NEAR && (p - q).abs() < NEAR
            }
            (
                Self::Cylinder { center: c, axis: a, radius: r, .. },
                Self::Cylinder { center: d, axis: b, radius: s, .. },
            ) => a.cross(b).norm() < NEAR && (r - s).abs() < NEAR && (d - c).cross(a).norm() < NEAR,
            (Self::Sphere { center: c, radius: r }, Self::Sphere { center: d, radius: s }) => {
                (c - d).norm() < NEAR && (r - s).abs() < NEAR
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Extrusion, Operation, Plane, Region, Wire};
    use super::*;

    #[test]
    fn seams_lie_where_the_kernel_puts_them() {
        assert_eq!(seam_direction(Vec3::z()), Vec3::x());
        assert_eq!(seam_direction(-Vec3::y()), -Vec3::z());
        assert_eq!(seam_direction(Vec3::x()), Vec3::z());
        assert_eq!(seam_direction(Vec3::new(6e-17, -1.0, 6e-17)), -Vec3::z());
    }

    #[test]
    fn flush_faces_share_a_surface_and_others_do_not() {
        let square = |origin: Vec3| {
            let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)].map(|(x, y)| Vec2::new(x, y));
            let edges = (0..4).map(|i| Edge::line(corners[i], corners[(i + 1) % 4]).unwrap()).collect();
            Extrusion::new(Plane::xy(origin), Region::new(Wire::new(edges).unwrap(), vec![]), 1.0, false)
        };
        let stacked = CsgSolid::from(square(Vec3::zeros())).combine(Operation::Union, square(Vec3::z()));
        let table = SurfaceTable::new(&stacked);
        // Four common sides, and the planes z = 0, 1, 2.
        assert_eq!(table.len(), 7);
        let of = |primitive, face| table.number(FaceId { primitive, face });
        assert_eq!(of(0, FaceId::HIGH_CAP), of(1, FaceId::LOW_CAP));
        assert_eq!(of(0, 2), of(1, 2));
        assert_ne!(of(0, 2), of(0, 4));
    }
}
