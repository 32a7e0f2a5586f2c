//! Programs that test Python's semantics: they compute values of all kinds, which decide the size
//! of a box.

use super::super::draw::{Draw, plain};

/// A program whose statements compute numbers and then make a box of that size.
pub fn program(draw: &mut Draw) -> String {
    let mut lines = Vec::new();
    if draw.chance(0.6) {
        lines.push("import cadquery as cq".to_owned());
    }
    if draw.chance(0.3) {
        lines.push(
            draw.pick(&["import math", "from math import sqrt, pi", "import math as m", "import numpy as np"])
                .to_owned(),
        );
    }
    lines.push(format!("v = {}", draw.int(-9, 9)));
    lines.push(format!("w = {}", number(draw, 2)));
    for _ in 0..1 + draw.below(5) {
        statement(draw, &mut lines);
    }
    if draw.chance(0.12) {
        let line = fault(draw);
        let at = draw.below(lines.len() + 1);
        lines.insert(at, line);
    }
    let name = draw.pick(&["result", "solid", "part", "x", "res"]);
    lines.push(format!("{name} = cq.Workplane(\"XY\").box({})", size(draw)));
    if draw.chance(0.1) {
        // Errors and changes after the box.
        lines.push(
            draw.pick(&[
                "w = 1 / (v - v)",
                "assert v == v, 'never'",
                "del w",
                "result = None",
                "solid = 3",
                "raise ValueError(v)",
                "v.append(1)",
                "part = result",
            ])
            .to_owned(),
        );
    }
    let mut text = lines.join("\n") + "\n";
    if text.contains("math.") && draw.chance(0.92) {
        text.insert_str(0, "import math\n");
    }
    match draw.below(24) {
        0 => text = text.lines().map(|line| format!("    {line}\n")).collect(),
        1 => text = text.replace("    ", "\t"),
        2 => text = format!("\t{}", text.replace('\n', "\n\t")),
        3 => text = text.replacen("    ", "   ", 1),
        4 => text = text.replace('\n', "\r\n"),
        5 => {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let at = draw.below(lines.len());
            lines[at].insert_str(0, draw.pick(&[" ", "\t", "    ", "\u{a0}", "\u{feff}"]));
            text = lines.join("\n");
        }
        _ => {}
    }
    text
}

/// An expression of the box's sizes from `v` and `w`. They are positive if `v` and `w` are numbers.
fn size(draw: &mut Draw) -> &'static str {
    draw.pick(&[
        "abs(v) % 7 + 1, 2, 3",
        "1 + abs(v) % 5, 1 + abs(w) % 3, 4",
        "2, max(1, min(9, abs(w))), 1",
        "float(abs(v) + 1) % 10 + 0.5, 1.0, 1",
        "len(str(v)), len(str(w)), 2",
        "len(f\"{v:>6}|{w:.3f}\"), 3, 1",
        "int(abs(w)) % 9 + 1, bool(v) + 1, 1",
        "3, 3, 3 if v else 5",
        "1 + (v > w), 1 + (v == w), 2",
    ])
}

/// A literal, common or unusual.
fn literal(draw: &mut Draw) -> String {
    match draw.below(16) {
        0..=6 => draw.int(-12, 30).to_string(),
        7..=14 if draw.chance(0.85) => plain(draw.number(-5.0, 20.0)),
        7 | 8 => draw
            .pick(&["1_000", "0x1F", "0b101", "0o17", "1e3", ".5", "5.", "1E-2", "00", "0_0", "1_0.0_1", "10**3"])
            .to_owned(),
        9..=11 => draw.pick(&["True", "False", "None", "1j", "1e400", "float('nan')", "float('inf')"]).to_owned(),
        12..=14 => draw.pick(&["'ab'", "\"x\"", "''", "r'\\n'", "b'x'", "'a' 'b'", "'''q'''", "u'é'"]).to_owned(),
        _ => draw.int(1, 9).to_string(),
    }
}

