//! The numbers of a draft that a search turns: each handle changes the numbers that belong
//! together, so that a rectangle stays a rectangle and a boss stays on its plate.

use super::{Body, Draft, Loop, tidy};

/// Two coordinates are the same if they differ by less than this.
const SAME: f64 = 1e-7;

/// Numbers that belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Handle {
    /// The length of an extrusion.
    Distance(usize),
    /// Where the extrusion begins; it ends where it did.
    Near(usize),
    /// The place of a body along one of its own axes (2 is the normal).
    Place(usize, usize),
    /// Every coordinate of a body's sketch that has this value.
    Value {
        /// The body's number.
        body: usize,
        /// The sketch axis.
        axis: usize,
        /// The value.
        at: f64,
    },
    /// The low edge of a body's sketch; everything else stays in space.
    Low(usize, usize),
    /// The place of a hole: body, loop, sketch axis.
    Hole(usize, usize, usize),
    /// The radius of a circle: body, loop.
    Radius(usize, usize),
    /// Everything in space from this coordinate on.
    Stretch {
        /// The axis of space.
        axis: usize,
        /// The coordinate.
        at: f64,
    },
    /// Everything in space, away from the middle of a body that extends to both sides.
    Widen(usize),
}

impl Draft {
    /// All handles of the draft.
    pub fn handles(&self) -> Vec<Handle> {
        let mut handles = Vec::new();
        for (number, body) in self.bodies.iter().enumerate() {
            handles.push(Handle::Distance(number));
            if body.both {
                handles.push(Handle::Widen(number));
            } else {
                handles.push(Handle::Near(number));
            }
            handles.extend((0..3).map(|axis| Handle::Place(number, axis)));
            for axis in 0..2 {
                handles.push(Handle::Low(number, axis));
                handles.extend(body.values(axis).into_iter().map(|at| Handle::Value { body: number, axis, at }));
            }
            for (index, outline) in body.loops.iter().enumerate() {
                if matches!(outline, Loop::Circle { .. }) {
                    handles.push(Handle::Radius(number, index));
                }
                if index > 0 {
                    handles.extend((0..2).map(|axis| Handle::Hole(number, index, axis)));
                }
            }
        }
        for axis in 0..3 {
            handles.extend(self.levels(axis).into_iter().skip(1).map(|at| Handle::Stretch { axis, at }));
        }
        handles
    }

    /// The distinct coordinates along an axis of space at which a body begins or ends, ascending.
    fn levels(&self, axis: usize) -> Vec<f64> {
        distinct(self.bodies.iter().filter_map(Body::bounds).flat_map(|bounds| bounds[axis]))
    }

    /// The draft with `handle` turned by `amount`, and the handle's new name. `None` if there is
    /// nothing to turn, or a length would vanish.
    pub fn turned(&self, handle: Handle, amount: f64) -> Option<(Self, Handle)> {
        let mut draft = self.clone();
        let mut turned = handle;
        match handle {
            Handle::Distance(body) => {
                let distance = &mut draft.bodies[body].distance;
                *distance = lengthened(*distance, amount)?;
            }
            Handle::Near(body) => {
                let body = &mut draft.bodies[body];
                let sign = body.distance.signum();
                body.distance = lengthened(body.distance, amount)?;
                body.shift(2, -sign * amount);
            }
            Handle::Place(body, axis) => draft.bodies[body].shift(axis, amount),
            Handle::Value { body, axis, at } => {
                turned = Handle::Value { body, axis, at: at + amount };
                let moved = |value: f64| if (value - at).abs() < SAME { tidy(value + amount) } else { value };
                draft.bodies[body].loops.iter_mut().for_each(|outline| outline.map_axis(axis, moved));
            }
            Handle::Low(body, axis) => {
                let body = &mut draft.bodies[body];
                let low = body.extent(axis)[0];
                let moved = |value: f64| if value > low + SAME { tidy(value - amount) } else { value };
                body.loops.iter_mut().for_each(|outline| outline.map_axis(axis, moved));
                body.shift(axis, amount);
            }
            Handle::Hole(body, hole, axis) => {
                draft.bodies[body].loops[hole].map_axis(axis, |value| tidy(value + amount));
            }
            Handle::Radius(body, index) => draft.bodies[body].grow(index, amount)?,
            Handle::Stretch { axis, at } => {
                turned = Handle::Stretch { axis, at: at + amount };
                draft.map_space(axis, |value| if value > at - SAME { value + amount } else { value })?;
            }
            Handle::Widen(body) => {
                let axes = self.bodies[body].axes()?;
                let axis = (0..3).find(|axis| axes[2][*axis].abs() > 1.0 - SAME)?;
                let [low, high] = self.bodies[body].bounds()?[axis];
                if high - low + 2.0 * amount < SAME {
                    return None;
                }
                draft.map_space(axis, |value| match value {
                    value if value > high - SAME => value + amount,
                    value if value < low + SAME => value - amount,
                    value => value,
                })?;
            }
        }
        Some((draft, turned))
    }

