//! Parts of the same geometry.
//!
//! Two parts are candidates if their volumes, sizes, places and moments of inertia agree up to
//! [`NEAR`]; they are the same if their IoU is then above [`SAME_IOU`]. In the canonical frame the
//! solids are compared where their programs put them. In the normalised frame each is moved to its
//! centroid and scaled by its radius of gyration, but not turned.

use std::collections::{BTreeMap, HashMap};

use cadwright_rewards::{Frame, Solid, frame_iou, normalise_program};
use cadwright_rollout::{Result, Scorer};
use rayon::prelude::*;
use serde::Serialize;

use super::super::{Example, Split};

/// Parts of a higher IoU are the same.
pub const SAME_IOU: f64 = 0.99;
/// Cells along each axis of the grid of that IoU.
const GRID: usize = 64;
/// Largest difference of candidates: of the logarithms of volume and radius of gyration, of the
/// centroid in units of that radius, and of each moment of inertia as a share of volume times the
/// radius squared.
const NEAR: f64 = 5e-3;

/// Numbers that equal solids have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signature {
    /// Logarithm of the volume.
    log_volume: f64,
    /// Logarithm of the radius of gyration.
    log_radius: f64,
    radius: f64,
    centroid: [f64; 3],
    /// Inertia tensor by volume and squared radius: xx, yy, zz, xy, yz, zx.
    moments: [f64; 6],
}

impl Signature {
    /// That of a solid; `None` if its volume is not positive.
    pub fn of(solid: &Solid) -> Option<Self> {
        let mass = solid.mass();
        let radius = mass.radius_of_gyration()?;
        let unit = mass.volume * radius * radius;
        let inertia = &mass.inertia;
        let moments = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)].map(|(i, j)| inertia[i][j] / unit);
        Some(Self { log_volume: mass.volume.ln(), log_radius: radius.ln(), radius, centroid: mass.centroid, moments })
    }

    /// The number by which parts are sorted: those of candidates differ by at most [`NEAR`].
    fn key(&self, frame: Frame) -> f64 {
        match frame {
            Frame::Canonical => self.log_volume,
            _ => self.fill(),
        }
    }

    /// Volume by cubed radius, as a logarithm: it depends on the form alone.
    fn fill(&self) -> f64 {
        self.log_volume - 3.0 * self.log_radius
    }

    fn is_near(&self, other: &Self, frame: Frame) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= NEAR;
        let same_form =
            near(self.fill(), other.fill()) && self.moments.iter().zip(&other.moments).all(|(a, b)| near(*a, *b));
        let apart = |axis: usize| (self.centroid[axis] - other.centroid[axis]).abs();
        let same_place = || near(self.log_volume, other.log_volume) && (0..3).all(|k| apart(k) <= NEAR * self.radius);
        same_form && (frame != Frame::Canonical || same_place())
    }
}

/// A part of a data set.
pub struct Part<'a> {
    /// Its split.
    pub split: Split,
    /// Its row.
    pub example: &'a Example,
    /// `None` without a solid that has a volume.
    pub signature: Option<Signature>,
}

/// The parts of a data set that are the same in one frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Shapes that several parts have.
    pub shapes: usize,
    /// Parts of each split whose shape an earlier part of the split has.
    pub within: BTreeMap<Split, usize>,
    /// Parts whose shape a part of another split has too.
    pub across: Vec<Overlap>,
    /// The ids behind `across`: for each shape, those of each split.
    pub leaks: Vec<BTreeMap<Split, Vec<String>>>,
    /// The ids behind `within`, for each shape that one split alone has.
    pub repeated: Vec<BTreeMap<Split, Vec<String>>>,
}

/// Parts of one split whose shapes are in another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// The split whose parts are counted.
    pub of: Split,
    /// The split that has their shapes too.
    pub also_in: Split,
    /// Number of parts.
    pub parts: usize,
}

/// Finds the parts that are the same in `frame`, on the threads that call it.
///
/// # Errors
/// The scorer cannot go on.
pub fn find(parts: &[Part], frame: Frame, scorer: &Scorer) -> Result<Duplicates> {
    let iou = |a: usize, b: usize| -> Result<f64> {
        let [a, b] = [a, b].map(|part| scorer.ground_truth(&parts[part].example.ground_truth));
        let (a, b) = (a?, b?);
        Ok(a.solid().zip(b.solid()).map_or(0.0, |(a, b)| frame_iou(frame, GRID, a, b)))
    };
    let groups = groups(parts, frame, iou)?;
    Ok(summary(parts, groups))
}

