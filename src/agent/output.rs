//! The files that an agent leaves: the program, its solid, the trace and a strip of pictures.

use std::path::Path;

use anyhow::{Context, Result};
use cadwright_rewards::Solid;
use cadwright_rollout::Scorer;
use cadwright_rollout::files::write_whole;
use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::trace::Trace;
use super::verifier::Verifier;
use crate::data::encode_png;
use crate::data::render::{render_solid, side_by_side};

/// Writes `trace.json`, and if there is a program `program.py`, `strip.png` (input, first program,
/// chosen one), and `part.stl` and `part.step` by CadQuery. Returns a line that says what was found.
///
/// # Errors
/// A file that cannot be written, or CadQuery cannot start.
pub fn write(
    directory: &Path,
    input: &RgbImage,
    verifier: &Verifier,
    trace: &Trace,
    scorer: &Scorer,
) -> Result<String> {
    let put = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        write_whole(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    put("trace.json", format!("{}\n", serde_json::to_string_pretty(trace)?).as_bytes())?;
    let Some(best) = trace.best.map(|best| &trace.candidates[best]) else {
        return Ok("no program builds a solid".to_owned());
    };
    put("program.py", format!("{}\n", best.program.trim_end()).as_bytes())?;
    let drawn = |program: &str| -> Result<RgbImage> {
        let answer = scorer.execute(program)?.answer;
        Ok(picture(verifier, answer.solid().map(AsRef::as_ref), input))
    };
    let strip = [input.clone(), drawn(&trace.candidates[0].program)?, drawn(&best.program)?];
    put("strip.png", &encode_png(&side_by_side(&strip))?)?;
    let exported = match scorer.export(&best.program)? {
        Ok(exported) => {
            put("part.stl", &exported.stl)?;
            put("part.step", &exported.step)?;
            String::new()
        }
        Err(failure) => format!("; part.stl and part.step are not written: CadQuery says {}", failure.error),
    };
    let cost = &trace.cost;
    Ok(format!(
        "score {:.3} (first program {:.3}), {} programs built ({} by refinement), {} tokens, {:.1} s{exported}",
        best.score, trace.candidates[0].score, cost.programs, cost.refined, cost.tokens, cost.seconds
    ))
}

/// A solid as the input shows its part: in its view and framing if pictures are compared. White
/// without a solid.
pub fn picture(verifier: &Verifier, solid: Option<&Solid>, input: &RgbImage) -> RgbImage {
    let side = input.width();
    let drawn = match (verifier, solid) {
        (_, None) => None,
        (Verifier::Image(look), Some(solid)) => Some(look.render(solid)),
        (_, Some(solid)) => render_solid(solid, side),
    };
    let white = || RgbImage::from_pixel(side, input.height(), image::Rgb([255; 3]));
    let drawn = drawn.unwrap_or_else(white);
    if drawn.height() == input.height() { drawn } else { resize(&drawn, side, input.height(), FilterType::Triangle) }
}
