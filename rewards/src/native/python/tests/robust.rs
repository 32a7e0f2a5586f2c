//! For any text: no panic, no stack overflow, bounded work.

use proptest::prelude::*;

use super::*;

/// Runs a text on a thread with less stack than a caller may have left of its 2 MiB.
fn survives(program: String) -> String {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let thread = thread.spawn(move || match run(&program, Vec::new(), &|_| None) {
        Ok(_) => "ran".to_owned(),
        Err(Stop::Raise(exception)) => exception.class,
        Err(Stop::Decline(decline)) => decline.reason.into_owned(),
    });
    thread.expect("a thread").join().expect("no panic")
}

#[test]
fn deep_texts() {
    for n in [10, 31, 33, 100, 600, 1_500, 20_000] {
        for (before, repeated, middle, after) in [
            ("x = ", "(", "1", ")"),
            ("x = ", "[", "1", "]"),
            ("x = ", "-", "1", ""),
            ("x = ", "not ", "1", ""),
            ("x = ", "~", "1", ""),
            ("x = ", "lambda: ", "1", ""),
            ("x = ", "1 if 1 else ", "1", ""),
            ("x = 1", "+1", "", ""),
            ("x = 1", "**1", "", ""),
            ("x = 1", " < 1", "", ""),
            ("x = 1", " and 1", "", ""),
            ("x = ''", ".strip", "", ""),
            ("x = ''", ".strip()", "", ""),
            ("x = a", "[0]", "", ""),
            ("x", " = x", " = 1", ""),
            ("x = ", "f(", "1", ")"),
            ("x = ", "f(a, -b.c + ", "1", ")"),
            ("x = ", "{1: ", "1", "}"),
            ("x = ", "[*", "[]", "]"),
            ("x = ", "f'{x}'", "", ""),
            ("x = ", "1if 1else ", "1", ""),
            ("if 1: pass\n", "elif 1: pass\n", "", ""),
            ("", "(", "", ""),
            ("", "x = 1\n", "", ""),
            ("x = [", "1,", "]", ""),
            ("x = [", "-1.5,", "]", ""),
            ("print(", "*a,", "1)", ""),
            ("def f(", "", "a", "): pass"),
            ("x = ", "await ", "1", ""),
            ("x: ", "yield ", "1", ""),
            ("@", "a.b", "\ndef f(): pass", ""),
            ("match x:\n case ", "[", "1", "]"),
            ("match x:\n case ", "-", "1", ": pass"),
            ("x = ", "(yield ", "1", ")"),
            ("with ", "(", "a", "): pass"),
            ("del ", "(", "a", ")"),
            ("for ", "(", "a", ") in b: pass"),
        ] {
            let closing =
                if after.starts_with([')', ']', '}']) && after.len() == 1 { after.repeat(n) } else { after.into() };
            let program = format!("{before}{}{middle}{closing}", repeated.repeat(n));
            survives(program);
        }
        let blocks = |head: &str| (0..n.min(400)).map(|i| format!("{}{head}\n", " ".repeat(i))).collect::<String>();
        for head in ["if 1:", "for i in [1]:", "while 1:", "try:", "def f():", "class A:", "with a:"] {
            survives(format!("{}{}pass", blocks(head), " ".repeat(n.min(400))));
        }
    }
}

/// Evaluates and drops the deepest trees that are accepted.
#[test]
fn the_deepest_texts_that_are_taken() {
    let chain = |n: usize| "+1".repeat(n);
    assert_eq!(survives(format!("x = 1{}", chain(600))), "ran");
    let nested: String = (0..30).map(|_| format!("(1{}+", chain(20))).collect();
    assert_eq!(survives(format!("x = {nested}1{}", ")".repeat(30))), "ran");
    assert_eq!(survives(format!("x = ''{}", ".strip()".repeat(300))), "ran");
    assert_eq!(survives(format!("x = {}1{}", "[".repeat(29), "]".repeat(29))), "ran");
    let blocks: String = (0..16).map(|i| format!("{}if 1:\n", " ".repeat(i))).collect();
    assert_eq!(survives(format!("{blocks}{}x = {}1{}", " ".repeat(16), "(".repeat(30), ")".repeat(30))), "ran");
}

