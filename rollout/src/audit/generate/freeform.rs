//! Programs in the style of a general language model.

use super::super::draw::{Draw, Grain, plain, rounded};

/// An unfinished part: its statements so far, and its approximate size.
struct Part {
    /// Names and values at the top of the program.
    names: Vec<(String, f64)>,
    lines: Vec<String>,
    /// Approximate width, depth and height about the origin.
    size: [f64; 3],
    /// The variable that holds the part.
    name: &'static str,
    /// Calls not yet written as a statement.
    chain: Vec<String>,
}

impl Part {
    /// A number as an argument: a literal, a variable, or an expression of that variable.
    fn argument(&mut self, draw: &mut Draw, value: f64) -> String {
        if !value.is_finite() || value <= 0.0 || draw.chance(0.75) {
            return plain(value);
        }
        let known = self.names.iter().position(|(_, known)| *known == value);
        let name = match known {
            Some(index) => self.names[index].0.clone(),
            None => {
                const WORDS: [&str; 8] =
                    ["width", "length", "height", "diameter", "offset", "spacing", "depth", "thickness"];
                let word = draw.pick(&WORDS);
                let taken = |name: &str, names: &[(String, f64)]| names.iter().any(|(other, _)| other == name);
                let mut name = word.to_owned();
                let mut suffix = 2;
                while taken(&name, &self.names) {
                    name = format!("{word}{suffix}");
                    suffix += 1;
                }
                self.names.push((name.clone(), value));
                name
            }
        };
        match draw.below(6) {
            0 => format!("{name} * 1.0"),
            1 => format!("{name} / 2 + {name} / 2"),
            _ => name,
        }
    }

    /// Writes the chain of calls as a statement, if there is one.
    fn flush(&mut self) {
        if !self.chain.is_empty() {
            let calls = self.chain.concat();
            self.lines.push(format!("{0} = {0}{calls}", self.name));
            self.chain.clear();
        }
    }
}

/// A program that makes a base body with up to seven features. Some programs have one mistake.
pub fn program(draw: &mut Draw) -> String {
    draw.grain = draw.weighted(&[
        (35, Grain::Lattice(5.0)),
        (20, Grain::Lattice(1.0)),
        (15, Grain::Lattice(2.5)),
        (15, Grain::Continuous(1)),
        (15, Grain::Continuous(3)),
    ]);
    let name = draw.weighted(&[(70, "result"), (10, "part"), (8, "body"), (6, "solid"), (6, "r")]);
    let mut part = Part { names: Vec::new(), lines: Vec::new(), size: [0.0; 3], name, chain: Vec::new() };
    let (base, size) = body(draw, &mut part);
    part.size = size;
    part.lines.push(format!("{name} = {base}"));
    for _ in 0..draw.weighted(&[(8, 0), (25, 1), (27, 2), (18, 3), (10, 4), (7, 5), (3, 6), (2, 7)]) {
        feature(draw, &mut part);
    }
    part.flush();
    if draw.chance(0.04) {
        let slip = mistake(draw, name);
        let at = draw.below(part.lines.len() + 1);
        part.lines.insert(at, slip);
    }
    assembled(draw, part)
}

/// The text of the program: imports, variables and statements. Some programs have them in a
/// function.
fn assembled(draw: &mut Draw, part: Part) -> String {
    let mut text = String::from("import cadquery as cq\n");
    if draw.chance(0.15) || part.lines.iter().any(|line| line.contains("math.")) {
        text += "import math\n";
    }
    text += "\n";
    let names: Vec<String> = part.names.iter().map(|(name, value)| format!("{name} = {}", plain(*value))).collect();
    if draw.chance(0.12) {
        let arguments: Vec<String> =
            part.names.iter().map(|(name, value)| format!("{name}={}", plain(*value))).collect();
        text += &format!("def make({}):\n", arguments.join(", "));
        for line in part.lines.iter().flat_map(|line| line.lines()) {
            text += &format!("    {line}\n");
        }
        return text + &format!("    return {}\n\nresult = make()\n", part.name);
    }
    for line in names.iter().chain(&part.lines) {
        if draw.chance(0.08) {
            text += "# next\n";
        }
        text += line;
        text += "\n";
    }
    if part.name == "body" && draw.chance(0.5) {
        text += "result = body\n";
    }
    text
}

