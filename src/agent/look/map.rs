//! Square maps of numbers, and the filters that pictures are compared through.

use image::RgbImage;

/// A square map, row by row. What lies outside of it counts as 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    side: usize,
    values: Vec<f32>,
}

impl Map {
    /// A map of zeros, `side` x `side`.
    pub fn zeros(side: usize) -> Self {
        Self { side, values: vec![0.0; side * side] }
    }

    /// A map of these values, row by row: `side` x `side` of them.
    pub fn of_values(side: usize, values: Vec<f32>) -> Self {
        debug_assert_eq!(values.len(), side * side);
        Self { side, values }
    }

    /// The darkness of a picture relative to its background: `(background - grey) / background`, 0
    /// for the background and for anything lighter, 1 for black. The picture is put on a square of
    /// its background and averaged to `side` x `side`. An empty picture, and one on black, gives
    /// zeros.
    pub fn of_picture(picture: &RgbImage, background: f32, side: usize) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        if width == 0 || height == 0 || background <= 0.0 {
            return Self::zeros(side);
        }
        let whole = width.max(height);
        let raw = picture.as_raw();
        let darkness = |at: usize| (1.0 - grey([raw[at], raw[at + 1], raw[at + 2]]) / background).max(0.0);
        if (width, height) == (side, side) {
            return Self { side, values: (0..side * side).map(|pixel| darkness(3 * pixel)).collect() };
        }
        let rows = Shares::new(height, whole, side);
        let columns = Shares::new(width, whole, side);
        let mut values = vec![0.0; side * side];
        let mut narrow = vec![0.0; side];
        for y in 0..height {
            narrow.fill(0.0);
            for x in 0..width {
                let darkness = darkness((y * width + x) * 3);
                columns.each(x, |to, share| narrow[to] += share * darkness);
            }
            rows.each(y, |to, share| {
                for (sum, value) in values[to * side..][..side].iter_mut().zip(&narrow) {
                    *sum += share * value;
                }
            });
        }
        Self { side, values }
    }

    /// Side of the map.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// `function` of each value.
    pub fn map(&self, function: impl Fn(f32) -> f32) -> Self {
        Self { side: self.side, values: self.values.iter().map(|value| function(*value)).collect() }
    }

    /// `function` of each pair of values. Both maps have one size.
    pub fn zip(&self, other: &Self, function: impl Fn(f32, f32) -> f32) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| function(*a, *b)).collect();
        Self { side: self.side, values }
    }

    /// The sum over all places of the products of both maps.
    pub fn dot(&self, other: &Self) -> f64 {
        self.values.iter().zip(&other.values).map(|(a, b)| f64::from(a * b)).sum()
    }

    /// The map at half the side: means of 2 x 2 values. The side is even.
    pub fn halved(&self) -> Self {
        let half = self.side / 2;
        let mut values = Vec::with_capacity(half * half);
        for y in 0..half {
            let (upper, lower) = self.values[2 * y * self.side..][..2 * self.side].split_at(self.side);
            let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
            values.extend(pairs.map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) / 4.0));
        }
        Self { side: half, values }
    }

    /// Blurred by a Gaussian of this deviation, in places.
    pub fn blurred(&self, deviation: f32) -> Self {
        let reach = (2.5 * deviation).ceil() as usize;
        let weights: Vec<f32> = (0..=reach).map(|i| (-0.5 * (i as f32 / deviation).powi(2)).exp()).collect();
        let total = 2.0 * weights.iter().sum::<f32>() - weights[0];
        let weights: Vec<f32> = weights.iter().map(|weight| weight / total).collect();
        self.along_both(reach, |around, sums| {
            for (i, weight) in weights.iter().enumerate().skip(1) {
                let sides = around.shifted(reach - i).iter().zip(around.shifted(reach + i));
                for (sum, (before, after)) in sums.iter_mut().zip(sides) {
                    *sum += weight * (before + after);
                }
            }
            for (sum, here) in sums.iter_mut().zip(around.shifted(reach)) {
                *sum += weights[0] * here;
            }
        })
    }

    /// The least value in the square of `2 radius + 1` values around each place.
    pub fn lowest(&self, radius: usize) -> Self {
        self.extreme(radius, f32::min)
    }

    /// The greatest value in the square of `2 radius + 1` values around each place.
    pub fn highest(&self, radius: usize) -> Self {
        self.extreme(radius, f32::max)
    }

    fn extreme(&self, radius: usize, choose: impl Fn(f32, f32) -> f32) -> Self {
        self.along_both(radius, |around, chosen| {
            chosen.copy_from_slice(around.shifted(0));
            for shift in 1..=2 * radius {
                for (chosen, value) in chosen.iter_mut().zip(around.shifted(shift)) {
                    *chosen = choose(*chosen, *value);
                }
            }
        })
    }

    /// A filter that looks at `2 reach + 1` values along the rows, then along the columns. It fills
    /// one row of results, which are 0 before, at a time.
    fn along_both(&self, reach: usize, filter: impl Fn(&Around, &mut [f32])) -> Self {
        let (side, wide) = (self.side, self.side + 2 * reach);
        let mut padded = vec![0.0; side * wide];
        for (row, values) in padded.chunks_exact_mut(wide).zip(self.values.chunks_exact(side)) {
            row[reach..][..side].copy_from_slice(values);
        }
        let mut between = vec![0.0; wide * side];
        for (row, values) in between.chunks_exact_mut(side).skip(reach).zip(padded.chunks_exact(wide)) {
            filter(&Around { values, stride: 1, count: side }, row);
        }
        let mut values = vec![0.0; side * side];
        for (y, row) in values.chunks_exact_mut(side).enumerate() {
            filter(&Around { values: &between[y * side..], stride: side, count: side }, row);
        }
        Self { side, values }
    }

    /// The map enlarged around its centre, then shifted, in shares of the side.
    pub fn moved(&self, zoom: f32, shift: [f32; 2]) -> Self {
        let points = Points::of(self);
        let middle = self.side as f32 / 2.0;
        let sources = shift.map(|shift| {
            let source = |at: usize| middle + (at as f32 + 0.5 - middle - shift * self.side as f32) / zoom;
            (0..self.side).map(|at| points.between(source(at))).collect::<Vec<_>>()
        });
        let mut values = Vec::with_capacity(self.values.len());
        for y in &sources[1] {
            values.extend(sources[0].iter().map(|x| points.at(*x, *y)));
        }
        Self { side: self.side, values }
    }

    /// The differences between the neighbours on both sides, halved: along x, and along y.
    pub fn gradients(&self) -> [Self; 2] {
        let side = self.side;
        let mut along = [Self::zeros(side), Self::zeros(side)];
        for y in 1..side.saturating_sub(1) {
            for x in 1..side - 1 {
                let at = y * side + x;
                along[0].values[at] = (self.values[at + 1] - self.values[at - 1]) / 2.0;
                along[1].values[at] = (self.values[at + side] - self.values[at - side]) / 2.0;
            }
        }
        along
    }

    /// The value below which the share `share` of `values` lies; `None` if there are none.
    pub fn quantile(mut values: Vec<f32>, share: f64) -> Option<f32> {
        let index = (share * values.len().saturating_sub(1) as f64).round() as usize;
        (!values.is_empty()).then(|| *values.select_nth_unstable_by(index, f32::total_cmp).1)
    }
}

