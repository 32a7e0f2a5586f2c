//! docs/newcomer.md: from a folder of STL files to a trained policy.

use std::fs;

use cadwright_rewards::samples::block_mesh;
use cadwright_rewards::write_stl;

use super::run::{tiny_command, tiny_run};
use crate::harness::{Place, json, metrics};

#[test]
fn a_folder_of_stl_files_is_drawn_looked_at_and_trained_on() {
    let place = Place::new();
    fs::create_dir(place.path("shapes")).unwrap();
    for part in 0..20 {
        let size = [1.0 + f64::from(part % 5) * 0.3, 0.6, 0.4 + f64::from(part / 5) * 0.2];
        fs::write(place.path(&format!("shapes/part-{part:02}.stl")), write_stl(&block_mesh([0.0; 3], size))).unwrap();
    }
    let render = ["data", "render", "--input", "shapes", "--output", "pictures", "--size", "112"];
    let finished = place.cadwright(render).succeeds();
    assert!(finished.stdout().contains("\"pictures\": 20"), "{finished}");

    let folders = ["data.source=folder", "data.path=", "data.folder.images=pictures", "data.folder.shapes=shapes"];
    let shares = ["data.folder.split_by=fraction", "data.folder.validation_share=0.2", "data.folder.test_share=0.1"];
    let set = |keys: &[&str]| -> Vec<String> {
        keys.iter().flat_map(|key| ["--set".to_owned(), (*key).to_owned()]).collect()
    };
    let stats = ["data", "stats", "shapes", "--json", "stats.json", "--contact-sheet", "sheet.png"];
    let keys = [&folders[2..], &shares[..]].concat();
    place.cadwright(stats.map(str::to_owned).into_iter().chain(set(&keys))).succeeds();
    let stats = json(place.path("stats.json"));
    let parts = |split: &str| stats["splits"][split]["parts"].as_u64();
    assert_eq!([parts("train"), parts("validation"), parts("test")], [Some(14), Some(4), Some(2)], "{stats:#}");
    assert_eq!(stats["splits"]["train"]["outcomes"]["solid"], 14);

    let keys = [&folders[..], &shares[..], &["ppo.ce_weight=0"]].concat();
    let mut ppo = tiny_command("ppo", "mine", &keys);
    ppo.extend(["--model-path".to_owned(), tiny_run().join("sft/best").display().to_string()]);
    place.cadwright(ppo).succeeds();
    let run = place.path("mine");
    assert!(run.join("ppo/best/model.safetensors").is_file());
    let rewards: Vec<f64> = metrics(&run).iter().filter_map(|row| row["ppo/reward_mean"].as_f64()).collect();
    assert_eq!(rewards.len(), 3);
    assert!(rewards.iter().all(|reward| reward.is_finite()), "{rewards:?}");
    // Programs are compared with the shapes of the STL files.
    let ious: Vec<f64> = metrics(&run).iter().filter_map(|row| row["ppo/iou_mean"].as_f64()).collect();
    assert!(ious.iter().any(|iou| *iou > 0.0), "{ious:?}");
}