#[test]
fn values_that_would_nest_or_grow_without_end() {
    for program in [
        "x = []\nwhile 1: x = [x]",
        "x = ()\nwhile 1: x = (x,)",
        "x = {}\nwhile 1: x = {1: x}",
        "x = []\nwhile 1:\n    y = []\n    x.append(y)\n    x = y",
        "a = x = []\nwhile 1:\n    y = [[[[[[]]]]]]\n    x.append(y)\n    x = y[0][0][0][0][0]",
        "a = x = {}\nwhile 1:\n    y = {}\n    x[0] = y\n    x = y",
        "def w(f):\n    return lambda: f()\nf = print\nwhile 1: f = w(f)",
        "def w(f):\n    g = [[[[[[f]]]]]]\n    return lambda: g\nf = print\nwhile 1: f = w(f)",
        "f = print\nwhile 1: f = map(f, f) if 0 else map(print, zip([1]), f) if 0 else enumerate([f])",
        "x = [1]\nwhile 1: x = enumerate(x)",
        "x = [1]\nwhile 1: x = zip(x)",
        "x = [1]\nwhile 1: x = map(str, x)",
        "x = [1]\nwhile 1: x = (y for y in x)",
        "x = iter([1])\nwhile 1: x = filter(None, x)",
        "def f(n): return f(n + 1)\nf(0)",
        "f = lambda: f()\nf()",
        "def f(x): return [f(y) for y in [x]]\nf(0)",
        "sorted([1, 2], key=lambda x: sorted([1, 2], key=lambda y: 1 / 0 if 0 else [z for z in range(10 ** 9)]))",
        "while 1: pass",
        "while True:\n    try:\n        1 / 0\n    except Exception: pass",
        "for i in range(10 ** 9): pass",
        "x = [0] * 10 ** 9",
        "x = 'a' * 10 ** 9",
        "x = 'a'\nwhile 1: x += x",
        "x = [1]\nwhile 1: x += x",
        "x = [1]\nfor y in x: x.append(y)",
        "x = 10 ** 10 ** 10",
        "x = 1 << 10 ** 9",
        "x = list(range(10 ** 9))",
        "x = sum(range(10 ** 9))",
        "'{:99999999}'.format(1)",
        "'%99999999d' % 1",
        "'a'.zfill(10 ** 9)",
        "x = [[]] * 30\nfor i in range(25): x = [x, x]\nstr(x)",
        "x = []\nfor i in range(28): x = [x, x]\nx == x",
        "x = []\ny = []\nfor i in range(28):\n    x = [x, x]\n    y = [y, y]\nx == y",
        "x = [0] * 10 ** 6\nwhile 1: x[0:1]",
        "x = [0] * 10 ** 6\nwhile 1: x.insert(0, x.pop(0))",
        "x = [0] * 10 ** 6\nwhile 1: del x[0]",
        "x = [0] * 10 ** 6\ny = x + [1]\nwhile 1: x < [1]",
        "x = [0] * 10 ** 6\nwhile 1: y = (x,)",
        "def f():\n    x = [0] * 10 ** 6\n    while 1: y = x\nf()",
        "x = 'a' * 10 ** 6\ny = x + 'a'\nwhile 1: x == y",
        "x = 'a' * 10 ** 6\nwhile 1: 'b' in x",
        "x = 'a' * 10 ** 6\nwhile 1: x[3]",
        "x = 'a' * 10 ** 6\nwhile 1: len(x)",
        "x = 'a' * 10 ** 6\nwhile 1: x.find('b')",
        "x = 'a' * 10 ** 6\nd = {}\nwhile 1: d[x] = 1",
        "x = (1, 2)\nfor i in range(25): x = (x, x)\nd = {x: 1}",
        "a = [0] * 1000\nb = [a] * 1000\nc = [b] * 1000\nsorted([[c], [c]])",
        "d = {}\nfor i in range(10 ** 5): d[i] = i\nfor i in range(10 ** 5):\n    del d[i]\nfor i in range(10 ** 6):\n    d[0] = 1\n    next(iter(d))",
        "d = {str(i): i for i in range(10 ** 5)}\ndef f(**k): pass\nwhile 1: f(**d)",
        "x = []\nx.append(x)\nstr(x)",
        "x = []\nx.append(x)\ny = []\ny.append(y)\nx == y",
        "d = {}\nd[0] = d\nstr(d)",
        "x = [1]\nx.extend(x for y in x)",
        "g = (next(g) for x in [1])\nlist(g)",
    ] {
        let end = survives(program.to_owned());
        assert!(end.contains(' '), "{program}: {end}");
    }
}

const PROGRAM: &str = "import math\nw, *h = 10.0, 2\ndef f(a, b=1, *c, **d):\n    for i, x in enumerate([a, b]):\n        if i % 2: continue\n        yy = x ** 2 - -x // 3\n    try:\n        return {'k': [a[0:1], lambda q: q]}\n    except (TypeError, KeyError) as e:\n        raise ValueError(f'{e} {a:.2f}')\n    finally:\n        pass\nr = [f(i) for i in range(3) if i > 0]\n'%d' % w\n";

fn parts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ -~\n\t]{0,6}",
        "\\PC{0,3}",
        (0..PROGRAM.len(), 1..40_usize)
            .prop_map(|(at, length)| PROGRAM[at..(at + length).min(PROGRAM.len())].to_owned()),
        prop::sample::select(vec![
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "'",
            "\"\"\"",
            "\\\n",
            "\n    ",
            "\n",
            "lambda x: ",
            " for x in ",
            " if ",
            " else ",
            "**",
            "*",
            "f'{",
            "f'",
            "def f(",
            "while ",
            "try:",
            "0x",
            "1e",
            ":=",
            "\0",
            "\u{feff}",
            "\u{2212}",
            "\r",
            "\u{c}",
            ".format(",
            "range(",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_ends(text in parts()) {
        let _ = run(&text, Vec::new(), &|_| None);
    }

    #[test]
    fn any_mutation_ends(at in 0..PROGRAM.len(), length in 0..8_usize, new in parts()) {
        let text = format!("{}{new}{}", &PROGRAM[..at], &PROGRAM[(at + length).min(PROGRAM.len())..]);
        let _ = run(&text, Vec::new(), &|_| None);
    }
}
