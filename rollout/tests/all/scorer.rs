//! Verdicts, scores, order and caches of a scorer, on well-behaved programs.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use crate::common::{CUBE, config, execute, expect, expect_cube, scorer};
use cadwright_rewards::OutcomeClass::{Crash, Empty, Exception, NoSolid, Syntax};
use cadwright_rewards::{Frame, Geometry, Mesh, Solid};
use cadwright_rollout::{Engine, Error, GroundTruth, Score, ScoreRequest, Scorer, ScorerConfig, Shape, Verdict};

fn solid(program: &str) -> Arc<Solid> {
    let execution = execute(program);
    let Some(solid) = execution.answer.solid() else {
        panic!("{:?}\n{program}", execution.answer.error());
    };
    Arc::clone(solid)
}

fn request(prediction: &str, ground_truth: &str) -> ScoreRequest {
    ScoreRequest { prediction: prediction.to_owned(), ground_truth: ground_truth.into(), truncated: false }
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} for {expected}");
}

#[test]
fn mass_properties_are_those_of_the_closed_form() {
    let block = solid("solid = cq.Workplane().box(1, 2, 3).translate((10, 20, 30))");
    close(block.mass().volume, 6.0);
    // V (b^2 + c^2) / 12 and so on.
    let expected = [[6.5, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 2.5]];
    for axis in 0..3 {
        close(block.mass().centroid[axis], [10.0, 20.0, 30.0][axis]);
        for other in 0..3 {
            close(block.mass().inertia[axis][other], expected[axis][other]);
        }
    }
    assert_eq!((block.solids(), block.malformed), (Some(1), false));
    let bounds = block.mass().bounds;
    for (found, expected) in bounds.min.into_iter().zip([9.5, 19.0, 28.5]) {
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }
}

fn mesh(solid: &Solid) -> &Mesh {
    match &solid.geometry {
        Geometry::Mesh(mesh) => mesh,
        Geometry::Csg(_) => panic!("a worker returns a mesh"),
    }
}

/// Volume of a mesh by the divergence theorem.
fn mesh_volume(solid: &Solid) -> f64 {
    let mesh = mesh(solid);
    let corner = |index: u32| mesh.vertices[index as usize];
    let tetrahedra = mesh.triangles.iter().map(|&[a, b, c]| {
        let ([ax, ay, az], [bx, by, bz], [cx, cy, cz]) = (corner(a), corner(b), corner(c));
        (ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)) / 6.0
    });
    tetrahedra.sum()
}

#[test]
fn meshes_are_outward_closed_and_close_to_the_surface() {
    for program in [
        CUBE,
        "solid = cq.Workplane().sphere(2)",
        "solid = cq.Workplane().circle(1).extrude(5)",
        "solid = cq.Workplane().circle(1).circle(0.5).extrude(-5)",
        "solid = cq.Workplane().box(4, 4, 1).faces('>Z').workplane().hole(1).mirror('XZ')",
        "solid = cq.Workplane().box(1, 1, 1).moveTo(5, 0).box(2, 2, 2, combine=False).rotate((0, 0, 0), (1, 1, 1), 40)",
    ] {
        let solid = solid(program);
        let share = mesh_volume(&solid) / solid.mass().volume;
        assert!((share - 1.0).abs() < 0.008, "{share}: {program}");
    }
}

#[test]
fn faces_are_numbered() {
    let solid = solid("solid = cq.Workplane().circle(1).extrude(1)");
    let mesh = mesh(&solid);
    let mut faces = mesh.faces.clone();
    faces.dedup();
    assert_eq!(faces, [0, 1, 2], "side, bottom and top, each in one run");
}

#[test]
fn the_object_that_counts() {
    let box_of = |name: &str, size: &str| format!("{name} = cq.Workplane().box({size}, 1, 1)\n");
    for (program, volume) in [
        (box_of("anything", "4"), 4.0),
        (box_of("first", "4") + &box_of("second", "5"), 4.0),
        (box_of("res", "4") + &box_of("part", "5"), 5.0),
        (box_of("result", "4") + &box_of("solid", "5"), 5.0),
        (box_of("solid", "4") + &box_of("result", "5"), 4.0),
        (box_of("result", "4") + "solid = None\n", 4.0),
        ("r = cq.Workplane().box(4, 1, 1).val()".to_owned(), 4.0),
        ("r = cq.Workplane().pushPoints([(0, 0), (9, 0)]).box(4, 1, 1)".to_owned(), 8.0),
        ("import cadquery\nr = cadquery.Workplane().box(float(np.sqrt(16)), 1, 1)".to_owned(), 4.0),
        ("def f():\n  return g()\ndef g():\n  return 4\nr = cq.Workplane().box(f(), 1, 1)".to_owned(), 4.0),
    ] {
        close(solid(&program).mass().volume, volume);
    }
}

#[test]
fn a_wholly_indented_program_counts_and_a_partly_indented_one_does_not() {
    expect_cube(&format!("\n    # a cube\n    {CUBE}\n"));
    let error = expect(Syntax, &format!("a = 1\n    {CUBE}\n"));
    assert!(error.starts_with("IndentationError"), "{error}");
}

