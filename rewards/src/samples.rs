//! Solids with known properties, for the tests of all crates.

use crate::csg::{CsgSolid, Edge, Extrusion, Plane, Region, Vec2, Vec3, Wire};
use crate::mesh::{Bounds, MassProperties, Mesh};

/// The block between two corners as a mesh: 8 vertices, 6 faces of two triangles each.
pub fn block_mesh(low: [f64; 3], high: [f64; 3]) -> Mesh {
    let corner = |bits: usize| std::array::from_fn(|axis| if bits >> axis & 1 == 0 { low[axis] } else { high[axis] });
    let quads = [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]];
    let mut mesh = Mesh { vertices: (0..8).map(corner).collect(), ..Mesh::default() };
    for (face, [a, b, c, d]) in quads.into_iter().enumerate() {
        mesh.triangles.extend([[a, b, c], [a, c, d]]);
        mesh.faces.extend([face as u32; 2]);
    }
    mesh
}

/// The mass properties of that block in closed form: `I_x = V (b^2 + c^2) / 12` and so on.
pub fn block_mass(low: [f64; 3], high: [f64; 3]) -> MassProperties {
    let sides: [f64; 3] = std::array::from_fn(|axis| high[axis] - low[axis]);
    let volume: f64 = sides.iter().product();
    let squares: f64 = sides.iter().map(|side| side * side).sum();
    let moment = |axis: usize| volume * (squares - sides[axis] * sides[axis]) / 12.0;
    MassProperties {
        volume,
        centroid: std::array::from_fn(|axis| (low[axis] + high[axis]) / 2.0),
        inertia: std::array::from_fn(|row| std::array::from_fn(|column| if row == column { moment(row) } else { 0.0 })),
        bounds: Bounds { min: low, max: high },
    }
}

/// The block with lowest corner `min` and edge lengths `size`, as a boolean tree.
pub fn block(min: Vec3, size: Vec3) -> CsgSolid {
    let corners = [(0.0, 0.0), (size.x, 0.0), (size.x, size.y), (0.0, size.y)].map(|(x, y)| Vec2::new(x, y));
    let edge = |i: usize| Edge::line(corners[i], corners[(i + 1) % 4]).expect("sides have a length");
    let wire = Wire::new((0..4).map(edge).collect()).expect("four sides are closed");
    Extrusion::new(Plane::xy(min), Region::new(wire, vec![]), size.z, false).into()
}
