//! Hostile programs in files of their own: `programs/*.py`. A line `#: name = outcomes` starts each
//! program. Its outcome must be one of those, separated by `|`: a class by its name, `sigsys` for
//! death by a forbidden system call, or `cube` for exactly the unit cube. `solid` stands for any
//! solid whose numbers agree with its mesh.
//!
//! A program that gets what it must not get raises an error that says `got through`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cadwright_rewards::{Geometry, Solid};
use cadwright_rollout::{Answer, Scorer, Verdict};

use crate::common::scorer;

/// The words of a program that achieved what it must not.
pub const GOT_THROUGH: &str = "got through";

/// A named program and the outcomes that it may have.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub allowed: String,
    pub program: String,
}

impl Case {
    pub fn new(name: impl Into<String>, allowed: &str, program: impl Into<String>) -> Self {
        Self { name: name.into(), allowed: allowed.to_owned(), program: program.into() }
    }

    /// Why `answer` is not one of the allowed outcomes, if it is not.
    pub fn complaint(&self, answer: &Answer) -> Option<String> {
        let error = answer.error().unwrap_or_default();
        self.complaint_about(answer.verdict(), &error, answer.solid().map(Arc::as_ref))
    }

    pub fn complaint_about(&self, verdict: Verdict, error: &str, solid: Option<&Solid>) -> Option<String> {
        let allows = |what: &str| self.allowed.split('|').any(|allowed| allowed == what);
        let wrong = match solid {
            _ if error.contains(GOT_THROUGH) => Some(error.to_owned()),
            Some(solid) if allows("solid") => flaw(solid),
            Some(solid) if allows("cube") => flaw(solid).or_else(|| not_a_unit_cube(solid)),
            None if allows(verdict.name()) => None,
            None if allows("sigsys") && error.contains("SIGSYS") => None,
            _ => Some(format!("{}, {error:?}", verdict.name())),
        };
        wrong.map(|what| format!("{}: expected {}, got {what}", self.name, self.allowed))
    }
}

/// The cases of a file. `places` are texts to replace.
pub fn cases(file: &str, places: &[(&str, &str)]) -> Vec<Case> {
    let sections = file.split("#: ").skip(1).map(|section| {
        let (head, program) = section.split_once('\n').expect("a program");
        let (name, allowed) = head.rsplit_once(" = ").unwrap_or_else(|| panic!("no outcomes: {head:?}"));
        let program = places.iter().fold(program.to_owned(), |text, (place, with)| text.replace(place, with));
        Case::new(name, allowed, program)
    });
    let cases: Vec<Case> = sections.collect();
    assert!(!cases.is_empty());
    cases
}

/// Executes all cases, two at a time, and expects that each has an outcome that it may have.
pub fn check(cases: &[Case]) {
    check_with(scorer(), cases);
}

pub fn check_with(scorer: &Scorer, cases: &[Case]) {
    let answers = answers(scorer, &cases.iter().map(|case| case.program.as_str()).collect::<Vec<_>>(), 2);
    let complaints = cases.iter().zip(&answers).filter_map(|(case, answer)| case.complaint(answer));
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

/// The answers to programs in their order. They are executed by `threads` threads that take the
/// first program that is left.
pub fn answers(scorer: &Scorer, programs: &[&str], threads: usize) -> Vec<Answer> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(vec![None; programs.len()]));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(program) = programs.get(index) else { break };
                    let answer = scorer.execute(program).expect("workers").answer;
                    found.lock().unwrap()[index] = Some(answer);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    found.into_iter().map(|answer| answer.expect("each was executed")).collect()
}

/// What is wrong with the numbers of any solid: they are not finite or contradict its mesh.
fn flaw(solid: &Solid) -> Option<String> {
    let mass = solid.mass();
    let numbers = [mass.volume].into_iter().chain(mass.centroid).chain(mass.bounds.min).chain(mass.bounds.max);
    if numbers.chain(mass.inertia.into_iter().flatten()).any(|number| !number.is_finite()) {
        return Some(format!("numbers that are not finite: {mass:?}"));
    }
    let Geometry::Mesh(mesh) = &solid.geometry else {
        return Some("no mesh".to_owned());
    };
    if mesh.vertices.iter().flatten().any(|number| !number.is_finite()) {
        return Some("vertices that are not finite".to_owned());
    }
    if solid.malformed || solid.iou_uncertain {
        return None;
    }
    let enclosed = mesh_volume(solid);
    if (enclosed - mass.volume.abs()).abs() > 0.02 * mass.volume.abs() + 1e-9 {
        return Some(format!("volume {} with a mesh of {enclosed}", mass.volume));
    }
    if mesh.triangles.is_empty() {
        return None;
    }
    let bounds = cadwright_rewards::Bounds::of(&mesh.vertices);
    let size = (0..3).map(|k| bounds.max[k] - bounds.min[k]).fold(0.0, f64::max);
    let differs = |a: f64, b: f64| (a - b).abs() > 0.02 * size + 1e-6;
    (0..3)
        .any(|k| differs(bounds.min[k], mass.bounds.min[k]) || differs(bounds.max[k], mass.bounds.max[k]))
        .then(|| format!("bounds {:?} with a mesh within {bounds:?}", mass.bounds))
}

/// The volume that a mesh encloses, by the divergence theorem.
fn mesh_volume(solid: &Solid) -> f64 {
    let Geometry::Mesh(mesh) = &solid.geometry else { return f64::NAN };
    let corner = |index: u32| mesh.vertices[index as usize];
    let tetrahedra = mesh.triangles.iter().map(|&[a, b, c]| {
        let ([ax, ay, az], [bx, by, bz], [cx, cy, cz]) = (corner(a), corner(b), corner(c));
        (ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)) / 6.0
    });
    tetrahedra.sum::<f64>().abs()
}

fn not_a_unit_cube(solid: &Solid) -> Option<String> {
    let mass = solid.mass();
    let numbers = mass.bounds.max.into_iter().chain(mass.bounds.min.map(|low| -low)).map(|edge| edge - 0.5);
    let is_cube = numbers.chain([mass.volume - 1.0]).all(|error| error.abs() < 1e-6)
        && (solid.malformed, solid.iou_uncertain, solid.solids()) == (false, false, Some(1))
        && (mesh_volume(solid) - 1.0).abs() < 1e-6;
    (!is_cube).then(|| format!("no unit cube: {mass:?}, mesh {}, {:?}", mesh_volume(solid), solid.solids()))
}
