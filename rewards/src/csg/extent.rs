//! Extents of a solid.

use super::layers::Layers;
use super::section::{Cell, Sweep};
use super::{CONTACT, CsgSolid, LineCaster, Operation, Primitive, Vec2, Vec3};
use crate::mesh;

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aabb {
    /// Lowest coordinates.
    pub min: Vec3,
    /// Highest coordinates.
    pub max: Vec3,
}

impl Aabb {
    /// The box around points; `None` if there are none.
    pub fn of_points(points: impl IntoIterator<Item = Vec3>) -> Option<Self> {
        points.into_iter().fold(None, |bounds: Option<Self>, point| {
            Some(bounds.map_or(Self { min: point, max: point }, |old| Self {
                min: old.min.inf(&point),
                max: old.max.sup(&point),
            }))
        })
    }

    /// Edge lengths.
    pub fn size(&self) -> Vec3 {
        self.max - self.min
    }

    /// The middle.
    pub fn center(&self) -> Vec3 {
        (self.min + self.max) / 2.0
    }

    /// Whether the boxes share inner points.
    pub fn overlaps(&self, other: &Self) -> bool {
        (0..3).all(|axis| self.min[axis] < other.max[axis] && other.min[axis] < self.max[axis])
    }
}

impl Primitive<'_> {
    /// The smallest box around the body.
    pub fn bounds(&self) -> Aabb {
        Aabb {
            min: Vec3::from_fn(|axis, _| -self.support(-unit(axis))),
            max: Vec3::from_fn(|axis, _| self.support(unit(axis))),
        }
    }
}

impl CsgSolid {
    /// A box that contains the solid. It is exact for an extrusion and for unions, but may be too
    /// large after a cut or an intersection. `None` if the boxes of an intersection do not overlap.
    pub fn bounds(&self) -> Option<Aabb> {
        let extents = [self.loose_extent(unit(0))?, self.loose_extent(unit(1))?, self.loose_extent(unit(2))?];
        Some(Aabb { min: Vec3::from(extents.map(|(low, _)| low)), max: Vec3::from(extents.map(|(_, high)| high)) })
    }

    /// The tight axis-aligned box; see [`CsgSolid::extent`].
    pub fn tight_bounds(&self, layers: Option<&Layers>) -> Option<mesh::Bounds> {
        let extents = [0, 1, 2].map(|axis| self.extent(layers, unit(axis)));
        let [Some(x), Some(y), Some(z)] = extents else { return None };
        Some(mesh::Bounds { min: [x.0, y.0, z.0], max: [x.1, y.1, z.1] })
    }

    /// The extent of the solid along `direction`, a unit vector: `(lowest, highest)` of
    /// `direction . p`. Unlike [`CsgSolid::bounds`] it does not count material that a cut or an
    /// intersection removed. `(0, 0)` if the solid is empty; `None` if the extent cannot be
    /// determined.
    ///
    /// `layers` are those of [`Layers::of`].
    pub fn extent(&self, layers: Option<&Layers>, direction: Vec3) -> Option<(f64, f64)> {
        let Some(loose) = self.loose_extent(direction) else { return Some((0.0, 0.0)) };
        if self.is_union() || is_reached(self, direction, loose) {
            return Some(loose);
        }
        if let Some(layers) = layers {
            let ends = [-direction, direction].map(|toward| layers.support(toward));
            return match ends {
                [Some(low), Some(high)] => Some((-low, high)),
                _ => Some((0.0, 0.0)),
            };
        }
        if let Some(mut sweep) = Sweep::new(self, direction) {
            let base = direction.dot(&sweep.origin());
            let heights = sweep.heights(self);
            return match [false, true].map(|upper| last_section(&mut sweep, &heights, upper)) {
                [Some(low), Some(high)] => Some((base + low, base + high)),
                _ => Some((0.0, 0.0)),
            };
        }
        let along = *self.sweep_directions().first()?;
        let mut sweep = Sweep::new(self, along)?;
        let heights = sweep.heights(self);
        match [-direction, direction].map(|toward| farthest(&mut sweep, &heights, toward)) {
            [Some(low), Some(high)] => Some((-low, high)),
            _ => Some((0.0, 0.0)),
        }
    }