/// A statement that fails.
fn mistake(draw: &mut Draw, name: &str) -> String {
    draw.pick(&[
        "{} = {}.fillets(1)",
        "{} = {}.faces('>Z').hole()",
        "{} = {}.faces('>Z').workplane().hole(-2)",
        "{} = {}.edges('|Z').fillet(500)",
        "{} = {}.faces('>W').workplane()",
        "{} = {}.extrude(5)",
        "{} = {}.cut(None)",
        "{} = {}.faces('>Z').workplane().circle(0).extrude(3)",
        "{} = {}.union(undefined_part)",
        "{} = {}.translate(1, 2, 3)",
        "{} = {}.rotate((0, 0, 0), (0, 0, 0), 45)",
        "{} = {}.faces('>Z').workplane().rect(4).extrude(2)",
    ])
    .replace("{}", name)
}

fn plane(draw: &mut Draw) -> &'static str {
    draw.weighted(&[
        (60, "\"XY\""),
        (12, "\"XZ\""),
        (10, "\"YZ\""),
        (6, ""),
        (4, "\"front\""),
        (3, "\"top\""),
        (3, "'ZX'"),
        (2, "'XY', origin=(5, 0, -5)"),
    ])
}

/// An expression for a body, and its size.
fn body(draw: &mut Draw, part: &mut Part) -> (String, [f64; 3]) {
    let plane = plane(draw);
    let [w, d] = [draw.number(10.0, 80.0), draw.number(10.0, 60.0)];
    let h = draw.number(2.0, 40.0);
    let [wt, dt, ht] = [w, d, h].map(|value| part.argument(draw, value));
    let start = format!("cq.Workplane({plane})");
    // A plane other than XY turns the body. The size only places features, so it need not be exact.
    let flat = |x: f64, y: f64, z: f64| match plane.trim_matches(['"', '\'']) {
        "XZ" => [x, z, y],
        "YZ" => [z, x, y],
        _ => [x, y, z],
    };
    match draw.below(28) {
        26 | 27 => {
            let r = plain(rounded(w / 4.0, 4));
            let solid = match draw.below(3) {
                0 => format!("makeBox({wt}, {dt}, {ht})"),
                1 => format!("makeCylinder({r}, {ht}, cq.Vector(0, 0, {}))", plain(draw.signed(10.0))),
                _ => format!("makeCone({r}, {}, {ht})", plain(rounded(w / 9.0, 4))),
            };
            (format!("cq.Workplane({plane}).add(cq.Solid.{solid})"), [w, d, 2.0 * h])
        }
        0..=6 => (format!("{start}.box({wt}, {dt}, {ht})"), flat(w, d, h)),
        7 => (format!("{start}.box({wt}, {dt}, {ht}, centered=(True, True, False))"), flat(w, d, 2.0 * h)),
        8 => (format!("{start}.rect({wt}, {dt}).extrude({ht})"), flat(w, d, 2.0 * h)),
        9..=11 => {
            let r = rounded(w / 4.0, 4);
            (format!("{start}.cylinder({ht}, {})", plain(r)), flat(2.0 * r, 2.0 * r, h))
        }
        12 | 13 => {
            let r = rounded(d / 2.0, 4);
            (format!("{start}.circle({}).extrude({ht})", plain(r)), flat(2.0 * r, 2.0 * r, 2.0 * h))
        }
        14 => {
            let r = rounded(d / 2.0, 4);
            (format!("{start}.sphere({})", plain(r)), [2.0 * r; 3])
        }
        15 => {
            let wall = draw.number(0.5, 5.0).min(d / 3.0);
            let r = rounded(d / 2.0, 4);
            let inner = rounded(r - wall, 4);
            (format!("{start}.circle({}).circle({}).extrude({ht})", plain(r), plain(inner)), flat(d, d, 2.0 * h))
        }
        16 => {
            let sides = draw.int(3, 8);
            (format!("{start}.polygon({sides}, {wt}).extrude({ht})"), flat(w, w, 2.0 * h))
        }
        17 => {
            let thick = rounded(w / 3.0, 4);
            (format!("{start}.slot2D({wt}, {}).extrude({ht})", plain(thick)), flat(w, thick, 2.0 * h))
        }
        18 | 19 => {
            let [a, b] = [rounded(w / 2.0, 4), rounded(d / 3.0, 4)].map(plain);
            (
                format!(
                    "{start}.moveTo(0, 0).lineTo({wt}, 0).lineTo({wt}, {b}).lineTo({a}, {b}).lineTo({a}, {dt}).lineTo(0, {dt}).close().extrude({ht})"
                ),
                flat(2.0 * w, 2.0 * d, 2.0 * h),
            )
        }
        20 => {
            let points = [(0.0, 0.0), (w, 0.0), (w, d), (rounded(w / 2.0, 3), rounded(d / 2.0, 3)), (0.0, d)];
            let points: Vec<_> = points.iter().map(|(x, y)| format!("({}, {})", plain(*x), plain(*y))).collect();
            (
                format!("{start}.polyline([{}]).close().extrude({ht})", points.join(", ")),
                flat(2.0 * w, 2.0 * d, 2.0 * h),
            )
        }
        21 | 22 => {
            let [a, b] = [rounded(w / 8.0, 4), rounded(w / 3.0, 4)];
            let turn = draw.weighted(&[(5, "360"), (2, "180"), (2, "90"), (1, "270"), (1, "45.5"), (1, "-120")]);
            let axis = draw.weighted(&[
                (6, ", (0, 0, 0), (0, 1, 0)"),
                (2, ""),
                (1, ", (0, 2, 0), (0, 0, 0)"),
                (1, ", axisEnd=(0, 3, 0)"),
            ]);
            (
                format!(
                    "{start}.moveTo({0}, 0).lineTo({1}, 0).lineTo({1}, {ht}).lineTo({0}, {2}).close().revolve({turn}{axis})",
                    plain(a),
                    plain(b),
                    plain(rounded(h / 2.0, 4))
                ),
                flat(2.0 * b, h, 2.0 * b),
            )
        }
        23 => {
            let top = plain(rounded(w / 3.0, 4));
            (
                format!("{start}.rect({wt}, {dt}).workplane(offset={ht}).rect({top}, {top}).loft(combine=True)"),
                flat(w, d, 2.0 * h),
            )
        }
        24 => {
            let taper = draw.pick(&["5", "10", "-5", "15"]);
            let outline = match draw.below(3) {
                0 => format!("rect({wt}, {dt})"),
                1 => format!("circle({})", plain(rounded(d / 2.0, 4))),
                _ => format!("polygon({}, {wt})", draw.int(3, 8)),
            };
            let both = draw.weighted(&[(4, ""), (1, ", both=True")]);
            (format!("{start}.{outline}.extrude({ht}, taper={taper}{both})"), flat(w, d, 2.0 * h))
        }
        _ => {
            let r = plain(rounded(d / 4.0, 4));
            (
                format!(
                    "{start}.moveTo(0, 0).lineTo({wt}, 0).threePointArc(({}, {r}), ({wt}, {})).lineTo(0, {}).close().extrude({ht}, both=True)",
                    plain(rounded(w + d / 4.0, 4)),
                    plain(rounded(d / 2.0, 4)),
                    plain(rounded(d / 2.0, 4))
                ),
                flat(2.0 * w, 2.0 * d, 2.0 * h),
            )
        }
    }
}

