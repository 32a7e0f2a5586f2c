//! Programs with mistakes, and copies of programs with changed numbers.

use super::super::draw::{Draw, float, rounded};
use super::super::text::{Number, numbers};
use super::gencad;

/// A GenCAD-style program with one to three mistakes.
pub fn program(draw: &mut Draw) -> String {
    let mut text = gencad::program(draw);
    for _ in 0..draw.weighted(&[(70, 1), (20, 2), (10, 3)]) {
        text = mistaken(draw, text);
    }
    text
}

/// A copy of `text` with one to three numbers changed.
pub fn perturbed(draw: &mut Draw, text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..=draw.below(3) {
        text = with_other_number(draw, &text);
    }
    text
}

fn with_other_number(draw: &mut Draw, text: &str) -> String {
    let found = numbers(text);
    if found.is_empty() {
        return text.to_owned();
    }
    let Number { start, end, value } = found[draw.below(found.len())];
    let other = match draw.below(8) {
        0 => -value,
        1 => 0.0,
        2 => value * 2.0,
        3 => value + 0.125,
        4 => value - 0.25,
        5 => value * draw.between(0.5, 1.5),
        _ => value * draw.between(0.9, 1.1),
    };
    let is_whole = !text[start..end].contains(['.', 'e']);
    let written = if is_whole { format!("{:.0}", other.round() + 0.0) } else { float(rounded(other, 9)) };
    format!("{}{written}{}", &text[..start], &text[end..])
}

/// Replaces a random occurrence of `from` by `to`, if there is one.
fn replaced(draw: &mut Draw, text: &str, from: &str, to: &str) -> String {
    let places: Vec<_> = text.match_indices(from).map(|(at, _)| at).collect();
    if places.is_empty() {
        return text.to_owned();
    }
    let at = places[draw.below(places.len())];
    format!("{}{to}{}", &text[..at], &text[at + from.len()..])
}

fn mistaken(draw: &mut Draw, text: String) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() < 2 {
        return text;
    }
    let line = draw.below(lines.len());
    match draw.below(26) {
        0..=6 => return with_other_number(draw, &text),
        7 | 8 => {
            lines.remove(line);
        }
        9 => lines.truncate(line.max(1)),
        10 => {
            let mut end = draw.below(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            return text[..end].to_owned();
        }
        11 | 12 => {
            let operations = ["union", "cut", "intersect"];
            let (from, to) = (draw.pick(&operations), draw.pick(&operations));
            return replaced(draw, &text, &format!("solid.{from}("), &format!("solid.{to}("));
        }
        13 => {
            let (from, to) = draw.pick(&[
                ("lineTo", "LineTo"),
                ("extrude", "extrud"),
                ("close", "closed"),
                ("circle", "cirle"),
                ("moveTo", "move"),
                ("threePointArc", "threePointArk"),
                ("cq.", "cad."),
                ("wp_sketch0", "wp_sketch"),
                ("loop0", "loop"),
                ("Vector", "vector"),
                ("solid0", "solid_0"),
            ]);
            return replaced(draw, &text, from, to);
        }
        14 => return replaced(draw, &text, ".close()", ""),
        15 => {
            let other = draw.below(lines.len());
            lines.swap(line, other);
        }
        16 => lines.insert(line, lines[draw.below(lines.len())].clone()),
        17 => {
            let (from, to) = draw.pick(&[
                (")", ""),
                ("(", ""),
                (",", ""),
                (".", ""),
                ("=", "=="),
                ("1", "l"),
                ("0.0", "O.0"),
                ("\n", ""),
                ("cq.Vector(0.0", "cq.Vector(1.0"),
            ]);
            return replaced(draw, &text, from, to);
        }
        18 => {
            let (from, to) = draw.pick(&[
                ("wp_sketch0.", "wp_sketch1."),
                ("wp_sketch1.", "wp_sketch0."),
                ("loop0)", "loop1)"),
                ("solid1)", "solid0)"),
                ("solid1)", "solid)"),
            ]);
            return replaced(draw, &text, from, to);
        }
        19 => return replaced(draw, &text, "lineTo(", "moveTo("),
        20 => {
            let (from, to) = draw.pick(&[
                ("extrude(", "extrude(-"),
                ("extrude(", "extrude(0*"),
                ("extrude(", "cutBlind("),
                ("extrude(", "extrude(distance="),
                (", both=True", ", both=False"),
                (", both=True", ", True, True"),
                (", both=True", ", bothways=True"),
            ]);
            return replaced(draw, &text, from, to);
        }
        21 => {
            // A loop that stops early: its last edge is missing.
            let Some(at) = text.find(".close()") else { return text };
            let start = text[..at].rfind(".lineTo(").unwrap_or(at);
            return format!("{}{}", &text[..start], &text[at..]);
        }
        22 => return replaced(draw, &text, ".add(loop0)", ""),
        23 => lines[line].insert_str(0, draw.pick(&["  ", "\t", "    ", "# ", "```"])),
        24 => {
            // A loop that is drawn twice.
            let Some(at) = lines.iter().position(|line| line.starts_with("loop")) else { return text };
            let copy = lines[at].clone();
            lines.insert(at, copy);
        }
        _ => {
            let last = lines.len() - 1;
            lines[last] = draw
                .pick(&["solid=None", "solid=solid0.val()", "result=solid", "solid=solid.cut(solid)", "print(solid)"])
                .to_owned();
        }
    }
    lines.join("\n") + "\n"
}
