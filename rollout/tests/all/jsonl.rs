//! `exec` and `score` on JSONL files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{CUBE, config};
use cadwright_rewards::{Frame, OutcomeClass};
use cadwright_rollout::jsonl::{ExecOptions, ScoreOptions, exec, score};
use cadwright_rollout::{Report, Result};
use serde_json::{Value, json};

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new(input: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("in.jsonl"), input).unwrap();
        Self { directory }
    }

    fn of(rows: &[Value]) -> Self {
        Self::new(&rows.iter().map(|row| format!("{row}\n")).collect::<String>())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn exec(&self, extract: bool) -> Result<cadwright_rollout::jsonl::ExecSummary> {
        let (input, output) = (self.path("in.jsonl"), self.path("out.jsonl"));
        exec(&ExecOptions { input, output, extract, scorer: config(2) })
    }

    fn score(&self) -> Result<Report> {
        let mut scorer = config(2);
        scorer.frames = vec![Frame::Canonical, Frame::Aligned];
        score(&ScoreOptions {
            input: self.path("in.jsonl"),
            output: self.path("out.jsonl"),
            summary: Some(self.path("summary.json")),
            extract: false,
            scorer,
        })
    }

    fn output(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("out.jsonl")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn keys(row: &str) -> Vec<String> {
    // Keys at depth one, in their order in the text.
    let mut depth = 0;
    let mut keys = Vec::new();
    let parts: Vec<&str> = row.split('"').collect();
    for (index, part) in parts.iter().enumerate() {
        if index % 2 == 0 {
            depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
        } else if depth == 1 && parts.get(index + 1).is_some_and(|next| next.starts_with(':')) {
            keys.push((*part).to_owned());
        }
    }
    keys
}

#[test]
fn exec_writes_one_row_per_program_in_order() {
    let mut rows = vec![
        json!({"id": "cube", "code": CUBE, "other": 1}),
        json!({"id": 7, "code": format!("import time\ntime.sleep(0.3)\n{CUBE}")}),
        json!({"id": "bad", "code": "x ="}),
    ];
    rows.extend(
        (0..60).map(|index| json!({"id": index, "code": format!("solid = cq.Workplane().box(1, 1, {})", index + 1)})),
    );
    let files = Files::of(&rows);
    let summary = files.exec(false).unwrap();
    assert_eq!((summary.n, summary.outcomes[&OutcomeClass::Solid]), (63, 62));
    let output = files.output();
    let parsed: Vec<Value> = output.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let ids: Vec<&Value> = parsed.iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, rows.iter().map(|row| &row["id"]).collect::<Vec<_>>());
    for (index, row) in parsed[3..].iter().enumerate() {
        assert!((row["volume"].as_f64().unwrap() - (index + 1) as f64).abs() < 1e-9);
    }
    let expected = [
        "id",
        "valid",
        "outcome",
        "error",
        "engine",
        "volume",
        "centroid",
        "bounding_box",
        "inertia",
        "solids",
        "micros",
        "malformed",
    ];
    assert_eq!(keys(&output[0]), expected);
    assert_eq!(keys(&output[2]), expected);
    let bad = &parsed[2];
    assert_eq!((&bad["valid"], &bad["outcome"]), (&json!(false), &json!("syntax")));
    assert_eq!((&bad["volume"], &bad["inertia"]), (&Value::Null, &Value::Null));
    assert!(bad["error"].as_str().unwrap().starts_with("SyntaxError"));
    assert_eq!(parsed[0]["bounding_box"][1].as_array().unwrap().len(), 3);
}

#[test]
fn extraction_happens_on_request_only() {
    let files = Files::of(&[json!({"id": 1, "code": format!("```python\n{CUBE}\n```")})]);
    assert_eq!(files.exec(false).unwrap().vsr, 0.0);
    assert_eq!(files.exec(true).unwrap().vsr, 1.0);
}

#[test]
fn score_writes_rows_and_a_summary() {
    let half = "solid = cq.Workplane().box(1, 1, 0.5).translate((0, 0, 0.25))";
    let pair = |id: &str, ground_truth: &str, prediction: &str| json!({"id": id, "ground_truth": ground_truth, "prediction": prediction});
    let files = Files::of(&[
        pair("same", CUBE, CUBE),
        pair("half", CUBE, half),
        pair("bad", CUBE, "raise ValueError('no')"),
        pair("lost", "x = 1", CUBE),
    ]);
    let summary = files.score().unwrap();
    let output = files.output();
    let expected = ["id", "valid", "outcome", "error", "engine", "iou", "reward", "micros", "malformed"];
    assert_eq!(keys(&output[0]), expected);
    let rows: Vec<Value> = output.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows[0]["iou"], json!({"canonical": 1.0, "aligned": 1.0}));
    assert!((rows[1]["iou"]["canonical"].as_f64().unwrap() - 0.5).abs() < 0.02);
    assert_eq!((&rows[2]["error"], &rows[2]["iou"]["aligned"]), (&json!("ValueError: no"), &json!(0.0)));
    assert_eq!((&rows[3]["valid"], &rows[3]["iou"]["canonical"]), (&json!(true), &Value::Null));
    assert!(rows[3]["ground_truth_error"].as_str().unwrap().contains("no_solid"));
    assert_eq!((summary.n, summary.vsr, summary.ground_truth_failures), (4, 0.75, 1));
    let [low, high] = summary.iou_ci95;
    assert!((summary.iou - 1.5 / 4.0).abs() < 0.01 && low < summary.iou && summary.iou < high);
    assert!((summary.iou_valid() - 0.75).abs() < 0.01);
    assert_eq!(Report::read(&files.path("summary.json")).unwrap(), summary);
    let written: Value = serde_json::from_slice(&fs::read(files.path("summary.json")).unwrap()).unwrap();
    assert_eq!(written["outcomes"]["solid"], json!(3));
    assert_eq!(written["outcomes"]["timeout"], json!(0));
    assert_eq!(written["engines"], json!({"cadquery": 4}));
    for frame in ["canonical", "aligned"] {
        let (all, valid) = (&written["iou_all"][frame], &written["iou_valid"][frame]);
        let of = &written["frames"][frame];
        assert_eq!((&all["mean"], &all["ci95"]), (&of["iou"], &of["iou_ci95"]));
        assert_eq!((&valid["mean"], &valid["ci95"]), (&of["iou_valid"], &of["iou_valid_ci95"]));
    }
    for key in ["n", "vsr", "vsr_ci95", "iou_all", "iou_valid", "pairs_per_second"] {
        assert!(!written[key].is_null(), "{key}");
    }
    assert_eq!(files.names(), ["in.jsonl", "out.jsonl", "summary.json"]);
}

