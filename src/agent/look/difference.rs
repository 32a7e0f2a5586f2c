//! Where two silhouettes disagree, in words.

use std::fmt;

use super::map::Map;

/// A place where the silhouettes of a candidate and of the input disagree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Too much or too little.
    pub kind: Kind,
    /// Where in the picture.
    pub place: Place,
    /// At a side: the distance between both outlines there, in shares of the input part's width or
    /// height. Within the part: the area, in shares of the input part's area.
    pub share: f64,
}

/// The sign of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The candidate covers what the input does not.
    Excess,
    /// The candidate does not cover what the input does.
    Lack,
}

/// A place in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The left end of the part.
    Left,
    /// The right end.
    Right,
    /// The upper end.
    Top,
    /// The lower end.
    Bottom,
    /// A ninth of the box around the input part: column and row, 0 to 2 from the left and the top.
    Ninth {
        /// 0 at the left, 2 at the right.
        column: u8,
        /// 0 at the top, 2 at the bottom.
        row: u8,
    },
}

/// Distances and areas below this are not told: the pictures are not more exact.
const LEAST: f64 = 0.04;

/// The differences, the largest first.
pub fn differences(input: &Map, candidate: &Map) -> Vec<Difference> {
    let (Some(target), Some(found)) = (extent(input), extent(candidate)) else {
        return Vec::new();
    };
    let mut all = ends(&target, &found);
    all.extend(inner(input, candidate, &target));
    all.retain(|difference| difference.share >= LEAST);
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all
}

/// Columns and rows of the box around what a silhouette covers: `[low, high)` along x and y.
fn extent(silhouette: &Map) -> Option<[[f64; 2]; 2]> {
    let side = silhouette.side();
    let mut covered = [vec![0.0f32; side], vec![0.0f32; side]];
    for (i, value) in silhouette.values().iter().enumerate() {
        for (axis, at) in [i % side, i / side].into_iter().enumerate() {
            covered[axis][at] = covered[axis][at].max(*value);
        }
    }
    let range = |axis: usize| {
        let covered = &covered[axis];
        let first = covered.iter().position(|value| *value > 0.0)?;
        let last = covered.iter().rposition(|value| *value > 0.0)?;
        // A place that is covered in part ends within itself.
        let low = first as f64 + 1.0 - f64::from(covered[first]);
        Some([low, last as f64 + f64::from(covered[last])])
    };
    Some([range(0)?, range(1)?])
}

/// The distances between the ends of both boxes.
fn ends(target: &[[f64; 2]; 2], found: &[[f64; 2]; 2]) -> Vec<Difference> {
    let places = [[Place::Left, Place::Right], [Place::Top, Place::Bottom]];
    let mut all = Vec::new();
    for axis in 0..2 {
        let size = target[axis][1] - target[axis][0];
        for end in 0..2 {
            let outward = if end == 0 { -1.0 } else { 1.0 };
            let beyond = outward * (found[axis][end] - target[axis][end]) / size.max(1.0);
            let kind = if beyond > 0.0 { Kind::Excess } else { Kind::Lack };
            all.push(Difference { kind, place: places[axis][end], share: beyond.abs() });
        }
    }
    all
}

