//! Which programs may share a process with others (`worker/tame.py`), and that sharing changes no
//! answer (`worker/state.py`).

use std::path::Path;
use std::process::{Command, Stdio};

use cadwright_rollout::{Scorer, python};

use crate::common::config;

/// Programs that only draw.
const TAME: &[&str] = &[
    "import cadquery as cq\nsolid = cq.Workplane('XY').box(1, 2, 3)\n",
    "w = cq.Workplane(cq.Plane(cq.Vector(0, 0, 0), cq.Vector(1, 0, 0), cq.Vector(0, 0, 1)))\n\
     loop = w.moveTo(0, 0).lineTo(1, 0).threePointArc((1.5, 0.5), (1, 1)).close()\nsolid = w.add(loop).extrude(1, both=True)\n",
    "import math\nimport numpy as np\nresult = cq.Workplane().polygon(6, 2 * math.pi).extrude(np.sqrt(1))\n\
     for i in range(3):\n    result = result.union(cq.Workplane().polygon(i + 3, 2).extrude(1).translate((i, 0, 0)))\n",
    "points = [(x, x ** 2) for x in range(5)]\npoints.append((0, 16))\nr = cq.Workplane().polyline(points).close().extrude(1)\n",
    "r = undefined_name.box(1)\n",
    "raise_ = 1\nr = cq.Workplane().sketch().rect(2, 2).push([(0, 0)]).circle(0.5, mode='s').finalize().extrude(1)\n",
];

/// Programs that may do something else.
const WILD: &[&str] = &[
    "import os\n",
    "import cadquery.occ_impl.shapes\n",
    "from cadquery import cq\n",
    "__import__('os')\n",
    "open('file', 'w')\n",
    "exec('1')\n",
    "getattr(cq, 'Workplane')\n",
    "cq.Workplane.box = None\n",
    "cq.Workplane().__class__\n",
    "cq.occ_impl\n",
    "cq.exporters.export(cq.Workplane().box(1, 1, 1), '/part.stl')\n",
    "cq.Workplane().ctx.pendingWires.clear()\n",
    "'{0.__class__}'.format(cq)\n",
    "class Workplane: pass\n",
    "import math\nmath.pi = 3\n",
    "cq.Workplane.box.__globals__['cq'] = 1\n",
    "d = {}\nd['a'] = 1\n",
    "del cq\n",
    "def f():\n    global cq\n",
    "def part(n):\n    return cq.Workplane().box(n, 1, 1)\nresult = part(6)\n",
    "f = lambda: 1\n",
    "cq = 1\n",
    "x = cq\n",
    "import math\nprint(math)\n",
    "abs = 1\n",
    "x = abs\n",
    "sorted([1], key=len)\n",
    "import math as m\nx = m\n",
    "w = cq.Workplane().box\n",
    "w = cq.Plane.named('XY')\n",
    "x = {'a': 1}\n",
    "x = cq.x\n",
    "f = cq.Workplane().box(1, 1, 1)\nf()\n",
    "(lambda: 1)()\n",
    "[cq.Workplane][0]()\n",
    "with x: pass\n",
    "@f\ndef g(): pass\n",
    "try:\n    pass\nexcept Exception:\n    pass\n",
    "np.save('/file', 1)\n",
    "print(__builtins__)\n",
    "type('X', (), {})\n",
    "object.mro()\n",
    "x = (y := 1)\n",
    "async def f(): pass\n",
    "lambda: (yield)\n",
    "quit()\n",
    "input()\n",
    "breakpoint()\n",
    "for cq.x in [1]: pass\n",
    "import numpy.ctypeslib\n",
    SPOILER,
    "t = cq.Sketch.arc\nt |= {}\n",
    "t = cq.Sketch().segment\nt |= {}\n",
    "c = cq.Workplane\nr = c()\n",
    "for c in [cq.Vector]: c.x\n",
    "f = lambda c=cq.Sketch: c.segment\n",
    "x = 6\nx &= 3\n",
    "x = 6\nx <<= 3\n",
];

