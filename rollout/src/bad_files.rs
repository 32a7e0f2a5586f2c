//! Damaged replies, cache files, rows and summaries: an outcome or an error, never a panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cadwright_rewards::samples::{block_mass, block_mesh};
use cadwright_rewards::{Failure, Frame, MassProperties, Mesh, Outcome, OutcomeClass, Solid, frame_iou, read_stl};
use serde_json::json;

use crate::cache::{Cache, encoded, read};
use crate::chosen::{ChosenReport, ChosenRow};
use crate::config::ScorerConfig;
use crate::damage::read_bad_files;
use crate::error::Error;
use crate::jsonl::{ExecIn, ScoreIn, check_rows};
use crate::summary::{MeanCi, Report, ReportBuilder};
use crate::wire::{decode, decode_files, decode_ious, encode};

fn block() -> Outcome {
    let mesh = block_mesh([0.0; 3], [2.0, 3.0, 4.0]);
    let mass = block_mass([0.0; 3], [2.0, 3.0, 4.0]);
    Outcome::Solid(Arc::new(Solid::meshed(mass, mesh, 1, false)))
}

fn replies() -> Vec<Vec<u8>> {
    let failure = Failure { class: OutcomeClass::Exception, error: "ValueError: é".to_owned() };
    let nothing = Solid::meshed(MassProperties::NOTHING, Mesh::default(), 0, true);
    [block(), Outcome::Solid(Arc::new(nothing)), Outcome::Failure(failure)].iter().filter_map(encode).collect()
}

/// What was decoded can be kept, and compared in grids. (The shell of a part whose moments do not fit
/// its mesh has a limited number of triangles, but they take seconds.)
fn check_usable(outcome: &Outcome) {
    assert_eq!(decode(&encode(outcome).unwrap()).as_ref(), Ok(outcome));
    let (Some(solid), Outcome::Solid(truth)) = (outcome.solid(), block()) else { return };
    for frame in [Frame::Canonical, Frame::Normalised, Frame::Aligned] {
        for iou in [frame_iou(frame, 8, solid, &truth), frame_iou(frame, 8, &truth, solid)] {
            assert!((0.0..=1.0).contains(&iou), "{frame}: {iou}");
        }
    }
}

#[test]
fn damaged_replies_have_an_outcome_or_are_refused() {
    read_bad_files("replies", 300, replies(), |bytes| {
        if let Ok(outcome) = decode(bytes) {
            check_usable(&outcome);
        }
        for n in [0, 1, 3] {
            assert_eq!(decode_ious(bytes, n).len(), n);
        }
    });
}

#[test]
fn damaged_replies_with_files_are_refused() {
    let step = b"ISO-10303-21;\nDATA;\nEND-ISO-10303-21;\n";
    let reply = [&[0], &(step.len() as u32).to_le_bytes()[..], step, &replies()[0]].concat();
    read_bad_files("replies_with_files", 1000, vec![reply], |bytes| {
        if let Ok(Ok(exported)) = decode_files(bytes) {
            assert!(exported.step.len() <= bytes.len());
            let _ = read_stl(&exported.stl);
        }
    });
}

#[test]
fn a_damaged_cache_file_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("outcome");
    let files = replies().iter().map(|reply| encoded(reply)).collect::<Vec<_>>();
    read_bad_files("cache", 800, files.clone(), |bytes| {
        fs::write(&path, bytes).unwrap();
        assert!(read(&path).is_none() || files.iter().any(|file| file == bytes), "a damaged file is believed");
        // With a checksum that fits, as a program without a sandbox might write it.
        fs::write(&path, encoded(bytes)).unwrap();
        if let Some(outcome) = read(&path) {
            check_usable(&outcome);
        }
    });
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(read(&path), None);
    assert!(Cache::open(Some(Path::new("/dev/null/cache"))).is_err());
}

#[test]
fn a_damaged_row_is_named_by_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.jsonl");
    let rows = [
        json!({"id": "a", "code": "x = 1", "other": [1, {"b": null}]}),
        json!({"id": 7, "ground_truth": "x = 1", "prediction": "y = 2"}),
        json!({"id": 1.5, "ground_truth_mesh": "rows.jsonl", "prediction": "y = 2"}),
    ];
    let file = rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let files = rows.map(|row| row.to_string().into_bytes()).into_iter().chain([file.into_bytes()]);
    read_bad_files("rows", 1000, files.collect(), |bytes| {
        fs::write(&path, bytes).unwrap();
        for result in [check_rows::<ExecIn>(&path), check_rows::<ScoreIn>(&path)] {
            if let Err(error) = result {
                assert!(matches!(error, Error::Row { .. }), "{error}");
                assert!(error.to_string().len() < 2000, "{} characters", error.to_string().len());
            }
        }
    });
}

/// A summary with everything in it that a summary can have.
fn summary() -> Report {
    let one = MeanCi { mean: 0.5, ci95: [0.25, 0.75] };
    let iou = BTreeMap::from([(Frame::Canonical, one)]);
    let row = ChosenRow { by: "image".to_owned(), k: 4, vsr: one, iou, programs: 2.0, tokens: 80.0 };
    let chosen = ChosenReport { by: "image".to_owned(), table: vec![row], seconds: BTreeMap::new() };
    Report { chosen: Some(chosen), ..ReportBuilder::new(&ScorerConfig::default(), 4, &[]).finish(1.0) }
}

#[test]
fn a_damaged_summary_is_refused_or_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("summary.json");
    let sample = serde_json::to_vec_pretty(&summary().score_summary()).unwrap();
    read_bad_files("summaries", 600, vec![sample], |bytes| {
        fs::write(&path, bytes).unwrap();
        let Ok(report) = Report::read(&path) else { return };
        let _ = (report.quoted(), report.iou_valid(), report.pairs_per_second());
        if let Some(chosen) = &report.chosen {
            chosen.markdown();
        }
        serde_json::to_string(&report.score_summary()).unwrap();
    });
}
