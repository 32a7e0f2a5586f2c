//! Eigenvectors of a symmetric 3 x 3 matrix with the signs that LAPACK gives them.
//!
//! The published metric turns a part by its eigenvectors and tries only some of their signs. The
//! signs that the solver happens to return therefore change the score. This module follows `dsyevd`
//! (LAPACK 3.10 and later, lower triangle) operation by operation: one Householder reflection to
//! tridiagonal form, then implicit QL or QR steps. Nothing else in the crate needs it.

use nalgebra::{Matrix3, Vector3};

const EPSILON: f64 = f64::EPSILON / 2.0;
const MAX_STEPS: usize = 90;

/// Eigenvalues in ascending order, and eigenvectors as columns. `None` if the iteration does not
/// converge.
pub fn eigh(matrix: &Matrix3<f64>) -> Option<(Vector3<f64>, Matrix3<f64>)> {
    if matrix.iter().any(|entry| !entry.is_finite()) {
        return None;
    }
    let (mut d, mut e, reflection) = tridiagonal(matrix);
    let mut z = Matrix3::identity();
    diagonalise(&mut d, &mut e, &mut z)?;
    for place in 0..2 {
        let least = (place + 1..3).fold(place, |least, k| if d[k] < d[least] { k } else { least });
        if least != place {
            d.swap(place, least);
            z.swap_columns(place, least);
        }
    }
    Some((Vector3::from(d), reflection * z))
}

/// Diagonal, subdiagonal, and the reflection that makes the matrix tridiagonal (`dsytd2`).
fn tridiagonal(matrix: &Matrix3<f64>) -> ([f64; 3], [f64; 2], Matrix3<f64>) {
    let (alpha, x) = (matrix[(1, 0)], matrix[(2, 0)]);
    if x == 0.0 {
        let diagonal = [matrix[(0, 0)], matrix[(1, 1)], matrix[(2, 2)]];
        return (diagonal, [alpha, matrix[(2, 1)]], Matrix3::identity());
    }
    let beta = -alpha.hypot(x).copysign(alpha);
    let tau = (beta - alpha) / beta;
    let v = [1.0, x / (alpha - beta)];
    let (a, b, c) = (matrix[(1, 1)], matrix[(2, 1)], matrix[(2, 2)]);
    let product = [tau * (a * v[0] + b * v[1]), tau * (b * v[0] + c * v[1])];
    let shift = -0.5 * tau * (product[0] * v[0] + product[1] * v[1]);
    let w = [product[0] + shift * v[0], product[1] + shift * v[1]];
    let diagonal = [matrix[(0, 0)], a - 2.0 * v[0] * w[0], c - 2.0 * v[1] * w[1]];
    let v = Vector3::new(0.0, v[0], v[1]);
    (diagonal, [beta, b - v[1] * w[1] - v[2] * w[0]], Matrix3::identity() - tau * v * v.transpose())
}

/// `dsteqr` for a 3 x 3 matrix: turns `d` into eigenvalues and `z` into the eigenvectors of the
/// original matrix.
fn diagonalise(d: &mut [f64; 3], e: &mut [f64; 2], z: &mut Matrix3<f64>) -> Option<()> {
    let mut steps = 0;
    let mut next = 0;
    while next < 3 {
        if next > 0 {
            e[next - 1] = 0.0;
        }
        let is_small = |m: usize| e[m].abs() <= d[m].abs().sqrt() * d[m + 1].abs().sqrt() * EPSILON;
        let last = (next..2).find(|&m| is_small(m)).unwrap_or(2);
        if last < 2 {
            e[last] = 0.0;
        }
        let first = next;
        next = last + 1;
        if first == last {
            continue;
        }
        if d[last].abs() < d[first].abs() {
            upward(d, e, z, first, last, &mut steps)?;
        } else {
            downward(d, e, z, first, last, &mut steps)?;
        }
    }
    Some(())
}

/// Returns whether the subdiagonal element between `m` and `m + 1` counts as zero within a block.
fn is_negligible(d: &[f64; 3], e: &[f64; 2], m: usize) -> bool {
    e[m] * e[m] <= EPSILON * EPSILON * d[m].abs() * d[m + 1].abs() + f64::MIN_POSITIVE
}

