//! The subcommands beside training: exec, score, generate, eval, doctor.

use cadwright::cuda::{Cuda, cuda};
use cadwright::data::{DataSource, Dataset, Split};

use super::run::smoke_run;
use crate::harness::{Place, fields, json, rows, smoke_config};

const BOX: &str = "import cadquery as cq\nsolid = cq.Workplane('XY').box(1.0, 2.0, 3.0)";
const HALF: &str = "import cadquery as cq\nsolid = cq.Workplane('XY').box(1.0, 2.0, 1.5).translate((0, 0, 0.75))";

#[test]
fn exec_answers_every_row_in_order_with_the_documented_fields() {
    let place = Place::new();
    let programs =
        [("b", BOX, "solid"), ("a", "import cadquery as cq\nsolid = (", "syntax"), ("7", "x = 1 / 0", "exception")];
    let input: String =
        programs.iter().map(|(id, code, _)| format!("{}\n", serde_json::json!({"id": id, "code": code}))).collect();
    place.write("in.jsonl", &input);
    place.cadwright(["exec", "--input", "in.jsonl", "--output", "out.jsonl", "--jobs", "2"]).succeeds();
    let out = rows(place.path("out.jsonl"));
    assert_eq!(out.len(), programs.len());
    for (row, (id, _, outcome)) in out.iter().zip(programs) {
        let expected = [
            "bounding_box",
            "centroid",
            "engine",
            "error",
            "id",
            "inertia",
            "malformed",
            "micros",
            "outcome",
            "solids",
            "valid",
            "volume",
        ];
        assert_eq!(fields(row), expected);
        assert_eq!((&row["id"], &row["outcome"]), (&id.into(), &outcome.into()), "{row:#}");
        assert_eq!(row["valid"], outcome == "solid");
        assert!(["native", "cadquery"].contains(&row["engine"].as_str().unwrap_or_default()), "{row:#}");
        assert_eq!(row["error"].is_null(), outcome == "solid", "{row:#}");
    }
    let number = |pointer: &str| out[0].pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    // A box of 1 x 2 x 3 about the origin, at unit density: m (b^2 + c^2) / 12 = 6 (4 + 9) / 12.
    for (pointer, expected) in
        [("/volume", 6.0), ("/centroid/0", 0.0), ("/bounding_box/1/2", 1.5), ("/inertia/0/0", 6.5)]
    {
        assert!((number(pointer) - expected).abs() < 1e-6, "{pointer}: {}", number(pointer));
    }
}

#[test]
fn score_answers_every_row_in_order_with_the_documented_fields_and_a_summary() {
    let place = Place::new();
    let pairs = [("same", BOX, "solid", 1.0), ("half", HALF, "solid", 0.5), ("none", "solid = 1", "no_solid", 0.0)];
    let row = |(id, prediction, ..): &(&str, &str, &str, f64)| {
        format!("{}\n", serde_json::json!({"id": id, "ground_truth": BOX, "prediction": prediction}))
    };
    place.write("in.jsonl", &pairs.iter().map(row).collect::<String>());
    let arguments = [
        "score",
        "--input",
        "in.jsonl",
        "--output",
        "out.jsonl",
        "--summary",
        "summary.json",
        "--grid",
        "64",
        "--frames",
        "canonical,normalised",
    ];
    place.cadwright(arguments).succeeds();
    let out = rows(place.path("out.jsonl"));
    assert_eq!(out.len(), pairs.len());
    for (row, (id, _, outcome, iou)) in out.iter().zip(pairs) {
        let expected = ["engine", "error", "id", "iou", "malformed", "micros", "outcome", "reward", "valid"];
        assert_eq!(fields(row), expected);
        assert_eq!((&row["id"], &row["outcome"]), (&id.into(), &outcome.into()), "{row:#}");
        assert_eq!(fields(&row["iou"]), ["canonical", "normalised"]);
        let found = row["iou"]["canonical"].as_f64().unwrap_or(f64::NAN);
        // A face of the half box lies between cells or on their centres, which changes one layer of
        // 64.
        assert!((found - iou).abs() < 1.0 / 64.0, "{row:#}");
    }
    let summary = json(place.path("summary.json"));
    assert_eq!(summary["n"], 3);
    assert!((summary["vsr"].as_f64().unwrap_or_default() - 2.0 / 3.0).abs() < 1e-9, "{summary:#}");
    assert!(
        (summary.pointer("/iou_all/canonical/mean").and_then(|v| v.as_f64()).unwrap_or_default() - 0.5).abs() < 0.01
    );
    for field in ["vsr_ci95", "iou_valid", "outcomes", "engines", "declined", "pairs_per_second"] {
        assert!(!summary[field].is_null(), "{field}: {summary:#}");
    }
}

