//! Both engines on a small fixed sample of random programs; `scripts/fuzz` takes thousands.

use crate::common::config;
use cadwright_rewards::Frame;
use cadwright_rollout::audit::{ALL, FuzzOptions, Progress, Style, fuzz};
use cadwright_rollout::{Engine, ScorerConfig};
use serde_json::Value;

#[test]
fn the_engines_agree_about_a_fixed_sample() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("report.json");
    let options = FuzzOptions {
        programs: 60,
        pairs: 12,
        styles: Style::ALL.to_vec(),
        seed: 5,
        reduced: 0,
        output: Some(output.clone()),
        scorer: ScorerConfig { grid: 96, timeout_s: 20.0, memory_mib: 2048, ..config(2) },
    };
    let (mut programs, mut pairs) = (0, 0);
    let report = fuzz(&options, &mut |progress| match progress {
        Progress::Programs(n) => programs = n,
        Progress::Pairs(n) => pairs = n,
        Progress::Disagreement(_) | Progress::Pair(_) => {}
    })
    .unwrap();
    assert_eq!((programs, pairs), (60, 12));
    let all = &report.styles[ALL];
    assert_eq!((all.programs, all.pairs), (60, 12));
    assert_eq!(report.disagreements, [], "{report}");
    // Enough is compared: a sample without any certified program would agree too.
    assert!(all.certified >= 30 && all.volume_error.n >= 15, "{report}");
    for engine in [Engine::Native, Engine::Cadquery] {
        for frame in [Frame::Canonical, Frame::Normalised, Frame::Aligned] {
            let errors = &all.iou_error[&engine][&frame];
            assert!(errors.n >= 4 && errors.beyond == 0, "{engine} {frame}: {report}");
        }
    }
    let written: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(written["styles"]["all"]["programs"], 60);
}