/// QL steps: eigenvalues converge from the top.
fn downward(
    d: &mut [f64; 3],
    e: &mut [f64; 2],
    z: &mut Matrix3<f64>,
    mut l: usize,
    end: usize,
    steps: &mut usize,
) -> Option<()> {
    while l <= end {
        let m = (l..end).find(|&m| is_negligible(d, e, m)).unwrap_or(end);
        if m < end {
            e[m] = 0.0;
        }
        if m == l {
            l += 1;
            continue;
        }
        if m == l + 1 {
            let (large, small, c, s) = two_by_two(d[l], e[l], d[l + 1]);
            turn(z, l, c, s);
            (d[l], d[l + 1], e[l]) = (large, small, 0.0);
            l += 2;
            continue;
        }
        *steps += 1;
        if *steps > MAX_STEPS {
            return None;
        }
        let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
        let r = g.hypot(1.0);
        g = d[m] - d[l] + e[l] / (g + r.copysign(g));
        let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
        let mut turns = Vec::with_capacity(2);
        for i in (l..m).rev() {
            let (f, b) = (s * e[i], c * e[i]);
            let r;
            (c, s, r) = rotation(g, f);
            if i != m - 1 {
                e[i + 1] = r;
            }
            g = d[i + 1] - p;
            let r = (d[i] - g) * s + 2.0 * c * b;
            p = s * r;
            d[i + 1] = g + p;
            g = c * r - b;
            turns.push((i, c, -s));
        }
        turns.into_iter().for_each(|(i, c, s)| turn(z, i, c, s));
        d[l] -= p;
        e[l] = g;
    }
    Some(())
}

/// QR steps: eigenvalues converge from the bottom.
fn upward(
    d: &mut [f64; 3],
    e: &mut [f64; 2],
    z: &mut Matrix3<f64>,
    end: usize,
    last: usize,
    steps: &mut usize,
) -> Option<()> {
    // One past the current row, so that it can reach `end`.
    let mut above = last + 1;
    while above > end {
        let l = above - 1;
        let m = (end + 1..=l).rev().find(|&m| is_negligible(d, e, m - 1)).unwrap_or(end);
        if m > end {
            e[m - 1] = 0.0;
        }
        if m == l {
            above -= 1;
            continue;
        }
        if m + 1 == l {
            let (large, small, c, s) = two_by_two(d[l - 1], e[l - 1], d[l]);
            turn(z, l - 1, c, s);
            (d[l - 1], d[l], e[l - 1]) = (large, small, 0.0);
            above -= 2;
            continue;
        }
        *steps += 1;
        if *steps > MAX_STEPS {
            return None;
        }
        let mut g = (d[l - 1] - d[l]) / (2.0 * e[l - 1]);
        let r = g.hypot(1.0);
        g = d[m] - d[l] + e[l - 1] / (g + r.copysign(g));
        let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
        for i in m..l {
            let (f, b) = (s * e[i], c * e[i]);
            let r;
            (c, s, r) = rotation(g, f);
            if i != m {
                e[i - 1] = r;
            }
            g = d[i] - p;
            let r = (d[i + 1] - g) * s + 2.0 * c * b;
            p = s * r;
            d[i] = g + p;
            g = c * r - b;
            turn(z, i, c, s);
        }
        d[l] -= p;
        e[l - 1] = g;
    }
    Some(())
}

/// Rotates columns `i` and `i + 1` (`dlasr`).
fn turn(z: &mut Matrix3<f64>, i: usize, c: f64, s: f64) {
    for row in 0..3 {
        let right = z[(row, i + 1)];
        z[(row, i + 1)] = c * right - s * z[(row, i)];
        z[(row, i)] = s * right + c * z[(row, i)];
    }
}

/// Cosine, sine and length of the rotation that takes (f, g) to (r, 0) (`dlartg`).
fn rotation(f: f64, g: f64) -> (f64, f64, f64) {
    if g == 0.0 {
        return (1.0, 0.0, f);
    }
    if f == 0.0 {
        return (0.0, 1f64.copysign(g), g.abs());
    }
    let length = (f * f + g * g).sqrt();
    let r = length.copysign(f);
    (f.abs() / length, g / r, r)
}

