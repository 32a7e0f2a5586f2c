//! Renders boolean trees by casting rays.
//!
//! Rays are cast on a coarse lattice first. If the four corners of a block see one surface, the
//! block is filled by interpolation; only blocks with an edge or an outline in them are cast ray by
//! ray.

use cadwright_rewards::csg::{CsgSolid, LineCaster, Surface, SurfaceTable, Vec3};
use image::RgbImage;

use super::canvas::face_tone;
use super::{Canvas, Framing, View, canvas_side};

/// The side of a block, in canvas pixels. Details smaller than this can be missed.
const BLOCK: usize = 4;

/// The surface number of the background.
const GROUND: u16 = u16::MAX;

/// The surface that one ray hits.
#[derive(Debug, Clone, Copy)]
struct Sample {
    surface: u16,
    /// The cosine between normal and view.
    facing: f32,
    /// The distance behind the picture's plane, in pixels.
    depth: f32,
    /// Signed distance to the surface's seam; NaN on the far side of it and if there is none.
    seam: f32,
}

const NOTHING: Sample = Sample { surface: GROUND, facing: 0.0, depth: f32::INFINITY, seam: f32::NAN };

/// A block: a square of `BLOCK` x `BLOCK` canvas pixels.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// Its corners see the background.
    Ground,
    /// Its corners see one surface.
    Uniform,
    /// It has an edge or an outline; the position of its samples.
    Mixed(u32),
}

/// Renders a solid, `size` pixels a side. A solid without volume gives a white picture.
pub fn render_csg(solid: &CsgSolid, size: u32) -> RgbImage {
    let side = canvas_side(size);
    let canvas = solid
        .bounds()
        .map_or_else(|| Canvas::new(side), |bounds| draw_csg(solid, Framing::fit(&bounds, View::isometric(), side)));
    canvas.to_picture(size)
}

/// Draws a solid on a canvas of the framing's side. What lies outside of the canvas is cut off.
pub fn draw_csg(solid: &CsgSolid, framing: Framing) -> Canvas {
    let mut scene = Scene::new(solid, framing);
    let mut canvas = Canvas::new(scene.side);
    scene.cast_lattice();
    scene.sort_blocks();
    scene.fill(&mut canvas);
    scene.draw_edges(&mut canvas);
    canvas
}

struct Scene<'a> {
    caster: LineCaster<'a>,
    surfaces: SurfaceTable,
    /// For each surface, the radius of its outline in pixels and its greatest `facing`; the radius
    /// is 0 for planes.
    outlines: Vec<(f32, f32)>,
    /// For each plane, `facing`.
    flat: Vec<Option<f32>>,
    framing: Framing,
    side: usize,
    /// The blocks that can show the solid: the first one and the number along x and y.
    first: [usize; 2],
    count: [usize; 2],
    /// The rays through the blocks' corners, row by row; one more than blocks along each axis. The
    /// last ones may lie beyond the canvas, where rays hit nothing.
    lattice: Vec<Sample>,
    /// The blocks, row by row.
    blocks: Vec<Block>,
    /// The samples of the mixed blocks, row by row.
    mixed: Vec<[Sample; BLOCK * BLOCK]>,
}

impl<'a> Scene<'a> {
    fn new(solid: &'a CsgSolid, framing: Framing) -> Self {
        let surfaces = SurfaceTable::new(solid);
        let toward = framing.view.toward;
        let outlines = (0..surfaces.len())
            .map(|number| match surfaces.surface(number as u16) {
                Surface::Plane { .. } | Surface::Cone { .. } => (0.0, 1.0),
                Surface::Sphere { radius, .. } => ((radius * framing.scale) as f32, 1.0),
                Surface::Cylinder { axis, radius, .. } => {
                    ((radius * framing.scale) as f32, (toward - axis * axis.dot(&toward)).norm() as f32)
                }
            })
            .collect();
        let flat = (0..surfaces.len())
            .map(|number| match surfaces.surface(number as u16) {
                Surface::Plane { normal, .. } => Some(normal.dot(&toward).abs() as f32),
                _ => None,
            })
            .collect();
        let side = framing.side as usize;
        let mut window = [(side, 0); 2];
        if let Some(bounds) = solid.bounds() {
            for corner in 0..8 {
                let pick = |axis: usize| {
                    if corner >> axis & 1 == 0 { bounds.min[axis] } else { bounds.max[axis] }
                };
                let pixel = framing.project(Vec3::new(pick(0), pick(1), pick(2)));
                for axis in 0..2 {
                    let (low, high) = &mut window[axis];
                    *low = (*low).min((pixel[axis] - 1.0).max(0.0) as usize / BLOCK);
                    *high = (*high).max(((pixel[axis] + 1.0).max(0.0) as usize).min(side - 1) / BLOCK + 1);
                }
            }
        }
        Self {
            caster: solid.caster(-toward),
            surfaces,
            outlines,
            flat,
            framing,
            side,
            first: window.map(|(low, _)| low),
            count: window.map(|(low, high)| high.saturating_sub(low)),
            lattice: Vec::new(),
            blocks: Vec::new(),
            mixed: Vec::new(),
        }
    }