/// The parts of each shape that several have, by index and in their order.
fn groups(parts: &[Part], frame: Frame, iou: impl Fn(usize, usize) -> Result<f64> + Sync) -> Result<Vec<Vec<usize>>> {
    let mut members = by_truth(parts);
    let signature = |part: usize| parts[part].signature.as_ref().expect("only parts with a signature are members");
    let found: Vec<Vec<Vec<usize>>> = candidates(&members, |part| signature(part), frame)
        .into_par_iter()
        .map(|candidates| {
            // The first part of each shape, and all its parts.
            let mut shapes: Vec<Vec<usize>> = Vec::new();
            'parts: for part in candidates {
                for shape in &mut shapes {
                    let is_near = signature(shape[0]).is_near(signature(part), frame);
                    if is_near && iou(shape[0], part)? > SAME_IOU {
                        shape.push(part);
                        continue 'parts;
                    }
                }
                shapes.push(vec![part]);
            }
            Ok(shapes)
        })
        .collect::<Result<_>>()?;
    let whole = |shape: Vec<usize>| {
        let mut all: Vec<usize> = shape.iter().flat_map(|first| members.remove(first).unwrap_or_default()).collect();
        all.sort_unstable();
        all
    };
    let mut groups: Vec<Vec<usize>> = found.into_iter().flatten().map(whole).filter(|all| all.len() > 1).collect();
    groups.sort_unstable();
    Ok(groups)
}

/// The parts that have a signature, by the first one of the same program or the same file.
fn by_truth(parts: &[Part]) -> BTreeMap<usize, Vec<usize>> {
    let mut firsts: HashMap<String, usize> = HashMap::new();
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.signature.is_some()) {
        let truth = &part.example.ground_truth;
        let text = truth.program().map(normalise_program);
        let text = text.or_else(|| truth.shape().map(|shape| shape.digest().to_owned())).unwrap_or_default();
        members.entry(*firsts.entry(text).or_insert(index)).or_default().push(index);
    }
    members
}

/// Lists of parts such that candidates are in one list, each in the order of the data set.
fn candidates<'a>(
    members: &BTreeMap<usize, Vec<usize>>,
    signature: impl Fn(usize) -> &'a Signature,
    frame: Frame,
) -> Vec<Vec<usize>> {
    let mut order: Vec<(f64, usize)> = members.keys().map(|&part| (signature(part).key(frame), part)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut parent: Vec<usize> = (0..order.len()).collect();
    for (place, (key, part)) in order.iter().enumerate() {
        for (next, (next_key, other)) in order.iter().enumerate().skip(place + 1) {
            if next_key - key > NEAR {
                break;
            }
            if signature(*part).is_near(signature(*other), frame) {
                let (a, b) = (root(&mut parent, place), root(&mut parent, next));
                parent[b] = a;
            }
        }
    }
    let mut lists: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, (_, part)) in order.iter().enumerate() {
        lists.entry(root(&mut parent, place)).or_default().push(*part);
    }
    let mut lists: Vec<Vec<usize>> = lists.into_values().collect();
    lists.iter_mut().for_each(|list| list.sort_unstable());
    lists.sort_unstable();
    lists
}