    /// Moves every coordinate along an axis of space by `map`, which is increasing. `None` if a
    /// sketch plane is slanted to the axis, or a body would vanish.
    fn map_space(&mut self, axis: usize, map: impl Fn(f64) -> f64) -> Option<()> {
        for body in &mut self.bodies {
            let axes = body.axes()?;
            let along = (0..3).find(|own| axes[*own][axis].abs() > 1.0 - SAME)?;
            let sign = axes[along][axis].signum();
            let origin = body.origin[axis];
            if along == 2 {
                let [near, far] = if body.both { body.span() } else { [0.0, body.distance] };
                let [near, far] = [near, far].map(|at| (map(origin + sign * at) - origin) * sign);
                let length = if body.both { (far - near) / 2.0 } else { far - near };
                if length.abs() < SAME || length.signum() != body.distance.signum() && !body.both {
                    return None;
                }
                body.distance = tidy(length);
                body.origin[axis] = tidy(origin + sign * if body.both { (near + far) / 2.0 } else { near });
            } else {
                let moved = map(origin);
                for outline in &mut body.loops {
                    // A circle moves as a whole, with its middle.
                    outline.map_axis(along, |value| tidy((map(origin + sign * value) - moved) * sign));
                }
                body.origin[axis] = tidy(moved);
            }
        }
        Some(())
    }
}

impl Body {
    /// The distinct values of the loops' coordinates along a sketch axis, ascending.
    fn values(&self, axis: usize) -> Vec<f64> {
        let mut values = Vec::new();
        for outline in &self.loops {
            outline.for_each_point(|point| values.push(point[axis]));
        }
        distinct(values)
    }

    /// Enlarges a circle. The first loop's leftmost point stays where it is, since sketches may
    /// begin there; a hole keeps its centre.
    fn grow(&mut self, index: usize, amount: f64) -> Option<()> {
        let Loop::Circle { center, radius } = &mut self.loops[index] else { return None };
        if *radius + amount < SAME {
            return None;
        }
        *radius = tidy(*radius + amount);
        if index == 0 && (center[0] - (*radius - amount)).abs() < SAME {
            center[0] = tidy(center[0] + amount);
            for hole in &mut self.loops[1..] {
                hole.map_axis(0, |value| tidy(value + amount));
            }
        }
        Some(())
    }
}

/// A signed length, made longer. `None` if nothing would be left of it.
fn lengthened(length: f64, amount: f64) -> Option<f64> {
    let longer = length.abs() + amount;
    (longer > SAME).then(|| tidy(longer * if length < 0.0 { -1.0 } else { 1.0 }))
}

/// Ascending, each once.
fn distinct(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.dedup_by(|b, a| (*b - *a).abs() < SAME);
    values
}

/// The coarsest step of which nearly all of the draft's numbers are multiples, if there is one
/// that is not much finer than the part.
pub fn own_lattice(draft: &Draft) -> Option<f64> {
    let numbers: Vec<f64> = draft.numbers().into_iter().map(f64::abs).filter(|number| *number > 1e-6).collect();
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let holds = |step: f64| {
        let held = numbers.iter().filter(|number| ((*number / step).round() - *number / step).abs() < 1e-4).count();
        held as f64 >= 0.95 * numbers.len() as f64
    };
    (1..=12).map(|parts| least / f64::from(parts)).find(|step| holds(*step))
}

#[cfg(test)]
mod tests {
    use super::super::PROGRAM;
    use super::*;

    fn draft() -> Draft {
        Draft::parse(PROGRAM).unwrap()
    }

