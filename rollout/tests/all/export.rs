//! The solid of a program as STEP and STL files.

use std::fs;
use std::sync::Arc;

use cadwright_rewards::OutcomeClass::{Crash, Empty, Exception, Memory, NoSolid, Syntax, Timeout};
use cadwright_rewards::{Failure, OutcomeClass, Solid, read_stl};
use cadwright_rollout::{Engine, Exported, GroundTruth, Scorer, ScorerConfig, Shape, ShapeFormat};

use crate::common::{CUBE, config, expect_cube, scorer};

/// A plate with a hole, off centre.
const FLANGE: &str = "solid = cq.Workplane().circle(30).extrude(5).faces('>Z').workplane()\
                      .circle(12).cutThruAll().translate((3, 2, 1))";

fn export(program: &str) -> Result<Exported, Failure> {
    scorer().export(program).expect("workers")
}

/// Exports `program` and expects `class`; returns the error.
fn expect_failure(class: OutcomeClass, program: &str) -> String {
    let failure = export(program).expect_err(program);
    assert_eq!(failure.class, class, "{}\n{program}", failure.error);
    failure.error
}

/// The solid in a STEP file, by the workers that read ground truths.
fn read_step(file: &[u8]) -> Arc<Solid> {
    let shape = Shape::new(file.to_vec());
    assert_eq!(shape.format(), ShapeFormat::Step);
    let answer = scorer().ground_truth(&GroundTruth::Shape(Arc::new(shape))).expect("workers");
    Arc::clone(answer.solid().unwrap_or_else(|| panic!("{:?}", answer.error())))
}

fn assert_bounds(solid: &Solid, min: [f64; 3], max: [f64; 3], tolerance: f64) {
    let bounds = &solid.mass().bounds;
    for axis in 0..3 {
        let errors = [bounds.min[axis] - min[axis], bounds.max[axis] - max[axis]];
        assert!(errors.iter().all(|error| error.abs() <= tolerance), "{bounds:?}, not {min:?} to {max:?}");
    }
}

fn expect_exported_cube(program: &str) {
    let exported = export(program).unwrap_or_else(|failure| panic!("{failure:?}\n{program}"));
    for solid in [&read_step(&exported.step), &Arc::new(read_stl(&exported.stl).unwrap())] {
        assert!((solid.mass().volume - 1.0).abs() < 1e-6, "{}\n{program}", solid.mass().volume);
        assert_bounds(solid, [-0.5; 3], [0.5; 3], 1e-6);
    }
}

#[test]
fn both_files_hold_the_solid() {
    let exported = export(FLANGE).unwrap();
    let solid = read_step(&exported.step);
    // pi (30^2 - 12^2) 5.
    let volume = 3780.0 * std::f64::consts::PI;
    let (min, max) = ([-27.0, -28.0, 1.0], [33.0, 32.0, 6.0]);
    assert!((solid.mass().volume / volume - 1.0).abs() < 1e-6, "{}", solid.mass().volume);
    assert_bounds(&solid, min, max, 1e-6);
    assert_eq!((solid.solids(), solid.malformed), (Some(1), false));
    let mesh = read_stl(&exported.stl).unwrap();
    // The worker compares the volume of its triangles with that of the solid: 2e-3.
    assert!((mesh.mass().volume / volume - 1.0).abs() < 2.1e-3, "{}", mesh.mass().volume);
    // A chord turns by 0.2 at most: it is 30 (1 - cos 0.1) = 0.15 below the circle.
    assert_bounds(&mesh, min, max, 0.16);
    assert_eq!((mesh.solids(), mesh.malformed), (Some(1), false));
}

#[test]
fn the_solid_that_counts_is_exported_and_all_of_its_bodies() {
    let program = "other = cq.Workplane().box(9, 9, 9)\n\
                   result = cq.Workplane().box(1, 2, 3).union(cq.Workplane().box(1, 1, 1).translate((5, 0, 0)))";
    let exported = export(program).unwrap();
    for solid in [&read_step(&exported.step), &Arc::new(read_stl(&exported.stl).unwrap())] {
        assert!((solid.mass().volume - 7.0).abs() < 1e-6, "{}", solid.mass().volume);
        assert_bounds(solid, [-0.5, -1.0, -1.5], [5.5, 1.0, 1.5], 1e-6);
        assert_eq!(solid.solids(), Some(2));
    }
}

