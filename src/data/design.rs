//! The design of a part in words: what a policy writes between `<think>` and `</think>` before its
//! program (`prompt.strategy = "plan"`). It follows from the program alone.
//!
//! (`src/plan/` is something else: the cost of a step on many GPUs.)

use std::collections::BTreeMap;

use cadwright_rewards::PLAN_MARKS;
use cadwright_rewards::csg::{Edge, Region, Vec2, Wire};

/// The design that a program in GenCAD-Code's statement forms builds: the number of bodies, then a
/// line for each with its operation, the axis that its sketch plane faces, its outline with sizes,
/// its holes and its depth. Lengths are rounded to five decimals, which keeps multiples of 1/32.
///
/// ```text
/// 2 bodies
/// base on z: rectangle 1.0 x 0.5, 2 holes, depth 0.25
/// cut on -y: circle 0.125, depth -0.5 both ways
/// ```
///
/// The size of a circle is its radius, that of any other outline its extent along both axes of the
/// sketch. `None` if the program has any other statement, or an outline that is not closed.
pub fn design(program: &str) -> Option<String> {
    let mut reader = Reader::default();
    for line in program.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line == "import cadquery as cq" {
            continue;
        }
        let (target, value) = line.split_once('=')?;
        reader.assign(target.trim_end(), value.trim_start())?;
    }
    let bodies = reader.solids.get("solid")?;
    let count = counted(bodies.len(), "body", "bodies");
    let lines = bodies.iter().map(|(operation, body)| format!("\n{operation} {body}"));
    Some(count + &lines.collect::<String>())
}

/// The program after its design between `<think>` and `</think>`: the answer to a prompt that
/// expects a plan. `None` if the program has no design.
pub fn with_design(program: &str) -> Option<String> {
    let [open, close] = PLAN_MARKS;
    Some(format!("{open}\n{}\n{close}\n{program}", design(program)?))
}

/// A body without its operation, in words.
type Body = String;

/// What the variables of a program hold.
#[derive(Default)]
struct Reader<'a> {
    sketches: BTreeMap<&'a str, Sketch>,
    /// Each body with the operation that joins it to those before.
    solids: BTreeMap<&'a str, Vec<(&'a str, Body)>>,
}

/// A workplane, and the outlines on it that no extrusion has used.
struct Sketch {
    facing: &'static str,
    outlines: Vec<Region>,
}

impl<'a> Reader<'a> {
    fn assign(&mut self, target: &'a str, value: &'a str) -> Option<()> {
        if let Some(plane) = value.strip_prefix("cq.Workplane(cq.Plane(") {
            let [.., x, y, z] = numbers(plane)[..] else { return None };
            self.sketches.insert(target, Sketch { facing: facing([x, y, z])?, outlines: Vec::new() });
            return Some(());
        }
        let (receiver, calls) = chain(value)?;
        if let Some(sketch) = self.sketches.get_mut(receiver) {
            return match calls.last()? {
                ("circle" | "close", _) => {
                    sketch.outlines.push(outline(&calls)?);
                    Some(())
                }
                // `add` has no effect: an extrusion takes all outlines of its sketch.
                ("extrude", depth) if calls.iter().rev().skip(1).all(|(name, _)| *name == "add") => {
                    let body = body(sketch, depth)?;
                    self.solids.insert(target, vec![("base", body)]);
                    Some(())
                }
                _ => None,
            };
        }
        let mut bodies = self.solids.get(receiver)?.clone();
        match calls[..] {
            [] => {}
            [(operation @ ("union" | "cut" | "intersect"), other)] => {
                let [(_, first), rest @ ..] = &self.solids.get(other)?[..] else { return None };
                // An extrusion to both sides is two bodies in a variable of its own. What is cut or
                // joined with their union is cut or joined with each.
                let is_union = operation != "intersect" && rest.iter().all(|(joined, _)| *joined == "union");
                if !rest.is_empty() && !is_union {
                    return None;
                }
                bodies.push((operation, first.clone()));
                bodies.extend(rest.iter().map(|(_, body)| (operation, body.clone())));
            }
            _ => return None,
        }
        self.solids.insert(target, bodies);
        Some(())
    }
}

