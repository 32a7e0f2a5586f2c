//! A run that is killed with SIGKILL at any moment goes on when it is started again, and ends with
//! the same results.

use std::path::Path;

use super::run::{assert_same_run, smoke_run, tiny_command, tiny_run};
use crate::harness::{Place, copy_directory, metrics, text};

/// Kills `cadwright <stage>` in `<place>/run` once it has a checkpoint, and runs it again to the
/// end.
#[track_caller]
fn kill_and_go_on(place: &Place, stage: &str) {
    let run = place.path("run");
    let checkpoint = run.join(stage).join("checkpoint/state.json");
    place.cadwright(tiny_command(stage, "run", &[])).kill_when(|| checkpoint.exists());
    assert!(checkpoint.exists() && !run.join(stage).join("result.json").exists(), "{stage} came to its end too soon");
    let finished = place.cadwright(tiny_command(stage, "run", &[])).succeeds();
    assert!(finished.stderr().contains(&format!("{stage}: goes on at step")), "{finished}");
    assert_same_run(tiny_run(), &run, &[stage], &finished);
}

#[test]
fn sft_goes_on_to_the_same_end() {
    kill_and_go_on(&Place::new(), "sft");
}

#[test]
fn ppo_goes_on_to_the_same_end() {
    let place = Place::new();
    copy_directory(&tiny_run().join("sft"), &place.path("run/sft"));
    kill_and_go_on(&place, "ppo");
}

#[test]
fn a_kill_while_the_data_is_made_leaves_no_half_of_it() {
    let place = Place::new();
    let model = format!("model.path={:?}", smoke_run().join("sft/best").display().to_string());
    let arguments = [
        "sft",
        "--config",
        &crate::harness::smoke_config(),
        "--output-dir",
        "run",
        "--set",
        &model,
        "--set",
        "sft.max_steps=1",
        "--set",
        "sft.validation_samples=1",
    ];
    let has_begun = |directory: &Path| std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    let (aside, data) = (place.path("run/.data.new"), place.path("run/data"));
    place.cadwright(arguments).kill_when(|| has_begun(&aside) || has_begun(&data));
    assert!(!data.exists(), "half of the data has the name of the whole");
    place.cadwright(arguments).succeeds();
    let files = |run: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(run.join("data")).expect("data").flatten().map(|e| e.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&place.path("run")), files(smoke_run()));
}

#[test]
fn a_log_line_cut_short_is_dropped_and_made_again() {
    let place = Place::new();
    let run = place.path("run");
    copy_directory(tiny_run(), &run);
    // The state after a kill in PPO's first step: SFT is complete, PPO has part of a line and no
    // result.
    std::fs::remove_dir_all(run.join("ppo")).expect("ppo/ is there");
    std::fs::remove_dir_all(run.join("eval/ppo")).expect("eval/ppo is there");
    let log = text(run.join("metrics.jsonl"));
    let whole: String = log.lines().filter(|line| !line.contains("\"ppo\"")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(run.join("metrics.jsonl"), whole + "{\"ppo/ce_loss\":0.4").expect("the log can be written");
    let finished = place.cadwright(tiny_command("run", "run", &[])).succeeds();
    assert_same_run(tiny_run(), &run, &["sft", "ppo"], &finished);
    assert_eq!(metrics(tiny_run()), metrics(&run), "{finished}");
}
