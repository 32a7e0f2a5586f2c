//! Meshes and solids with known properties.

use std::sync::Arc;

use cadwright_rewards::samples::block_mass;
pub use cadwright_rewards::samples::block_mesh as block;
use cadwright_rewards::{Bounds, MassProperties, Mesh, Solid};
use nalgebra::{Matrix3, Rotation3, Vector3};

pub fn unit_cube() -> Mesh {
    block([0.0; 3], [1.0; 3])
}

/// A ball with `rings` rings of latitude and twice as many of longitude.
pub fn ball(centre: [f64; 3], radius: f64, rings: u32) -> Mesh {
    let around = 2 * rings;
    let point = |ring: u32, step: u32| {
        let theta = std::f64::consts::PI * f64::from(ring) / f64::from(rings);
        let phi = 2.0 * std::f64::consts::PI * f64::from(step % around) / f64::from(around);
        let unit = [theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()];
        std::array::from_fn(|axis| centre[axis] + radius * unit[axis])
    };
    let mut mesh = Mesh::default();
    for ring in 0..rings {
        for step in 0..around {
            let base = mesh.vertices.len() as u32;
            let corners = [(ring, step), (ring + 1, step), (ring + 1, step + 1), (ring, step + 1)];
            mesh.vertices.extend(corners.map(|(r, s)| point(r, s)));
            if ring + 1 < rings {
                mesh.triangles.push([base, base + 1, base + 2]);
            }
            if ring > 0 {
                mesh.triangles.push([base, base + 2, base + 3]);
            }
        }
    }
    mesh.faces = vec![0; mesh.triangles.len()];
    mesh
}

/// Joins both meshes into one.
pub fn together(mut a: Mesh, b: &Mesh) -> Mesh {
    let base = a.vertices.len() as u32;
    a.vertices.extend(&b.vertices);
    a.triangles.extend(b.triangles.iter().map(|t| t.map(|v| v + base)));
    a.faces.extend(&b.faces);
    a
}

/// The mesh turned inside out. Within another mesh it is a hole.
pub fn inside_out(mut mesh: Mesh) -> Mesh {
    mesh.triangles.iter_mut().for_each(|t| t.swap(1, 2));
    mesh
}

/// `mesh` rotated about `axis` through the origin by `angle`, then translated.
pub fn moved(mesh: &Mesh, axis: [f64; 3], angle: f64, by: [f64; 3]) -> Mesh {
    let turn = rotation(axis, angle);
    mesh.mapped(|v| (turn * Vector3::from(v) + Vector3::from(by)).into())
}

pub fn rotation(axis: [f64; 3], angle: f64) -> Matrix3<f64> {
    Rotation3::new(Vector3::from(axis).normalize() * angle).into_inner()
}

/// A block with the given sides about the origin, scaled, rotated and translated, with mass
/// properties in closed form: `I_x = V (b^2 + c^2) / 12` and so on, `I' = R I R^T`.
pub fn block_solid(sides: [f64; 3], axis: [f64; 3], angle: f64, centroid: [f64; 3]) -> Arc<Solid> {
    let half = sides.map(|side| side / 2.0);
    let mesh = moved(&block(half.map(|h| -h), half), axis, angle, centroid);
    let straight = block_mass(half.map(|h| -h), half);
    let diagonal = Matrix3::from_fn(|row, column| straight.inertia[row][column]);
    let turn = rotation(axis, angle);
    let inertia = turn * diagonal * turn.transpose();
    let inertia = std::array::from_fn(|r| std::array::from_fn(|c| inertia[(r, c)]));
    let bounds: Bounds = mesh.bounds();
    let mass = MassProperties { volume: straight.volume, centroid, inertia, bounds };
    Arc::new(Solid::meshed(mass, mesh, 1, false))
}