/// The areas within the input's box that only one of both covers, by ninths.
fn inner(input: &Map, candidate: &Map, target: &[[f64; 2]; 2]) -> Vec<Difference> {
    let side = input.side();
    let mut areas = [[[0.0; 2]; 3]; 3];
    let ninth = |axis: usize, at: usize| {
        let [low, high] = target[axis];
        let share = (at as f64 + 0.5 - low) / (high - low).max(1.0);
        (0.0..1.0).contains(&share).then_some((share * 3.0) as usize)
    };
    for (i, (a, b)) in input.values().iter().zip(candidate.values()).enumerate() {
        if let (Some(column), Some(row)) = (ninth(0, i % side), ninth(1, i / side)) {
            areas[row][column][0] += f64::from((b - a).max(0.0));
            areas[row][column][1] += f64::from((a - b).max(0.0));
        }
    }
    let whole: f64 = input.values().iter().map(|value| f64::from(*value)).sum::<f64>().max(1.0);
    let mut all = Vec::new();
    for (row, columns) in areas.iter().enumerate() {
        for (column, [excess, lack]) in columns.iter().enumerate() {
            let place = Place::Ninth { column: column as u8, row: row as u8 };
            all.push(Difference { kind: Kind::Excess, place, share: excess / whole });
            all.push(Difference { kind: Kind::Lack, place, share: lack / whole });
        }
    }
    all
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = in_words(self.share);
        let excess = self.kind == Kind::Excess;
        match self.place {
            Place::Left => write!(f, "too {} at the left by {share}", if excess { "wide" } else { "narrow" }),
            Place::Right => write!(f, "too {} at the right by {share}", if excess { "wide" } else { "narrow" }),
            Place::Top => write!(f, "too {} at the top by {share}", if excess { "high" } else { "low" }),
            Place::Bottom => {
                write!(f, "reaches {} at the bottom by {share}", if excess { "too far" } else { "not far enough" })
            }
            Place::Ninth { column, row } => {
                let place = [
                    ["upper left", "upper middle", "upper right"],
                    ["middle left", "centre", "middle right"],
                    ["lower left", "lower middle", "lower right"],
                ][usize::from(row.min(2))][usize::from(column.min(2))];
                let kind = if excess { "too much" } else { "too little" };
                write!(f, "{kind} material at the {place}: {share} of the part's area")
            }
        }
    }
}

/// The fraction nearest to a share, in words.
fn in_words(share: f64) -> &'static str {
    const FRACTIONS: [(f64, &str); 11] = [
        (0.05, "a twentieth"),
        (0.1, "a tenth"),
        (1.0 / 6.0, "a sixth"),
        (0.2, "a fifth"),
        (0.25, "a quarter"),
        (1.0 / 3.0, "a third"),
        (0.5, "a half"),
        (2.0 / 3.0, "two thirds"),
        (0.75, "three quarters"),
        (1.0, "all of it"),
        (1.5, "more than all of it"),
    ];
    let nearest = |a: &&(f64, &str), b: &&(f64, &str)| (a.0 - share).abs().total_cmp(&(b.0 - share).abs());
    FRACTIONS.iter().min_by(nearest).map_or("", |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rectangle of columns `x` and rows `y`.
    fn rectangle(x: std::ops::Range<usize>, y: std::ops::Range<usize>) -> Map {
        let covered = |i: usize| x.contains(&(i % 112)) && y.contains(&(i / 112));
        Map::of_values(112, (0..112 * 112).map(|i| if covered(i) { 1.0 } else { 0.0 }).collect())
    }

    fn told(input: &Map, candidate: &Map) -> Vec<String> {
        differences(input, candidate).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ends_are_told_in_shares_of_the_input() {
        let input = rectangle(40..80, 30..60);
        assert!(told(&input, &input).is_empty());
        assert_eq!(told(&input, &rectangle(30..80, 30..60)), ["too wide at the left by a quarter"]);
        // A part that lacks its lower third lacks it at the end and in the three lower ninths.
        let cut = told(&input, &rectangle(40..80, 30..50));
        assert_eq!(cut[0], "reaches not far enough at the bottom by a third");
        assert_eq!(cut.len(), 4, "{cut:?}");
        assert_eq!(
            told(&input, &rectangle(40..84, 27..60)),
            ["too wide at the right by a tenth", "too high at the top by a tenth"]
        );
    }

    #[test]
    fn a_hole_is_told_by_its_place() {
        let input = rectangle(20..80, 20..80);
        let hole = rectangle(43..57, 43..57);
        let holed = input.zip(&hole, |a, b| a - b);
        // 14 x 14 of 3600.
        assert_eq!(told(&input, &holed), ["too little material at the centre: a twentieth of the part's area"]);
        assert_eq!(told(&holed, &input), ["too much material at the centre: a twentieth of the part's area"]);
        assert!(told(&Map::zeros(112), &input).is_empty());
    }
}