/// The axis of a normal, such as `-y`; `tilted` if it has none, within 0.001.
fn facing(normal: [f64; 3]) -> Option<&'static str> {
    let length = normal.iter().map(|c| c * c).sum::<f64>().sqrt();
    if !(length > 0.0 && length.is_finite()) {
        return None;
    }
    let is = |axis: usize, sign: f64| normal[axis] * sign / length > 1.0 - 1e-6;
    let names = [["x", "-x"], ["y", "-y"], ["z", "-z"]];
    let found = (0..3).find_map(|axis| match (is(axis, 1.0), is(axis, -1.0)) {
        (true, _) => Some(names[axis][0]),
        (_, true) => Some(names[axis][1]),
        _ => None,
    });
    Some(found.unwrap_or("tilted"))
}

/// The outlines of a sketch and the arguments of `extrude`, in words. The outlines are used up.
fn body(sketch: &mut Sketch, depth: &str) -> Option<Body> {
    let (depth, both) = match depth.split_once(',') {
        None => (depth, ""),
        Some((depth, both)) if both.trim() == "both=True" => (depth, " both ways"),
        Some(_) => return None,
    };
    let depth = length(depth.trim().parse().ok()?);
    let outlines = std::mem::take(&mut sketch.outlines);
    let (first, others) = outlines.split_first()?;
    let [low, high] = extent(first);
    let is_hole = |outline: &&Region| {
        let [least, most] = extent(outline);
        least.x >= low.x && least.y >= low.y && most.x <= high.x && most.y <= high.y
    };
    let holes = others.iter().filter(is_hole).count();
    let mut text = format!("on {}: {}", sketch.facing, shape(first));
    for (count, one, many) in [(holes, "hole", "holes"), (others.len() - holes, "more outline", "more outlines")] {
        if count > 0 {
            text += &format!(", {}", counted(count, one, many));
        }
    }
    Some(format!("{text}, depth {depth}{both}"))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The shape of an outline and its size.
fn shape(outline: &Region) -> String {
    let edges = outline.outer().edges();
    let lines = edges.iter().filter(|edge| matches!(edge, Edge::Line { .. })).count();
    let [low, high] = extent(outline);
    let (width, height) = (high.x - low.x, high.y - low.y);
    let name = match edges {
        [Edge::Circle { radius, .. }] => return format!("circle {}", length(*radius)),
        _ if lines == 4 && edges.len() == 4 && (outline.area() - width * height).abs() < 1e-6 * width * height => {
            "rectangle".to_owned()
        }
        _ => {
            let kinds = [(lines, "line", "lines"), (edges.len() - lines, "arc", "arcs")];
            let kinds = kinds.into_iter().filter(|(count, ..)| *count > 0);
            kinds.map(|(count, one, many)| counted(count, one, many)).collect::<Vec<_>>().join(" ")
        }
    };
    format!("{name} {} x {}", length(width), length(height))
}

/// The least and the greatest coordinates.
fn extent(outline: &Region) -> [Vec2; 2] {
    let reach = |x: f64, y: f64| outline.support(Vec2::new(x, y));
    [Vec2::new(-reach(-1.0, 0.0), -reach(0.0, -1.0)), Vec2::new(reach(1.0, 0.0), reach(0.0, 1.0))]
}

/// A length with at most five decimals, as Python writes it.
fn length(value: f64) -> String {
    // The sum turns -0.0 into 0.0.
    format!("{:?}", (value * 1e5).round() / 1e5 + 0.0)
}

/// The outline that `moveTo`, edges and `close` or `circle` draw.
fn outline(calls: &[(&str, &str)]) -> Option<Region> {
    let mut here = Vec2::zeros();
    let mut edges = Vec::new();
    let mut start = None;
    for (index, (name, arguments)) in calls.iter().enumerate() {
        let values = numbers(arguments);
        match (*name, &values[..]) {
            ("moveTo", &[x, y]) if index == 0 => here = Vec2::new(x, y),
            ("lineTo", &[x, y]) => {
                edges.push(Edge::line(here, Vec2::new(x, y)).ok()?);
                start.get_or_insert(here);
                here = Vec2::new(x, y);
            }
            ("threePointArc", &[x, y, u, v]) => {
                edges.push(Edge::three_point_arc(here, Vec2::new(x, y), Vec2::new(u, v)).ok()?);
                start.get_or_insert(here);
                here = Vec2::new(u, v);
            }
            ("circle", &[radius]) if edges.is_empty() && index + 1 == calls.len() => {
                edges.push(Edge::circle(here, radius).ok()?);
            }
            ("close", &[]) if index + 1 == calls.len() => {
                let start = start?;
                if start != here {
                    edges.push(Edge::line(here, start).ok()?);
                }
            }
            _ => return None,
        }
    }
    Some(Region::new(Wire::new(edges).ok()?, Vec::new()))
}

/// A receiver and the calls of its methods, each with its arguments: `a.b(c).d()`.
fn chain(value: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let end = value.find('.').unwrap_or(value.len());
    let (receiver, mut rest) = value.split_at(end);
    let mut calls = Vec::new();
    while let Some(call) = rest.strip_prefix('.') {
        let open = call.find('(')?;
        let mut depth = 0;
        let close = call.char_indices().find_map(|(at, c)| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            (c == ')' && depth == 0).then_some(at)
        })?;
        calls.push((&call[..open], call[open + 1..close].trim()));
        rest = &call[close + 1..];
    }
    rest.is_empty().then_some((receiver, calls))
}