/// An expression that mostly gives a number.
fn number(draw: &mut Draw, depth: usize) -> String {
    if depth == 0 {
        return match draw.below(6) {
            0..=2 => draw.pick(&["v", "v", "2", "3", "v"]).to_owned(),
            _ => literal(draw),
        };
    }
    let operand = |draw: &mut Draw| number(draw, depth - 1);
    let (a, b, c) = (operand(draw), operand(draw), operand(draw));
    match draw.below(36) {
        0..=5 => format!("({a} {} {b})", draw.pick(&["+", "-", "*", "+", "-"])),
        6 | 7 => format!("({a} {} {b})", draw.pick(&["/", "//", "%"])),
        8 => format!("({a} {} {b})", draw.pick(&["|", "&", "^", "<<", ">>", "**", "@"])),
        9 => format!("{}({a})", draw.pick(&["-", "+", "~", "not "])),
        10 => format!("({a} if {b} else {c})"),
        11 => format!(
            "({a} {} {b} {} {c})",
            draw.pick(&["<", "<=", "==", "!=", ">"]),
            draw.pick(&["<", ">=", "==", "is not"])
        ),
        12 => format!("({a} {} {b})", draw.pick(&["and", "or"])),
        13 => format!("round({a}, {})", draw.pick(&["0", "1", "2", "-1", "None"])),
        14 => format!(
            "{}({a})",
            draw.pick(&["int", "float", "abs", "round", "bool", "int", "float", "str", "len", "sum"])
        ),
        15 => match draw.below(8) {
            0 => format!("pow({a}, {b}, {c})"),
            1 => format!("divmod({a}, {b})[0]"),
            2 => format!("divmod({a}, {b}, {c})"),
            _ => format!("{}({a}, {b}, {c})", draw.pick(&["min", "max"])),
        },
        16 => format!("sum([{a}, {b}, {c}])"),
        17 => format!("len([{a}, {b}])"),
        18 => format!("sum(i * {a} for i in range({}))", draw.int(0, 6)),
        19 => format!(
            "[{a}, {b}, {c}][{}]",
            draw.weighted(&[(4, "0"), (4, "1"), (4, "-1"), (4, "2"), (1, "3"), (2, "v"), (2, "True"), (1, "1.0")])
        ),
        20 => {
            format!("{{'a': {a}, 'b': {b}}}[{}]", draw.weighted(&[(6, "'a'"), (6, "'b'"), (1, "'c'"), (1, "'a' 'b'")]))
        }
        21 => format!("{{'a': {a}}}.get('b', {b})"),
        22 => format!("len('{{}}-{{}}'.format({a}, {b}))"),
        23 => format!("len(f\"{{{a}}}\")"),
        24 => format!(
            "len(f'{{v:{}}}')",
            draw.pick(&["5", ">8", "08.2f", "+d", ",", "e", "x", "s", "<4", ".3", "%", "^7.1f"])
        ),
        25 => format!(
            "int('{}')",
            draw.weighted(&[(4, "12"), (4, " 7 "), (4, "1_0"), (1, "x"), (1, "0x1"), (4, "-3"), (1, "1.5")])
        ),
        26 => format!("(lambda q, z={a}: q + z)({b})"),
        27 => format!(
            "math.{}({a})",
            draw.pick(&[
                "floor", "ceil", "sin", "cos", "radians", "fabs", "trunc", "atan", "hypot", "sqrt", "log", "gcd"
            ])
        ),
        28 => format!("sorted([{a}, {b}, {c}])[{}]", draw.pick(&["0", "-1", "1"])),
        29 => format!("list(range({}))[-1]", draw.pick(&["3", "2, 9, 3", "0", "5, 0, -2"])),
        30 => format!(
            "'abcabc'.{}",
            draw.weighted(&[
                (4, "count('b')"),
                (4, "find('c')"),
                (1, "index('z')"),
                (1, "upper()"),
                (1, "rfind('a')"),
                (4, "replace('a', 'xy').count('x')"),
            ])
        ),
        31 => format!("int(''.join(str(i) for i in range({})))", draw.int(1, 5)),
        32 => format!("(n := {a}) + n"),
        33 => format!("sum(zip_[0] for zip_ in zip([{a}, {b}], [{c}]))"),
        34 if draw.chance(0.3) => format!("len(set([{a}, {b}, {c}]))"),
        _ => format!("(1, {a}, {b})[1:][{}]", draw.pick(&["0", "1", "-2"])),
    }
}

