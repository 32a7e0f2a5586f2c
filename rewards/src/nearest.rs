//! Distances from many points to the nearest of many others.
//!
//! A k-d tree whose nodes keep the box of their points. Points of a part lie on faces, so boxes are
//! much smaller than the cells that splitting planes leave, and few of them are near a query: on such
//! points this takes a tenth of the time of a tree that prunes by planes (benches/results/protocols.md).

/// Points in a leaf, at most.
const LEAF: usize = 8;

/// Nodes of a tree over points, in depth-first order.
struct Tree {
    nodes: Vec<Node>,
    /// The points, those of a leaf beside each other.
    points: Vec<[f32; 3]>,
    /// For each of `points` its place in what the tree was made from.
    places: Vec<u32>,
}

struct Node {
    low: [f32; 3],
    high: [f32; 3],
    /// A leaf: its first point. Else: its second child; the first one follows the node.
    start: u32,
    /// Points of a leaf; 0 for other nodes.
    count: u32,
}

impl Tree {
    fn of(points: &[[f64; 3]]) -> Self {
        let single = |point: &[f64; 3]| point.map(|coordinate| coordinate as f32);
        let mut items: Vec<([f32; 3], u32)> = points.iter().map(single).zip(0..).collect();
        let mut nodes = Vec::with_capacity(4 * points.len() / LEAF + 1);
        grow(&mut items, 0, &mut nodes);
        let (points, places) = items.into_iter().unzip();
        Self { nodes, points, places }
    }

    /// The place of the point nearest to `query`, which is nearer than `bound` (squared); else `known`.
    fn nearest(&self, query: [f32; 3], mut bound: f32, mut known: usize, stack: &mut Vec<(f32, u32)>) -> usize {
        stack.clear();
        stack.push((0.0, 0));
        while let Some((distance, index)) = stack.pop() {
            if distance >= bound {
                continue;
            }
            let node = &self.nodes[index as usize];
            if node.count == 0 {
                let children = [index + 1, node.start];
                let [first, second] = children.map(|child| (self.nodes[child as usize].distance(query), child));
                // The nearer child is on top.
                let (near, far) = if first.0 <= second.0 { (first, second) } else { (second, first) };
                stack.extend([far, near].into_iter().filter(|(distance, _)| *distance < bound));
                continue;
            }
            for place in node.start as usize..(node.start + node.count) as usize {
                let distance = squared(query, self.points[place]);
                if distance < bound {
                    (bound, known) = (distance, place);
                }
            }
        }
        known
    }
}

impl Node {
    /// The squared distance from a point to the box.
    fn distance(&self, point: [f32; 3]) -> f32 {
        let beyond = |axis: usize| (self.low[axis] - point[axis]).max(point[axis] - self.high[axis]).max(0.0);
        let [x, y, z] = [beyond(0), beyond(1), beyond(2)];
        x * x + y * y + z * z
    }
}

/// Adds the nodes over `items`, the first of which is at `start` of all points.
fn grow(items: &mut [([f32; 3], u32)], start: usize, nodes: &mut Vec<Node>) {
    let (mut low, mut high) = ([f32::INFINITY; 3], [f32::NEG_INFINITY; 3]);
    for (point, _) in items.iter() {
        for axis in 0..3 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    let (index, count) = (nodes.len(), items.len());
    if count <= LEAF {
        nodes.push(Node { low, high, start: start as u32, count: count as u32 });
        return;
    }
    nodes.push(Node { low, high, start: 0, count: 0 });
    let size = |axis: usize| high[axis] - low[axis];
    let longest = (0..3).max_by(|&a, &b| size(a).total_cmp(&size(b))).unwrap_or(0);
    let middle = count / 2;
    items.select_nth_unstable_by(middle, |a, b| a.0[longest].total_cmp(&b.0[longest]));
    let (left, right) = items.split_at_mut(middle);
    grow(left, start, nodes);
    nodes[index].start = nodes.len() as u32;
    grow(right, start + middle, nodes);
}

fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    let [x, y, z] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    x * x + y * y + z * z
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
    // In the order of their own tree, queries are near each other, and the last one's neighbour is a
    // good first bound.
    for (&query, &place) in order.points.iter().zip(&order.places) {
        known = tree.nearest(query, squared(query, tree.points[known]), known, &mut stack);
        let (point, found) = (from[place as usize], to[tree.places[known] as usize]);
        distances[place as usize] = (0..3).map(|axis| (point[axis] - found[axis]).powi(2)).sum();
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