/// `segment` is a dictionary of implementations that all sketches of a process share; this one
/// makes it do nothing.
const SPOILER: &str = "t = cq.Sketch.segment\nt |= {k: lambda self, *a, **kw: self for k in t.keys()}\n";

/// A program that draws with `segment`.
const SKETCH: &str = "s = cq.Workplane().sketch().segment((0, 0), (1, 0)).segment((1, 1)).segment((0, 1)).close().assemble()\n\
     result = s.finalize().extrude(1)\n";

/// What a Python script prints, with the directory of the worker's scripts as its argument and
/// `programs` as its input.
fn python(script: &[&str], programs: &[&str]) -> Vec<u8> {
    let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker");
    let mut command = Command::new(python::find(None).expect("Python with CadQuery: run scripts/setup"));
    command.args(script).arg(worker).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("Python starts");
    let stdin = process.stdin.take().expect("a pipe");
    serde_json::to_writer(stdin, programs).expect("Python reads");
    let output = process.wait_with_output().expect("Python ends");
    assert!(output.status.success());
    output.stdout
}

#[test]
fn only_programs_that_draw_and_nothing_else_share_a_process() {
    let script = "import ast, json, sys; sys.path.insert(0, sys.argv[1]); import tame\n\
                  print(json.dumps([tame.is_tame(ast.parse(text)) for text in json.load(sys.stdin)]))";
    let programs: Vec<&str> = TAME.iter().chain(WILD).copied().collect();
    let answers: Vec<bool> = serde_json::from_slice(&python(&["-c", script], &programs)).expect("a list");
    for (index, (program, is_tame)) in programs.iter().zip(answers).enumerate() {
        assert_eq!(is_tame, index < TAME.len(), "{program}");
    }
}

/// If a program that is not tame got into the shared process all the same.
#[test]
fn a_change_of_what_programs_share_is_noticed() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/state.py");
    python(&[script], TAME);
}

/// The result of an execution, bit by bit.
fn told(scorer: &Scorer, program: &str, round: usize) -> String {
    // The comment makes the program new to the scorer's cache.
    let answer = scorer.execute(&format!("{program}# {round}\n")).expect("workers").answer;
    let mass = answer.solid().map(|solid| *solid.mass());
    format!("{:?} {:?} {mass:?}", answer.verdict().class(), answer.error())
}

/// Earlier programs in a shared process change no answer.
#[test]
fn answers_do_not_depend_on_what_the_process_did_before() {
    let scorer = Scorer::new(config(1)).expect("Python with CadQuery: run scripts/setup");
    let first: Vec<String> = TAME.iter().map(|program| told(&scorer, program, 0)).collect();
    for round in 1..4 {
        // One is refused, one ends its process, one hangs in the shared process.
        for wild in ["import os\nos._exit(3)\n", "cq.Workplane.box = None\n", "while True:\n    pass\n"] {
            told(&scorer, wild, round);
        }
        for (program, first) in TAME.iter().zip(&first).rev() {
            assert_eq!(&told(&scorer, program, round), first, "round {round}: {program}");
        }
    }
}

/// Batches in shuffled orders, together with programs that try to change other programs' answers.
#[test]
fn a_batch_says_the_same_in_any_order() {
    let scorer = Scorer::new(config(2)).expect("Python with CadQuery: run scripts/setup");
    let mut programs: Vec<&str> = TAME.to_vec();
    programs.extend([SKETCH, SPOILER, SKETCH, "t = cq.Sketch().arc\nt |= {}\n", SPOILER, SKETCH]);
    let say = |order: &[usize], round: usize| {
        let mut answers = vec![String::new(); programs.len()];
        for &index in order {
            answers[index] = told(&scorer, programs[index], round);
        }
        answers
    };
    let mut order: Vec<usize> = (0..programs.len()).collect();
    let first = say(&order, 0);
    assert!(first[TAME.len()].contains("Solid"), "{}", first[TAME.len()]);
    for round in 1..4 {
        // A stride that is coprime to the length visits all programs, in another order each time.
        let stride = [5, 7, 11][round - 1];
        order = (0..programs.len()).map(|k| (k * stride + round) % programs.len()).collect();
        assert_eq!(say(&order, round), first, "round {round}");
    }
}