/// Calls that make a workplane on a face.
fn on_face(draw: &mut Draw) -> String {
    let face = draw.weighted(&[
        (60, ">Z"),
        (8, "<Z"),
        (8, ">X"),
        (6, "<X"),
        (6, ">Y"),
        (4, "<Y"),
        (3, "+Z"),
        (2, ">Z[-1]"),
        (2, "|Z"),
    ]);
    let workplane = draw.weighted(&[
        (70, "workplane()"),
        (10, "workplane(centerOption=\"CenterOfBoundBox\")"),
        (5, "workplane(centerOption='CenterOfMass')"),
        (8, "workplane(offset=2)"),
        (4, "workplane(invert=True)"),
        (3, "workplane(offset=-1.5)"),
    ]);
    format!(".faces(\"{face}\").{workplane}")
}

/// A call that makes a pattern of points, mostly within the part.
fn points(draw: &mut Draw, part: &Part) -> String {
    let [w, d, _] = part.size;
    match draw.below(6) {
        0..=2 => {
            let points: Vec<String> = (0..1 + draw.below(4))
                .map(|_| format!("({}, {})", plain(draw.signed(w * 0.45)), plain(draw.signed(d * 0.45))))
                .collect();
            format!(".pushPoints([{}])", points.join(", "))
        }
        3 => {
            let (nx, ny) = (draw.int(1, 4), draw.int(1, 3));
            let (dx, dy) = (draw.number(2.0, w.max(5.0) / 2.0), draw.number(2.0, d.max(5.0) / 2.0));
            let centre = if draw.chance(0.1) { ", center=False" } else { "" };
            format!(".rarray({}, {}, {nx}, {ny}{centre})", plain(dx), plain(dy))
        }
        4 => {
            let radius = draw.number(2.0, w.max(8.0) / 2.0);
            let start = draw.pick(&["0", "0", "45", "30"]);
            let turn = draw.pick(&["360", "360", "180"]);
            format!(".polarArray({}, {start}, {turn}, {})", plain(radius), draw.int(2, 8))
        }
        _ => {
            let [a, b] = [rounded(w * 0.8, 3), rounded(d * 0.8, 3)].map(plain);
            format!(".rect({a}, {b}, forConstruction=True).vertices()")
        }
    }
}

