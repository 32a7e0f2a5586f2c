//! `cadwright data`.

use crate::harness::{Place, bytes};

const FILES: [&str; 3] =
    ["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"];

fn synth(output: &str) -> Vec<&str> {
    let count = ["--count", "20", "--validation-count", "3", "--test-count", "4", "--image-size", "56"];
    [vec!["data", "synth", "--seed", "5", "--output", output], count.to_vec()].concat()
}

#[test]
fn synthetic_parts_are_the_same_bytes_every_time() {
    let place = Place::new();
    place.cadwright(synth("a")).succeeds();
    place.cadwright([synth("b"), vec!["--jobs", "1"]].concat()).succeeds();
    for file in FILES {
        let [a, b] = ["a", "b"].map(|directory| bytes(place.path(directory).join(file)));
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn synthetic_parts_never_overwrite_a_data_set() {
    let place = Place::new();
    place.cadwright(synth("a")).succeeds();
    let before = FILES.map(|file| bytes(place.path("a").join(file)));
    let mut other_seed = synth("a");
    other_seed[3] = "6";
    let finished = place.cadwright(other_seed).fails_with(&["a already holds"]);
    assert!(before == FILES.map(|file| bytes(place.path("a").join(file))), "the data set changed\n{finished}");
}
