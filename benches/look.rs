//! Measures how many pictures of candidates are compared in a second: `cargo bench --bench look`.
//!
//! 64 synthetic parts; each is compared with the pictures of the next 15. Prints scores a second
//! with one thread, and with one thread for each processor, by the side of the picture.

use std::hint::black_box;
use std::time::Instant;

use cadwright::agent::look::{Look, LookOptions};
use cadwright::data::render::render_csg;
use cadwright::data::synth::{SynthConfig, draw_parts};
use cadwright_rewards::Solid;
use rayon::prelude::*;

const PARTS: usize = 64;
const CANDIDATES: usize = 15;

fn main() {
    let config = SynthConfig { count: PARTS, seed: 11, ..SynthConfig::default() };
    let solids: Vec<Solid> =
        draw_parts(&config).expect("parts").into_iter().map(|part| Solid::native(part.solid, false)).collect();
    // Bounds are computed once for each solid, as part of executing its program.
    for solid in &solids {
        black_box(solid.bounds());
    }
    let pairs: Vec<(usize, usize)> =
        (0..PARTS).flat_map(|part| (1..=CANDIDATES).map(move |step| (part, (part + step) % PARTS))).collect();
    for (size, fit) in [(112, true), (112, false), (448, true)] {
        let options = LookOptions { fit, ..LookOptions::default() };
        let looks: Vec<Look> = solids.iter().map(|solid| Look::new(&[picture(solid, size)], &options)).collect();
        let score = |(part, candidate): &(usize, usize)| looks[*part].score(&solids[*candidate]).score;
        let rate = |run: &dyn Fn() -> f64| {
            // The best of three: other work on the machine only slows down.
            let seconds = (0..3).map(|_| {
                let started = Instant::now();
                black_box(run());
                started.elapsed().as_secs_f64()
            });
            pairs.len() as f64 / seconds.fold(f64::INFINITY, f64::min)
        };
        let one = rate(&|| pairs.iter().map(score).sum());
        let all = rate(&|| pairs.par_iter().map(score).sum());
        let threads = rayon::current_num_threads();
        println!("{size} pixels, fit {fit}: {one:.0} scores a second on one thread, {all:.0} on {threads}");
    }
}

fn picture(solid: &Solid, size: u32) -> image::RgbImage {
    match &solid.geometry {
        cadwright_rewards::Geometry::Csg(csg) => render_csg(csg, size),
        cadwright_rewards::Geometry::Mesh(_) => unreachable!("synthetic parts are boolean trees"),
    }
}
