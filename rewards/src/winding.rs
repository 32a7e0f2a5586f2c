//! The generalised winding number of a triangle mesh (Jacobson, Kavan, Sorkine-Hornung 2013).

/// Sum of the signed solid angles of all triangles seen from `point`, over 4 pi. It is 1 inside of
/// a closed outward-oriented mesh, 0 outside, and between these for open meshes.
pub fn number(points: &[[f64; 3]], triangles: &[[u32; 3]], point: [f64; 3]) -> f64 {
    let total: f64 = triangles
        .iter()
        .map(|corners| {
            let [a, b, c] = corners.map(|v| {
                let p = points[v as usize];
                [p[0] - point[0], p[1] - point[1], p[2] - point[2]]
            });
            half_solid_angle(a, b, c)
        })
        .sum();
    total / (2.0 * std::f64::consts::PI)
}

/// Half of the signed solid angle of a triangle seen from the origin (van Oosterom and Strackee
/// 1983, eq. 8).
fn half_solid_angle(a: [f64; 3], b: [f64; 3], c: [f64; 3]) -> f64 {
    let dot = |u: [f64; 3], v: [f64; 3]| u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    let (la, lb, lc) = (dot(a, a).sqrt(), dot(b, b).sqrt(), dot(c, c).sqrt());
    let triple =
        a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
    let below = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb;
    triple.atan2(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_octant_is_an_eighth() {
        // The triangle (1,0,0) (0,1,0) (0,0,1) seen from the origin covers 4 pi / 8.
        let angle = half_solid_angle([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]);
        assert!((angle / (2.0 * std::f64::consts::PI) - 0.125).abs() < 1e-15);
    }
}
