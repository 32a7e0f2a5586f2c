//! Edits of a draft's structure: what no change of numbers reaches.

use cadwright_rewards::csg::Operation;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{Body, Draft, Loop, tidy};

/// An edited draft, and the edit's name.
pub type Edited = (Draft, &'static str);

/// Draws an edit. `library` has drafts of the data set, from which bodies, outlines and planes are
/// taken; it may be empty. Numbers that are made are multiples of `lattice`. `None` if the edit that
/// was drawn cannot be made here.
pub fn draw_edit(draft: &Draft, library: &[Draft], lattice: f64, dice: &mut ChaCha8Rng) -> Option<Edited> {
    let body = dice.random_range(0..draft.bodies.len());
    match dice.random_range(0..20) {
        0 | 1 => Some((without_body(draft, body)?, "drop a body")),
        2 => Some((without_hole(draft, body, dice)?, "drop a hole")),
        3 | 4 => Some((swapped(draft, body)?, "swap union and cut")),
        5 => Some((with_hole(draft, library, body, lattice, dice)?, "add a hole")),
        6 => Some((mirrored_hole(draft, body, lattice, dice)?, "mirror a hole")),
        7 | 8 => Some((on_another_plane(draft, library, body, lattice, dice)?, "another sketch plane")),
        9 | 10 => Some((with_outline(draft, library, body, lattice, dice)?, "another outline")),
        11 | 12 => Some((with_first(draft, library, dice)?, "another first body")),
        13 => Some((flipped(draft, body)?, "flip an extrusion")),
        14 => Some((mirrored(draft, body, dice), "mirror a sketch")),
        15 => Some((reaching_through(draft, body)?, "reach through")),
        _ => Some((with_body(draft, library, lattice, dice)?, "add a body")),
    }
}

fn without_body(draft: &Draft, body: usize) -> Option<Draft> {
    let mut edited = draft.clone();
    (draft.bodies.len() > 1 && body > 0).then(|| {
        edited.bodies.remove(body);
        edited
    })
}

fn without_hole(draft: &Draft, body: usize, dice: &mut ChaCha8Rng) -> Option<Draft> {
    let holes = draft.bodies[body].loops.len() - 1;
    let mut edited = draft.clone();
    (holes > 0).then(|| {
        edited.bodies[body].loops.remove(dice.random_range(1..=holes));
        edited
    })
}

/// A boss becomes a pocket of the same depth under it, and the reverse.
fn swapped(draft: &Draft, body: usize) -> Option<Draft> {
    let mut edited = draft.clone();
    let changed = &mut edited.bodies[body];
    changed.operation = match changed.operation {
        _ if body == 0 => return None,
        Operation::Union => Operation::Cut,
        Operation::Cut | Operation::Intersect => Operation::Union,
    };
    changed.distance = -changed.distance;
    Some(edited)
}

fn flipped(draft: &Draft, body: usize) -> Option<Draft> {
    let mut edited = draft.clone();
    (body > 0).then(|| {
        edited.bodies[body].distance *= -1.0;
        edited
    })
}

/// Lets a cut end where the part ends.
fn reaching_through(draft: &Draft, body: usize) -> Option<Draft> {
    let changed = &draft.bodies[body];
    let along = axis_of(changed)?;
    let mut before = draft.clone();
    before.bodies.truncate(body);
    let [low, high] = before.bounds()?[along];
    let axes = changed.axes()?;
    let far = if axes[2][along] * changed.distance > 0.0 { high } else { low };
    let distance = tidy((far - changed.origin[along]).abs() * changed.distance.signum());
    let is_other = distance.abs() > 1e-6 && (distance - changed.distance).abs() > 1e-6;
    let mut edited = draft.clone();
    edited.bodies[body].distance = distance;
    (body > 0 && !changed.both && is_other).then_some(edited)
}

/// Mirrors the sketch along one of its axes within its own extent.
fn mirrored(draft: &Draft, body: usize, dice: &mut ChaCha8Rng) -> Draft {
    let axis = dice.random_range(0..2);
    let mut edited = draft.clone();
    let changed = &mut edited.bodies[body];
    let [low, high] = changed.extent(axis);
    changed.loops.iter_mut().for_each(|outline| outline.map_axis(axis, |value| tidy(low + high - value)));
    edited
}

/// A second hole opposite to one that is there.
fn mirrored_hole(draft: &Draft, body: usize, lattice: f64, dice: &mut ChaCha8Rng) -> Option<Draft> {
    let loops = &draft.bodies[body].loops;
    let hole = loops.get(dice.random_range(1..loops.len().max(2)))?;
    let axis = dice.random_range(0..2);
    let [low, high] = loops[0].extent(axis);
    let mut copy = hole.clone();
    copy.map_axis(axis, |value| tidy(low + high - value));
    let mut edited = draft.clone();
    let apart = (copy.extent(axis)[0] - hole.extent(axis)[0]).abs() > lattice / 2.0;
    edited.bodies[body].loops.push(copy);
    apart.then_some(edited)
}

/// A hole of another draft, at a random place of the outline.
fn with_hole(draft: &Draft, library: &[Draft], body: usize, lattice: f64, dice: &mut ChaCha8Rng) -> Option<Draft> {
    let outline = &draft.bodies[body].loops[0];
    let room = (0..2).map(|axis| outline.extent(axis)).map(|[low, high]| high - low).fold(f64::INFINITY, f64::min);
    let mut hole = match library.choose(dice).and_then(|draft| draft.bodies.choose(dice)) {
        Some(body) if body.loops.len() > 1 => body.loops[dice.random_range(1..body.loops.len())].clone(),
        _ => Loop::Circle { center: [0.0; 2], radius: snapped(room / 4.0, lattice).max(lattice) },
    };
    for axis in 0..2 {
        let [[low, high], [left, right]] = [outline.extent(axis), hole.extent(axis)];
        let free = (high - low) - (right - left);
        if free < 2.0 * lattice {
            return None;
        }
        let place = if dice.random() { 0.5 } else { dice.random_range(0.0..1.0) };
        let shift = snapped(low + lattice + (free - 2.0 * lattice) * place - left, lattice);
        hole.map_axis(axis, |value| tidy(value + shift));
    }
    let mut edited = draft.clone();
    edited.bodies[body].loops.push(hole);
    Some(edited)
}

/// The same room, filled by an extrusion along another axis of space.
fn on_another_plane(
    draft: &Draft,
    library: &[Draft],
    body: usize,
    lattice: f64,
    dice: &mut ChaCha8Rng,
) -> Option<Draft> {
    let from = library.choose(dice).unwrap_or(draft);
    // First bodies and later ones have their own habits.
    let plane = if body == 0 { from.bodies.first() } else { from.bodies.choose(dice) }?;
    let old = &draft.bodies[body];
    if (plane.x_dir, plane.normal) == (old.x_dir, old.normal) {
        return None;
    }
    let bounds = old.bounds()?;
    let mut new = Body { x_dir: plane.x_dir, normal: plane.normal, both: plane.both, ..old.clone() };
    fitted(&mut new, &bounds, lattice)?;
    let mut edited = draft.clone();
    edited.bodies[body] = new;
    Some(edited)
}

/// Another outline in the place of the one that is there, of the same size.
fn with_outline(draft: &Draft, library: &[Draft], body: usize, lattice: f64, dice: &mut ChaCha8Rng) -> Option<Draft> {
    let other = library.choose(dice)?;
    let other = if body == 0 { other.bodies.first() } else { other.bodies.choose(dice) }?;
    let old = &draft.bodies[body];
    let mut new = Body { loops: other.loops.clone(), ..old.clone() };
    fitted(&mut new, &old.bounds()?, lattice)?;
    let mut edited = draft.clone();
    edited.bodies[body] = new;
    Some(edited)
}

/// Another first body, as it is.
fn with_first(draft: &Draft, library: &[Draft], dice: &mut ChaCha8Rng) -> Option<Draft> {
    let mut edited = draft.clone();
    edited.bodies[0] = library.choose(dice)?.bodies[0].clone();
    Some(edited)
}

/// A later body of another draft: its size as it is there, its place relative to the part.
fn with_body(draft: &Draft, library: &[Draft], lattice: f64, dice: &mut ChaCha8Rng) -> Option<Draft> {
    let other = library.choose(dice)?;
    let number = dice.random_range(1..other.bodies.len().max(2));
    let mut body = other.bodies.get(number)?.clone();
    let mut before = other.clone();
    before.bodies.truncate(number);
    let (theirs, ours) = (before.bounds()?, draft.bounds()?);
    let along = axis_of(&body)?;
    let bounds = body.bounds()?;
    for axis in 0..3 {
        let at = if axis == along { body.origin[axis] } else { (bounds[axis][0] + bounds[axis][1]) / 2.0 };
        let [low, high] = theirs[axis];
        let share = if high - low > 1e-6 { (at - low) / (high - low) } else { 0.5 };
        // Sometimes anywhere on the face: where another part has its boss says little.
        let share = if axis != along && dice.random() { dice.random_range(0.0..1.0) } else { share };
        let target = ours[axis][0] + share * (ours[axis][1] - ours[axis][0]);
        body.origin[axis] = tidy(body.origin[axis] + snapped(target - at, lattice));
    }
    let is_through = (bounds[along][1] - bounds[along][0]) >= 0.99 * (theirs[along][1] - theirs[along][0]);
    if is_through && !body.both {
        body.distance = tidy((ours[along][1] - ours[along][0]) * body.distance.signum());
    }
    let mut edited = draft.clone();
    edited.bodies.push(body);
    Some(edited)
}

/// Sizes a body so that it fills `bounds`. Circles keep round. `None` if the plane is slanted.
fn fitted(body: &mut Body, bounds: &[[f64; 2]; 3], lattice: f64) -> Option<()> {
    let axes = body.axes()?;
    let of_space = |own: usize| (0..3).find(|axis| axes[own][*axis].abs() > 1.0 - 1e-7);
    for own in 0..2 {
        let axis = of_space(own)?;
        let [low, high] = body.extent(own);
        if high - low < 1e-9 {
            return None;
        }
        let scale = (bounds[axis][1] - bounds[axis][0]) / (high - low);
        body.loops.iter_mut().for_each(|outline| outline.map_axis(own, |value| snapped(value * scale, lattice)));
        for outline in &mut body.loops {
            if let Loop::Circle { radius, .. } = outline {
                *radius = snapped(*radius * scale.sqrt(), lattice).max(lattice);
            }
        }
    }
    let axis = of_space(2)?;
    let length = bounds[axis][1] - bounds[axis][0];
    let sign = axes[2][axis].signum();
    body.distance = tidy(if body.both { length / 2.0 } else { length });
    let near = if sign > 0.0 { bounds[axis][0] } else { bounds[axis][1] };
    body.origin[axis] = tidy(if body.both { (bounds[axis][0] + bounds[axis][1]) / 2.0 } else { near });
    for own in 0..2 {
        let axis = of_space(own)?;
        let sign = axes[own][axis].signum();
        let low = body.extent(own)[usize::from(sign < 0.0)];
        body.origin[axis] = tidy(bounds[axis][0] - sign * low);
    }
    Some(())
}

/// The axis of space along which a body is extruded; `None` if it is slanted.
fn axis_of(body: &Body) -> Option<usize> {
    let axes = body.axes()?;
    (0..3).find(|axis| axes[2][*axis].abs() > 1.0 - 1e-7)
}

fn snapped(value: f64, lattice: f64) -> f64 {
    tidy((value / lattice).round() * lattice)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::super::PROGRAM;
    use super::*;

    #[test]
    fn every_edit_gives_a_program_of_the_data_sets_form() {
        let draft = Draft::parse(PROGRAM).unwrap();
        let mut library = draft.clone();
        library.bodies.rotate_left(1);
        library.bodies[1].loops.reverse();
        let library = [library, draft.clone()];
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let mut names = BTreeSet::new();
        for _ in 0..2000 {
            if let Some((edited, name)) = draw_edit(&draft, &library, 1.0 / 32.0, &mut dice) {
                assert_eq!(Draft::parse(&edited.program()).as_ref(), Some(&edited), "{name}");
                names.insert(name);
            }
        }
        // All but `reach through`, for which there is no blind cut.
        assert_eq!(names.len(), 11, "{names:?}");
    }

    #[test]
    fn another_plane_fills_the_same_room() {
        let draft = Draft::parse(PROGRAM).unwrap();
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let turned = (0..50).find_map(|_| on_another_plane(&draft, &[], 1, 1.0 / 32.0, &mut dice)).unwrap();
        assert_eq!(turned.bodies[1].bounds(), draft.bodies[1].bounds());
        assert_ne!(turned.bodies[1].normal, draft.bodies[1].normal);
    }

    #[test]
    fn a_blind_hole_is_made_a_through_hole() {
        let mut draft = Draft::parse(PROGRAM).unwrap();
        draft.bodies[1].operation = Operation::Cut;
        draft.bodies[1].distance = -0.125;
        assert_eq!(reaching_through(&draft, 1).unwrap().bodies[1].distance, -0.25);
        assert_eq!(reaching_through(&draft, 0), None);
    }
}
