//! A server that talks nonsense, and damaged STEP files: an outcome or an error, and the next
//! program is executed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cadwright_rewards::Frame;
use cadwright_rollout::{GroundTruth, ScoreRequest, Scorer, ScorerConfig, Shape, python};

use crate::common::{CUBE, config};
use crate::damage::read_bad_files;

/// Writes the bytes of `start`, and after a request those of `reply`. Says that request 1 is done
/// only if `reply` does. Its result is in `result`. Ends soon, because a client waits for minutes for
/// a server that is not ready.
const SERVER: &str = r#"
import os, select, sys

def content(name):
    with open(PLACE + "/" + name, "rb") as file:
        return file.read()

def write(data):
    while data:
        data = data[os.write(1, data):]

write(content("start"))
if select.select([0], [], [], 1)[0] and os.read(0, 13):
    with open(sys.argv[4] + "/1.out", "wb") as file:
        file.write(content("result"))
    write(content("reply"))
    # Its directory, which has the result, goes with it.
    select.select([0], [], [], 0.3)
"#;

fn message(request: u64, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (9 + payload.len()) as u32;
    [&length.to_le_bytes()[..], &request.to_le_bytes(), &[kind], payload].concat()
}

fn interpreter(place: &Path) -> ScorerConfig {
    let path = place.join("python");
    let head = format!("#!{}\nPLACE = {:?}\n", python::find(None).unwrap().display(), place.to_str().unwrap());
    fs::write(&path, head + SERVER).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    ScorerConfig { python: Some(path), timeout_s: 0.5, ..config(1) }
}

fn check_server(target: &str, cases: u32, bad: &str) {
    let directory = tempfile::tempdir().unwrap();
    let config = interpreter(directory.path());
    let start = message(0, b'R', br#"{"cadquery": "2", "python": "3", "layers": {}}"#);
    let reply = message(1, b'D', b"");
    let result = b"\x03no solid".to_vec();
    for (name, content) in [("start", &start), ("reply", &reply), ("result", &result)] {
        fs::write(directory.path().join(name), content).unwrap();
    }
    let execute = || Scorer::new(config.clone()).unwrap().execute(CUBE);
    assert_eq!(execute().unwrap().answer.error().as_deref(), Some("no solid"), "the server as it should be");
    let sample = fs::read(directory.path().join(bad)).unwrap();
    let refusal = message(1, b'X', b"fork: no");
    let samples = if bad == "reply" { vec![sample.clone(), refusal] } else { vec![sample.clone()] };
    read_bad_files(target, cases, samples, |bytes| {
        fs::write(directory.path().join(bad), bytes).unwrap();
        match execute() {
            Ok(execution) => assert!(execution.answer.error().is_none_or(|error| error.len() < 100_000)),
            Err(error) => assert!(error.to_string().len() < 100_000),
        }
    });
    fs::write(directory.path().join(bad), sample).unwrap();
    assert_eq!(execute().unwrap().answer.error().as_deref(), Some("no solid"), "the server as it should be");
}

#[test]
fn a_server_that_starts_with_nonsense_is_an_error() {
    check_server("server_start", 5, "start");
}

#[test]
fn a_server_that_replies_nonsense_gives_an_outcome_or_an_error() {
    check_server("server_reply", 6, "reply");
}

#[test]
fn a_result_of_nonsense_is_an_outcome() {
    check_server("server_result", 10, "result");
}

#[test]
fn damaged_step_files_have_an_outcome_and_the_server_lives() {
    let scorer = Scorer::new(ScorerConfig { timeout_s: 8.0, ..config(1) }).unwrap();
    let part = "solid = cq.Workplane().box(1, 2, 3).faces('>Z').workplane().hole(0.5)";
    let step = scorer.export(part).unwrap().unwrap().step;
    let pid = scorer.server_pid().unwrap();
    read_bad_files("step", 10, vec![step], |bytes| {
        // Not another format.
        let file = [b"ISO-10303-21;\n", bytes].concat();
        let ground_truth = GroundTruth::Shape(Arc::new(Shape::new(file)));
        let request = ScoreRequest { prediction: CUBE.to_owned(), ground_truth, truncated: false };
        let score = scorer.score(&request).unwrap();
        assert!(score.verdict.is_valid(), "the prediction is a cube: {:?}", score.error);
        match score.iou[&Frame::Canonical] {
            Some(iou) => assert!((0.0..=1.0).contains(&iou) && score.ground_truth_error.is_none()),
            None => assert!(score.ground_truth_error.is_some_and(|error| error.len() < 10_000)),
        }
    });
    assert_eq!(scorer.server_pid(), Some(pid), "the server died");
}
