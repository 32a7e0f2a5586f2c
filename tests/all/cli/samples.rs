//! `samples.jsonl.gz`: the completions of reinforcement learning.

use std::process::Command;

use cadwright::train::samples::{FILE, Sample, read};
use serde_json::Value;

use super::run::{tiny_command, tiny_run};
use crate::harness::repository;
use crate::harness::{Place, copy_directory, fields, metrics, text};

/// The completions of a run, with the mean rewards that its log has.
fn of(run: &std::path::Path) -> (Vec<Sample>, Vec<f64>) {
    let means = metrics(run).iter().filter_map(|row| row["ppo/reward_mean"].as_f64()).collect();
    (read(&run.join(FILE)).expect("samples"), means)
}

#[test]
fn the_file_has_every_completion_with_what_the_log_says_of_it() {
    let (samples, means) = of(tiny_run());
    // 3 steps of 4 pictures with 2 completions.
    assert_eq!((samples.len(), means.len()), (3 * 4 * 2, 3));
    for (step, (rows, mean)) in samples.chunks(8).zip(means).enumerate() {
        for (place, row) in rows.iter().enumerate() {
            assert_eq!((row.step, row.sample), (step, place % 2));
            assert_eq!(row.part, rows[place - place % 2].part);
            assert!(row.logprob_sum < Some(0.0) && row.tokens > 0 && row.advantage.is_some(), "{row:?}");
            assert_eq!(
                row.iou > Some(0.0),
                row.outcome.as_deref() == Some("solid") && row.reward > Some(0.1),
                "{row:?}"
            );
        }
        let sum: f64 = rows.iter().filter_map(|row| row.reward).map(f64::from).sum();
        assert!((sum / 8.0 - mean).abs() < 1e-5, "{sum} of 8, {mean} in the log");
    }
    assert!(samples.iter().any(|row| row.outcome.as_deref() == Some("solid") && row.program.contains("cq.")));
}

#[test]
fn gzip_reads_the_documented_fields() {
    let output = Command::new("gzip").arg("-dc").arg(tiny_run().join(FILE)).output().expect("gzip");
    let stdout = String::from_utf8(output.stdout).expect("text");
    let docs = text(repository().join("docs/metrics.md"));
    for line in stdout.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        for field in fields(&row) {
            assert!(docs.contains(&format!("| `{field}` |")), "{field} is not in docs/metrics.md");
        }
    }
    assert_eq!(stdout.lines().count(), 24, "{:?}", output.status);
}

#[test]
fn a_limit_leaves_steps_out_and_says_so() {
    let place = Place::new();
    for name in ["none", "second"] {
        copy_directory(&tiny_run().join("sft"), &place.path(name).join("sft"));
    }
    let finished = place.cadwright(tiny_command("ppo", "none", &["ppo.samples_log_mib=0"])).succeeds();
    assert!(!place.path("none").join(FILE).exists(), "{finished}");
    assert!(finished.stderr().contains("exceed ppo.samples_log_mib = 0"), "{finished}");
    place.cadwright(tiny_command("ppo", "second", &["ppo.samples_log_every=2"])).succeeds();
    let steps: Vec<usize> = of(&place.path("second")).0.iter().map(|row| row.step).collect();
    assert_eq!(steps, [[0; 8], [2; 8]].concat());
}

/// The disk is full for one step: the run goes on, and the file has the other steps whole.
#[test]
fn a_full_disk_costs_a_step_and_not_the_file() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let finished = place
        .cadwright(tiny_command("ppo", "run", &[]))
        .env(cadwright::failpoint::VARIABLE, "samples-step:2=full")
        .succeeds();
    assert!(finished.stderr().contains("the completions of step 1 are not in samples.jsonl.gz"), "{finished}");
    let expected: Vec<Sample> = of(tiny_run()).0.into_iter().filter(|row| row.step != 1).collect();
    assert_eq!(of(&place.path("run")).0, expected, "{finished}");
}