    fn bounds(draft: &Draft, body: usize) -> [[f64; 2]; 3] {
        draft.bodies[body].bounds().unwrap()
    }

    #[test]
    fn a_stretched_plate_takes_what_stands_on_it_along() {
        let (higher, handle) = draft().turned(Handle::Stretch { axis: 2, at: 0.25 }, 0.125).unwrap();
        assert_eq!(handle, Handle::Stretch { axis: 2, at: 0.375 });
        assert_eq!(bounds(&higher, 0)[2], [0.0, 0.375]);
        assert_eq!(bounds(&higher, 1)[2], [0.375, 0.5]);
        let (wider, _) = draft().turned(Handle::Stretch { axis: 0, at: 0.75 }, 0.25).unwrap();
        assert_eq!((bounds(&wider, 0)[0], bounds(&wider, 1)[0]), ([0.0, 1.0], [0.5, 0.625]));
        assert_eq!(wider.bodies[0].loops[1], draft().bodies[0].loops[1]);
    }

    #[test]
    fn edges_move_alone() {
        let (edge, _) = draft().turned(Handle::Value { body: 0, axis: 1, at: 0.5 }, -0.125).unwrap();
        assert_eq!(bounds(&edge, 0)[1], [0.0, 0.375]);
        let (low, _) = draft().turned(Handle::Low(2, 1), -0.0625).unwrap();
        assert_eq!(bounds(&low, 2)[2], [0.125, 0.25]);
        let (near, _) = draft().turned(Handle::Near(1), 0.0625).unwrap();
        assert_eq!(bounds(&near, 1)[2], [0.1875, 0.375]);
        let (both, _) = draft().turned(Handle::Widen(2), 0.03125).unwrap();
        assert_eq!(both.bodies[2].distance, 0.0625);
        assert_eq!(both.bodies[2].origin, draft().bodies[2].origin);
    }

    #[test]
    fn a_circle_that_begins_at_the_origin_grows_from_there() {
        let mut draft = draft();
        draft.bodies[0].loops = vec![
            Loop::Circle { center: [0.25, 0.0], radius: 0.25 },
            Loop::Circle { center: [0.25, 0.0], radius: 0.125 },
        ];
        let (grown, _) = draft.turned(Handle::Radius(0, 0), 0.125).unwrap();
        assert_eq!(grown.bodies[0].loops[0], Loop::Circle { center: [0.375, 0.0], radius: 0.375 });
        assert_eq!(grown.bodies[0].loops[1], Loop::Circle { center: [0.375, 0.0], radius: 0.125 });
        let (hole, _) = draft.turned(Handle::Radius(0, 1), -0.0625).unwrap();
        assert_eq!(hole.bodies[0].loops[1], Loop::Circle { center: [0.25, 0.0], radius: 0.0625 });
    }

    #[test]
    fn nothing_vanishes_and_every_turn_can_be_turned_back() {
        let draft = draft();
        assert_eq!(draft.turned(Handle::Distance(0), -0.25), None);
        assert_eq!(draft.turned(Handle::Radius(0, 1), -0.125), None);
        let mut turns = 0;
        for handle in draft.handles() {
            for amount in [0.03125, -0.03125] {
                if let Some((there, name)) = draft.turned(handle, amount) {
                    let back = there.turned(name, -amount).map(|(draft, _)| draft);
                    // Values that fall together cannot be told apart afterwards.
                    turns += usize::from(back.as_ref() == Some(&draft));
                    assert_ne!(there, draft, "{handle:?}");
                }
            }
        }
        assert!(turns > 60, "{turns}");
    }

    #[test]
    fn the_step_of_a_drafts_numbers_is_found() {
        assert_eq!(own_lattice(&draft()), Some(0.03125));
        let mut scaled = draft();
        scaled.bodies.iter_mut().for_each(|body| {
            body.origin = body.origin.map(|value| value * 18.0 / 19.0);
            body.distance *= 18.0 / 19.0;
            for outline in &mut body.loops {
                (0..2).for_each(|axis| outline.map_axis(axis, |value| value * 18.0 / 19.0));
                if let Loop::Circle { radius, .. } = outline {
                    *radius *= 18.0 / 19.0;
                }
            }
        });
        assert!((own_lattice(&scaled).unwrap() - 0.03125 * 18.0 / 19.0).abs() < 1e-9);
    }
}