/// Calls that draw an outline on a workplane.
fn shape(draw: &mut Draw, part: &mut Part) -> String {
    let [w, d, _] = part.size;
    let small = |draw: &mut Draw, size: f64| draw.number(1.0, (size * 0.6).max(3.0));
    match draw.below(10) {
        0..=3 => {
            let [a, b] = [small(draw, w), small(draw, d)];
            let [a, b] = [part.argument(draw, a), part.argument(draw, b)];
            format!(".rect({a}, {b})")
        }
        4..=6 => {
            let r = small(draw, w.min(d)) / 2.0;
            let r = part.argument(draw, rounded(r, 4));
            format!(".circle({r})")
        }
        7 => {
            let r = plain(small(draw, w));
            format!(".polygon({}, {r})", draw.int(3, 8))
        }
        8 => {
            let length = small(draw, w) + 2.0;
            let angle = draw.pick(&["", ", 90", ", 45"]);
            format!(".slot2D({}, {}{angle})", plain(rounded(length, 4)), plain(rounded(length / 3.0, 4)))
        }
        _ => {
            let r = small(draw, w.min(d)) / 2.0 + 0.5;
            format!(".circle({}).circle({})", plain(rounded(r, 4)), plain(rounded(r / 2.0, 4)))
        }
    }
}