#[test]
fn failures_have_a_class_and_a_line_that_explains_them() {
    let cut = "a = cq.Workplane().box(1, 1, 1)\nsolid = a.cut(cq.Workplane().box(2, 2, 2))";
    for (class, program, expected) in [
        (Syntax, "solid = = 1", "SyntaxError: invalid syntax"),
        (Syntax, "```python\nx = 1\n```", "SyntaxError"),
        (Syntax, "x = '\0'", "null bytes"),
        (Exception, "solid = cq.Workplane().extrude(1)", "ValueError: No pending wires present"),
        (Exception, "eval('1 +')", "SyntaxError"),
        (Exception, "solid = undefined", "NameError: name 'undefined' is not defined"),
        (NoSolid, "", "no Workplane, Solid or Compound"),
        (NoSolid, "import cadquery as cq\nsolid = 5", "no Workplane, Solid or Compound"),
        (NoSolid, "w = cq.Workplane()", "'w' holds a Vector, not a solid"),
        (NoSolid, "w = cq.Workplane().circle(1)", "'w' holds a Wire, not a solid"),
        (NoSolid, "w = cq.Workplane().rect(1, 1).extrude(1).faces('>Z')", "'w' holds a Face"),
        (Empty, cut, "'solid' is empty"),
    ] {
        let error = expect(class, program);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_solid_without_volume_is_valid_and_an_invalid_one_is_malformed() {
    let flat = solid("solid = cq.Workplane().moveTo(0, 0).lineTo(1, 0).lineTo(0, 0).close().extrude(1)");
    assert!(flat.mass().volume.abs() < 1e-12);
    let bow_tie = "moveTo(0, 0).lineTo(1, 1).lineTo(1, 0).lineTo(0, 2).close().extrude(1)";
    assert!(solid(&format!("solid = cq.Workplane().{bow_tie}")).malformed);
}

#[test]
fn a_score_compares_two_solids() {
    let half = "solid = cq.Workplane().box(1, 1, 0.5).translate((0, 0, 0.25))";
    let score = scorer().score(&request(half, CUBE)).unwrap();
    assert!((score.iou_in(Frame::Canonical) - 0.5).abs() < 0.01);
    assert_eq!(score.reward, 0.1 + score.iou_in(Frame::Canonical));
    assert_eq!((score.engine, score.malformed, score.error), (Engine::Cadquery, false, None));
    assert!((score.solid.unwrap().mass().volume - 0.5).abs() < 1e-9);
}

#[test]
fn a_failed_prediction_has_iou_zero_and_a_failed_ground_truth_none() {
    let score = scorer().score(&request("x = 1", CUBE)).unwrap();
    assert_eq!((score.iou[&Frame::Canonical], score.reward), (Some(0.0), 0.0));
    let score = scorer().score(&request(CUBE, "x = 1")).unwrap();
    assert_eq!((score.iou[&Frame::Canonical], score.reward), (None, 0.1));
    let error = score.ground_truth_error.unwrap();
    assert!(error.starts_with("no_solid: the program defines no"), "{error}");
}

/// A score without its time.
fn timeless(mut scores: Vec<Score>) -> Vec<Score> {
    scores.iter_mut().for_each(|score| score.micros = 0);
    scores
}

#[test]
fn scores_come_by_index_and_do_not_depend_on_the_number_of_jobs() {
    let requests: Vec<ScoreRequest> = (0..24)
        .map(|index| match index % 4 {
            0 => request("raise ValueError('no')", CUBE),
            1 => request(&format!("import time\ntime.sleep(0.1)\n{CUBE}"), CUBE),
            _ => {
                let height = 0.1 * f64::from(index + 1);
                let circle = format!("solid = cq.Workplane().circle(0.5).extrude({height})");
                request(&circle, "solid = cq.Workplane().circle(0.4).extrude(1)")
            }
        })
        .collect();
    let all = |jobs| {
        let scorer = Scorer::new(config(jobs)).unwrap();
        let mut batch = scorer.batch();
        for (index, request) in requests.iter().enumerate().rev() {
            batch.submit(index, request.clone());
        }
        timeless(batch.finish().unwrap())
    };
    let (one, four) = (all(1), all(4));
    assert_eq!(one, four);
    for (index, score) in one.iter().enumerate() {
        assert_eq!(score.verdict.class() == Some(Exception), index % 4 == 0, "{index}");
    }
}

#[test]
fn a_batch_can_be_empty_and_abandoned() {
    assert!(scorer().batch().finish().unwrap().is_empty());
    let mut batch = scorer().batch();
    batch.submit(0, request(CUBE, CUBE));
    assert_eq!((batch.len(), batch.is_empty()), (1, false));
}

#[test]
fn ground_truths_are_executed_once_and_kept_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    // Another height each time that it is executed.
    let ground_truth = "import os\nh = 2 + os.urandom(1)[0]\nsolid = cq.Workplane().box(1, 1, h)";
    let mut heights = Vec::new();
    let cache_dir = Some(directory.path().join("cache"));
    for round in 0..2 {
        let scorer = Scorer::new(ScorerConfig { cache_dir: cache_dir.clone(), ..config(2) }).unwrap();
        scorer.prefetch([ground_truth.into()]);
        let mut batch = scorer.batch();
        for index in 0..6 {
            batch.submit(index, request(&format!("# {round} {index}\n{CUBE}"), ground_truth));
        }
        heights.extend(batch.finish().unwrap().iter().map(|score| score.iou_in(Frame::Canonical)));
    }
    assert!(heights[0] > 0.0 && heights.iter().all(|height| *height == heights[0]), "{heights:?}");
}

#[test]
fn submitting_does_not_wait() {
    scorer().ready().unwrap();
    let start = Instant::now();
    let mut batch = scorer().batch();
    for index in 0..8 {
        batch.submit(index, request(&format!("# {index}\nimport time\ntime.sleep(0.1)\n{CUBE}"), CUBE));
    }
    assert!(start.elapsed().as_secs_f64() < 0.09, "{:?}", start.elapsed());
    assert_eq!(batch.finish().unwrap().len(), 8);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let scorer = |change: fn(&mut ScorerConfig)| {
        let mut config = config(1);
        change(&mut config);
        match Scorer::new(config) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    };
    assert!(scorer(|c| c.timeout_s = -1.0).starts_with("timeout_s: expected 0.01 to 86400"));
    assert!(scorer(|c| c.grid = 1).starts_with("grid: expected 4 to 512 cells, got 1"));
    assert!(scorer(|c| c.memory_mib = 1).starts_with("memory_mib"));
    assert!(scorer(|c| c.frames.clear()).contains("canonical, normalised, aligned"));
    assert!(scorer(|c| c.reward.penalty_crash = -1.0).contains("penalty_crash = -1"));
    assert!(scorer(|c| c.cache_dir = Some("/proc/cache".into())).contains("/proc/cache: cannot"));
}

#[test]
fn a_python_without_cadquery_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let venv = directory.path().join("python");
    // The interpreter of the virtual environment finds no site packages if it is called by a name
    // outside of it.
    let real = fs::canonicalize(cadwright_rollout::python::find(None).unwrap()).unwrap();
    std::os::unix::fs::symlink(real, &venv).unwrap();
    let scorer = Scorer::new(ScorerConfig { python: Some(venv.clone()), ..config(1) }).unwrap();
    let error = scorer.ready().unwrap_err();
    assert!(matches!(error, Error::NoCadquery { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("scripts/setup") && text.contains(venv.to_str().unwrap()), "{text}");
    let result = scorer.execute(CUBE);
    assert!(matches!(result, Err(Error::NoCadquery { .. })));
}

#[test]
fn a_python_that_is_none_is_one_clear_error() {
    let scorer = Scorer::new(ScorerConfig { python: Some("/bin/false".into()), ..config(1) }).unwrap();
    let text = scorer.ready().unwrap_err().to_string();
    assert!(text.starts_with("/bin/false: the CadQuery server failed"), "{text}");
}

#[test]
fn the_worker_says_what_it_is() {
    let info = scorer().ready().unwrap();
    assert!(info.cadquery.starts_with('2'), "{info:?}");
    assert!(info.python.starts_with('3'), "{info:?}");
    expect(Crash, "import os\nos._exit(1)");
}

#[test]
fn a_ground_truth_is_executed_once_and_a_faulty_one_says_why() {
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Native, ..config(1) }).unwrap();
    let answer = |truth: GroundTruth| scorer.ground_truth(&truth).unwrap();
    let cube = answer(CUBE.into());
    close(cube.solid().unwrap().mass().volume, 1.0);
    assert!(Arc::ptr_eq(cube.solid().unwrap(), answer(CUBE.into()).solid().unwrap()));
    let failed = answer("solid = cq.Workplane().extrude(1)".into());
    assert_eq!(failed.verdict(), Verdict::Known(Exception));
    let nothing = GroundTruth::Shape(Arc::new(Shape::new(b"glTF".to_vec())));
    assert!(answer(nothing).error().unwrap().contains("neither STL nor STEP"));
    let step = GroundTruth::Shape(Arc::new(Shape::new(b"ISO-10303-21;".to_vec())));
    assert_eq!(answer(step).verdict(), Verdict::Declined);
}

/// Takes a little more than `kib` KiB of stack.
fn descend(kib: usize) -> usize {
    let room = std::hint::black_box([1_u8; 1024]);
    if kib == 0 { 0 } else { usize::from(room[kib % 1024]) + descend(kib - 1) }
}

#[test]
fn installed_work_has_the_stack_of_a_scoring_thread() {
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Native, ..config(1) }).unwrap();
    // More than the 2 MiB that threads usually have.
    let (depth, thread) = scorer.install(|| (descend(4096), std::thread::current().name().map(str::to_owned)));
    assert_eq!(depth, 4096);
    assert!(thread.as_ref().is_some_and(|name| name.starts_with("score-")), "{thread:?}");
    let panics = std::panic::AssertUnwindSafe(|| scorer.install(|| panic!("a fault of the work")));
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(scorer.install(|| 1), 1);
}
