//! The log, as TensorBoard's own reader finds it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cadwright::telemetry::Telemetry;
use image::{Rgb, RgbImage};
use serde_json::json;

use crate::harness::{python, repository};

/// The steps of every tag, scalars, pictures and histograms, in the order in which TensorBoard has them.
pub fn steps_in_tensorboard(run: &Path) -> BTreeMap<String, Vec<serde_json::Value>> {
    let script = repository().join("scripts/reference/read_tensorboard.py");
    let output = Command::new(python()).arg(script).arg(run.join("tensorboard")).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on stdout")
}

#[test]
fn after_a_stage_goes_on_tensorboard_has_each_of_its_steps_once() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let log = |stage, from: usize, to: usize| {
        let mut telemetry = Telemetry::open(run, stage, from, 10).unwrap();
        for step in from..to {
            telemetry.picture(step, "validation", &RgbImage::from_pixel(4, 2, Rgb([step as u8; 3]))).unwrap();
            let values: Vec<f64> = (0..7 * step).map(|i| f64::from(i as u32 * i as u32)).collect();
            telemetry.histogram(step, "squares", &[values, vec![f64::NAN, 1.0]].concat());
            telemetry.histogram(step, "nothing", &[f64::NAN]);
            telemetry.record(step, &[("loss", 0.5), ("never", f64::NAN)]).unwrap();
        }
    };
    log("sft", 0, 6);
    log("eval/sft", 5, 6);
    log("ppo", 0, 5);
    // Killed after step 4, goes on from the checkpoint before step 2, and gets less far.
    log("ppo", 2, 4);
    log("eval/ppo", 3, 4);
    let steps = steps_in_tensorboard(run);
    let tags: Vec<&str> = steps.keys().map(String::as_str).collect();
    let stages = ["eval/ppo", "eval/sft", "ppo", "sft"];
    let names = ["histogram/squares", "loss", "never", "validation"];
    let expected: Vec<String> = stages.iter().flat_map(|stage| names.map(|name| format!("{stage}/{name}"))).collect();
    assert_eq!(tags, expected);
    for name in names {
        assert_eq!(json!(steps[&format!("sft/{name}")]), json!([0, 1, 2, 3, 4, 5]), "another stage's points stay");
        assert_eq!(json!(steps[&format!("ppo/{name}")]), json!([0, 1, 2, 3]), "{name}");
        assert_eq!(json!(steps[&format!("eval/sft/{name}")]), json!([5]));
    }
}