#[test]
fn the_native_engine_alone_starts_no_python_and_says_what_it_declined() {
    let place = Place::new();
    let odd = "import os\nimport cadquery as cq\nsolid = cq.Workplane().box(1, 1, float(len(os.sep)))";
    place.write("in.jsonl", &serde_json::json!({"id": 1, "code": odd}).to_string());
    let arguments = ["exec", "--input", "in.jsonl", "--output", "out.jsonl", "--engine", "native"];
    place.cadwright(arguments).succeeds();
    let out = rows(place.path("out.jsonl"));
    assert_eq!((&out[0]["outcome"], &out[0]["engine"]), (&"declined".into(), &"native".into()), "{:#}", out[0]);
}

#[test]
fn shell_and_exact_are_frames_and_an_audit_reports() {
    let place = Place::new();
    place.write("in.jsonl", &serde_json::json!({"id": 1, "ground_truth": BOX, "prediction": HALF}).to_string());
    let score = ["score", "--input", "in.jsonl", "--output", "out.jsonl", "--frames", "exact,shell"];
    place.cadwright(score).succeeds();
    let iou = &rows(place.path("out.jsonl"))[0]["iou"];
    assert!((iou["exact"].as_f64().unwrap_or_default() - 0.5).abs() < 1e-9, "{iou:#}");
    assert!(iou["shell"].as_f64().is_some_and(|iou| iou < 0.5), "{iou:#}");
    place.cadwright(["audit", "--input", "in.jsonl", "--sample", "5", "--output", "audit.json"]).succeeds();
    let audit = json(place.path("audit.json"));
    assert_eq!((&audit["pairs"], &audit["programs"]), (&1.into(), &2.into()), "{audit:#}");
}

#[test]
fn extract_takes_programs_out_of_their_fences_and_only_on_request() {
    let place = Place::new();
    let code = format!("Here it is:\n```python\n{BOX}\n```\n");
    place.write("in.jsonl", &serde_json::json!({"id": 1, "code": code}).to_string());
    for (more, outcome) in [(vec![], "syntax"), (vec!["--extract"], "solid")] {
        let arguments = [vec!["exec", "--input", "in.jsonl", "--output", "out.jsonl"], more].concat();
        place.cadwright(arguments).succeeds();
        assert_eq!(rows(place.path("out.jsonl"))[0]["outcome"], outcome);
    }
}

#[test]
fn generate_writes_the_program_of_a_picture_and_says_what_came_of_it() {
    let place = Place::new();
    let test =
        Dataset::open(&DataSource::path(smoke_run().join("data")), Split::Test, Some(1)).expect("the smoke data");
    std::fs::write(place.path("part.png"), &test.examples()[0].image).expect("a picture can be written");
    let model = smoke_run().join("sft/best").display().to_string();
    let arguments =
        ["generate", "--model-path", &model, "--image", "part.png", "--execute", "--config", &smoke_config()];
    let finished = place.cadwright(arguments).succeeds();
    let stdout = finished.stdout();
    assert!(stdout.contains("import cadquery as cq"), "{finished}");
    let outcome = stdout.lines().last().unwrap_or_default();
    assert!(outcome.starts_with("# solid, volume ") || outcome.contains(": "), "{finished}");
    // Decoding is greedy by default; samples of one picture differ.
    let greedy = place.cadwright([&arguments[..], &["--greedy"]].concat()).succeeds();
    assert_eq!(greedy.stdout(), stdout);
    let sampled = place.cadwright([&arguments[..], &["--temperature", "2", "--count", "3"]].concat()).succeeds();
    let sampled = sampled.stdout();
    let programs: Vec<&str> = sampled.split("\n# ").collect();
    assert!(programs.len() > 3 && programs[0] != programs[1], "{sampled}");
}

#[test]
fn eval_of_a_checkpoint_gives_what_the_run_gave() {
    let place = Place::new();
    let [model, data] = ["sft/best", "data"].map(|part| smoke_run().join(part).display().to_string());
    let arguments = [
        "eval",
        "--model-path",
        &model,
        "--dataset",
        &data,
        "--num-samples",
        "12",
        "--batch-size",
        "64",
        "--output-json",
        "new/p.json",
        "--summary",
        "new/s.json",
        "--config",
        &smoke_config(),
    ];
    place.cadwright(arguments).succeeds();
    let [found, expected] = [place.path("new/p.json"), smoke_run().join("eval/sft/predictions.json")].map(json);
    assert_eq!(fields(&found), fields(&expected));
    for name in fields(&expected) {
        assert_eq!(found[name], expected[name], "{name}");
    }
    let [found, expected] = [place.path("new/s.json"), smoke_run().join("eval/sft/summary.json")].map(json);
    assert_eq!((&found["iou"], &found["iou_ci95"]), (&expected["iou"], &expected["iou_ci95"]));
}

