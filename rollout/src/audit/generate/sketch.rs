//! Programs that use the Sketch class, alone and on workplanes.

use super::super::draw::{Draw, Grain, plain, rounded};

/// A program that extrudes one to four sketches and joins the bodies. Some programs have a mistake.
pub fn program(draw: &mut Draw) -> String {
    draw.grain = draw.weighted(&[
        (35, Grain::Lattice(1.0)),
        (20, Grain::Lattice(0.5)),
        (20, Grain::Lattice(5.0)),
        (15, Grain::Continuous(2)),
        (10, Grain::Continuous(4)),
    ]);
    let mut text = String::from("import cadquery as cq\n");
    if draw.chance(0.5) {
        stacked(draw, &mut text)
    } else {
        separate(draw, &mut text)
    }
    match draw.below(40) {
        0 => text.replacen(".finalize()", "", 1),
        1 => text.replacen(".assemble()", "", 1),
        2 => text.replacen("mode='s'", "mode='x'", 1),
        3 => text.replacen(".close()", "", 1),
        4 => text.replacen("sketch", "sketches", 1),
        5 => text.replacen(".circle(", ".circle(-", 1),
        _ => text,
    }
}

/// One expression of sketches on workplanes.
fn stacked(draw: &mut Draw, text: &mut String) {
    let plane = draw.pick(&["'XY'", "'XY'", "'YZ'", "'ZX'", "'XZ'", "'YX'"]);
    let origin = format!("({}, {}, {})", plain(draw.signed(20.0)), plain(draw.signed(20.0)), plain(draw.signed(20.0)));
    *text += &format!("w0=cq.Workplane({plane},origin={origin})\n");
    let mut parts = Vec::new();
    for index in 0..draw.weighted(&[(40, 1), (35, 2), (15, 3), (10, 4)]) {
        let height = extent(draw);
        let plane = if index > 0 && draw.chance(0.4) { ".workplane(offset=5/2)" } else { "" };
        let part = match draw.below(8) {
            0 if index > 0 => {
                let (x, y) = (plain(draw.signed(20.0)), plain(draw.signed(20.0)));
                let size = [0; 3].map(|_| plain(draw.number(2.0, 30.0)));
                format!("w0{plane}.moveTo({x},{y}).box({})", size.join(","))
            }
            1 if index > 0 => {
                format!("w0{plane}.cylinder({},{})", plain(draw.number(2.0, 30.0)), plain(draw.number(1.0, 15.0)))
            }
            _ => format!("w0{plane}.sketch(){}.finalize().extrude({height})", drawing(draw)),
        };
        parts.push(part);
    }
    let mut chain = parts[0].clone();
    for part in &parts[1..] {
        chain += &format!(".{}({part})", draw.weighted(&[(70, "union"), (22, "cut"), (8, "intersect")]));
    }
    *text += &match draw.below(12) {
        0..=5 => format!("r={chain}\nresult=r\n"),
        6 => format!("r={chain}\n"),
        _ => format!("result={chain}\n"),
    };
}

/// The arguments of `extrude`.
fn extent(draw: &mut Draw) -> String {
    let size = plain(draw.number(1.0, 40.0));
    match draw.below(10) {
        0..=5 => size,
        6 | 7 => format!("-{size}"),
        8 => format!("{size}, both=True"),
        _ => format!("{size}/2"),
    }
}

/// Sketches as variables, each placed on a workplane.
fn separate(draw: &mut Draw, text: &mut String) {
    for index in 0..draw.weighted(&[(60, 1), (30, 2), (10, 3)]) {
        *text += &format!("s{index} = cq.Sketch(){}\n", drawing(draw));
        let plane = draw.pick(&["\"XY\"", "\"XY\"", "\"XZ\"", "\"YZ\"", ""]);
        let size = extent(draw);
        let shift = if draw.chance(0.3) {
            format!(
                ".translate(({}, {}, {}))",
                plain(draw.signed(10.0)),
                plain(draw.signed(10.0)),
                plain(draw.signed(10.0))
            )
        } else {
            String::new()
        };
        let points = draw.weighted(&[(8, ""), (1, ".pushPoints([(0, 0), (30, 5)])"), (1, ".rarray(25, 25, 2, 1)")]);
        let made = match draw.below(12) {
            0 if index > 0 => format!("result.faces(\">Z\").workplane().placeSketch(s{index}).extrude({size})"),
            1 if index > 0 => format!("result.faces(\">Z\").workplane().placeSketch(s{index}).cutThruAll()"),
            2 if index > 0 => format!("result.faces(\">Z\").workplane().placeSketch(s{index}).cutBlind(-2)"),
            3 => format!(
                "cq.Workplane({plane}).box(40, 40, 10).faces('>Z').workplane().placeSketch(s{index}).extrude({size})"
            ),
            _ => format!("cq.Workplane({plane}){points}.placeSketch(s{index}).extrude({size}){shift}"),
        };
        if index == 0 || made.starts_with("result") {
            *text += &format!("result = {made}\n");
        } else {
            let operation = draw.weighted(&[(60, "union"), (30, "cut"), (10, "intersect")]);
            *text += &format!("result = result.{operation}({made})\n");
        }
    }
}

