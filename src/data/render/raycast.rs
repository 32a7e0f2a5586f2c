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
    let mixed = scene.sample();
    scene.fill(&mut canvas);
    scene.draw_edges(&mixed, &mut canvas);
    canvas
}

struct Scene<'a> {
    caster: LineCaster<'a>,
    surfaces: SurfaceTable,
    /// For each surface, the radius of its outline in pixels and its greatest `facing`; the radius
    /// is 0 for planes.
    outlines: Vec<(f32, f32)>,
    framing: Framing,
    side: usize,
    samples: Vec<Sample>,
    /// The canvas pixels that can show the solid: x range and y range.
    window: [(usize, usize); 2],
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
                    *low = (*low).min((pixel[axis] - 1.0).max(0.0) as usize / BLOCK * BLOCK);
                    *high = (*high).max(((pixel[axis] + 1.0).max(0.0) as usize).min(side - 1) / BLOCK * BLOCK + BLOCK);
                }
            }
        }
        Self {
            caster: solid.caster(-toward),
            surfaces,
            outlines,
            framing,
            side,
            samples: vec![NOTHING; side * side],
            window,
        }
    }

    fn cast(&mut self, x: usize, y: usize) -> Sample {
        let origin = self.framing.unproject(x as f64 + 0.5, y as f64 + 0.5);
        let Some(enter) = self.caster.spans(origin).first().map(|span| span.enter) else {
            return NOTHING;
        };
        let normal = self.caster.normal(origin, &enter, true);
        let surface = self.surfaces.number(enter.face);
        let seam = match self.surfaces.surface(surface) {
            Surface::Cylinder { center, axis, seam: Some(seam), .. } => {
                let radial = origin + self.caster.direction() * enter.at - center;
                if radial.dot(seam) > 0.0 { radial.dot(&axis.cross(seam)) as f32 } else { f32::NAN }
            }
            _ => f32::NAN,
        };
        Sample {
            surface,
            facing: normal.dot(&self.framing.view.toward) as f32,
            depth: (enter.at * self.framing.scale) as f32,
            seam,
        }
    }

    /// Casts the rays. Returns the corners of the blocks that contain an edge or an outline.
    fn sample(&mut self) -> Vec<(usize, usize)> {
        let [(left, right), (top, bottom)] = self.window;
        let columns: Vec<usize> = (left..=right).step_by(BLOCK).collect();
        let mut mixed = Vec::new();
        let mut above = vec![NOTHING; columns.len()];
        let mut below = above.clone();
        for y in (top..=bottom).step_by(BLOCK) {
            for (column, x) in columns.iter().enumerate() {
                // The lattice reaches one block beyond the canvas, where rays hit nothing.
                below[column] = if *x < self.side && y < self.side { self.cast(*x, y) } else { NOTHING };
            }
            if y > top {
                for (column, x) in columns.windows(2).enumerate() {
                    let corners = [above[column], above[column + 1], below[column], below[column + 1]];
                    let (x, y) = (x[0], y - BLOCK);
                    if is_uniform(&corners) {
                        self.interpolate(x, y, &corners);
                    } else {
                        self.sample_block(x, y);
                        mixed.push((x, y));
                    }
                }
            }
            std::mem::swap(&mut above, &mut below);
        }
        mixed
    }

    fn sample_block(&mut self, left: usize, top: usize) {
        for y in top..(top + BLOCK).min(self.side) {
            for x in left..(left + BLOCK).min(self.side) {
                self.samples[y * self.side + x] = self.cast(x, y);
            }
        }
    }

    fn interpolate(&mut self, left: usize, top: usize, corners: &[Sample; 4]) {
        let [a, b, c, d] = *corners;
        if a.surface == GROUND {
            return;
        }
        for row in 0..BLOCK.min(self.side - top) {
            let v = row as f32 / BLOCK as f32;
            for column in 0..BLOCK.min(self.side - left) {
                let u = column as f32 / BLOCK as f32;
                let mix = |a: f32, b: f32, c: f32, d: f32| (a + (b - a) * u) * (1.0 - v) + (c + (d - c) * u) * v;
                self.samples[(top + row) * self.side + left + column] = Sample {
                    facing: mix(a.facing, b.facing, c.facing, d.facing),
                    depth: mix(a.depth, b.depth, c.depth, d.depth),
                    ..a
                };
            }
        }
    }

    fn fill(&self, canvas: &mut Canvas) {
        let [(left, right), (top, bottom)] = self.window;
        for y in top..bottom.min(self.side) {
            for x in left..right.min(self.side) {
                let sample = &self.samples[y * self.side + x];
                if sample.surface != GROUND {
                    canvas.set(x, y, face_tone(f64::from(sample.facing)));
                }
            }
        }
    }

    /// Draws every border between surfaces, and every seam, one pixel wide on one of its sides.
    fn draw_edges(&self, mixed: &[(usize, usize)], canvas: &mut Canvas) {
        for &(left, top) in mixed {
            for y in top..(top + BLOCK).min(self.side) {
                for x in left..(left + BLOCK).min(self.side) {
                    let here = &self.samples[y * self.side + x];
                    // Each pair is looked at from both sides if both blocks are mixed; drawing
                    // twice is harmless.
                    let neighbours = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
                    for (nx, ny) in neighbours.into_iter().filter(|(nx, ny)| *nx < self.side && *ny < self.side) {
                        let there = &self.samples[ny * self.side + nx];
                        if self.is_edge(here, there) {
                            let (x, y) = if owns_edge(here, there) { (x, y) } else { (nx, ny) };
                            canvas.draw(x, y);
                        }
                    }
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