#[test]
fn score_and_eval_give_the_same_numbers_for_the_same_programs() {
    let place = Place::new();
    let directory = smoke_run().join("eval/sft");
    let (predictions, evaluated) = (json(directory.join("predictions.json")), json(directory.join("summary.json")));
    // In the order of the evaluation, on which the resamples of an interval depend.
    let names = (0..fields(&predictions).len()).map(|part| format!("sample_{part}"));
    let row = |name: String| {
        let part = &predictions[&name];
        let (truth, prediction) = (&part["ground_truth_code"], &part["predicted_code"]);
        format!("{}\n", serde_json::json!({"id": name, "ground_truth": truth, "prediction": prediction}))
    };
    let pairs: String = names.map(row).collect();
    std::fs::write(place.path("pairs.jsonl"), pairs).expect("the directory is writable");
    let engine = evaluated["engine"].as_str().expect("a name");
    let grid = evaluated["grid"].to_string();
    let files = ["--input", "pairs.jsonl", "--output", "scores.jsonl", "--summary", "summary.json"];
    let arguments = [&["score"], &files[..], &["--engine", engine, "--grid", &grid]].concat();
    place.cadwright(arguments).succeeds();
    let scored = json(place.path("summary.json"));
    for key in ["n", "vsr", "vsr_ci95", "frame", "iou", "iou_ci95", "outcomes"] {
        assert_eq!(scored[key], evaluated[key], "{key}: {scored:#}");
    }
    assert_eq!(scored["iou_all"]["canonical"]["ci95"], evaluated["iou_ci95"]);
    assert_eq!(scored["iou_valid"]["canonical"]["mean"], evaluated["iou_valid"]);
}

#[test]
fn several_samples_give_best_at_k_and_evaluations_compare() {
    let place = Place::new();
    let model = smoke_run().join("sft/best").display().to_string();
    let data = smoke_run().join("data").display().to_string();
    let common =
        ["eval", "--model-path", &model, "--dataset", &data, "--config", &smoke_config(), "--num-samples", "4"];
    let set = ["--set", "eval.engine=auto", "--set", "eval.grid=16"];
    let several = ["--samples-per-image", "3", "--temperature", "1", "--output-json", "b/predictions.json"];
    let summary = ["--summary", "b/summary.json"];
    let finished = place.cadwright([&common[..], &set, &several, &summary].concat()).succeeds();
    assert!(finished.stdout().contains("k = 3   best IoU"), "{finished}");
    let (predictions, report) = (json(place.path("b/predictions.json")), json(place.path("b/summary.json")));
    assert_eq!((fields(&predictions).len(), &report["n"]), (4, &serde_json::json!(4)));
    let part = &predictions["sample_0"];
    let samples = part["samples"].as_array().expect("a list of samples");
    assert_eq!((samples.len(), &samples[0]["predicted_code"]), (3, &part["predicted_code"]));
    assert_ne!(samples[0], samples[1]);
    assert_eq!(fields(&report["at_k"]), ["1", "2", "3"]);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    assert!((number(&report["at_k"]["1"]["best_iou"]) - number(&report["iou"])).abs() < 1e-9, "{report:#}");
    assert!(number(&report["at_k"]["3"]["best_iou"]) >= number(&report["iou"]), "{report:#}");
    let greedy = ["--samples-per-image", "3"];
    place
        .cadwright([&common[..], &greedy].concat())
        .fails_with(&["eval.samples_per_image = 3", "eval.temperature = 0"]);

    let single = ["--output-json", "a/predictions.json"];
    place.cadwright([&common[..], &set, &single].concat()).succeeds();
    let compared = place.cadwright(["compare", "a", "b", "--output-json", "c.json"]).succeeds();
    assert!(compared.stdout().starts_with("4 parts\n"), "{compared}");
    assert_eq!(fields(&json(place.path("c.json"))["differences"]), ["iou", "vsr"]);
    place.cadwright(["compare", "a", "nowhere"]).fails_with(&["nowhere", "No such file"]);
}

#[test]
fn doctor_finds_cadquery() {
    let finished = Place::new().cadwright(["doctor"]).succeeds();
    for text in ["CadQuery 2.", "backends     gloo; nccl", "ranks        1: no launcher"] {
        assert!(finished.stdout().contains(text), "expected {text:?}\n{finished}");
    }
}

#[test]
fn doctor_times_the_ranks_and_the_first_one_reports() {
    if *cuda() != Cuda::Absent {
        // Each rank needs a GPU of its own: scripts/check_gpu.
        return;
    }
    let place = Place::new();
    let launch = place.cadwright(["launch", "--processes", "2", "doctor"]);
    let finished = launch.env("CADWRIGHT_PYTHON", "/nowhere/python").fails();
    let (stdout, stderr) = (finished.stdout(), finished.stderr());
    for (text, count) in [
        ("FAULT  cadquery", 1),
        ("ok     ranks        2 (on each machine: 2); backend gloo", 1),
        ("ok     gloo         all-reduce of", 4),
        ("ok     gloo         fitted: latency", 1),
    ] {
        assert_eq!(stdout.matches(text).count(), count, "{text:?}\n{finished}");
    }
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!((errors, finished.code()), (vec!["error: 1 faults; see above"], Some(1)), "{finished}");
}

#[test]
fn doctor_says_what_to_do_about_a_missing_cadquery() {
    let finished = Place::new().cadwright(["doctor"]).env("CADWRIGHT_PYTHON", "/nowhere/python").fails();
    assert!(finished.stdout().contains("FAULT  cadquery"), "{finished}");
    assert!(finished.stdout().contains("scripts/setup"), "{finished}");
}
