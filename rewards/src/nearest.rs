//! Distances from many points to the nearest of many others.
//!
//! A tree of boxes, four to a node, so that distances to them are computed at once. Points of a part
//! lie on faces, so boxes are much smaller than the cells that splitting planes leave, and few of them
//! are near a query (benches/results/protocols.md).

/// Points in a leaf, at most: as many as a wide vector register has numbers.
const LEAF: usize = 8;

/// Children of a node, at most.
const WIDE: usize = 4;

/// Marks the number of a leaf among those of nodes.
const IS_LEAF: u32 = 1 << 31;

/// A tree over points.
struct Tree {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    root: u32,
}

/// Up to four children, each with the box of its points. A child that is missing is infinitely far.
struct Node {
    low: [[f32; WIDE]; 3],
    high: [[f32; WIDE]; 3],
    /// Numbers of nodes, or of leaves with [`IS_LEAF`].
    children: [u32; WIDE],
}

/// Points by axis. Lanes that are left repeat the first point.
struct Leaf {
    points: [[f32; LEAF]; 3],
    /// For each point its place in what the tree was made from.
    places: [u32; LEAF],
}

type Item = ([f32; 3], u32);

impl Tree {
    fn of(points: &[[f64; 3]]) -> Self {
        let single = |point: &[f64; 3]| point.map(|coordinate| coordinate as f32);
        let mut items: Vec<Item> = points.iter().map(single).zip(0..).collect();
        let mut tree = Self { nodes: Vec::new(), leaves: Vec::new(), root: 0 };
        tree.root = tree.grow(&mut items);
        tree
    }