/// The values that a filter sees for one row of results.
struct Around<'a> {
    values: &'a [f32],
    stride: usize,
    count: usize,
}

impl Around<'_> {
    /// The row, `step` values further than the first one that the filter sees.
    fn shifted(&self, step: usize) -> &[f32] {
        &self.values[step * self.stride..][..self.count]
    }
}

/// A map that is looked at between its places: linear between their centres. Place `i` reaches from
/// `i` to `i + 1`.
#[derive(Debug, Clone)]
pub struct Points {
    side: usize,
    /// The map with [`Self::BORDER`] zeros around it.
    values: Vec<f32>,
}

/// A position along one axis: the place before it, counted with the border, and the share of the
/// way to the next one.
#[derive(Debug, Clone, Copy)]
pub struct Between(usize, f32);

impl Points {
    /// Everything beyond lies between two zeros.
    const BORDER: usize = 2;

    /// The points of a map.
    pub fn of(map: &Map) -> Self {
        let wide = map.side + 2 * Self::BORDER;
        let mut values = vec![0.0; wide * wide];
        let rows = values.chunks_exact_mut(wide).skip(Self::BORDER);
        for (row, inner) in rows.zip(map.values.chunks_exact(map.side.max(1))) {
            row[Self::BORDER..][..map.side].copy_from_slice(inner);
        }
        Self { side: map.side, values }
    }

    /// A position along either axis.
    pub fn between(&self, position: f32) -> Between {
        let border = Self::BORDER as f32;
        let from_start = (position - 0.5 + border).clamp(0.0, self.side as f32 + border);
        let before = from_start as usize;
        Between(before, from_start - before as f32)
    }

    /// The value at a point.
    pub fn at(&self, Between(left, u): Between, Between(top, v): Between) -> f32 {
        let wide = self.side + 2 * Self::BORDER;
        let at = top * wide + left;
        let [a, b] = [self.values[at], self.values[at + 1]];
        let [c, d] = [self.values[at + wide], self.values[at + wide + 1]];
        (a + (b - a) * u) * (1.0 - v) + (c + (d - c) * u) * v
    }
}

