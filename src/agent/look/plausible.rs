//! What a picture cannot show, but parts have in common.

use cadwright_rewards::csg::Vec3;
use cadwright_rewards::{Geometry, Mesh, Solid};

/// The thickness of the thinnest of 125 synthetic parts, rounded down, in shares of the largest
/// side of its box.
const THIN: f64 = 0.04;
/// The factor for each further body: parts of the data set have one.
const BODY: f64 = 0.9;

/// How far a solid could be a part of the data set, in (0, 1]: 1 for one body that is nowhere only
/// a sheet. A solid whose thickest piece is below 4 % of its size loses in proportion, and each
/// body beyond the first costs a tenth. A thickness or a number of bodies that is not known costs
/// nothing.
///
/// It is no part of the score: it does not help to choose among a policy's samples, which are no
/// cheats. A search that climbs on the score should multiply by it.
pub fn plausibility(solid: &Solid) -> f64 {
    let bounds = solid.bounds();
    let size = (0..3).map(|axis| bounds.max[axis] - bounds.min[axis]).fold(0.0, f64::max);
    let thickness = match &solid.geometry {
        Geometry::Csg(csg) => csg.thickness(),
        Geometry::Mesh(mesh) => Some(2.0 * solid.mass().volume / area(mesh)),
    };
    let share = thickness.map_or(1.0, |thickness| thickness / size / THIN);
    let sturdy = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let further = solid.solids().map_or(0, |count| count.saturating_sub(1)).min(20);
    sturdy.max(1e-3) * BODY.powi(further as i32)
}

/// The area of a mesh. A plate's volume is half its area times its thickness.
fn area(mesh: &Mesh) -> f64 {
    let point = |vertex: u32| Vec3::from(mesh.vertices[vertex as usize]);
    let double = mesh.triangles.iter().map(|[a, b, c]| (point(*b) - point(*a)).cross(&(point(*c) - point(*a))).norm());
    double.sum::<f64>() / 2.0
}
