//! CadQuery's triangles enclose the volume of its solids (`worker/mesh.py`).

use std::path::Path;
use std::process::Command;

use cadwright_rewards::Frame;
use cadwright_rollout::{ScoreRequest, Scorer, ScorerConfig, python};

use crate::common::config;

/// Ground truth, prediction, and IoU by OpenCASCADE's booleans. The mesher without inner vertices
/// closed these solids by wrong triangles: it gave 0.278 and 0.720.
const PAIRS: [(&str, &str, f64); 2] = [
    (
        "result = cq.Workplane('XY').cylinder(10, 5)\
         .cut(cq.Workplane('XY').moveTo(0, -4).circle(3).extrude(20, both=True))",
        "result = cq.Workplane('XY').cylinder(10, 5)",
        0.768,
    ),
    (
        "result = cq.Workplane('XY').circle(5).extrude(10)\
         .union(cq.Workplane('XY').moveTo(3, 2).circle(4).extrude(15))",
        "result = cq.Workplane('XY').circle(5).extrude(10)",
        0.641,
    ),
];

#[test]
fn iou_by_meshes_is_that_of_the_solids() {
    let config = ScorerConfig { grid: 96, timeout_s: 20.0, ..config(2) };
    let scorer = Scorer::new(config).expect("Python with CadQuery: run scripts/setup");
    for (ground_truth, prediction, exact) in PAIRS {
        let request =
            ScoreRequest { prediction: prediction.to_owned(), ground_truth: ground_truth.into(), truncated: false };
        let score = scorer.score(&request).expect("workers");
        let iou = score.iou[&Frame::Canonical].expect("both are solids");
        assert!((iou - exact).abs() < 0.015, "{iou} instead of {exact}: {ground_truth}");
        assert!(!score.iou_uncertain);
    }
}

/// Every way to make a mesh, including the last resort, on a part with plane and round faces.
#[test]
fn every_remedy_encloses_the_volume() {
    let script = "import sys; sys.path.insert(0, sys.argv[1])\n\
        import cadquery as cq, mesh\n\
        shape = cq.Workplane().box(4, 3, 2).faces('>Z').workplane().hole(1.5).val()\n\
        part = mesh.Part.of(shape, shape.Solids())\n\
        for remedy, _, tolerance in mesh.REMEDIES:\n\
        \x20   made, error = remedy(part, 0.5)\n\
        \x20   assert error <= tolerance and mesh.agrees(part, made), (remedy.__name__, error)\n\
        wrong = mesh.Part(shape, part.solids, [1.1 * v for v in part.volumes], part.low, part.size)\n\
        assert mesh.triangulated(wrong)[1] > 0.05\n\
        mesh.REMEDIES = ()\n\
        mesh.Part.of = classmethod(lambda cls, shape, solids: wrong)\n\
        assert mesh.tessellate(shape, shape.Solids(), False)[1]\n\
        assert not mesh.tessellate(shape, shape.Solids(), True)[1]\n";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python::find(None).expect("Python with CadQuery: run scripts/setup"))
        .args(["-c", script])
        .arg(root.join("worker"))
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
