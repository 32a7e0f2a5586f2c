//! Rewards of one's own: a command, and further measures of likeness.

use std::path::Path;

use cadwright::train::samples::{FILE, Sample, read};

use super::run::{tiny_command, tiny_run};
use crate::harness::{Finished, Place, copy_directory, metrics, repository, text};

/// The Python program in docs/rl.md, word for word.
fn documented_command() -> String {
    let docs = text(repository().join("docs/rl.md"));
    let program = docs.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    program.expect("docs/rl.md has a program").to_owned()
}

/// PPO from the tiny run's SFT policy.
fn ppo(place: &Place, ranks: usize, name: &str, overrides: &[&str]) -> Finished {
    copy_directory(&tiny_run().join("sft"), &place.path(name).join("sft"));
    let command = tiny_command("ppo", name, overrides);
    let launch = ["launch", "--processes", &ranks.to_string()].map(str::to_owned);
    let launch = launch.into_iter().take(if ranks == 1 { 0 } else { 3 });
    place.cadwright(launch.chain(command)).succeeds()
}

fn samples(run: &Path) -> Vec<Sample> {
    read(&run.join(FILE)).expect("samples")
}

/// The sum over the steps of a number of the log.
fn total(run: &Path, name: &str) -> f64 {
    let rows = metrics(run);
    let values: Vec<f64> = rows.iter().filter_map(|row| row[name].as_f64()).collect();
    assert_eq!(values.len(), 3, "{name}: one for each step");
    values.iter().sum()
}

/// The reward of [`ppo`] without a command.
fn own_terms(sample: &Sample) -> f64 {
    match sample.outcome.as_deref() {
        Some("solid") => 0.1 + f64::from(sample.iou.unwrap_or(0.0)) - if sample.truncated { 0.3 } else { 0.0 },
        _ if sample.truncated => -0.3,
        Some("syntax") => -0.1,
        Some("exception") => -0.2,
        _ => 0.0,
    }
}

#[test]
fn the_documented_command_rates_every_completion_on_one_and_two_ranks() {
    let place = Place::new();
    place.write("my_reward.py", &documented_command());
    let overrides = ["reward.command=\"python3 my_reward.py\"", "reward.command_weight=0.5", "model.dtype=f32"];
    let mut runs = Vec::new();
    for (ranks, name) in [(1, "one"), (2, "two")] {
        let finished = ppo(&place, ranks, name, &overrides);
        let samples = samples(&place.path(name));
        assert!(samples.iter().any(|sample| sample.command_reward > Some(0.0)), "{samples:#?}\n{finished}");
        for sample in &samples {
            let answer = f64::from(sample.command_reward.expect("an answer"));
            // It is the share of a box that the part fills.
            assert!((0.0..=1.0 + 1e-6).contains(&answer), "{sample:?}");
            assert_eq!(answer > 0.0, sample.outcome.as_deref() == Some("solid"), "{sample:?}");
            let expected = own_terms(sample) + 0.5 * answer;
            let found = f64::from(sample.reward.expect("a reward"));
            assert!((found - expected).abs() < 1e-5, "{found}, not {expected}: {sample:?}");
        }
        let mean = samples.iter().filter_map(|sample| sample.command_reward).map(f64::from).sum::<f64>() / 8.0;
        assert!((total(&place.path(name), "ppo/reward_command/mean") - mean).abs() < 1e-5, "{finished}");
        assert_eq!(total(&place.path(name), "ppo/reward_command/failures"), 0.0, "{finished}");
        let left = std::fs::read_dir(place.path(name).join("reward_command/pictures-0")).expect("a directory");
        assert_eq!(left.count(), 1, "only the picture of the first requests stays");
        runs.push(samples.into_iter().map(|sample| (sample.part, sample.program, sample.command_reward)));
    }
    let two: Vec<_> = runs.pop().into_iter().flatten().collect();
    assert_eq!(runs.pop().into_iter().flatten().collect::<Vec<_>>(), two);
}

