//! Runs the native engine on random edits of programs and on programs that do not end. It must
//! answer or decline within seconds.

use std::time::{Duration, Instant};

use cadwright_rewards::native::execute;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Rule {
    program: String,
}

fn programs() -> Vec<String> {
    let rules: Vec<Rule> = serde_json::from_str(include_str!("../cadquery_rules.json")).expect("a file of ours");
    rules.into_iter().map(|rule| rule.program).collect()
}

/// Texts inserted into a program.
const PIECES: [&str; 24] = [
    "0",
    "1e-7",
    "-1",
    "1e300",
    "float('nan')",
    "10**9",
    "None",
    "'XY'",
    "(0, 0)",
    "[]",
    ".close()",
    ".circle(1)",
    ".extrude(1)",
    ".rect(1, 1)",
    ".union(solid)",
    ".cut(solid)",
    ".box(1, 1, 1)",
    "\n",
    "    ",
    "(",
    ")",
    "solid",
    "for i in range(99): ",
    ".faces('>Z').workplane()",
];

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, usize),
    Delete(usize, usize),
    Repeat(usize, usize),
    Cut(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), 0..PIECES.len()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<usize>(), 1..30usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        (any::<usize>(), 1..60usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
        any::<usize>().prop_map(Edit::Cut),
    ]
}

fn edited(program: &str, edits: &[Edit]) -> String {
    let mut text: Vec<char> = program.chars().collect();
    for edit in edits {
        let place = |at: usize| at % (text.len() + 1);
        match *edit {
            Edit::Insert(at, piece) => {
                let at = place(at);
                text.splice(at..at, PIECES[piece].chars());
            }
            Edit::Delete(at, length) => {
                let at = place(at);
                let end = (at + length).min(text.len());
                text.drain(at..end);
            }
            Edit::Repeat(at, length) => {
                let at = place(at);
                let end = (at + length).min(text.len());
                let part = text[at..end].to_vec();
                text.splice(at..at, part);
            }
            Edit::Cut(at) => {
                let at = place(at);
                text.truncate(at);
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn edited_programs_end_soon(which in any::<usize>(), edits in prop::collection::vec(edit(), 1..6)) {
        let programs = programs();
        let text = edited(&programs[which % programs.len()], &edits);
        let start = Instant::now();
        if let Ok(outcome) = execute(&text)
            && let Some(solid) = outcome.solid()
        {
            prop_assert!(solid.mass().volume.is_finite());
            prop_assert!(solid.solids().is_none_or(|solids| solids >= 1));
        }
        // Far above the time of any program.
        prop_assert!(start.elapsed() < Duration::from_secs(20), "{text}");
    }
}

#[test]
fn what_would_take_for_ever_is_declined() {
    let long = |count: usize| {
        format!("solid = cq.Workplane()\n{}", "solid = solid.union(cq.Workplane().box(1, 1, 1))\n".repeat(count))
    };
    for program in [
        "while True: pass".to_owned(),
        "x = 10 ** 10 ** 10".to_owned(),
        "x = 'a' * 10 ** 12".to_owned(),
        "def f(): f()\nf()".to_owned(),
        "solid = cq.Workplane().rarray(1, 1, 10000, 10000).rect(1, 1).extrude(1)".to_owned(),
        "w = cq.Workplane()\nfor i in range(10 ** 6): w = w.lineTo(i, i * i % 7)\n".to_owned(),
        "w = cq.Workplane()\nfor i in range(10 ** 6): w = w.union(cq.Workplane().box(1, 1, 1 + i))\n".to_owned(),
        long(3000),
        "w = cq.Workplane().polyline([(i % 500, i // 500 * (1 + i % 3)) for i in range(900)]).close().extrude(1)\n\
         for i in range(300): w = w.union(w.translate((0, 0, i)))\n"
            .to_owned(),
        "w = cq.Workplane().polygon(900, 10).extrude(1)\n\
         for i in range(300): w = w.union(cq.Workplane().polygon(900, 10).extrude(i + 1))\n"
            .to_owned(),
    ] {
        let start = Instant::now();
        let _ = execute(&program);
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}: {}",
            start.elapsed(),
            &program[..80.min(program.len())]
        );
    }
}