    /// Adds what holds `items` and returns its number.
    fn grow(&mut self, items: &mut [Item]) -> u32 {
        if items.len() <= LEAF {
            let item = |lane: usize| items[if lane < items.len() { lane } else { 0 }];
            self.leaves.push(Leaf {
                points: std::array::from_fn(|axis| std::array::from_fn(|lane| item(lane).0[axis])),
                places: std::array::from_fn(|lane| item(lane).1),
            });
            return IS_LEAF | (self.leaves.len() - 1) as u32;
        }
        let (left, right) = halves(items);
        let quarters = [left, right].map(|half| if half.len() > LEAF { halves(half) } else { half.split_at_mut(0) });
        let mut node =
            Node { low: [[f32::INFINITY; WIDE]; 3], high: [[f32::NEG_INFINITY; WIDE]; 3], children: [IS_LEAF; WIDE] };
        let parts = quarters.into_iter().flat_map(|(a, b)| [a, b]).enumerate();
        for (child, part) in parts.filter(|(_, part)| !part.is_empty()) {
            let (low, high) = bounds(part);
            for axis in 0..3 {
                (node.low[axis][child], node.high[axis][child]) = (low[axis], high[axis]);
            }
            node.children[child] = self.grow(part);
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Finds the points nearest to those of a leaf of another tree, of which some are known already.
    fn improve(&self, queries: &Leaf, nearest: &mut Nearest, stack: &mut Vec<(f32, u32)>) {
        let low = queries.points.map(|axis| axis.into_iter().fold(f32::INFINITY, f32::min));
        let high = queries.points.map(|axis| axis.into_iter().fold(f32::NEG_INFINITY, f32::max));
        let mut bound = nearest.farthest();
        stack.clear();
        stack.push((0.0, self.root));
        while let Some((distance, number)) = stack.pop() {
            if distance >= bound {
                continue;
            }
            if number & IS_LEAF != 0 {
                nearest.compare(queries, number & !IS_LEAF, &self.leaves[(number & !IS_LEAF) as usize]);
                bound = nearest.farthest();
                continue;
            }
            let node = &self.nodes[number as usize];
            let distances = node.distances(&low, &high);
            // The nearest child comes on top.
            let start = stack.len();
            for (distance, child) in distances.into_iter().zip(node.children).filter(|(distance, _)| *distance < bound)
            {
                let mut at = stack.len();
                stack.push((distance, child));
                while at > start && stack[at - 1].0 < distance {
                    stack.swap(at, at - 1);
                    at -= 1;
                }
            }
        }
    }
}

impl Node {
    /// The squared distances from a box to the children's boxes.
    fn distances(&self, low: &[f32; 3], high: &[f32; 3]) -> [f32; WIDE] {
        let mut sums = [0.0; WIDE];
        for axis in 0..3 {
            for (child, sum) in sums.iter_mut().enumerate() {
                let below = self.low[axis][child] - high[axis];
                let above = low[axis] - self.high[axis][child];
                let beyond = larger(larger(below, above), 0.0);
                *sum += beyond * beyond;
            }
        }
        sums
    }
}

/// For each point of a leaf the nearest point so far: its squared distance, and its number, which is
/// that of its leaf times [`LEAF`] plus its lane.
struct Nearest {
    squared: [f32; LEAF],
    numbers: [u32; LEAF],
}

impl Nearest {
    /// The point `number` of a tree, for all points of a leaf.
    fn all(queries: &Leaf, tree: &Tree, number: u32) -> Self {
        let leaf = &tree.leaves[number as usize / LEAF];
        let mut squared = [0.0; LEAF];
        for axis in 0..3 {
            let at = leaf.points[axis][number as usize % LEAF];
            for (sum, point) in squared.iter_mut().zip(&queries.points[axis]) {
                *sum += (point - at) * (point - at);
            }
        }
        Self { squared, numbers: [number; LEAF] }
    }

    /// Takes the points of a leaf that are nearer.
    fn compare(&mut self, queries: &Leaf, number: u32, leaf: &Leaf) {
        for lane in 0..LEAF {
            let [x, y, z] = leaf.points.each_ref().map(|axis| axis[lane]);
            for query in 0..LEAF {
                let [dx, dy, dz] =
                    [queries.points[0][query] - x, queries.points[1][query] - y, queries.points[2][query] - z];
                let squared = dx * dx + dy * dy + dz * dz;
                let is_nearer = squared < self.squared[query];
                self.squared[query] = if is_nearer { squared } else { self.squared[query] };
                self.numbers[query] = if is_nearer { number * LEAF as u32 + lane as u32 } else { self.numbers[query] };
            }
        }
    }

    fn farthest(&self) -> f32 {
        self.squared.into_iter().fold(0.0, larger)
    }
}

/// As `f32::max` without its rule for NaN, which costs instructions.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Both halves along the longest side.
fn halves(items: &mut [Item]) -> (&mut [Item], &mut [Item]) {
    let (low, high) = bounds(items);
    let size = |axis: usize| high[axis] - low[axis];
    let longest = (0..3).max_by(|&a, &b| size(a).total_cmp(&size(b))).unwrap_or(0);
    let middle = items.len() / 2;
    items.select_nth_unstable_by(middle, |a, b| a.0[longest].total_cmp(&b.0[longest]));
    items.split_at_mut(middle)
}

fn bounds(items: &[Item]) -> ([f32; 3], [f32; 3]) {
    let (mut low, mut high) = ([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]);
    for (point, _) in items {
        for axis in 0..3 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    (low, high)
}

/// For each point of `a` the squared distance to the nearest point of `b`, and for each point of `b`
/// that to the nearest of `a`. Coordinates are finite and neither list is empty.
///
/// The neighbour is found in f32: of two whose distances differ by less than 1e-6 of the coordinates
/// it may be either. The distance to it is exact.
pub fn both_ways(a: &[[f64; 3]], b: &[[f64; 3]]) -> [Vec<f64>; 2] {
    let trees = [a, b].map(Tree::of);
    [one_way((a, &trees[0]), (b, &trees[1])), one_way((b, &trees[1]), (a, &trees[0]))]
}

fn one_way((from, order): (&[[f64; 3]], &Tree), (to, tree): (&[[f64; 3]], &Tree)) -> Vec<f64> {
    let mut distances = vec![0.0; from.len()];
    let (mut stack, mut known) = (Vec::new(), 0);
    // In the order of their own tree, queries are near each other: those of a leaf are answered
    // together, and the last one's neighbour is a good first bound for the next leaf.
    for queries in &order.leaves {
        let mut nearest = Nearest::all(queries, tree, known);
        tree.improve(queries, &mut nearest, &mut stack);
        known = nearest.numbers[LEAF - 1];
        for (place, number) in queries.places.iter().zip(nearest.numbers) {
            let found = tree.leaves[number as usize / LEAF].places[number as usize % LEAF];
            let (point, found) = (from[*place as usize], to[found as usize]);
            distances[*place as usize] = (0..3).map(|axis| (point[axis] - found[axis]).powi(2)).sum();
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn by_exhaustion(from: &[[f64; 3]], to: &[[f64; 3]]) -> Vec<f64> {
        let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>();
        from.iter().map(|a| to.iter().map(|b| distance(a, b)).fold(f64::INFINITY, f64::min)).collect()
    }

    /// Points in a cube, on planes, on a line, all the same, far apart, and fewer than a leaf has.
    #[test]
    fn distances_are_those_of_all_pairs() {
        let mut dice = ChaCha8Rng::seed_from_u64(3);
        let mut cloud = |n: usize, flat: [f64; 3], at: f64| -> Vec<[f64; 3]> {
            (0..n).map(|_| flat.map(|size| at + size * dice.random_range(-1.0..1.0))).collect()
        };
        let clouds = [
            cloud(700, [1.0; 3], 0.0),
            cloud(500, [1.0, 1.0, 0.0], 0.0),
            cloud(300, [0.0, 1.0, 0.0], 0.5),
            cloud(200, [0.0; 3], 0.25),
            cloud(400, [0.3; 3], 40.0),
            cloud(1, [1.0; 3], 0.0),
            cloud(9, [1.0; 3], 0.0),
        ];
        for a in &clouds {
            for b in &clouds {
                let found = both_ways(a, b);
                for (found, expected) in found.iter().zip([by_exhaustion(a, b), by_exhaustion(b, a)]) {
                    assert_eq!(found.len(), expected.len());
                    for (found, expected) in found.iter().zip(expected) {
                        assert!((found.sqrt() - expected.sqrt()).abs() < 1e-5, "{found} {expected}");
                        assert!(*found >= expected, "{found} {expected}");
                    }
                }
            }
        }
    }
}