/// Eigenvalues of [[a, b], [b, c]], the one of larger magnitude first, and its eigenvector
/// (`dlaev2`).
fn two_by_two(a: f64, b: f64, c: f64) -> (f64, f64, f64, f64) {
    let (sum, difference, twice) = (a + c, a - c, b + b);
    let (larger, smaller) = if a.abs() > c.abs() { (a, c) } else { (c, a) };
    let (gap, off) = (difference.abs(), twice.abs());
    let root = if gap > off {
        gap * (1.0 + (off / gap).powi(2)).sqrt()
    } else if gap < off {
        off * (1.0 + (gap / off).powi(2)).sqrt()
    } else {
        off * std::f64::consts::SQRT_2
    };
    let (large, small, sign) = if sum == 0.0 {
        (0.5 * root, -0.5 * root, 1.0)
    } else {
        let sign = if sum < 0.0 { -1.0 } else { 1.0 };
        let large = 0.5 * (sum + sign * root);
        (large, (larger / large) * smaller - (b / large) * b, sign)
    };
    let (cosine, side) = if difference >= 0.0 { (difference + root, 1.0) } else { (difference - root, -1.0) };
    let (c, s) = if cosine.abs() > off {
        let cotangent = -twice / cosine;
        let s = 1.0 / (1.0 + cotangent * cotangent).sqrt();
        (cotangent * s, s)
    } else if off == 0.0 {
        (1.0, 0.0)
    } else {
        let tangent = -cosine / twice;
        let c = 1.0 / (1.0 + tangent * tangent).sqrt();
        (c, tangent * c)
    };
    if sign == side { (large, small, -s, c) } else { (large, small, c, s) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = [[f64; 3]; 3];

    /// Matrices and their eigenvectors by `numpy.linalg.eigh` (numpy 2.4), row by row.
    #[rustfmt::skip]
    const REFERENCE: [(Rows, Rows); 6] = [
        ([[8.0, -1.0, -5.0], [-1.0, -4.0, -10.0], [-5.0, -10.0, -8.0]],
         [[0.17890471579892225, 0.378706867000311, 0.9080606871524145],
          [0.6079989592026632, -0.7681819838065085, 0.20058341248362138],
          [0.7735181757873468, 0.5162146342771632, -0.36768476047384635]]),
        ([[6.0, 2.0, 8.0], [2.0, 2.0, 6.0], [8.0, 6.0, 0.0]],
         [[-0.4173477864802985, -0.5801380919635856, -0.6994716716013921],
          [-0.4260674480860685, 0.804784359430395, -0.41326585208269373],
          [0.8026751240703929, 0.12554652153309498, -0.5830529273826862]]),
        ([[2.0, 8.0, -3.0], [8.0, 4.0, -1.0], [-3.0, -1.0, 2.0]],
         [[-0.7548313896465597, 0.011403524316192232, -0.655819741115967],
          [0.6172474560435092, 0.35058704777795285, -0.7043396197418945],
          [-0.22188995293176386, 0.9364607207798467, 0.2716729048404169]]),
        ([[-10.0, 7.0, 0.0], [7.0, -8.0, -10.0], [0.0, -10.0, 0.0]],
         [[-0.5729294201431283, -0.7852948657660704, -0.23465688427128803],
          [0.7239930313931702, -0.35070975292990086, -0.5940006394726998],
          [0.38416919453358983, -0.5102103909185873, 0.7694799457881376]]),
        ([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]],
         [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        ([[2.0, 0.0, 0.0], [0.0, 5.0, 1.0], [0.0, 1.0, 3.0]],
         [[1.0, 0.0, 0.0], [0.0, 0.3826834323650898, -0.9238795325112867],
          [0.0, -0.9238795325112867, -0.3826834323650898]]),
    ];

    #[test]
    fn eigenvectors_have_the_signs_of_lapack() {
        for (matrix, expected) in REFERENCE {
            let matrix = Matrix3::from_fn(|row, column| matrix[row][column]);
            let (values, vectors) = eigh(&matrix).unwrap();
            let expected = Matrix3::from_fn(|row, column| expected[row][column]);
            assert!((vectors - expected).amax() < 1e-12, "{matrix}{vectors}{expected}");
            assert!((matrix * vectors - vectors * Matrix3::from_diagonal(&values)).amax() < 1e-12);
        }
    }

    #[test]
    fn what_is_not_finite_has_none() {
        assert_eq!(eigh(&Matrix3::from_element(f64::NAN)), None);
    }
}
