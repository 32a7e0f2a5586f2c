//! The report: what it says about whole and partial runs, and, in a real browser, that it works.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::run::smoke_run;
use crate::harness::{Place, bytes, copy_directory, json, repository, text};

/// The browsers that are looked for.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A browser of this machine. In CI there must be one; elsewhere the test says that it is skipped.
fn browser() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&paths).flat_map(|path| BROWSERS.map(|name| path.join(name))).find(|path| path.exists());
    assert!(
        found.is_some() || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "CI needs a browser: {BROWSERS:?}"
    );
    if found.is_none() {
        eprintln!("SKIPPED: no browser; install one of {BROWSERS:?}");
    }
    found
}

/// Runs tests/browser/report.py on a page, if there is a browser.
#[track_caller]
fn check_in_browser(page: &Path, more: &[&str]) {
    let Some(browser) = browser() else { return };
    let script = repository().join("tests/browser/report.py");
    let output =
        Command::new("python3").arg(script).arg(&browser).arg(page).args(more).output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{said}", browser.display(), page.display());
    println!("{said}");
}

/// The data in a page.
#[track_caller]
fn data(page: &Path) -> Value {
    let page = text(page);
    let start = "<script id=\"data\" type=\"application/json\">";
    let from = page.find(start).expect("a block of data") + start.len();
    let to = from + page[from..].find("</script>").expect("its end");
    serde_json::from_str(&page[from..to]).expect("JSON")
}

/// A run directory with the smoke run's configuration, curves, data and summaries, and with the
/// predictions that `edit` makes of the smoke run's: stage, number of the row, and the row.
fn edited_run(place: &Place, name: &str, edit: impl Fn(&str, usize, &mut Value)) -> PathBuf {
    let (smoke, run) = (smoke_run(), place.path(name));
    copy_directory(&smoke.join("data"), &run.join("data"));
    for stage in ["sft", "ppo"] {
        copy_directory(&smoke.join("eval").join(stage), &run.join("eval").join(stage));
        std::fs::create_dir_all(run.join(stage)).unwrap();
        std::fs::copy(smoke.join(stage).join("result.json"), run.join(stage).join("result.json")).unwrap();
        let path = run.join("eval").join(stage).join("predictions.json");
        let mut predictions = json(&path);
        for (key, row) in predictions.as_object_mut().unwrap() {
            edit(stage, key["sample_".len()..].parse().unwrap(), row);
        }
        std::fs::write(&path, predictions.to_string()).unwrap();
    }
    for file in ["config.toml", "run.json", "metrics.jsonl"] {
        std::fs::copy(smoke.join(file), run.join(file)).unwrap();
    }
    run
}

/// SFT writes a box for every part; PPO writes the true program for every other one, and one program
/// that fails.
fn learning(stage: &str, number: usize, row: &mut Value) {
    let (program, outcome, iou) = match (stage, number % 2) {
        ("ppo", _) if number == 5 => ("solid = 1 / 0".to_owned(), "exception", 0.0),
        ("ppo", 0) => (row["ground_truth_code"].as_str().unwrap().to_owned(), "solid", 1.0),
        _ => (
            format!("import cadquery as cq\nsolid = cq.Workplane().box(0.3, 0.5, 0.{})", number + 1),
            "solid",
            0.02 * number as f64,
        ),
    };
    (row["predicted_code"], row["outcome"], row["iou"]) = (json!(program), json!(outcome), json!(iou));
}

#[test]
fn a_run_ends_with_its_report() {
    let page = smoke_run().join("report.html");
    assert!(bytes(&page).len() < 5_000_000, "{}", bytes(&page).len());
    let data = data(&page);
    let policies: Vec<&str> =
        data["policies"].as_array().unwrap().iter().map(|p| p["stage"].as_str().unwrap()).collect();
    assert_eq!(policies, ["sft", "ppo"]);
    assert_eq!((&data["runs"][0]["missing"], &data["notes"]), (&json!([]), &json!([])));
    // The table's numbers are those of summary.json, and of the predictions.
    let summary = json(smoke_run().join("summary.json"));
    for (policy, stage) in [(0, "sft"), (1, "ppo")] {
        let shown = &data["policies"][policy];
        assert_eq!(shown["summary"]["iou"]["mean"], summary[stage]["iou"]);
        assert_eq!(shown["summary"]["vsr"]["ci95"], summary[stage]["vsr_ci95"]);
        assert_eq!(
            shown["outcomes"]["solid"].as_u64().unwrap_or(0),
            summary[stage]["outcomes"]["solid"].as_u64().unwrap()
        );
        assert_eq!(shown["ious"].as_array().unwrap().len(), 12);
    }
    let parts = data["parts"].as_array().unwrap();
    assert_eq!((parts.len(), &data["parts_total"]), (12, &json!(12)));
    for part in parts {
        assert!(part["picture"].as_str().unwrap().starts_with("data:image/png;base64,"), "{part:.200}");
        assert!(part["solid"].is_object(), "{part:.200}");
        for result in part["results"].as_array().unwrap() {
            assert_eq!(result["solid"].is_object(), result["outcome"] == "solid", "{result:.200}");
        }
    }
    let curve = |stage: &str, name: &str| {
        let curves = data["runs"][0]["curves"].as_array().unwrap();
        curves.iter().find(|curve| curve["stage"] == stage && curve["name"] == name).cloned().expect(name)
    };
    assert_eq!(curve("sft", "loss")["steps"].as_array().unwrap().len(), 72);
    assert_eq!(curve("ppo", "reward_mean")["recorded"], 2);
}

