//! Solids extruded along one axis, as a stack of layers. Volume, moments, extents and the number of
//! bodies are exact.

use super::mass::Moments;
use super::section::{Cell, Flat, Sweep};
use super::{CONTACT, CsgSolid, Primitive, Vec2, Vec3};

/// Cells that share more than this are certainly connected.
const JOINED: f64 = 2e-6;
/// Cells that share less than this are certainly not connected.
const APART: f64 = 1e-8;

/// A stack of layers. Within a layer all sections are the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Layers {
    axes: [Vec3; 3],
    origin: Vec3,
    /// From bottom to top; heights along the third axis, from the origin.
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq)]
struct Layer {
    range: [f64; 2],
    cells: Vec<Cell>,
}

impl Layers {
    /// The layers of a solid whose leaves are all extruded along one axis; `None` for any other.
    pub fn of(solid: &CsgSolid) -> Option<Self> {
        let axis = match solid.primitives().first()? {
            Primitive::Extrusion(prism) => prism.plane.z,
            _ => return None,
        };
        let mut sweep = Sweep::new(solid, axis)?;
        if !sweep.is_layered() {
            return None;
        }
        let heights = sweep.heights(solid);
        let layers = heights
            .windows(2)
            .filter(|pair| pair[1] - pair[0] > CONTACT)
            .map(|pair| Layer { range: [pair[0], pair[1]], cells: sweep.section((pair[0] + pair[1]) / 2.0) })
            .collect();
        Some(Self { axes: sweep.axes, origin: sweep.origin(), layers })
    }

    /// Integrals over the solid.
    pub(super) fn moments(&self) -> Moments {
        let mut moments = Moments::new(self.axes, self.origin);
        for Layer { range: [low, high], cells } in &self.layers {
            let along = |power: i32| (high.powi(power + 1) - low.powi(power + 1)) / f64::from(power + 1);
            moments.add(&Flat::of(cells), [along(0), along(1), along(2)]);
        }
        moments
    }

    /// The largest `direction . p` over the solid; `None` if it is empty.
    pub fn support(&self, direction: Vec3) -> Option<f64> {
        let local = Vec3::from_fn(|axis, _| self.axes[axis].dot(&direction));
        let flat = Vec2::new(local.x, local.y);
        self.layers
            .iter()
            .flat_map(|layer| layer.cells.iter().map(move |cell| (layer.range, cell)))
            .map(|(range, cell)| cell.support(flat) + (local.z * range[0]).max(local.z * range[1]))
            .reduce(f64::max)
            .map(|reach| direction.dot(&self.origin) + reach)
    }

    /// The largest thickness of the solid along the direction in which it is thinnest; 0 if the
    /// solid is empty. A body whose thickness is tiny is a sliver that the modelling kernel may
    /// keep or drop.
    pub fn thickness(&self) -> f64 {
        let of_cell = |cell: &Cell| {
            let [bottom, top] = cell.middle();
            (top - bottom).min(cell.x[1] - cell.x[0])
        };
        self.layers
            .iter()
            .map(|layer| {
                let across = layer.cells.iter().map(of_cell).fold(0.0, f64::max);
                across.min(layer.range[1] - layer.range[0])
            })
            .fold(0.0, f64::max)
    }

    /// Number of separate bodies. Bodies that touch at a point or along an edge are separate.
    /// `None` if a contact is so narrow that the modelling kernel may or may not see it.
    pub fn bodies(&self) -> Option<u32> {
        let [sure, perhaps] = [JOINED, APART].map(|least| self.bodies_with(least));
        (sure == perhaps).then_some(sure)
    }

    fn bodies_with(&self, least: f64) -> u32 {
        let mut starts = Vec::with_capacity(self.layers.len());
        let mut count = 0;
        for layer in &self.layers {
            starts.push(count);
            count += layer.cells.len();
        }
        let mut parents: Vec<usize> = (0..count).collect();
        for (layer, start) in self.layers.iter().zip(&starts) {
            connect_strips(&layer.cells, *start, least, &mut parents);
        }
        for (index, pair) in self.layers.windows(2).enumerate() {
            if pair[1].range[0] - pair[0].range[1] <= CONTACT {
                connect_layers(
                    [&pair[0].cells, &pair[1].cells],
                    [starts[index], starts[index + 1]],
                    least,
                    &mut parents,
                );
            }
        }
        (0..count).filter(|&number| parents[number] == number).count() as u32
    }
}

/// Length of the overlap of two intervals.
fn shared([a, b]: [f64; 2], [c, d]: [f64; 2]) -> f64 {
    b.min(d) - a.max(c)
}

/// Joins cells of neighbouring strips that share a piece of the line between the strips.
fn connect_strips(cells: &[Cell], start: usize, least: f64, parents: &mut [usize]) {
    for (i, cell) in cells.iter().enumerate() {
        // Strips thinner than rounding were left out.
        let next = cells[i..].iter().map(|other| other.strip).find(|strip| *strip > cell.strip);
        let Some(next) = next else { return };
        let after = cells.iter().enumerate().skip(i + 1);
        for (j, other) in after.skip_while(|(_, o)| o.strip < next).take_while(|(_, o)| o.strip == next) {
            let is_beside = other.x[0] - cell.x[1] <= CONTACT;
            if is_beside && shared(cell.heights(cell.x[1]), other.heights(other.x[0])) > least {
                join(parents, start + i, start + j);
            }
        }
    }
}

/// Joins overlapping cells of two adjacent layers.
fn connect_layers(layers: [&[Cell]; 2], starts: [usize; 2], least: f64, parents: &mut [usize]) {
    let mut first = 0;
    for (i, cell) in layers[0].iter().enumerate() {
        while layers[1].get(first).is_some_and(|other| other.strip < cell.strip) {
            first += 1;
        }
        for (j, other) in layers[1].iter().enumerate().skip(first).take_while(|(_, other)| other.strip == cell.strip) {
            if shared(cell.middle(), other.middle()) > least {
                join(parents, starts[0] + i, starts[1] + j);
            }
        }
    }
}

fn root(parents: &mut [usize], mut number: usize) -> usize {
    while parents[number] != number {
        parents[number] = parents[parents[number]];
        number = parents[number];
    }
    number
}

fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}