    fn cast(&mut self, x: usize, y: usize) -> Sample {
        let origin = self.framing.unproject(x as f64 + 0.5, y as f64 + 0.5);
        let Some(enter) = self.caster.spans(origin).first().map(|span| span.enter) else {
            return NOTHING;
        };
        let surface = self.surfaces.number(enter.face);
        let facing = self.flat[usize::from(surface)].unwrap_or_else(|| {
            let normal = self.caster.normal(origin, &enter, true);
            normal.dot(&self.framing.view.toward) as f32
        });
        let seam = match self.surfaces.surface(surface) {
            Surface::Cylinder { center, axis, seam: Some(seam), .. } => {
                let radial = origin + self.caster.direction() * enter.at - center;
                if radial.dot(seam) > 0.0 { radial.dot(&axis.cross(seam)) as f32 } else { f32::NAN }
            }
            _ => f32::NAN,
        };
        Sample { surface, facing, depth: (enter.at * self.framing.scale) as f32, seam }
    }

    /// Casts the rays through the blocks' corners.
    fn cast_lattice(&mut self) {
        let (first, count) = (self.first, self.count);
        self.lattice.reserve((count[0] + 1) * (count[1] + 1));
        for row in first[1]..=first[1] + count[1] {
            for column in first[0]..=first[0] + count[0] {
                let (x, y) = (column * BLOCK, row * BLOCK);
                let sample = if x < self.side && y < self.side { self.cast(x, y) } else { NOTHING };
                self.lattice.push(sample);
            }
        }
    }

    /// Tells what each block shows, and casts the rays of the mixed ones.
    fn sort_blocks(&mut self) {
        self.blocks.reserve(self.count[0] * self.count[1]);
        for row in 0..self.count[1] {
            for column in 0..self.count[0] {
                let corners = self.corners(column, row);
                let block = if !is_uniform(&corners) {
                    let samples = self.cast_block(column, row, corners[0]);
                    self.mixed.push(samples);
                    Block::Mixed(self.mixed.len() as u32 - 1)
                } else if corners[0].surface == GROUND {
                    Block::Ground
                } else {
                    Block::Uniform
                };
                self.blocks.push(block);
            }
        }
    }

    /// Casts the rays of a mixed block; that of its first pixel is known.
    fn cast_block(&mut self, column: usize, row: usize, first: Sample) -> [Sample; BLOCK * BLOCK] {
        let mut samples = [NOTHING; BLOCK * BLOCK];
        samples[0] = first;
        for (i, sample) in samples.iter_mut().enumerate().skip(1) {
            let (x, y) = ((self.first[0] + column) * BLOCK + i % BLOCK, (self.first[1] + row) * BLOCK + i / BLOCK);
            if x < self.side && y < self.side {
                *sample = self.cast(x, y);
            }
        }
        samples
    }

    /// The rays at the corners of a block of the window.
    fn corners(&self, column: usize, row: usize) -> [Sample; 4] {
        let wide = self.count[0] + 1;
        let at = row * wide + column;
        [self.lattice[at], self.lattice[at + 1], self.lattice[at + wide], self.lattice[at + wide + 1]]
    }

    /// What the pixel (`x`, `y`) of the canvas sees.
    fn sample(&self, x: usize, y: usize) -> Sample {
        let (column, row) = ((x / BLOCK).wrapping_sub(self.first[0]), (y / BLOCK).wrapping_sub(self.first[1]));
        if column >= self.count[0] || row >= self.count[1] {
            return NOTHING;
        }
        match self.blocks[row * self.count[0] + column] {
            Block::Ground => NOTHING,
            Block::Uniform => interpolated(&self.corners(column, row), x % BLOCK, y % BLOCK),
            Block::Mixed(number) => self.mixed[number as usize][y % BLOCK * BLOCK + x % BLOCK],
        }
    }

