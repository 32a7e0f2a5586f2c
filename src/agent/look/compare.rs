//! How far two pictures agree: silhouettes, lines and faces.

use super::features::Features;
use super::map::Map;

/// The agreement of two pictures. Every part is in [0, 1], and 1 if both are equal.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Agreement {
    /// Intersection over union of the silhouettes.
    pub silhouette: f64,
    /// Correlation of the lines.
    pub edges: f64,
    /// Agreement of the faces' tones where both silhouettes are.
    pub shading: f64,
}

impl Agreement {
    /// Compares two pictures; nothing agrees with an empty one.
    pub fn of(input: &Features, candidate: &Features) -> Self {
        let smaller: f64 = sum(&input.silhouette.zip(&candidate.silhouette, f32::min));
        let larger: f64 = sum(&input.silhouette.zip(&candidate.silhouette, f32::max));
        if smaller <= 0.0 {
            return Self::default();
        }
        let edges = [0, 1].map(|level| correlation(&input.lines[level], &candidate.lines[level]));
        Self { silhouette: smaller / larger, edges: (edges[0] + edges[1]) / 2.0, shading: shading(input, candidate) }
    }

    /// One number in [0, 1]; 1 if all parts are 1, 0 if the silhouettes do not overlap.
    pub fn score(&self) -> f64 {
        self.silhouette * (0.4 + 0.4 * self.edges + 0.2 * self.shading)
    }
}

fn sum(map: &Map) -> f64 {
    map.values().iter().map(|value| f64::from(*value)).sum()
}

/// The cosine between two maps. Lines may be wider or darker in one of them: that changes little.
fn correlation(a: &Map, b: &Map) -> f64 {
    /// Far below the energy of one line; decides where there are none.
    const FAINT: f64 = 0.1;
    ((a.dot(b) + FAINT) / ((a.dot(a) + FAINT) * (b.dot(b) + FAINT)).sqrt()).clamp(0.0, 1.0)
}

/// 1 minus the mean difference of tones over both silhouettes. A picture may be lighter or darker
/// as a whole: first the candidate's tones are mapped linearly to those of the input, as near to
/// unchanged as the pictures allow.
fn shading(input: &Features, candidate: &Features) -> f64 {
    /// Differences from here on count fully. Tones of faces reach from 0.32 to 0.73.
    const WORST: f64 = 0.2;
    /// The usual difference of two equal pictures, of gains, and of offsets.
    const DEVIATIONS: [f64; 3] = [0.02, 0.2, 0.05];
    let weights = input.silhouette.zip(&candidate.silhouette, |a, b| a * b);
    let places = || {
        let tones = input.tone.values().iter().zip(candidate.tone.values());
        weights.values().iter().zip(tones).map(|(w, (a, b))| [*w, *a, *b].map(f64::from))
    };
    // Weighted sums of 1, b, bb, a, ab.
    let sums = places().filter(|[w, ..]| *w > 0.0).fold([0.0; 5], |mut sums, [w, a, b]| {
        for (sum, value) in sums.iter_mut().zip([1.0, b, b * b, a, a * b]) {
            *sum += w * value;
        }
        sums
    });
    let [count, b, bb, a, ab] = sums;
    if count <= 0.0 {
        return 0.0;
    }
    // Least squares for a = gain * b + offset, with gain near 1 and offset near 0.
    let ridge = |deviation: f64| count * (DEVIATIONS[0] / deviation).powi(2);
    let (keep_gain, keep_offset) = (ridge(DEVIATIONS[1]), ridge(DEVIATIONS[2]));
    let determinant = (bb + keep_gain) * (count + keep_offset) - b * b;
    let gain = ((ab + keep_gain) * (count + keep_offset) - a * b) / determinant;
    let offset = ((bb + keep_gain) * a - b * (ab + keep_gain)) / determinant;
    let difference: f64 = places().map(|[w, a, b]| w * ((a - gain * b - offset).abs() / WORST).min(1.0)).sum();
    1.0 - difference / count
}