/// A statement that changes `v` or `w`.
fn statement(draw: &mut Draw, lines: &mut Vec<String>) {
    let a = number(draw, 2);
    let b = number(draw, 1);
    lines.push(match draw.below(22) {
        0..=3 => format!("v = {a}"),
        4 => format!("v {} {b}", draw.pick(&["+=", "-=", "*=", "/=", "//=", "%=", "**=", "|="])),
        5 => format!("w = {a}"),
        6 => format!("v, w = {a}, {b}"),
        7 => format!("v, *w = [{a}, {b}, 3]\nw = w[-1]"),
        8 => format!("for i in range({}):\n    v = v + i * {b}", draw.int(0, 5)),
        9 => format!(
            "for i, k in enumerate([{a}, {b}]):\n    if i == {}:\n        {}\n    v = k\nelse:\n    w = 2",
            draw.int(0, 2),
            draw.pick(&["break", "continue", "pass"])
        ),
        10 => format!("n = 0\nwhile n < {}:\n    n += 1\n    if n == 3:\n        continue\n    w = n", draw.int(0, 6)),
        11 => format!("if {a}:\n    v = 1\nelif {b}:\n    v = 2\nelse:\n    v = 3"),
        12 => format!(
            "def f(p, q={b}):\n    {}\n    return p + q\nv = f({})",
            draw.pick(&["p = p", "v = p", "global v\n    v = 4", "q = v", "w = w"]),
            draw.pick(&["1", "v", "1, 2", "q=2, p=3", "", "1, p=2", "*[1, 2]", "**{'p': 5}"])
        ),
        13 | 14 => format!(
            "try:\n    v = {a}\nexcept {}:\n    v = 5{}",
            draw.pick(&[
                "Exception",
                "ZeroDivisionError",
                "(TypeError, ValueError)",
                "KeyError",
                "TypeError as e",
                "ArithmeticError",
                "NameError"
            ]),
            draw.pick(&["", "", "\nfinally:\n    w = 6", "\nelse:\n    w = 7"])
        ),
        15 => format!(
            "items = [i * {b} for i in range({}) if i % 2 == {}]\nv = len(items)",
            draw.int(0, 9),
            draw.int(0, 1)
        ),
        16 => format!("d = {{k: i for i, k in enumerate('abc')}}\nd['a'] = {b}\nv = d['a'] + d['c']"),
        17 => format!(
            "items = [3, 1, 2]\nitems.{}\nv = items[{}]",
            draw.pick(&[
                "append(v)",
                "sort()",
                "insert(1, 9)",
                "extend([4])",
                "reverse()",
                "pop()",
                "remove(7)",
                "pop(5)"
            ]),
            draw.pick(&["0", "-1", "0", "-2", "3", "1"])
        ),
        18 => format!("def g(n):\n    return {} if n < 1 else n * g(n - 1)\nv = g({})", draw.int(1, 3), draw.int(0, 6)),
        19 => format!("make = lambda n={b}: cq.Workplane(\"XY\").box(1, 1, n)\nresult = make(2)"),
        20 => format!("assert {b}, \"message\""),
        _ => format!("s = 'v=' + str(v)\nv = len(s) + {b}"),
    });
}

/// A line that is wrong or unusual.
fn fault(draw: &mut Draw) -> String {
    draw.pick(&[
        "v = undefined",
        "v = 1 / 0",
        "v = 'a' + 1",
        "v = [1][4]",
        "v = {}['k']",
        "v = None.x",
        "v = int('x')",
        "v = math.sqrt(-1)",
        "v = (1).foo",
        "v == 3",
        "v = 5 5",
        "v = (1",
        "v = 'abc",
        "if v:",
        "return v",
        "break",
        "v = 01",
        "v = 1__0",
        "v = 5\u{2212}2",
        "print(v)",
        "x = = 2",
        "def f(:",
        "f'{v'",
        "v = cq.Workplan()",
        "v = cq.Workplane('XY').box(1, 1)",
        "v = cq.Workplane('XY').boxx(1, 1, 1)",
        "v = cq.Workplane('QQ')",
        "v = cq.Vector(1, 2, 'a')",
        "import nothing",
        "from cadquery import *",
        "exit()",
        "raise KeyError('k')",
        "raise SystemExit",
        "v: int = 4",
        "v += '1'",
        "nonlocal v",
        "async = 3",
        "v = *[1, 2]",
        "lambda: (yield)",
        "class A: pass",
        "v = [1, 2, 3][::-1][0]",
        "v = 2 ** 0.5 ** 2",
        "v = -3 // 2 + -3 % 2",
        "v = 0.1 + 0.2",
        "v = 1 < 2 < 3",
        "v = not 1 == 2",
        "v = 3; w = 4",
        "v = \\\n    2",
        "v = (1,\n2)[1]",
        "pass",
        "...",
        "'docstring'",
    ])
    .to_owned()
}
