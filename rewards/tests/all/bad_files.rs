//! Programs and STL files that are damaged: an outcome, a decline or an error, never a panic.

use cadwright_rewards::native::execute;
use cadwright_rewards::samples::block_mesh;
use cadwright_rewards::{
    Frame, Geometry, Outcome, Solid, StlError, extract_program, frame_iou, normalise_program, outside_of_plan,
    read_stl, write_stl,
};

use crate::damage::read_bad_files;

fn programs() -> Vec<String> {
    let rules: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../cadquery_rules.json")).expect("a file of ours");
    rules.iter().filter_map(|rule| Some(rule["program"].as_str()?.to_owned())).collect()
}

/// A solid that was read can be used: its numbers are finite, and it equals itself in every frame.
fn check_usable(solid: &Solid) {
    let mass = solid.mass();
    let numbers = mass.inertia.iter().flatten().chain(&mass.centroid).chain(&mass.bounds.min).chain(&mass.bounds.max);
    assert!(numbers.chain([&mass.volume]).all(|number| number.is_finite()), "{mass:?}");
    if let Geometry::Mesh(mesh) = &solid.geometry {
        mesh.check().unwrap();
    }
    for frame in [Frame::Canonical, Frame::Normalised] {
        let iou = frame_iou(frame, 8, solid, solid);
        assert!((0.0..=1.0).contains(&iou), "{frame}: {iou}");
    }
}

#[test]
fn damaged_programs_have_an_outcome() {
    let samples = programs().into_iter().map(String::into_bytes).collect();
    read_bad_files("programs", 400, samples, |bytes| {
        let program = normalise_program(&String::from_utf8_lossy(bytes));
        if let Ok(Outcome::Solid(solid)) = execute(&program) {
            check_usable(&solid);
        }
    });
}

/// More wires than a number has bits.
#[test]
fn many_wires_that_do_not_touch_are_sorted() {
    let circles: String = (1..50).map(|radius| format!("wp = wp.moveTo(0, 0).circle({radius})\n")).collect();
    let _ = execute(&format!("wp = cq.Workplane()\n{circles}solid = wp.extrude(1)"));
    let circles = "wp = cq.Workplane()\na = wp.circle(3)\nb = wp.circle(2)\nc = wp.circle(1)\n";
    let _ = execute(&format!("{circles}{}", "solid = wp.add(a).add(b).add(c).extrude(1.0)\n".repeat(3)));
    // Side by side, as an array of holes has them.
    let outcome = execute("solid = cq.Workplane().rarray(3, 3, 8, 8).circle(1).extrude(1)").unwrap();
    let volume = outcome.solid().unwrap().mass().volume;
    assert!((volume - 64.0 * std::f64::consts::PI).abs() < 1e-6, "{volume}");
}

/// Each line doubles the stack of `wp`, or more: 2^60 circles in the end.
#[test]
fn objects_that_double_with_every_line_are_declined() {
    let program = format!("wp = cq.Workplane()\n{}", "wp = wp.circle(1).add(wp.circle(2))\n".repeat(60));
    let added = format!("wp = cq.Workplane()\n{}", "a = wp.circle(3)\nb = wp.add(a)\n".repeat(60));
    for program in [program, added] {
        assert!(execute(&program).unwrap_err().to_string().contains("steps"), "{program:.100}");
    }
}

#[test]
fn a_program_is_extracted_from_any_completion() {
    let answers = programs().into_iter().take(20).flat_map(|program| {
        let fenced = format!("<think>\na plan\n</think>\nHere it is:\n```python\n{program}\n```\nThat is all.\n");
        [fenced, program]
    });
    read_bad_files("completions", 800, answers.map(String::into_bytes).collect(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let program = extract_program(&text);
        assert!(program.len() <= text.len());
        assert!(text.get(outside_of_plan(&text)).is_some());
    });
}

/// Two blocks, as text and as a binary file.
fn stl_files() -> Vec<Vec<u8>> {
    let mesh = block_mesh([0.0; 3], [2.0, 3.0, 4.0]);
    let facet = |triangle: &[u32; 3]| {
        let vertex = |index: &u32| {
            let [x, y, z] = mesh.vertices[*index as usize];
            format!("vertex {x} {y} {z:e}\n")
        };
        format!(
            "facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n",
            triangle.iter().map(vertex).collect::<String>()
        )
    };
    let text = format!("solid a\n{}endsolid a\n", mesh.triangles.iter().map(facet).collect::<String>());
    vec![write_stl(&mesh), text.into_bytes()]
}

#[test]
fn damaged_stl_files_give_a_usable_solid_or_an_error() {
    read_bad_files("stl", 3000, stl_files(), |bytes| match read_stl(bytes) {
        Ok(solid) => check_usable(&solid),
        Err(error) => assert!(error.to_string().len() < 1000, "{} characters", error.to_string().len()),
    });
}

/// Found by reading: the volume of such a block is finite, its moments of inertia are not.
#[test]
fn a_mesh_that_is_too_large_for_its_numbers_is_refused() {
    let text = String::from_utf8(stl_files().remove(1)).unwrap();
    let longer = text.replace("vertex 2 ", "vertex 2e80 ");
    let larger = longer.replace(" 3 ", " 3e80 ").replace("4e0", "4e80");
    for large in [longer.replace("2e80", "2e200"), larger] {
        assert_eq!(read_stl(large.as_bytes()).unwrap_err(), StlError::TooLarge);
    }
}

/// A line of a megabyte is not repeated in the message.
#[test]
fn the_message_about_a_long_line_is_short() {
    let error = read_stl(format!("solid\nvertex {}", "é ".repeat(1_000_000)).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.len() < 1000, "{} characters", error.len());
}