    fn fill(&self, canvas: &mut Canvas) {
        for (number, block) in self.blocks.iter().enumerate() {
            let (column, row) = (number % self.count[0], number / self.count[0]);
            let (left, top) = ((self.first[0] + column) * BLOCK, (self.first[1] + row) * BLOCK);
            let corners = self.corners(column, row);
            let is_flat = corners.iter().all(|corner| corner.facing == corners[0].facing);
            for y in top..(top + BLOCK).min(self.side) {
                for x in left..(left + BLOCK).min(self.side) {
                    let sample = match block {
                        Block::Ground => continue,
                        Block::Uniform if is_flat => corners[0],
                        Block::Uniform => interpolated(&corners, x - left, y - top),
                        Block::Mixed(number) => self.mixed[*number as usize][(y - top) * BLOCK + x - left],
                    };
                    if sample.surface != GROUND {
                        canvas.set(x, y, face_tone(f64::from(sample.facing)));
                    }
                }
            }
        }
    }

    /// Draws every border between surfaces, and every seam, one pixel wide on one of its sides.
    fn draw_edges(&self, canvas: &mut Canvas) {
        for (number, block) in self.blocks.iter().enumerate() {
            let Block::Mixed(mixed) = block else { continue };
            let samples = &self.mixed[*mixed as usize];
            let (column, row) = (number % self.count[0], number / self.count[0]);
            let (left, top) = ((self.first[0] + column) * BLOCK, (self.first[1] + row) * BLOCK);
            for (i, here) in samples.iter().enumerate() {
                let (u, v) = (i % BLOCK, i / BLOCK);
                let (x, y) = (left + u, top + v);
                // What lies beyond the canvas has no edges.
                let mut compare = |there: &Sample, nx: usize, ny: usize| {
                    if x.max(nx) < self.side && y.max(ny) < self.side && self.is_edge(here, there) {
                        let (x, y) = if owns_edge(here, there) { (x, y) } else { (nx, ny) };
                        canvas.draw(x, y);
                    }
                };
                // Within the block, each pair once. Pairs of two mixed blocks are looked at from
                // both sides; drawing twice is harmless.
                if u + 1 < BLOCK {
                    compare(&samples[i + 1], x + 1, y);
                } else {
                    compare(&self.sample(x + 1, y), x + 1, y);
                }
                if v + 1 < BLOCK {
                    compare(&samples[i + BLOCK], x, y + 1);
                } else {
                    compare(&self.sample(x, y + 1), x, y + 1);
                }
                if u == 0 && x > 0 {
                    compare(&self.sample(x - 1, y), x - 1, y);
                }
                if v == 0 && y > 0 {
                    compare(&self.sample(x, y - 1), x, y - 1);
                }
            }
        }
    }

    fn is_edge(&self, a: &Sample, b: &Sample) -> bool {
        if a.surface == b.surface {
            return a.surface != GROUND && a.seam * b.seam < 0.0;
        }
        let (near, far) = if a.depth < b.depth { (a, b) } else { (b, a) };
        let (radius, steepest) = self.outlines[usize::from(near.surface)];
        if radius == 0.0 || far.depth - near.depth < 3.0 {
            return true;
        }
        // The outline of a rounded face is not an edge: tests whether the sample is within about a
        // pixel of the line at which the face turns away.
        let sine = (near.facing / steepest).min(1.0);
        radius * (1.0 - (1.0 - sine * sine).sqrt()) > 1.5
    }
}

/// What a pixel of a uniform block sees, from the block's corners; `x` and `y` count from its first
/// pixel.
fn interpolated(corners: &[Sample; 4], x: usize, y: usize) -> Sample {
    let [a, b, c, d] = corners;
    let (u, v) = (x as f32 / BLOCK as f32, y as f32 / BLOCK as f32);
    let mix = |a: f32, b: f32, c: f32, d: f32| (a + (b - a) * u) * (1.0 - v) + (c + (d - c) * u) * v;
    Sample { facing: mix(a.facing, b.facing, c.facing, d.facing), depth: mix(a.depth, b.depth, c.depth, d.depth), ..*a }
}

/// Whether the pixel of `a`, not of `b`, is blackened for the edge between them. All pixels of
/// one edge are taken from one side, which keeps the line thin.
fn owns_edge(a: &Sample, b: &Sample) -> bool {
    if a.surface == b.surface {
        return a.seam > 0.0;
    }
    if (a.depth - b.depth).abs() > 3.0 { a.depth < b.depth } else { a.surface > b.surface }
}

fn is_uniform(corners: &[Sample; 4]) -> bool {
    let first = &corners[0];
    corners[1..].iter().all(|corner| corner.surface == first.surface)
        && !corners.iter().any(|a| corners.iter().any(|b| a.seam * b.seam < 0.0))
}