#[test]
fn a_browser_shows_the_report_and_a_reader_can_use_it() {
    let place = Place::new();
    let run = edited_run(&place, "learnt", learning);
    place.cadwright(["report", run.to_str().unwrap(), "--output", "out.html"]).succeeds();
    check_in_browser(&place.path("out.html"), &[]);
}

#[test]
fn programs_that_contain_html_are_shown_and_do_not_run() {
    const HOSTILE: &str = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>";
    let place = Place::new();
    let run = edited_run(&place, "<img src=x onerror='window.ran = 3'>", |_, _, row| {
        for field in ["id", "predicted_code", "ground_truth_code", "outcome", "error"] {
            row[field] = json!(HOSTILE);
        }
        row["ious"] = json!({HOSTILE: 0.5});
        row["more"] = json!({HOSTILE: HOSTILE});
    });
    let row = json!({"stage": HOSTILE, "step": 1, format!("{HOSTILE}/{HOSTILE}"): 1.0});
    std::fs::write(run.join("metrics.jsonl"), format!("{row}\n")).unwrap();
    std::fs::write(run.join("run.json"), json!({"command": [HOSTILE], "device": HOSTILE}).to_string()).unwrap();
    std::fs::write(run.join("config.toml"), format!("# {HOSTILE}\n")).unwrap();
    place.cadwright(["report", run.to_str().unwrap(), "--output", "out.html", "--no-solids"]).succeeds();
    check_in_browser(&place.path("out.html"), &["--hostile", HOSTILE]);
}

#[test]
fn two_runs_are_shown_over_each_other() {
    let place = Place::new();
    let run = edited_run(&place, "second", learning);
    let arguments = ["report", smoke_run().to_str().unwrap(), run.to_str().unwrap(), "--no-solids", "--parts", "3"];
    place.cadwright(arguments).succeeds();
    let data = data(&place.path("report.html"));
    let labels: Vec<&str> = data["policies"].as_array().unwrap().iter().map(|p| p["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["run SFT", "run RL", "second SFT", "second RL"]);
    // Each RL policy with its own SFT policy, and each policy of the second run with that of the first.
    let pairs: Vec<_> = data["comparisons"].as_array().unwrap().iter().map(|c| (&c["a"], &c["b"], &c["n"])).collect();
    assert_eq!(
        pairs,
        [(0, 1), (0, 2), (2, 3), (1, 3)]
            .map(|(a, b)| (json!(a), json!(b), json!(12)))
            .each_ref()
            .map(|(a, b, n)| (a, b, n))
    );
    // The gain of the second run: PPO has IoU 1 on six parts, 0 on part 5, and else what SFT has,
    // 0.02 times the number of the part: (6 - 0.02 (0 + 2 + 4 + 6 + 8 + 10) - 0.02 * 5) / 12.
    let gain = data["comparisons"][2]["iou"]["mean"].as_f64().unwrap();
    assert!((gain - (6.0 - 0.02 * 30.0 - 0.1) / 12.0).abs() < 1e-9, "{gain}");
    assert_eq!((data["parts"].as_array().unwrap().len(), &data["parts_total"]), (3, &json!(12)));
    assert_eq!(data["parts"][0]["results"].as_array().unwrap().len(), 4);
}

#[test]
fn what_a_run_lacks_is_told_and_the_rest_is_shown() {
    let place = Place::new();
    let run = place.path("killed");
    std::fs::create_dir_all(run.join("sft/checkpoint")).unwrap();
    std::fs::copy(smoke_run().join("config.toml"), run.join("config.toml")).unwrap();
    std::fs::write(run.join("metrics.jsonl"), "{\"stage\":\"sft\",\"step\":0,\"sft/loss\":2.0}\n{\"stage\":\"sf")
        .unwrap();
    place.cadwright(["report", "killed"]).succeeds();
    let found = data(&place.path("report.html"));
    assert_eq!(found["runs"][0]["curves"][0]["values"], json!([2.0]));
    assert_eq!(found["policies"], json!([]));
    let missing = found["runs"][0]["missing"].to_string();
    for text in [
        "run.json is missing",
        "1 lines of metrics.jsonl are damaged",
        "Stage sft has begun and has not ended",
        "no eval/sft/predictions.json",
        "Stage ppo has not begun",
    ] {
        assert!(missing.contains(text), "{text}: {missing}");
    }
    // A damaged evaluation, and data that are gone.
    let run = edited_run(&place, "damaged", learning);
    std::fs::write(run.join("eval/sft/predictions.json"), "{").unwrap();
    std::fs::remove_dir_all(run.join("data")).unwrap();
    place.cadwright(["report", "damaged", "--no-solids"]).succeeds();
    let found = data(&place.path("report.html"));
    assert!(found["runs"][0]["missing"].to_string().contains("eval/sft/predictions.json is damaged"), "{found:.3000}");
    assert!(found["notes"].to_string().contains("There are no input pictures"), "{}", found["notes"]);
    assert_eq!(found["policies"].as_array().unwrap().len(), 1);
}

#[test]
fn a_directory_that_is_no_run_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    place.cadwright(["report", "empty"]).fails_with(&["empty", "not a run directory", "run.json", "config.toml"]);
    place.cadwright(["report", "nowhere"]).fails_with(&["nowhere", "no such run directory"]);
    assert!(!place.path("report.html").exists());
}
