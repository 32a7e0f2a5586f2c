//! Draws one part from one stream of random numbers.

use cadwright_rewards::csg::{CsgSolid, Vec3};
use cadwright_rewards::{GridSpec, Pose, Solid, rasterise};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::base::draw_base;
use super::cells::Cells;
use super::features::{Feature, Site, axle, intersection, try_feature};
use super::numbers::Scale;
use super::part::{Body, Part, Side};
use super::{Dice, Numbers, SynthError};

/// A part that passed all checks.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) program: String,
    pub(super) part: Part,
    pub(super) scale: Scale,
    pub(super) family: &'static str,
    pub(super) features: Vec<Feature>,
    /// Hash of the cells that the part occupies: equal for programs that build the same solid in
    /// different ways.
    pub(super) shape: [u8; 32],
}

/// Draws the part of an index. `None` if the draw failed: a feature did not fit or would be
/// hidden.
pub(super) fn draw(seed: u64, index: u64, grid: u32, numbers: Numbers) -> Result<Option<Candidate>, SynthError> {
    let mut dice = Dice::seed_from_u64(seed);
    dice.set_stream(index);
    let longest = (grid * 3 / 4) as i32;
    let nineteenths = *[15, 16, 17, 18, 20, 21, 22, 23].choose(&mut dice).unwrap_or(&18);
    let scale = Scale::new(numbers, grid, nineteenths);
    let operations = *[1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4].choose(&mut dice).unwrap_or(&1);
    let Some((family, part, features)) = assemble(&mut dice, operations, longest, &scale)? else {
        return Ok(None);
    };
    if !part.features.iter().all(|(_, body)| {
        // This is checked on the finished part, because a later boss can hide an earlier feature.
        part.solid(&scale).is_ok_and(|solid| is_visible(body, &solid, &scale))
    }) {
        return Ok(None);
    }
    let shape = shape_hash(&part.solid(&scale)?);
    Ok(Some(Candidate { program: part.program(&scale), part, scale, family, features, shape }))
}

/// Cells along an edge of the grid on which parts are compared: finer than the finest step of
/// coordinates.
const CELLS: usize = 64;

fn shape_hash(csg: &CsgSolid) -> [u8; 32] {
    let bounds = *Solid::native(csg.clone(), false).bounds();
    let occupied = rasterise(csg, &Pose::identity(), &GridSpec::spanning(CELLS, &bounds, &bounds));
    let mut hasher = blake3::Hasher::new();
    for coordinate in bounds.min.iter().chain(&bounds.max) {
        hasher.update(&((coordinate * 1e6).round() as i64).to_le_bytes());
    }
    occupied.words().iter().for_each(|word| {
        hasher.update(&word.to_le_bytes());
    });
    *hasher.finalize().as_bytes()
}

type Assembled = (&'static str, Part, Vec<Feature>);

fn assemble(dice: &mut Dice, operations: usize, longest: i32, scale: &Scale) -> Result<Option<Assembled>, SynthError> {
    if operations == 2 && dice.random_bool(0.12) {
        let (family, base, cut) = intersection(dice, longest);
        let part = Part { base, features: vec![(cut.operation, cut.body)] };
        return Ok(Some((family, part, vec![cut.feature])));
    }
    let (family, base) = draw_base(dice, longest, operations);
    let mut part = Part { base, features: vec![] };
    let mut features = vec![];
    // Kinds and sides are drawn in the order of operations; positions are drawn until they follow
    // it.
    let mut plan: Vec<(bool, Side)> = (1..operations)
        .map(|_| {
            let side = *[Side::Top, Side::Top, Side::Front, Side::Right].choose(dice).unwrap_or(&Side::Top);
            (dice.random_bool(0.5), side)
        })
        .collect();
    plan.sort_unstable();
    for (is_cut, side) in plan {
        let solid = part.solid(scale)?;
        let cells = Cells::new(&solid, scale.value(1));
        let site = Site { part: &part, solid: &solid, cells: &cells, cell: scale.value(1) };
        let last = part.features.len().checked_sub(1).map(|last| &part.features[last]);
        let fitted = if part.features.is_empty() && family == "cylinder" && part.base.side == Side::Right && !is_cut {
            axle(dice, &part.base, longest)
        } else {
            (0..24).find_map(|_| {
                let fitted = try_feature(dice, &site, side, is_cut, longest)?;
                let follows = last.is_none_or(|(operation, body)| {
                    let rank = (
                        *operation == cadwright_rewards::csg::Operation::Cut,
                        body.side,
                        body.level,
                        body.outline.start(),
                    );
                    // On the front side levels fall towards the viewer, so the order is by distance
                    // from the part.
                    let key = |(cut, side, level, at): super::features::Rank| (cut, side, level * side.sign(), at);
                    key(rank) < key(fitted.rank())
                });
                follows.then_some(fitted)
            })
        };
        let Some(fitted) = fitted else {
            return Ok(None);
        };
        features.push(fitted.feature);
        part.features.push((fitted.operation, fitted.body));
    }
    Ok(Some((family, part, features)))
}

/// Whether most of a feature's face is visible: the top of a boss, the mouth of a cut.
fn is_visible(body: &Body, solid: &CsgSolid, scale: &Scale) -> bool {
    if body.both {
        // Axles, cross drillings and intersections extend beyond the rest by construction.
        return true;
    }
    const STEPS: i32 = 5;
    let level = body.level + if body.distance > 0 { body.side.sign() * body.distance } else { 0 };
    let Ok(extrusion) = body.extrusion(scale) else {
        return false;
    };
    let [a, b, c] = body.side.axes();
    let mut caster = solid.caster(Vec3::new(1.0, -1.0, 1.0));
    let axis = |axis: usize| {
        let mut unit = Vec3::zeros();
        unit[axis] = 1.0;
        (-extrusion.support(-unit), extrusion.support(unit))
    };
    let ((u0, u1), (v0, v1)) = (axis(a), axis(b));
    let mut seen = 0;
    for i in 0..STEPS {
        for j in 0..STEPS {
            let share = |index: i32| (f64::from(index) + 0.5) / f64::from(STEPS);
            let mut point = Vec3::zeros();
            point[a] = u0 + (u1 - u0) * share(i);
            point[b] = v0 + (v1 - v0) * share(j);
            point[c] = scale.value(level);
            let hidden = caster.spans(point).iter().any(|span| span.leave.at > scale.value(1) / 50.0);
            seen += i32::from(!hidden);
        }
    }
    10 * seen >= 7 * STEPS * STEPS
}