/// The calls that fill a sketch.
fn drawing(draw: &mut Draw) -> String {
    let mut calls = if draw.chance(0.45) { traced(draw) } else { face(draw, "") };
    for _ in 0..draw.weighted(&[(35, 0), (35, 1), (20, 2), (10, 3)]) {
        let mode =
            draw.weighted(&[(60, "mode='s'"), (20, "mode='a'"), (12, ""), (5, "mode='i'"), (3, "mode='s', tag='t'")]);
        let at = match draw.below(12) {
            0..=5 => format!(".push([({}, {})])", plain(draw.signed(12.0)), plain(draw.signed(12.0))),
            6 => format!(
                ".push([({}, {}), ({}, {})])",
                plain(draw.signed(15.0)),
                plain(draw.signed(15.0)),
                plain(draw.signed(15.0)),
                plain(draw.signed(15.0))
            ),
            7 => format!(
                ".rarray({}, {}, {}, {})",
                plain(draw.number(4.0, 15.0)),
                plain(draw.number(4.0, 15.0)),
                draw.int(1, 3),
                draw.int(1, 2)
            ),
            8 => format!(".parray({}, 0, 360, {})", plain(draw.number(4.0, 15.0)), draw.int(2, 5)),
            _ => String::new(),
        };
        let reset = if at.is_empty() { "" } else { draw.pick(&[".reset()", ""]) };
        calls += &format!("{at}{}{reset}", face(draw, mode));
    }
    match draw.below(14) {
        0 => calls += &format!(".reset().vertices().fillet({})", plain(draw.pick(&[0.5, 1.0, 2.0]))),
        1 => calls += &format!(".reset().vertices().chamfer({})", plain(draw.pick(&[0.5, 1.0]))),
        2 => calls += ".clean()",
        3 => calls += ".reset()",
        _ => {}
    }
    calls
}

/// A call that adds a face of a standard form.
fn face(draw: &mut Draw, mode: &str) -> String {
    let size = if mode.is_empty() { (5.0, 40.0) } else { (1.0, 20.0) };
    let [a, b] = [draw.number(size.0, size.1), draw.number(size.0, size.1)];
    let [at, bt] = [a, b].map(plain);
    let half = plain(rounded(a / 2.0, 4));
    let comma = if mode.is_empty() { "" } else { ", " };
    match draw.below(20) {
        0..=6 => format!(".rect({at}, {bt}{comma}{mode})"),
        7..=14 => format!(".circle({half}{comma}{mode})"),
        15 | 16 => format!(".regularPolygon({half}, {}{comma}{mode})", draw.int(3, 8)),
        17 => format!(".trapezoid({at}, {bt}, {}{comma}{mode})", draw.pick(&["60", "75", "90", "110"])),
        18 => format!(".slot({at}, {}{comma}{mode})", plain(rounded(b / 2.0, 4))),
        _ => format!(".ellipse({half}, {}{comma}{mode})", plain(rounded(b / 2.0, 4))),
    }
}

/// Calls that draw edges, usually close them, and assemble them to a face.
fn traced(draw: &mut Draw) -> String {
    let size = [draw.number(4.0, 40.0), draw.number(4.0, 40.0)];
    let place = [draw.signed(10.0), draw.signed(10.0)];
    let point = |x: f64, y: f64| {
        format!("({},{})", plain(rounded(place[0] + x * size[0], 4)), plain(rounded(place[1] + y * size[1], 4)))
    };
    let close = if draw.chance(0.85) { ".close()" } else { "" };
    let edges = match draw.below(9) {
        0..=2 => format!(
            ".segment({},{}).segment({}).segment({}){}",
            point(0.0, 0.0),
            point(1.0, 0.0),
            point(1.0, 1.0),
            point(0.0, 1.0),
            if close.is_empty() { format!(".segment({})", point(0.0, 0.0)) } else { close.to_owned() }
        ),
        3 | 4 => format!(
            ".segment({},{}).arc({},{}).segment({}){}",
            point(0.0, 0.0),
            point(1.0, 0.0),
            point(1.0 + draw.pick(&[0.5, 0.25, -0.2]), 0.5),
            point(1.0, 1.0),
            point(0.0, 1.0),
            if close.is_empty() { format!(".segment({})", point(0.0, 0.0)) } else { close.to_owned() }
        ),
        5 => format!(
            ".arc({},{},{}).close()",
            point(0.0, 0.0),
            point(0.5, draw.pick(&[0.3, 0.6, -0.4])),
            point(1.0, 0.0)
        ),
        6 => {
            let corners: Vec<String> =
                (0..3 + draw.below(3)).map(|_| point(draw.between(-1.0, 1.0), draw.between(-1.0, 1.0))).collect();
            let rest: String = corners[2..].iter().map(|corner| format!(".segment({corner})")).collect();
            format!(".segment({},{}){rest}.close()", corners[0], corners[1])
        }
        7 => format!(
            ".segment({},{}).segment({}).segment({}).segment({}).segment({}).close()",
            point(0.0, 0.0),
            point(1.0, 0.0),
            point(1.0, 0.5),
            point(0.5, 0.5),
            point(0.5, 1.0),
            point(0.0, 1.0)
        ),
        _ => {
            let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)].map(|(x, y)| point(x, y));
            return format!(".polygon([{}])", corners.join(","));
        }
    };
    format!("{edges}.assemble()")
}
