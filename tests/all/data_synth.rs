//! Synthetic parts: CadQuery builds the same solids, and the seed determines every file.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cadwright::data::synth::{Numbers, SynthConfig, SynthError, draw_parts, generate};
use cadwright::data::{DataSource, Dataset, Split};

use crate::harness::python;

fn config(count: usize, output: &Path) -> SynthConfig {
    SynthConfig {
        count,
        seed: 11,
        output: output.to_owned(),
        image_size: 64,
        validation_count: Some(5),
        test_count: Some(7),
        ..SynthConfig::default()
    }
}

/// Executes each line of standard input, a program as a JSON string; prints volume, number of
/// solids and validity.
const EXECUTE: &str = r#"
import json, sys
import cadquery as cq
for line in sys.stdin:
    names = {"cq": cq}
    exec(json.loads(line), names)
    value = names["solid"].val()
    print(json.dumps([value.Volume(), len(value.Solids()), value.isValid()]), flush=True)
"#;

#[test]
fn real_cadquery_builds_the_same_solids() {
    let mut parts = Vec::new();
    for (count, numbers) in [(30, Numbers::Short), (12, Numbers::Full)] {
        parts.extend(draw_parts(&SynthConfig { numbers, ..config(count, Path::new("unused")) }).unwrap());
    }
    let mut child = Command::new(python())
        .args(["-c", EXECUTE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup or set CADWRIGHT_PYTHON", python().display()));
    let lines: String = parts.iter().map(|part| serde_json::to_string(&part.program).unwrap() + "\n").collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let results: Vec<(f64, usize, bool)> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), parts.len(), "a program failed in CadQuery");
    for (part, (volume, solids, is_valid)) in parts.iter().zip(results) {
        let ours = part.solid.volume();
        assert!(volume > 0.0 && solids == 1 && is_valid, "{}: {volume} {solids} {is_valid}\n{}", part.id, part.program);
        assert!((volume - ours).abs() < 0.01 * volume, "{}: {volume} here {ours}\n{}", part.id, part.program);
    }
}

#[test]
fn one_seed_gives_the_same_files_with_one_thread_and_with_four() {
    let directory = tempfile::tempdir().unwrap();
    let outputs = [1, 4].map(|jobs| {
        let output = directory.path().join(jobs.to_string());
        generate(&SynthConfig { jobs, ..config(60, &output) }).unwrap();
        output
    });
    for name in ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "parts.jsonl"] {
        let [a, b] = outputs.each_ref().map(|output| std::fs::read(output.join(name)).unwrap());
        assert!(a == b, "{name}");
    }
}

#[test]
fn splits_share_no_program_and_grow_with_the_count() {
    let directory = tempfile::tempdir().unwrap();
    let read = |output: &Path, split| {
        let dataset = Dataset::open(&DataSource::path(output.to_owned()), split, None).unwrap();
        assert!(dataset.skipped.is_empty());
        dataset.examples().iter().map(|example| example.program.clone().unwrap()).collect::<Vec<_>>()
    };
    let (small, large) = (directory.path().join("small"), directory.path().join("large"));
    let summary = generate(&config(80, &small)).unwrap();
    generate(&config(120, &large)).unwrap();
    let programs: Vec<String> = Split::ALL.into_iter().flat_map(|split| read(&small, split)).collect();
    assert_eq!(programs.len(), 80);
    assert_eq!(programs.iter().collect::<HashSet<_>>().len(), 80);
    assert_eq!(summary.splits["train"], 68);
    assert_eq!(summary.families.values().sum::<usize>(), 80);
    assert_eq!(summary.operations.values().sum::<usize>(), 80);
    for split in [Split::Test, Split::Validation] {
        assert_eq!(read(&small, split), read(&large, split), "{split}");
    }
}

#[test]
fn programs_have_the_data_sets_statement_forms() {
    let parts = draw_parts(&config(200, Path::new("unused"))).unwrap();
    for part in &parts {
        let lines: Vec<&str> = part.program.lines().collect();
        assert_eq!(lines[..2], ["import cadquery as cq", "# Generating a workplane for sketch 0"]);
        assert!(part.program.ends_with('\n') && !part.program.ends_with("\n\n"));
        assert!(lines.contains(&"solid=solid0"));
        assert!(lines.last().unwrap().starts_with("solid=solid"));
        for line in &lines[1..] {
            let known = ["# Generating a workplane", "wp_sketch", "loop", "solid"];
            assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
        }
        // Multiples of 1/32, none longer than five decimals.
        for word in part.program.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')) {
            if let Ok(number) = word.parse::<f64>() {
                assert_eq!((number * 32.0).fract(), 0.0, "{word} in\n{}", part.program);
            }
        }
    }
    for call in
        [".threePointArc((", ".circle(", "both=True", "extrude(-", "solid.cut(", "solid.union(", "solid.intersect("]
    {
        assert!(parts.iter().any(|part| part.program.contains(call)), "{call}");
    }
}

#[test]
fn impossible_wishes_are_refused_before_any_work() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |config: SynthConfig| match generate(&config) {
        Err(SynthError::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let usual = config(40, &directory.path().join("new"));
    assert_eq!(refused(SynthConfig { grid: 33, ..usual.clone() }), "grid");
    assert_eq!(refused(SynthConfig { image_size: 0, ..usual.clone() }), "image_size");
    assert_eq!(refused(SynthConfig { test_count: Some(50), ..usual.clone() }), "count");
    generate(&usual).unwrap();
    let error = generate(&usual).unwrap_err().to_string();
    assert!(error.contains("already holds test-00000-of-00001.parquet"), "{error}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = generate(&SynthConfig { output: file.join("below"), ..usual }).unwrap_err().to_string();
    assert!(error.contains("writable"), "{error}");
    let left: Vec<_> = std::fs::read_dir(directory.path().join("new")).unwrap().collect();
    assert_eq!(left.len(), 4, "three splits and parts.jsonl, nothing half-written");
}