/// The brightness of a pixel in [0, 1]: the mean of its channels.
pub fn grey(pixel: [u8; 3]) -> f32 {
    pixel.iter().map(|channel| f32::from(*channel)).sum::<f32>() / 765.0
}

/// How the pixels of one axis, centred on an axis of `whole` pixels, spread over `side` places.
struct Shares {
    /// Position of the first pixel's start, in places.
    start: f64,
    /// Places per pixel.
    step: f64,
    side: usize,
}

impl Shares {
    fn new(count: usize, whole: usize, side: usize) -> Self {
        let step = side as f64 / whole as f64;
        Self { start: (whole - count) as f64 / 2.0 * step, step, side }
    }

    /// Calls `add` with each place that a pixel overlaps, and the share of the place that it
    /// covers.
    fn each(&self, pixel: usize, mut add: impl FnMut(usize, f32)) {
        let (low, high) = (self.start + pixel as f64 * self.step, self.start + (pixel + 1) as f64 * self.step);
        let mut place = low as usize;
        while place < self.side && (place as f64) < high {
            let share = high.min(place as f64 + 1.0) - low.max(place as f64);
            if share > 1e-9 {
                add(place, share as f32);
            }
            place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn ramp(side: usize) -> Map {
        Map { side, values: (0..side * side).map(|i| (i % side) as f32 + 10.0 * (i / side) as f32).collect() }
    }

    #[test]
    fn pictures_are_averaged_on_a_square_of_their_background() {
        // 4 x 2 pixels, the left half black on white: the square has a white row above and below.
        let picture = RgbImage::from_fn(4, 2, |x, _| Rgb([if x < 2 { 0 } else { 255 }; 3]));
        let map = Map::of_picture(&picture, 1.0, 4);
        let expected = [[0., 0., 0., 0.], [1., 1., 0., 0.], [1., 1., 0., 0.], [0., 0., 0., 0.]].concat();
        assert_eq!(map.values(), expected);
        // Two places: each averages 2 x 2 of them. Three: a place is 4/3 pixels.
        assert_eq!(Map::of_picture(&picture, 1.0, 2).values(), [0.5, 0.0, 0.5, 0.0]);
        let three = Map::of_picture(&picture, 1.0, 3);
        // The middle place covers pixels 4/3 to 8/3 in both axes: half of its width is black, and
        // its rows lie in the picture.
        assert!((three.values()[4] - 0.5).abs() < 1e-6, "{three:?}");
        assert!((three.values().iter().sum::<f32>() * 16.0 / 9.0 - 4.0).abs() < 1e-5, "{three:?}");
    }

    #[test]
    fn points_between_places_are_interpolated() {
        let map = ramp(4);
        let points = Points::of(&map);
        let at = |x: f32, y: f32| points.at(points.between(x), points.between(y));
        assert_eq!((at(0.5, 0.5), at(2.0, 1.5), at(1.5, 2.0)), (0.0, 11.5, 16.0));
        // Beyond the border lies 0.
        assert_eq!((at(4.0, 0.5), at(9.0, 9.0), at(-3.0, 1.5), at(f32::INFINITY, 0.0)), (1.5, 0.0, 0.0, 0.0));
        let [x, y] = map.gradients();
        assert_eq!((x.values()[5], y.values()[5]), (1.0, 10.0));
    }

    #[test]
    fn filters_see_squares_and_keep_sums() {
        let mut map = Map::zeros(9);
        map.values[3 * 9 + 4] = 2.0;
        let high = map.highest(1);
        let set: Vec<usize> = (0..81).filter(|i| high.values[*i] == 2.0).collect();
        assert_eq!(set, [21, 22, 23, 30, 31, 32, 39, 40, 41]);
        assert_eq!(high.lowest(1), map);
        let blurred = map.blurred(0.8);
        assert!((blurred.values.iter().sum::<f32>() - 2.0).abs() < 1e-5);
        // Symmetric around the place, and not transposed.
        assert!(blurred.values[3 * 9 + 4] > blurred.values[3 * 9 + 5]);
        assert_eq!(blurred.values[3 * 9 + 5], blurred.values[3 * 9 + 3]);
        assert!((blurred.values[2 * 9 + 4] - blurred.values[3 * 9 + 5]).abs() < 1e-7);
        assert_eq!(ramp(4).halved().values, [5.5, 7.5, 25.5, 27.5]);
        assert_eq!(Map::quantile(vec![3.0, 1.0, 2.0], 0.5), Some(2.0));
    }
}