    /// Thickness of the thickest part of the solid along the direction in which that part is
    /// thinnest. 0 if the solid is empty; `None` if the thickness cannot be determined. It is a
    /// lower bound unless the solid is extruded along one axis.
    pub fn thickness(&self) -> Option<f64> {
        if let Some(layers) = Layers::of(self) {
            return Some(layers.thickness());
        }
        let directions = self.sweep_directions();
        let of_cell = |cell: &Cell| {
            let [bottom, top] = cell.middle();
            (top - bottom).min(cell.x[1] - cell.x[0])
        };
        let mut thickest = None;
        for direction in directions {
            let mut sweep = Sweep::new(self, direction)?;
            for panel in sweep.heights(self).windows(2) {
                for share in [0.5, 0.01, 0.99] {
                    let cells = sweep.section(panel[0] + share * (panel[1] - panel[0]));
                    let across = cells.iter().map(of_cell).fold(0.0, f64::max);
                    let found = across.min(panel[1] - panel[0]);
                    if found > 1e-5 {
                        return Some(found);
                    }
                    thickest = Some(found.max(thickest.unwrap_or(0.0)));
                }
            }
        }
        thickest
    }

    /// An upper bound on `direction . p` over the solid. It is exact if there are `layers`;
    /// otherwise it is the tighter one of the bounds from the box `bounds` and from the leaves.
    pub fn reach(&self, layers: Option<&Layers>, bounds: &mesh::Bounds, direction: Vec3) -> f64 {
        if let Some(reach) = layers.and_then(|layers| layers.support(direction)) {
            return reach;
        }
        let corner = Vec3::from_fn(|axis, _| if direction[axis] < 0.0 { bounds.min[axis] } else { bounds.max[axis] });
        let loose = self.loose_extent(direction).map_or(f64::INFINITY, |(_, high)| high);
        direction.dot(&corner).min(loose)
    }

    /// Whether the tree consists of unions only.
    fn is_union(&self) -> bool {
        match self {
            Self::Boolean(operation, left, right) => {
                *operation == Operation::Union && left.is_union() && right.is_union()
            }
            _ => true,
        }
    }

