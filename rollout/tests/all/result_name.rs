//! `ScorerConfig::result_name`: which variable of a program is its result, in both engines.

use cadwright_rollout::{Engine, GroundTruth, Scorer, ScorerConfig};

use crate::common::config;

/// Cubes of volume 1, 8 and 27: programs, and the volume by the published rule and if `r` is named.
const PROGRAMS: [(&str, f64, f64); 6] = [
    // CAD-Recode's style: `w0` is the first shape, and `r` the part.
    ("w0 = cq.Workplane().box(1, 1, 1)\nr = cq.Workplane().box(2, 2, 2)", 1.0, 8.0),
    ("r = cq.Workplane().box(2, 2, 2)\nsolid = cq.Workplane().box(3, 3, 3)", 27.0, 8.0),
    // A radius is no shape, so the published rule decides.
    ("r = 0.5\nw0 = cq.Workplane().box(1, 1, 1)\nsolid = cq.Workplane().box(3, 3, 3)", 27.0, 27.0),
    ("w0 = cq.Workplane().box(1, 1, 1)", 1.0, 1.0),
    ("w0 = cq.Workplane().box(1, 1, 1)\nr = cq.Workplane().box(2, 2, 2).val()", 1.0, 8.0),
    // Not tame: it runs in a process of its own.
    (
        "def cube(a):\n    return cq.Workplane().box(a, a, a)\nw0 = cube(1)\nr = [cube(2)][0]\nsolid = cube(3)",
        27.0,
        8.0,
    ),
];

#[test]
fn both_engines_take_the_named_variable_before_the_published_ones() {
    let mut native = 0;
    for result_name in [None, Some("r".to_owned())] {
        for engine in [Engine::Native, Engine::Cadquery] {
            let scorer = Scorer::new(ScorerConfig { engine, result_name: result_name.clone(), ..config(1) }).unwrap();
            for (program, published, named) in PROGRAMS {
                let expected = if result_name.is_some() { named } else { published };
                let answer = scorer.execute(program).unwrap().answer;
                if engine == Engine::Native && answer.declined.is_some() {
                    continue;
                }
                native += usize::from(engine == Engine::Native);
                let volume = answer.solid().unwrap_or_else(|| panic!("{:?}\n{program}", answer.error())).mass().volume;
                assert!((volume - expected).abs() < 1e-9, "{engine:?} {result_name:?}: {volume}\n{program}");
            }
        }
    }
    assert!(native >= 8, "the native engine answered only {native} times");
}

#[test]
fn the_cache_of_ground_truths_tells_variables_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (program, published, named) = PROGRAMS[0];
    for (result_name, expected) in [(None, published), (Some("r"), named), (None, published)] {
        let scorer = Scorer::new(ScorerConfig {
            result_name: result_name.map(str::to_owned),
            cache_dir: Some(directory.path().to_owned()),
            ..config(1)
        });
        let truth = scorer.unwrap().ground_truth(&GroundTruth::Program(program.into())).unwrap();
        assert!((truth.solid().unwrap().mass().volume - expected).abs() < 1e-9, "{result_name:?}");
    }
}

#[test]
fn a_name_that_no_variable_can_have_is_refused() {
    for name in ["", "a b", "1r", "r;x"] {
        let error = ScorerConfig { result_name: Some(name.to_owned()), ..config(1) }.check().unwrap_err();
        assert!(error.to_string().contains("result_name"), "{error}");
    }
}
