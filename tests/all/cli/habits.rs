//! Small habits: `--quiet`, colours, exit codes.

use std::process::Command;

use super::run::{tiny_command, tiny_run};
use crate::harness::{Place, copy_directory, json};

const BOX: &str = "import cadquery as cq\nsolid = cq.Workplane('XY').box(1.0, 2.0, 3.0)";

#[test]
fn a_quiet_run_prints_its_table_and_nothing_else() {
    let place = Place::new();
    let arguments = tiny_command("run", "loud", &["sft.max_steps=2", "ppo.steps=0"]);
    let loud = place.cadwright(arguments).succeeds();
    assert!(loud.stderr().contains("sft: ") && loud.stderr().contains("gate "), "{loud}");
    let quiet = ["--quiet".to_owned()].into_iter();
    let arguments = quiet.chain(tiny_command("run", "quiet", &["sft.max_steps=2", "ppo.steps=0"]));
    let quiet = place.cadwright(arguments).succeeds();
    let said = quiet.stderr();
    // A young policy may be warned about.
    let is_warning = |line: &str| line.starts_with("warning: ") || line.contains("closed") || line.contains("left out");
    assert!(said.lines().all(is_warning), "{quiet}");
    let table = |text: String| -> Vec<String> { text.lines().take(4).map(str::to_owned).collect() };
    assert_eq!(table(quiet.stdout()), table(loud.stdout()));
    assert_eq!(
        json(place.path("quiet/summary.json"))["sft"]["iou"],
        json(place.path("loud/summary.json"))["sft"]["iou"]
    );
}

#[test]
fn a_quiet_command_still_warns_and_still_fails_aloud() {
    let place = Place::new();
    let failed = place.cadwright(["score", "-q", "--input", "missing.jsonl", "--output", "out.jsonl"]);
    failed.fails_with(&["missing.jsonl"]);
    // Gates that are closed and allowed are warnings; those that are passed are not. Two tokens are
    // no program.
    let gates = ["run.allow=[\"truncation\", \"picture\"]", "run.truncation_limit=0.0", "generate.max_new_tokens=2"];
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let found = place.cadwright(["-q".to_owned()].into_iter().chain(tiny_command("ppo", "run", &gates))).ends();
    assert!(found.stderr().contains("gate truncation: closed, but allowed"), "{found}");
    assert!(!found.stderr().contains("passed") && !found.stderr().contains("training parts"), "{found}");
}

/// What a command writes to a terminal.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let mut command = Command::new("python3");
    command.args(["-c", spawn, env!("CARGO_BIN_EXE_cadwright"), "--help"]);
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(variables.iter().copied());
    let output = command.output().expect("python3 starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn there_are_colours_on_a_terminal_unless_no_color_is_set() {
    let coloured = on_a_terminal(&[]);
    assert!(coloured.contains("\x1b["), "{coloured}");
    let plain = on_a_terminal(&[("NO_COLOR", "1")]);
    assert!(plain.contains("Usage:") && !plain.contains('\x1b'), "{plain:?}");
    let piped = Place::new().cadwright(["--help"]).env("TERM", "xterm-256color").succeeds();
    assert!(!piped.stdout().contains('\x1b'), "{piped}");
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let place = Place::new();
    place.write("in.jsonl", &format!("{}\n", serde_json::json!({"id": "a", "code": BOX})));
    let code = |arguments: &[&str]| place.cadwright(arguments.iter().copied()).ends().code();
    let exec = ["exec", "--engine", "native", "--input", "in.jsonl", "--output", "out.jsonl"];
    assert_eq!(code(&exec), Some(0));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["exec", "--input", "missing.jsonl", "--output", "out.jsonl"]), Some(1));
    assert_eq!(code(&["report", "nowhere"]), Some(1));
    for wrong in [&["exec"][..], &["nonsense"], &["exec", "--nonsense"], &["report", "--parts", "1001", "run"], &[]] {
        assert_eq!(code(wrong), Some(2), "{wrong:?}");
    }
    // The codes of ranks.
    assert_eq!(code(&["launch", "--processes", "1", "report", "nowhere"]), Some(1));
    assert_eq!(code(&["launch", "--processes", "1", "exec"]), Some(2));
    let help = place.cadwright(["--help"]).succeeds().stdout();
    let said = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in ["0 done", "1 something failed", "2 the command line itself is wrong"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}