/// The command reads the picture, and dies, hangs or talks nonsense now and then.
#[test]
fn a_command_that_fails_now_and_then_costs_those_answers_and_the_run_ends_well() {
    let place = Place::new();
    place.write(
        "bad.py",
        r#"
import json, os, sys, time
for n, line in enumerate(sys.stdin):
    part = json.loads(line)
    if open(part["image"], "rb").read(4) != b"\x89PNG":
        sys.exit("no picture")
    fate = len(part["program"]) % 5
    if n > 1 and fate == 0:
        os.kill(os.getpid(), 9)
    if n > 1 and fate == 1:
        time.sleep(1000)
    if n > 1 and fate == 2:
        print("nonsense", flush=True)
    print(json.dumps({"id": part["id"], "reward": 1}), flush=True)
"#,
    );
    let overrides = ["reward.command=\"python3 bad.py\"", "reward.command_timeout_s=1", "reward.command_processes=2"];
    let finished = ppo(&place, 1, "run", &overrides);
    let samples = samples(&place.path("run"));
    let is_answered = |sample: &&Sample| sample.command_reward.is_some();
    for sample in &samples {
        assert!(is_answered(&sample) <= (sample.program.chars().count() % 5 > 2), "{sample:?}\n{finished}");
        let expected = own_terms(sample) + if is_answered(&sample) { 1.0 } else { 0.0 };
        assert!((f64::from(sample.reward.expect("a reward")) - expected).abs() < 1e-5, "{sample:?}\n{finished}");
    }
    let failures = samples.len() - samples.iter().filter(is_answered).count();
    assert!(failures > 0 && failures < samples.len(), "{failures} of {}\n{finished}", samples.len());
    let run = place.path("run");
    assert_eq!(total(&run, "ppo/reward_command/failures"), failures as f64, "{finished}");
    assert!(total(&run, "ppo/reward_command/restarts") > 0.0, "{finished}");
    assert!(finished.stderr().contains("ppo: warning: reward.command gave no answer for"), "{finished}");
}

#[test]
fn a_command_that_does_not_work_is_one_error_before_the_first_step() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    let command = tiny_command("ppo", "run", &["reward.command=\"python3 not_there.py\""]);
    place.cadwright(command).fails_with(&["reward.command = \"python3 not_there.py\"", "not_there.py", "stderr-0.log"]);
    assert!(!place.path("run/ppo/best").exists());
    place.cadwright(tiny_command("ppo", "run", &["reward.command_timeout_s=0"])).fails_with(&["command_timeout_s = 0"]);
}

#[test]
fn metrics_are_terms_of_the_reward() {
    let place = Place::new();
    let overrides = ["reward.metrics.chamfer=0.5", "reward.metrics.siou=0.25", "reward.metrics.aligned=2"];
    let finished = ppo(&place, 1, "run", &overrides);
    let samples = samples(&place.path("run"));
    for sample in &samples {
        let [chamfer, siou, aligned] = sample.metrics.named().map(|(_, value)| value);
        let is_solid = sample.outcome.as_deref() == Some("solid");
        assert_eq!(
            (chamfer.is_some(), siou.is_some(), aligned.is_some()),
            (is_solid, is_solid, is_solid),
            "{sample:?}"
        );
        let terms = 0.5 * chamfer.unwrap_or(0.0) + 0.25 * siou.unwrap_or(0.0) + 2.0 * aligned.unwrap_or(0.0);
        let found = f64::from(sample.reward.expect("a reward"));
        assert!((found - own_terms(sample) - terms).abs() < 1e-5, "{sample:?}\n{finished}");
    }
    let mean = |name| total(&place.path("run"), &format!("ppo/metric/{name}"));
    assert!(["chamfer", "siou", "aligned"].into_iter().all(|name| (0.0..3.0).contains(&mean(name))), "{finished}");
    assert!(mean("aligned") > 0.0, "{finished}");
}