fn root(parent: &mut [usize], mut node: usize) -> usize {
    while parent[node] != node {
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    node
}

fn summary(parts: &[Part], groups: Vec<Vec<usize>>) -> Duplicates {
    let mut found = Duplicates { shapes: groups.len(), ..Duplicates::default() };
    let mut overlaps: BTreeMap<(Split, Split), usize> = BTreeMap::new();
    for group in groups {
        let mut ids: BTreeMap<Split, Vec<String>> = BTreeMap::new();
        for part in group {
            ids.entry(parts[part].split).or_default().push(parts[part].example.id.clone());
        }
        for (split, own) in &ids {
            if own.len() > 1 {
                *found.within.entry(*split).or_default() += own.len() - 1;
            }
            for other in ids.keys().filter(|other| *other != split) {
                *overlaps.entry((*split, *other)).or_default() += own.len();
            }
        }
        if ids.len() > 1 { found.leaks.push(ids) } else { found.repeated.push(ids) }
    }
    found.across = overlaps.into_iter().map(|((of, also_in), parts)| Overlap { of, also_in, parts }).collect();
    found
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::csg::Vec3;
    use cadwright_rewards::samples::block;

    use super::*;

    fn solid(at: [f64; 3], size: [f64; 3]) -> Solid {
        Solid::native(block(Vec3::from(at), Vec3::from(size)), false)
    }

    fn example(id: usize, program: &str) -> Example {
        let (program, ground_truth) = (Some(program.to_owned()), program.into());
        Example {
            id: id.to_string(),
            image: [].into(),
            further: Vec::new(),
            program,
            ground_truth,
            label: None,
            hundred_subset: false,
        }
    }

    /// The groups of blocks, compared by the IoU of their boxes.
    fn of(blocks: &[([f64; 3], [f64; 3])], frame: Frame) -> Vec<Vec<usize>> {
        let solids: Vec<Solid> = blocks.iter().map(|(at, size)| solid(*at, *size)).collect();
        let examples: Vec<Example> = (0..blocks.len()).map(|i| example(i, &i.to_string())).collect();
        let part = |(example, solid)| Part { split: Split::Train, example, signature: Signature::of(solid) };
        let parts: Vec<Part> = examples.iter().zip(&solids).map(part).collect();
        groups(&parts, frame, |a, b| Ok(frame_iou(frame, GRID, &solids[a], &solids[b]))).unwrap()
    }

    const BLOCK: ([f64; 3], [f64; 3]) = ([0.0; 3], [1.0, 2.0, 3.0]);

    #[test]
    fn a_moved_or_larger_copy_is_the_same_in_the_normalised_frame_alone() {
        let blocks = [
            BLOCK,
            ([5.0, 0.0, 0.0], [1.0, 2.0, 3.0]),
            ([0.0; 3], [2.0, 4.0, 6.0]),
            ([0.0; 3], [3.0, 2.0, 1.0]),
            ([0.0; 3], [1.0, 2.0, 3.001]),
        ];
        // A turned block is another one in both. 0.001 in 3 is an IoU above 0.999.
        assert_eq!(of(&blocks, Frame::Canonical), [[0, 4]]);
        assert_eq!(of(&blocks, Frame::Normalised), [[0, 1, 2, 4]]);
    }

    #[test]
    fn what_is_only_similar_is_not_the_same() {
        // 0.05 in 3: an IoU of 3 / 3.05 = 0.984.
        assert!(of(&[BLOCK, ([0.0; 3], [1.0, 2.0, 3.05])], Frame::Canonical).is_empty());
        // Equal signatures do not suffice.
        let solids = [solid([0.0; 3], [1.0; 3]), solid([0.0; 3], [1.0; 3])];
        let examples = [example(0, "a"), example(1, "b")];
        let part = |i: usize| Part { split: Split::Train, example: &examples[i], signature: Signature::of(&solids[i]) };
        let found = groups(&[part(0), part(1)], Frame::Canonical, |_, _| Ok(SAME_IOU)).unwrap();
        assert!(found.is_empty());
    }

    #[test]
    fn the_same_program_needs_no_comparison() {
        let one = solid([0.0; 3], [1.0; 3]);
        let examples = [example(0, "  x = 1\n"), example(1, "x = 1")];
        let part = |example| Part { split: Split::Test, example, signature: Signature::of(&one) };
        let parts: Vec<Part> = examples.iter().map(part).collect();
        let found = groups(&parts, Frame::Canonical, |_, _| unreachable!("equal texts")).unwrap();
        assert_eq!(found, [[0, 1]]);
    }

    #[test]
    fn leaks_name_the_parts_of_each_split() {
        let examples: Vec<Example> = (0..5).map(|i| example(i, "")).collect();
        let splits = [Split::Train, Split::Train, Split::Test, Split::Test, Split::Validation];
        let part = |(example, split)| Part { split, example, signature: None };
        let parts: Vec<Part> = examples.iter().zip(splits).map(part).collect();
        let found = summary(&parts, vec![vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(found.within, [(Split::Train, 1)].into());
        let overlap = |of, also_in, parts| Overlap { of, also_in, parts };
        let (train, validation, test) = (Split::Train, Split::Validation, Split::Test);
        let expected = [
            overlap(train, test, 2),
            overlap(validation, test, 1),
            overlap(test, train, 1),
            overlap(test, validation, 1),
        ];
        assert_eq!(found.across, expected);
        assert_eq!(found.leaks[0][&train], ["0", "1"]);
        assert_eq!((found.leaks.len(), found.repeated.len()), (2, 0));
    }
}