#[test]
fn every_engine_exports_by_cadquery() {
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Native, ..config(1) }).unwrap();
    let exported = scorer.export(CUBE).unwrap().unwrap();
    assert_eq!(Shape::new(exported.step).format(), ShapeFormat::Step);
}

#[test]
fn a_program_without_a_solid_has_its_failure() {
    for (class, program, expected) in [
        (Syntax, "solid = (", "SyntaxError"),
        (Exception, "solid = cq.Workplane().extrude(1)", "ValueError"),
        (NoSolid, "x = 1", "no Workplane"),
        (Empty, "solid = cq.Workplane().box(1, 1, 1).cut(cq.Workplane().box(2, 2, 2))", "empty"),
        (Memory, "x = bytearray(3 << 30)", ""),
        (Crash, "import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    ] {
        let error = expect_failure(class, program);
        assert!(error.contains(expected), "{error}\n{program}");
    }
}

#[test]
fn a_hanging_program_ends_at_the_deadline() {
    let error = expect_failure(Timeout, "import time\nend = time.time() + 20\nwhile time.time() < end: pass");
    assert!(error.contains("still running"), "{error}");
}

#[test]
fn files_that_a_program_forges_are_neither_taken_nor_followed() {
    let directory = tempfile::tempdir().unwrap();
    let canary = directory.path().join("canary");
    fs::write(&canary, "untouched").unwrap();
    // Names that a writer might use: links to the canary in one run, another solid in the other.
    let names = "[n + e for n in ('shape', 'solid', 'part', 'export', 'program') for e in ('.step', '.stl', '.stp')]";
    expect_exported_cube(&format!("import os\nfor n in {names}: os.symlink({canary:?}, n)\n{CUBE}"));
    assert_eq!(fs::read(&canary).unwrap(), b"untouched");
    expect_exported_cube(&format!(
        "import os\ncq.exporters.export(cq.Workplane().box(2, 2, 2), 'forged.step')\n\
         for n in {names}:\n  os.link('forged.step', n)\n{CUBE}"
    ));
}

#[test]
fn a_program_that_empties_its_directory_is_exported() {
    expect_exported_cube(&format!("import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\n{CUBE}"));
}

#[test]
fn a_program_does_not_decide_the_unit() {
    expect_exported_cube(&format!("{CUBE}\nsolid.val().exportStep('metres.step', unit='M')"));
}

#[test]
fn one_export_leaves_nothing_to_the_next_program() {
    expect_exported_cube(&format!("{CUBE}\ncq.Workplane.box = None"));
    // Runs in the process that tame programs share.
    expect_cube(CUBE);
}

/// Rebinds the function that packs the geometry, in the program's own process.
fn tampered(result: &str) -> String {
    format!("import sys\nsys.modules['program'].geometry = lambda shape: {result}\n{CUBE}")
}

#[test]
fn geometry_that_is_too_long_is_a_failure_and_the_server_lives() {
    // A little longer than the limit, and much longer.
    for bytes in [(64 << 20) + 20_000, 80 << 20] {
        let server = scorer().server_pid();
        let error = expect_failure(Crash, &tampered(&format!("bytes({bytes})")));
        assert!(error.contains("more than 67108864 bytes"), "{error}");
        assert_eq!(scorer().server_pid(), server);
    }
}

#[test]
fn what_is_no_geometry_is_a_failure() {
    for result in ["b'not a shape'", "b''", "bytes(100_000)", "b'Open CASCADE Topology V4' + bytes(range(256)) * 9"] {
        let error = expect_failure(Crash, &tampered(result));
        assert!(error.contains("handed over geometry") || error.contains("killed by"), "{result}: {error}");
    }
}

#[test]
fn the_files_are_of_the_geometry_whatever_a_program_rebinds() {
    let rebind = "import sys, measure\nfor name in ('step_file', 'export', 'pack', 'measure'):\n  \
                  setattr(sys.modules['measure'], name, lambda *a: b'forged')\n";
    expect_exported_cube(&format!("{rebind}{CUBE}"));
}
