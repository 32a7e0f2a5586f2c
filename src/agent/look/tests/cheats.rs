//! What one picture cannot tell, and who tries to use it. `docs/agent.md` has the table.

use super::*;
use crate::agent::look::plausibility;

const CUBE: &str = "cq.Workplane().box(2, 2, 2)";
/// The three faces of the cube that the viewer sees, as plates.
const CORNER_OF_PLATES: &str =
    "cq.Workplane().box(2, 2, 2).cut(cq.Workplane().box(2, 2, 2).translate((-0.02, 0.02, -0.02)))";
/// A hexagonal plate across the view, as large as the cube's outline.
const SHEET: &str = "cq.Workplane(cq.Plane(origin=(0, 0, 0), xDir=(1, 1, 0), normal=(1, -1, 1)))\
                     .polygon(6, 3.265986).extrude(0.02)";
/// A second body behind the cube, in its shadow.
const HIDDEN: &str =
    "cq.Workplane().box(2, 2, 2).union(cq.Workplane().box(0.6, 0.6, 0.6).translate((-1.4, 1.4, -1.4)))";
/// A cavity within.
const CAVITY: &str = "cq.Workplane().box(2, 2, 2).cut(cq.Workplane().box(1, 1, 1))";
/// A pocket in the back.
const POCKET: &str = "cq.Workplane().box(2, 2, 2).cut(cq.Workplane().box(1, 1, 1).translate((-0.5, 0, 0)))";

fn scores(part: &str, looks: &[Look]) -> Vec<f64> {
    let solid = build(part);
    looks.iter().map(|look| look.score(&solid).score).collect()
}

/// The cube seen from the front corner alone, and from two opposite corners.
fn looks() -> [Look; 2] {
    let cube = build(CUBE);
    let views = [View::isometric(), View::corners()[6]];
    let [front, back] = views.map(|view| picture(&cube, view, 112));
    let both = LookOptions { views: views.to_vec(), ..LookOptions::default() };
    [Look::new(std::slice::from_ref(&front), &LookOptions::default()), Look::new(&[front, back], &both)]
}

#[test]
fn a_sheet_across_the_view_lacks_lines_and_has_another_tone() {
    let found = scores(SHEET, &looks()[..1]);
    assert!(found[0] > 0.3 && found[0] < 0.8, "{found:?}");
    assert!(plausibility(&build(SHEET)) < 0.3);
}

#[test]
fn plates_instead_of_a_body_look_right_and_are_implausible() {
    // One picture cannot tell: it shows the same faces and lines.
    let found = scores(CORNER_OF_PLATES, &looks());
    assert!(found[0] > 0.97, "{found:?}");
    // From behind, the plates show their inner sides.
    assert!(found[1] < found[0] - 0.02, "{found:?}");
    assert!(plausibility(&build(CORNER_OF_PLATES)) < 0.5 * plausibility(&build(CUBE)));
}

#[test]
fn a_body_in_the_shadow_changes_only_the_framing() {
    let [one, two] = looks();
    let solid = build(HIDDEN);
    let found = one.score(&solid);
    // The automatic framing gives it away; the fit forgives that, at its price.
    assert!(found.score < 1.0 - 0.5 * PRICE && found.score > 0.9, "{found:?}");
    let framed = Look { options: LookOptions { fit: false, ..LookOptions::default() }, ..one.clone() };
    assert!(framed.score(&solid).score < 0.8);
    let seen = two.score(&solid);
    println!("{:.4} {:.4}", found.score, seen.score);
    assert!(seen.score < found.score - 0.02, "{seen:?}");
    assert!(plausibility(&solid) < 1.0);
}

#[test]
fn pictures_that_look_alike_show_different_views() {
    // From two of its upper corners the cube looks the same. So a candidate is seen from both.
    let cube = build(CUBE);
    let views = vec![View::isometric(), View::corners()[1]];
    let pictures = [0, 1].map(|index| picture(&cube, views[index], 112));
    let both = Look::new(&pictures, &LookOptions { views, ..LookOptions::default() });
    assert!(both.score(&cube).score > 0.97);
    let hidden = build(HIDDEN);
    let (one, two) = (looks()[0].score(&hidden).score, both.score(&hidden));
    assert!(two.score < one - 0.02, "{one} {two:?}");
    assert_ne!(two.pictures[0].view, two.pictures[1].view);
}

#[test]
fn cavities_are_never_seen() {
    for found in scores(CAVITY, &looks()) {
        assert!(found > 0.999, "{found}");
    }
}

#[test]
fn a_second_picture_tells_what_the_first_cannot() {
    let found = scores(POCKET, &looks());
    assert!(found[0] > 0.999, "{found:?}");
    // Two views, of which one sees the pocket.
    let solid = build(CUBE);
    let left = View::axes()[2];
    let options = LookOptions { views: vec![View::isometric(), left], ..LookOptions::default() };
    let look = Look::new(&[picture(&solid, View::isometric(), 112), picture(&solid, left, 112)], &options);
    let (pocket, cube) = (look.score(&build(POCKET)), look.score(&solid));
    assert!(cube.score > 0.999 && pocket.score < 0.97, "{cube:?} {pocket:?}");
}

#[test]
fn depth_along_the_view_shows_only_in_the_framing() {
    // A small cube on the corner toward the viewer, and the same one nearer to the viewer.
    let placed = |at: f64| {
        build(&format!(
            "cq.Workplane().box(2, 2, 2).union(cq.Workplane().box(0.5, 0.5, 0.5).translate(({at:?}, -{at:?}, {at:?})))"
        ))
    };
    let (near, nearer) = (placed(1.25), placed(1.6));
    let one = look_at(&near);
    let found = one.score(&nearer).score;
    assert!(found > 0.95, "{found}");
    let front = View::axes()[0];
    let options = LookOptions { views: vec![View::isometric(), front], ..LookOptions::default() };
    let two = Look::new(&[picture(&near, View::isometric(), 112), picture(&near, front, 112)], &options);
    assert!(two.score(&nearer).score < found - 0.05, "{:?}", two.score(&nearer));
}

#[test]
fn honest_parts_are_plausible() {
    for part in PARTS {
        assert_eq!(plausibility(&build(part)), 1.0, "{part}");
    }
}
