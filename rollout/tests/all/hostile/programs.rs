//! The programs of `programs/`, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use cadwright_rewards::{Frame, RewardConfig};
use cadwright_rollout::{ScoreRequest, Scorer, ScorerConfig};

use crate::common::{CUBE, config};
use crate::hostile::cases::{Case, cases, check};

pub fn times() -> Vec<Case> {
    cases(include_str!("programs/time.py"), &[])
}

pub fn memories() -> Vec<Case> {
    cases(include_str!("programs/memory.py"), &[])
}

pub fn exits() -> Vec<Case> {
    cases(include_str!("programs/exits.py"), &[])
}

pub fn geometries() -> Vec<Case> {
    cases(include_str!("programs/geometry.py"), &[])
}

/// Programs about files; see `programs/files.py`.
pub fn files(outside: &Path) -> Vec<Case> {
    let trainer = std::process::id().to_string();
    let places = [("@OUTSIDE@", outside.to_str().expect("UTF-8")), ("@TRAINER@", &trainer)];
    cases(include_str!("programs/files.py"), &places)
}

/// Programs about processes and the network; see `programs/processes.py`.
pub fn processes(port: u16, socket: &Path) -> Vec<Case> {
    let (port, trainer) = (port.to_string(), std::process::id().to_string());
    let socket = socket.to_str().expect("UTF-8");
    let places = [("@PORT@", port.as_str()), ("@SOCKET@", socket), ("@TRAINER@", &trainer)];
    cases(include_str!("programs/processes.py"), &places)
}

pub fn forgeries() -> Vec<Case> {
    let hex: String = forged_reply().iter().map(|byte| format!("{byte:02x}")).collect();
    // Functions that write to the descriptor of the program's geometry, whichever it is.
    let hand_over = include_str!("programs/handover.py");
    let reply = format!("reply = bytes.fromhex('{hex}')");
    cases(include_str!("programs/forged.py"), &[("@REPLY@", &reply), ("@HEX@", &hex), ("@HANDOVER@", hand_over)])
}

/// A result of volume 729, as `worker/program.py` packs it: a cube of size 9 with its mesh.
fn forged_reply() -> Vec<u8> {
    let mut reply = vec![0];
    let inertia = 729.0 * 81.0 / 6.0;
    let diagonal = [inertia, 0.0, 0.0, 0.0, inertia, 0.0, 0.0, 0.0, inertia];
    let numbers = [729.0, 0.0, 0.0, 0.0].into_iter().chain(diagonal).chain([-4.5; 3]).chain([4.5; 3]);
    reply.extend(numbers.flat_map(f64::to_le_bytes));
    reply.extend(1_u32.to_le_bytes());
    reply.extend([0, 0]);
    reply.extend([8_u32, 12].into_iter().flat_map(u32::to_le_bytes));
    let corners = (0..8).flat_map(|n| [n & 1, n >> 1 & 1, n >> 2].map(|high| 9.0 * f64::from(high) - 4.5));
    reply.extend(corners.flat_map(f64::to_le_bytes));
    let squares = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5_u32]];
    reply.extend(squares.iter().flat_map(|&[a, b, c, d]| [a, b, c, a, c, d]).flat_map(u32::to_le_bytes));
    reply.extend((0..12_u32).flat_map(|triangle| (triangle / 2).to_le_bytes()));
    reply
}

#[test]
fn programs_that_do_not_end_meet_the_deadline() {
    check(&times());
}

#[test]
fn programs_that_want_all_memory_fail() {
    check(&memories());
}

#[test]
fn programs_that_end_in_odd_ways_have_an_outcome() {
    check(&exits());
}

#[test]
fn impossible_geometry_has_an_outcome() {
    check(&geometries());
}

/// The files of others, new.
fn furnish(outside: &Path) {
    let _ = fs::remove_dir_all(outside);
    fs::create_dir_all(outside.join("empty")).unwrap();
    fs::write(outside.join("secret"), "the secret\n").unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
}

/// All that can be told about the files below a directory, by path. Empty if it is gone.
fn inventory(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let facts = fs::symlink_metadata(&path).unwrap();
        let content = match &facts {
            facts if facts.is_dir() => format!("{:?}", inventory(&path)),
            facts if facts.is_file() => fs::read_to_string(&path).unwrap(),
            _ => String::new(),
        };
        let told = format!("{:o} {} {} {content}", facts.mode(), facts.nlink(), facts.mtime());
        found.insert(path.to_str().unwrap().to_owned(), told);
    }
    found
}

#[test]
fn files_of_others_stay_unread_and_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    furnish(&outside);
    let cases = files(&outside);
    let mut complaints = Vec::new();
    let mut before = inventory(&outside);
    for case in &cases {
        let answer = crate::common::execute(&case.program).answer;
        complaints.extend(case.complaint(&answer));
        if inventory(&outside) != before {
            complaints.push(format!("{}: changed the files of others", case.name));
            // The next programs must find something to destroy.
            furnish(&outside);
            before = inventory(&outside);
        }
    }
    assert!(complaints.is_empty(), "{} of {} cases:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

#[test]
fn processes_and_the_network_are_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&socket).unwrap();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    check(&processes(tcp.local_addr().unwrap().port(), &socket));
    assert!(tcp.accept().is_err(), "a program called the port");
    assert!(unix.accept().is_err(), "a program called the path");
}

/// A forged cube has the row of an honest one, or fails.
#[test]
fn no_program_decides_how_it_is_measured() {
    let frames = vec![Frame::Canonical, Frame::Normalised, Frame::Aligned];
    let settings = ScorerConfig { frames, reward: RewardConfig::default(), ..config(2) };
    let scorer = Scorer::new(settings).unwrap();
    let score = |program: &str| {
        // The honest cube is half of this.
        let ground_truth = "solid = cq.Workplane().box(2, 1, 1)".into();
        scorer.score(&ScoreRequest { prediction: program.to_owned(), ground_truth, truncated: false }).unwrap()
    };
    let honest = score(CUBE);
    assert_eq!(honest.iou[&Frame::Canonical], Some(0.5));
    let mut complaints = Vec::new();
    for case in forgeries() {
        let row = score(&case.program);
        let error = row.error.clone().unwrap_or_default();
        complaints.extend(case.complaint_about(row.verdict, &error, row.solid.as_deref()));
        println!("{}: {} {error}", case.name, row.verdict.name());
        let wanted = if row.verdict.is_valid() { (&honest.iou, honest.reward) } else { (&BTreeMap::new(), 0.0) };
        if case.allowed.contains("cube") && !case.allowed.contains("solid") {
            let is_nothing = !row.verdict.is_valid() && row.iou.values().all(|iou| *iou == Some(0.0));
            if row.reward != wanted.1 || !(is_nothing || &row.iou == wanted.0) {
                complaints.push(format!("{}: reward {}, IoU {:?}", case.name, row.reward, row.iou));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