/// The numbers in arguments, in order. A word that is no number becomes none, so that the count is
/// wrong.
fn numbers(arguments: &str) -> Vec<f64> {
    let words = arguments.split(|c: char| matches!(c, '(' | ')' | ',') || c.is_whitespace());
    words.filter_map(|word| word.parse().ok()).filter(|value: &f64| value.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::extract_program;

    use super::*;

    const PLATE: &str = "\
import cadquery as cq
# Generating a workplane for sketch 0
wp_sketch0 = cq.Workplane(cq.Plane(cq.Vector(-0.5, -0.25, 0.0), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.0, 1.0)))
loop0=wp_sketch0.moveTo(1.0, 0.0).lineTo(1.0, 0.5).lineTo(0.0, 0.5).lineTo(0.0, 0.0).close()
loop1=wp_sketch0.moveTo(0.25, 0.25).circle(0.09375)
loop2=wp_sketch0.moveTo(0.75, 0.25).circle(0.09375)
solid0=wp_sketch0.add(loop0).add(loop1).add(loop2).extrude(0.25)
solid=solid0
";
    const SLOT: &str = "\
# Generating a workplane for sketch 1
wp_sketch1 = cq.Workplane(cq.Plane(cq.Vector(-0.5, 0.25, 0.0), cq.Vector(1.0, 6.1e-17, -6.1e-17), cq.Vector(6.1e-17, -1.0, 6.1e-17)))
loop3=wp_sketch1.moveTo(0.0, 0.0).threePointArc((0.5, -0.5), (1.0, 0.0)).lineTo(0.0, 0.0).close()
solid1=wp_sketch1.add(loop3).extrude(-0.125, both=True)
solid=solid.cut(solid1)
";

    #[test]
    fn a_plate_with_a_slot() {
        assert_eq!(design(PLATE).unwrap(), "1 body\nbase on z: rectangle 1.0 x 0.5, 2 holes, depth 0.25");
        // The arc is a half circle of radius 0.5 below its chord.
        let both = "2 bodies\nbase on z: rectangle 1.0 x 0.5, 2 holes, depth 0.25\n\
                    cut on -y: 1 line 1 arc 1.0 x 0.5, depth -0.125 both ways";
        assert_eq!(design(&format!("{PLATE}{SLOT}")).unwrap(), both);
    }

    #[test]
    fn what_is_cut_with_a_union_is_cut_with_each_of_its_bodies() {
        let pair = SLOT.replace("solid=solid.cut(solid1)", "temp=solid1\ntemp=temp.union(solid0)");
        let both = format!("{PLATE}{pair}solid=solid.cut(temp)\n");
        let lines: Vec<String> = design(&both).unwrap().lines().map(|line| line[..8].to_owned()).collect();
        assert_eq!(lines, ["3 bodies", "base on ", "cut on -", "cut on z"]);
        assert_eq!(design(&both.replace("solid.cut", "solid.intersect")), None);
        assert_eq!(design(&both.replace("temp.union", "temp.cut")), None);
    }

    #[test]
    fn outlines_by_their_form_and_extent() {
        let of = |drawing: &str| {
            let program = format!(
                "w = cq.Workplane(cq.Plane(cq.Vector(0.0, 0.0, 0.0), cq.Vector(1.0, 0.0, 0.0), cq.Vector(0.0, 0.6, 0.8)))\n\
                 l=w.{drawing}\nsolid=w.add(l).extrude(1.0)\n"
            );
            design(&program).map(|text| text.rsplit(": ").next().unwrap_or_default().replace(", depth 1.0", ""))
        };
        assert_eq!(of("moveTo(0.5, 0.0).circle(0.125)").unwrap(), "circle 0.125");
        assert_eq!(
            of("moveTo(1.0, 0.0).lineTo(0.0, 0.30000000000000004).lineTo(0.0, 0.0).close()").unwrap(),
            "3 lines 1.0 x 0.3"
        );
        // Four lines that are no rectangle: a parallelogram.
        let slanted = "moveTo(1.0, 0.0).lineTo(1.5, 1.0).lineTo(0.5, 1.0).lineTo(0.0, 0.0).close()";
        assert_eq!(of(slanted).unwrap(), "4 lines 1.5 x 1.0");
        let lens =
            "moveTo(0.0, 0.0).threePointArc((0.5, -0.25), (1.0, 0.0)).threePointArc((0.5, 0.25), (0.0, 0.0)).close()";
        assert_eq!(of(lens).unwrap(), "2 arcs 1.0 x 0.5");
        // Open, and of no size.
        assert_eq!(of("moveTo(0.0, 0.0).lineTo(1.0, 0.0).lineTo(1.0, 1.0)"), None);
        assert_eq!(of("moveTo(0.0, 0.0).circle(0.0)"), None);
        assert_eq!(of("rect(1.0, 2.0)"), None);
    }

    #[test]
    fn planes_by_the_axis_that_they_face() {
        let noise = 6.123233995736766e-17;
        for (normal, expected) in [
            ([0.0, 0.0, 1.0], "z"),
            ([noise, -1.0, noise], "-y"),
            ([2.0, 0.0, noise], "x"),
            ([0.0, 0.6, 0.8], "tilted"),
        ] {
            assert_eq!(facing(normal), Some(expected));
        }
        assert_eq!(facing([0.0; 3]), None);
    }

    #[test]
    fn a_program_of_another_form_has_no_design() {
        for program in [
            "",
            "import cadquery as cq\nsolid = cq.Workplane(\"XY\").box(1, 2, 3)",
            "for i in range(3):\n    x=i",
            &PLATE.replace("solid=solid0", "result=solid0"),
            &PLATE.replace(".extrude(0.25)", ".extrude(0.25, taper=5)"),
            &PLATE.replace(".extrude(0.25)", ".extrude(depth)"),
            &PLATE.replace("loop1=wp_sketch0.moveTo(0.25, 0.25)", "loop1=wp_sketch0.moveTo(x, 0.25)"),
            &format!("{PLATE}solid=solid.union(solid7)\n"),
            &format!("{PLATE}solid=solid.fillet(0.1)\n"),
            &format!("{PLATE}{}", SLOT.replace("wp_sketch1.add(loop3)", "wp_sketch1.rotate()")),
        ] {
            assert_eq!(design(program), None, "{program}");
        }
    }

    #[test]
    fn a_design_is_no_program() {
        let text = design(&format!("{PLATE}{SLOT}")).unwrap();
        // Without its marks it would be judged as it stands, and no line of it looks like Python.
        assert_eq!(extract_program(&format!("{text}\n{PLATE}")), PLATE.trim_end());
        assert_eq!(with_design(PLATE).unwrap(), format!("<think>\n{}\n</think>\n{PLATE}", design(PLATE).unwrap()));
        assert_eq!(extract_program(&with_design(PLATE).unwrap()), PLATE.trim_end());
    }
}