    /// The extent along one direction, computed like [`CsgSolid::bounds`].
    fn loose_extent(&self, direction: Vec3) -> Option<(f64, f64)> {
        match self {
            Self::Boolean(operation, left, right) => {
                match (operation, left.loose_extent(direction), right.loose_extent(direction)) {
                    (Operation::Cut, extent, _) => extent,
                    (Operation::Union, Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                    (Operation::Union, a, b) => a.or(b),
                    (Operation::Intersect, Some(a), Some(b)) => {
                        Some((a.0.max(b.0), a.1.min(b.1))).filter(|(low, high)| low + CONTACT < *high)
                    }
                    (Operation::Intersect, ..) => None,
                }
            }
            _ => {
                let leaf = self.as_primitive()?;
                Some((-leaf.support(-direction), leaf.support(direction)))
            }
        }
    }
}

/// Whether lines along `direction` reach the limits `low` and `high` of the leaves. This holds if
/// flat faces bound the solid there, and the check is cheap.
fn is_reached(solid: &CsgSolid, direction: Vec3, (low, high): (f64, f64)) -> bool {
    const LINES: usize = 8;
    let aside = if direction.x.abs() < 0.6 { Vec3::x() } else { Vec3::y() };
    let u = direction.cross(&aside).normalize();
    let v = direction.cross(&u);
    let [Some(across), Some(up)] = [u, v].map(|axis| solid.loose_extent(axis)) else { return false };
    let mut caster: LineCaster<'_> = solid.caster(direction);
    let mut reached = [false; 2];
    let at = |(low, high): (f64, f64), k: usize| low + (high - low) * (k as f64 + 0.5) / LINES as f64;
    for i in 0..LINES {
        for j in 0..LINES {
            let spans = caster.spans(u * at(across, i) + v * at(up, j));
            let (Some(first), Some(last)) = (spans.first(), spans.last()) else { continue };
            reached[0] |= first.enter.at <= low + CONTACT;
            reached[1] |= last.leave.at >= high - CONTACT;
            if reached == [true; 2] {
                return true;
            }
        }
    }
    false
}

/// The height at which sections end: the highest one with material below it, or the lowest one with
/// material above it. `None` if the solid is empty.
///
/// Sections change only at `heights`, except for rare events (three curved or slanted surfaces that
/// meet in a point). Bisection finds a change within a panel.
fn last_section(sweep: &mut Sweep<'_>, heights: &[f64], upper: bool) -> Option<f64> {
    /// Probed positions within a panel, as fractions from its outer end.
    const PROBES: [f64; 7] = [1e-6, 0.01, 0.2, 0.5, 0.8, 0.99, 1.0 - 1e-6];
    let mut panels: Vec<[f64; 2]> = heights.windows(2).map(|pair| [pair[0], pair[1]]).collect();
    if upper {
        panels.iter_mut().for_each(|panel| panel.reverse());
        panels.reverse();
    }
    for [outer, inner] in panels.into_iter().filter(|panel| (panel[1] - panel[0]).abs() > CONTACT) {
        let at = |share: f64| outer + (inner - outer) * share;
        let mut empty = 0.0;
        for share in PROBES {
            if sweep.section(at(share)).is_empty() {
                empty = share;
                continue;
            }
            if empty == 0.0 {
                return Some(outer);
            }
            let mut full = share;
            while (full - empty) * (inner - outer).abs() > CONTACT {
                let middle = (empty + full) / 2.0;
                if sweep.section(at(middle)).is_empty() { empty = middle } else { full = middle }
            }
            return Some(at(full));
        }
    }
    None
}

/// The largest `toward . p` over all sections of a sweep along another direction; `None` if there
/// is nothing. Between heights at which sections change, the value is smooth in the height. The
/// search for its maximum places sections ever closer to the best one.
fn farthest(sweep: &mut Sweep<'_>, heights: &[f64], toward: Vec3) -> Option<f64> {
    const SAMPLES: usize = 12;
    let local = Vec3::from_fn(|axis, _| sweep.axes[axis].dot(&toward));
    let flat = Vec2::new(local.x, local.y);
    let mut reach = |height: f64| -> Option<f64> {
        let most = sweep.section(height).iter().map(|cell| cell.support(flat)).reduce(f64::max)?;
        Some(most + local.z * height)
    };
    let mut best: Option<(f64, f64, f64)> = None;
    for panel in heights.windows(2).filter(|panel| panel[1] - panel[0] > CONTACT) {
        let at = |share: f64| panel[0] + (panel[1] - panel[0]) * share.clamp(1e-7, 1.0 - 1e-7);
        for k in 0..=SAMPLES {
            let height = at(k as f64 / SAMPLES as f64);
            if let Some(found) = reach(height).filter(|found| best.is_none_or(|(most, ..)| *found > most)) {
                best = Some((found, height, (panel[1] - panel[0]) / (2 * SAMPLES) as f64));
            }
        }
    }
    let (mut most, mut height, mut step) = best?;
    while step > CONTACT {
        let sides = [height - step, height + step];
        match sides.into_iter().find_map(|side| reach(side).filter(|found| *found > most).map(|found| (found, side))) {
            Some(better) => (most, height) = better,
            None => step /= 2.0,
        }
    }
    Some(toward.dot(&sweep.origin()) + most)
}

fn unit(axis: usize) -> Vec3 {
    Vec3::ith(axis, 1.0)
}