/// Adds a feature to the part.
fn feature(draw: &mut Draw, part: &mut Part) {
    let [w, d, h] = part.size;
    let kind = draw.below(42);
    let new_chain = draw.chance(0.6);
    if new_chain {
        part.flush();
    }
    match kind {
        0..=4 => {
            let hole = draw.number(1.0, (w.min(d) * 0.4).max(2.0));
            let hole = part.argument(draw, hole);
            let depth =
                if draw.chance(0.25) { format!(", {}", plain(draw.number(1.0, h.max(2.0)))) } else { String::new() };
            let call = format!("{}.hole({hole}{depth})", on_face(draw));
            part.chain.push(call);
        }
        5..=9 => {
            let hole = draw.number(0.5, (w.min(d) * 0.2).max(1.5));
            let call = format!("{}{}.hole({})", on_face(draw), points(draw, part), plain(hole));
            part.chain.push(call);
        }
        10 | 11 => {
            let hole = draw.number(1.0, (w.min(d) * 0.2).max(2.0));
            let at = if draw.chance(0.5) { points(draw, part) } else { String::new() };
            let face = on_face(draw);
            let call = match draw.chance(0.6) {
                true => {
                    let depth = plain(rounded(h / 3.0, 3));
                    format!("{face}{at}.cboreHole({}, {}, {depth})", plain(hole), plain(hole * 2.0))
                }
                false => {
                    format!("{face}{at}.cskHole({}, {}, {})", plain(hole), plain(hole * 2.0), draw.pick(&[82, 90, 60]))
                }
            };
            part.chain.push(call);
        }
        12..=16 => {
            let height = draw.number(1.0, 20.0);
            let height = part.argument(draw, height);
            let at = if draw.chance(0.35) { points(draw, part) } else { String::new() };
            let combine =
                draw.weighted(&[(88, ""), (4, ", combine=False"), (4, ", combine='cut'"), (4, ", both=True")]);
            let call = format!("{}{at}{}.extrude({height}{combine})", on_face(draw), shape(draw, part));
            part.chain.push(call);
        }
        17..=19 => {
            let depth = draw.number(0.5, h.max(1.0));
            let at = if draw.chance(0.35) { points(draw, part) } else { String::new() };
            let depth = part.argument(draw, depth);
            let sign = draw.pick(&["-", "-", "-", ""]);
            let call = format!("{}{at}{}.cutBlind({sign}({depth}))", on_face(draw), shape(draw, part));
            part.chain.push(call);
        }
        20 | 21 => {
            let at = if draw.chance(0.4) { points(draw, part) } else { String::new() };
            let call = format!("{}{at}{}.cutThruAll()", on_face(draw), shape(draw, part));
            part.chain.push(call);
        }
        22 | 23 => {
            let edges = draw.pick(&["\"|Z\"", "\"|Z\"", "\">Z\"", "", "\"|X\"", "\"<Z\""]);
            let size = plain(draw.pick(&[0.5, 1.0, 2.0, 3.0]));
            let how = draw.pick(&["fillet", "fillet", "chamfer"]);
            part.chain.push(match draw.chance(0.7) {
                true => format!(".edges({edges}).{how}({size})"),
                false => format!(".faces(\">Z\").edges().{how}({size})"),
            });
        }
        40 => {
            // Without a selected face, the workplane is at the height of the part's centre of mass.
            let height = plain(draw.number(1.0, 20.0));
            let call = format!(".workplane(offset={height}){}.extrude({height})", shape(draw, part));
            part.chain.push(call);
        }
        41 => {
            let (depth, taper) = (plain(draw.number(1.0, 8.0)), draw.pick(&["5", "10", "-5", "3"]));
            let how = draw.pick(&["extrude(", "cutBlind(-"]);
            let call = format!("{}{}.{how}{depth}, taper={taper})", on_face(draw), shape(draw, part));
            part.chain.push(call);
        }
        24 => {
            let wall = draw.pick(&["-1", "-2", "1", "0.5"]);
            part.chain.push(format!(".faces(\">Z\").shell({wall})"));
        }
        25 | 26 => {
            let offset: Vec<String> = (0..3).map(|_| plain(draw.signed(40.0))).collect();
            part.chain.push(format!(".translate(({}))", offset.join(", ")));
        }
        27 | 28 => {
            let axis = draw.pick(&["(0, 0, 1)", "(1, 0, 0)", "(0, 1, 0)", "(1, 1, 0)"]);
            let angle = draw.pick(&["90", "45", "30", "180", "-90", "12.5"]);
            part.chain.push(format!(".rotate((0, 0, 0), {axis}, {angle})"));
        }
        29 => {
            let plane = draw.pick(&["\"XY\"", "\"YZ\"", "\"XZ\""]);
            let union = draw.pick(&["", ", union=True"]);
            part.chain.push(format!(".mirror({plane}{union})"));
        }
        30 => {
            let [a, b] = [rounded(w / 2.0, 3), rounded(d / 4.0, 3)].map(plain);
            let mirror = draw.pick(&["mirrorY", "mirrorX"]);
            let (near, far) = if mirror == "mirrorY" {
                (format!("0, {b}"), format!("0, -{b}"))
            } else {
                (format!("{b}, 0"), format!("-{b}, 0"))
            };
            part.flush();
            part.lines.push(format!(
                "rib = cq.Workplane(\"XY\").moveTo({near}).lineTo({a}, {a}).lineTo({far}).{mirror}().extrude({})",
                plain(draw.number(1.0, 10.0))
            ));
            part.lines.push(format!("{0} = {0}.union(rib)", part.name));
        }
        31 => {
            part.flush();
            let face = draw.pick(&[">Z", ">X"]);
            let hole = plain(draw.number(1.0, 6.0));
            part.lines.push(format!("{0} = {0}.faces(\"{face}\").tag(\"side\")", part.name));
            part.lines.push(format!("{0} = {0}.workplaneFromTagged(\"side\").hole({hole})", part.name));
        }
        32..=36 => {
            part.flush();
            let (other, _) = body(draw, part);
            let other = if draw.chance(0.6) {
                let offset: Vec<String> = [w, d, h].iter().map(|size| plain(draw.signed(size * 0.75))).collect();
                format!("{other}.translate(({}))", offset.join(", "))
            } else {
                other
            };
            let operation = draw.weighted(&[(50, "union"), (38, "cut"), (12, "intersect")]);
            match draw.chance(0.6) {
                true => {
                    part.lines.push(format!("other = {other}"));
                    part.lines.push(format!("{0} = {0}.{operation}(other)", part.name));
                }
                false => part.lines.push(format!("{0} = {0}.{operation}({other})", part.name)),
            }
        }
        37 => {
            part.flush();
            let (radius, step) = (plain(draw.number(1.0, 5.0)), plain(draw.number(2.0, 15.0)));
            let (n, height) = (draw.int(2, 5), plain(draw.number(5.0, 30.0)));
            let operation = draw.pick(&["union", "cut"]);
            let name = part.name;
            part.lines.push(match draw.chance(0.5) {
                true => format!(
                    "for i in range({n}):\n    {name} = {name}.{operation}(cq.Workplane(\"XY\").center(i * {step}, 0).circle({radius}).extrude({height}))"
                ),
                false => format!(
                    "for k in range({n}):\n    angle = math.radians(360 / {n} * k)\n    peg = cq.Workplane(\"XY\").cylinder({height}, {radius}).translate(({step} * math.cos(angle), {step} * math.sin(angle), 0))\n    {name} = {name}.{operation}(peg)"
                ),
            });
        }
        38 => {
            part.flush();
            let (a, b) = (plain(draw.number(2.0, 20.0)), plain(draw.number(2.0, 20.0)));
            let name = part.name;
            part.lines.push(format!(
                "def boss(x, y, size={a}):\n    return cq.Workplane(\"XY\").box(size, size, {b}).translate((x, y, 0))"
            ));
            let points = (0..2)
                .map(|_| format!("({}, {})", plain(draw.signed(w / 2.0)), plain(draw.signed(d / 2.0))))
                .collect::<Vec<_>>();
            part.lines.push(format!("for x, y in [{}]:\n    {name} = {name}.union(boss(x, y))", points.join(", ")));
        }
        _ => {
            let at = format!(".center({}, {})", plain(draw.signed(w / 2.0)), plain(draw.signed(d / 2.0)));
            let call = format!("{}{at}{}.extrude({})", on_face(draw), shape(draw, part), plain(draw.number(1.0, 10.0)));
            part.chain.push(call);
        }
    }
}
