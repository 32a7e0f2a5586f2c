//! Texts that are hard to read: huge, deep, or of odd characters.

use crate::hostile::cases::{Case, check};

const CUBE: &str = "solid = cq.Workplane().box(1, 1, 1)\n";

/// Of sizes that a file of programs should not have.
fn large() -> Vec<Case> {
    let case = |name: &str, allowed: &str, program: String| Case::new(name, allowed, program);
    let refused = "syntax|exception|memory|crash|timeout";
    vec![
        case("a comment of 10 MB", "cube", format!("#{}\n{CUBE}", "x".repeat(10_000_000))),
        case("a text of 10 MB", "cube", format!("x = '{}'\n{CUBE}", "x".repeat(10_000_000))),
        case("10 MB of blank lines", "cube|timeout|memory", format!("{}{CUBE}", "\n".repeat(10_000_000))),
        case("10 MB of statements", "cube|timeout|memory", format!("{}{CUBE}", "x = 1\n".repeat(1_700_000))),
        case("10 MB of one sum", refused, format!("x = 1{}\n{CUBE}", "+1".repeat(5_000_000))),
        case("10 MB of null bytes", "syntax", "\0".repeat(10_000_000)),
        case("a name of 1 MB", "cube", format!("{} = 1\n{CUBE}", "x".repeat(1_000_000))),
        case("a number of a million digits", refused, format!("x = {}\n{CUBE}", "9".repeat(1_000_000))),
        case(
            "a million arguments",
            "exception|timeout|memory|syntax",
            format!("print(*[{}], sep)", "1,".repeat(1_000_000)),
        ),
        case(
            "parentheses of parentheses",
            refused,
            format!("x = {}1{}\n{CUBE}", "(".repeat(100_000), ")".repeat(100_000)),
        ),
        case("ninety parentheses", "cube", format!("x = {}1{}\n{CUBE}", "(".repeat(90), ")".repeat(90))),
        case("lists of lists", refused, format!("x = {}{}\n{CUBE}", "[".repeat(100_000), "]".repeat(100_000))),
        case("open brackets", "syntax|memory|crash", "{[(".repeat(100_000)),
        case("a hundred thousand signs", refused, format!("x = {}1\n{CUBE}", "-".repeat(100_000))),
        case(
            "three thousand signs",
            "cube|syntax|exception|crash|memory",
            format!("x = {}1\n{CUBE}", "-".repeat(3000)),
        ),
        case("a chain of attributes", refused, format!("x = cq{}\n{CUBE}", ".cq".repeat(100_000))),
        case("a chain of calls", refused, format!("solid = cq.Workplane(){}\n", ".end()".repeat(100_000))),
        case("a chain of powers", refused, format!("x = {}1\n{CUBE}", "1 ** ".repeat(100_000))),
        case("conditions of conditions", refused, format!("x = {}1\n{CUBE}", "1 if 0 else ".repeat(100_000))),
        case("functions of functions", refused, format!("x = {}1\n{CUBE}", "lambda: ".repeat(100_000))),
        case("blocks of blocks", "syntax", (0..200).map(|n| format!("{}if 1:\n", " ".repeat(n))).collect()),
        case("texts in texts", refused, format!("x = {}1{}\n{CUBE}", "f'{".repeat(200), "}'".repeat(200))),
        case("a file of carriage returns", "cube", format!("x = 1\r{}", CUBE.replace('\n', "\r"))),
    ]
}

/// Of characters that look like others or like none.
fn odd() -> Vec<Case> {
    let case = |name: &str, allowed: &str, program: &str| Case::new(name, allowed, program);
    vec![
        case("nothing", "no_solid", ""),
        case("a null byte", "syntax", "solid = cq.Workplane().box(1, 1, 1)\0"),
        case("a null byte in a comment", "syntax", "# \0\nsolid = cq.Workplane().box(1, 1, 1)"),
        case("a mark of byte order", "cube|syntax", "\u{feff}solid = cq.Workplane().box(1, 1, 1)"),
        case("an encoding that is none", "cube|syntax", "# coding: nonsense\nsolid = cq.Workplane().box(1, 1, 1)"),
        case("an encoding that is another", "cube|syntax", "# coding: utf-7\nsolid = cq.Workplane().box(1, 1, 1)"),
        case(
            "a Cyrillic name",
            "cube",
            "\u{455}olid = cq.Workplane().box(2, 2, 2)\nsolid = cq.Workplane().box(1, 1, 1)",
        ),
        case("a wide name", "cube", "\u{ff53}\u{ff4f}\u{ff4c}\u{ff49}\u{ff44} = cq.Workplane().box(1, 1, 1)\nr = 5"),
        case("wide names of a forbidden function", "cube", WIDE_OPEN),
        case("wide names of the inner parts", "exception|cube", WIDE_PARTS),
        case(
            "text from right to left",
            "cube",
            "# \u{202e}1 ,1 ,1\nx = '\u{2066}#'\nsolid = cq.Workplane().box(1, 1, 1)",
        ),
        case("characters without width", "syntax", "so\u{200b}lid = cq.Workplane().box(1, 1, 1)"),
        case("a space that is none", "syntax", "solid =\u{a0}cq.Workplane().box(1, 1, 1)"),
        case("digits of another script", "syntax|cube", "solid = cq.Workplane().box(\u{661}, \u{661}, \u{661})"),
        case("a separator of lines", "syntax|cube", "x = 1\u{2028}solid = cq.Workplane().box(1, 1, 1)"),
        case("a form feed", "cube", "x = 1\n\u{c}\nsolid = cq.Workplane().box(1, 1, 1)"),
        case("half characters", "cube", "x = '\\ud800\\udc00'\nsolid = cq.Workplane().box(1, 1, 1)"),
        case(
            "a name of half a character",
            "cube|exception",
            "globals()['\\ud800'] = cq.Workplane()\nsolid = cq.Workplane().box(1, 1, 1)",
        ),
        case("the end of a file of DOS", "syntax", "solid = cq.Workplane().box(1, 1, 1)\n\u{1a}"),
        case("the last character", "syntax", "\u{10ffff} = 1"),
    ]
}

/// `open(..)` in letters that Python reads as the usual ones.
const WIDE_OPEN: &str = "\
got = []
try:
    got.append(\u{ff4f}\u{ff50}\u{ff45}\u{ff4e}('/etc/passwd'))
except OSError:
    pass
assert got == [], 'got through'
solid = cq.Workplane().box(1, 1, 1)
";

/// `__class__` in such letters, in a program that may only draw.
const WIDE_PARTS: &str = "\
solid = cq.Workplane().box(1, 1, 1)
t = solid.__\u{ff43}lass__
t.box = t.sphere
";

pub fn all() -> Vec<Case> {
    large().into_iter().chain(odd()).collect()
}

#[test]
fn huge_and_deep_texts_have_an_outcome() {
    check(&large());
}

#[test]
fn odd_characters_have_an_outcome() {
    check(&odd());
}