#[test]
fn a_bad_line_is_named_and_nothing_is_lost() {
    let good = json!({"id": 1, "code": CUBE}).to_string();
    for (line, expected) in [
        ("{\"id\": 2, \"code\"", "in.jsonl:3: not JSON"),
        ("[1, 2]", "in.jsonl:3: expected a JSON object"),
        ("{\"code\": \"x\"}", "in.jsonl:3: field \"id\" is missing"),
        ("{\"id\": [1], \"code\": \"x\"}", "in.jsonl:3: field \"id\": expected text or a number, got [1]"),
        ("{\"id\": 2, \"prediction\": \"x\"}", "in.jsonl:3: missing field \"code\" (fields here: id, prediction)"),
        ("{\"id\": 2, \"code\": 5}", "in.jsonl:3: field \"code\": expected text, got 5"),
    ] {
        let files = Files::new(&format!("{good}\n\n{line}\n"));
        fs::write(files.path("out.jsonl"), "old").unwrap();
        let error = files.exec(false).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        assert_eq!(files.output(), ["old"]);
        assert_eq!(files.names(), ["in.jsonl", "out.jsonl"]);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new("");
    let options = |input: &Path, output: &Path| ExecOptions {
        input: input.to_owned(),
        output: output.to_owned(),
        extract: false,
        scorer: config(1),
    };
    let error = exec(&options(&files.path("none"), &files.path("out"))).unwrap_err().to_string();
    assert!(error.contains("none: cannot read"), "{error}");
    let error = exec(&options(&files.path("in.jsonl"), &files.path("no/out"))).unwrap_err();
    assert!(error.to_string().contains("no/out: cannot write"), "{error}");
    let error = exec(&options(&files.path("in.jsonl"), files.directory.path())).unwrap_err();
    assert!(error.to_string().contains("cannot write"), "{error}");
}

#[test]
fn no_rows_are_no_problem() {
    let files = Files::new("\n");
    assert_eq!(files.exec(false).unwrap().n, 0);
    assert_eq!(files.output(), Vec::<String>::new());
    let files = Files::new("");
    assert_eq!(files.score().unwrap().n, 0);
}

#[test]
fn a_pipe_is_written_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt;

    let files = Files::of(&[json!({"id": "cube", "code": CUBE})]);
    let pipe = files.path("out.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(fs::read_to_string(pipe)));
            receiver.recv_timeout(std::time::Duration::from_secs(60))
        }
    });
    files.exec(false).unwrap();
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let text = reader.join().unwrap().expect("something comes through the pipe").unwrap();
    assert_eq!(text.lines().count(), 1);
}
