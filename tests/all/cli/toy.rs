//! A task whose optimum is known. The picture shows a bar, and the right program builds a box of
//! the bar's height. Most programs in the data are wrong, and nearly all of these in the same way,
//! so that cross-entropy learns a wrong height best. The shapes are right: what the policy gains
//! comes from the reward alone.
//!
//! A height is one digit, and except for the rare 9 no two pictures share one, right or wrong. When
//! they did, what one picture learned was at first another's mistake, and some runs did not recover
//! (docs/log.md).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use cadwright::data::encode_png;
use image::{Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use crate::harness::{Place, copy_directory, json, metrics};

const HEIGHTS: [u32; 4] = [1, 2, 4, 8];
/// The wrong heights in six of ten programs of a picture: IoU of 0.2, 0.33, 0.57 and 0.38.
const WRONG: [u32; 4] = [5, 6, 7, 3];
const SIDE: u32 = 112;

const CONFIG: &str = r#"
[model]
preset = "nano"
tune = "full"
freeze_vision = false
vocab_size = 300
[prompt]
user = ""
[data]
source = "parquet"
path = "data"
[generate]
max_new_tokens = 40
batch_size = 256
[rollout]
grid = 16
[sft]
max_steps = 150
batch_size = 16
gradient_accumulation = 1
optimizer = "muon"
learning_rate = 4e-3
warmup_steps = 5
validate_every = 0
validation_samples = 24
checkpoint_every = 0
[ppo]
steps = 30
images_per_step = 12
samples_per_image = 8
minibatch_size = 96
algorithm = "rloo"
optimizer = "muon"
learning_rate = 1e-3
freeze_vision = false
kl_coef = 0.0
ce_weight = 0.0
validate_every = 10
validation_samples = 24
ceiling_samples = 0
checkpoint_every = 0
"#;

/// A bar as wide as the picture and as high as the box, on a logarithmic scale; its brightness
/// depends on `variant`.
fn picture(height: usize, variant: u32) -> Vec<u8> {
    let top = SIDE - 28 * height as u32 - 14;
    let grey = (variant * 7 % 60) as u8;
    encode_png(&RgbImage::from_fn(SIDE, SIDE, |_, y| if y < top { Rgb([255; 3]) } else { Rgb([grey; 3]) })).unwrap()
}

/// A box on the ground, as STL text.
pub fn stl(height: u32) -> String {
    let top = f64::from(height);
    let corner = |i: usize| [(i & 1) as f64 - 0.5, (i >> 1 & 1) as f64 - 0.5, if i & 4 > 0 { top } else { 0.0 }];
    let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
    let facet = |[a, b, c]: [usize; 3]| {
        let vertices: String =
            [a, b, c].map(corner).map(|[x, y, z]| format!("vertex {x} {y} {z}\n")).into_iter().collect();
        format!("facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n")
    };
    let facets: String = quads.iter().flat_map(|q| [[q[0], q[1], q[2]], [q[0], q[2], q[3]]]).map(facet).collect();
    format!("solid box\n{facets}endsolid box\n")
}

/// The program that the data has for a row. Of ten programs for one picture, six are wrong in the
/// same way, two are wrong in another, and two are right.
fn program(row: usize) -> String {
    let picture = row % HEIGHTS.len();
    let height = match row / HEIGHTS.len() % 10 {
        1 | 9 => HEIGHTS[picture],
        3 | 7 => 9,
        _ => WRONG[picture],
    };
    format!("solid = cq.Workplane().rect(1, 1).extrude({height})\n")
}

/// Writes a split of `rows` rows, with programs or with shapes only.
pub fn write(directory: &Path, split: &str, rows: usize, has_programs: bool) {
    write_shapes(directory, split, rows, has_programs, |row| stl(HEIGHTS[row % HEIGHTS.len()]));
}

/// As [`write`], with the file `shape(row)` as the ground truth of each row.
pub fn write_shapes(directory: &Path, split: &str, rows: usize, has_programs: bool, shape: impl Fn(usize) -> String) {
    std::fs::create_dir_all(directory).unwrap();
    let schema = "message schema {
        optional binary image;
        optional binary deepcad_id (STRING);
        optional binary cadquery (STRING);
        optional binary ground_truth_mesh;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(directory.join(format!("{split}-00000-of-00001.parquet"))).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let n = HEIGHTS.len();
    let programs = if has_programs { rows } else { 0 };
    let columns: [Vec<Vec<u8>>; 4] = [
        (0..rows).map(|i| picture(i % n, i as u32)).collect(),
        (0..rows).map(|i| format!("{split}-{i}").into_bytes()).collect(),
        (0..programs).map(|i| program(i).into_bytes()).collect(),
        (0..rows).map(|i| shape(i).into_bytes()).collect(),
    ];
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
        // The level is 1 for a value and 0 for a null.
        let levels = vec![i16::from(!values.is_empty()); rows];
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn the_reward_alone_teaches_what_the_programs_in_the_data_do_not() {
    let place = Place::new();
    place.write("toy.toml", CONFIG);
    write(&place.path("data"), "train", 160, true);
    write(&place.path("data"), "validation", 24, true);
    let finished = place.cadwright(["sft", "--config", "toy.toml", "--output-dir", "run"]).succeeds();
    let start = json(place.path("run/sft/result.json"));
    // The wrong heights have an IoU of 0.37 on average.
    assert!(start["val_iou"].as_f64() < Some(0.5), "{finished}");
    let finished = place.cadwright(["ppo", "--config", "toy.toml", "--output-dir", "run"]).succeeds();
    let reached = json(place.path("run/ppo/result.json"));
    assert!(reached["val_iou"].as_f64() > Some(0.9), "{finished}");
    let rewards: Vec<f64> =
        metrics(&place.path("run")).iter().filter_map(|row: &Value| row["ppo/reward_mean"].as_f64()).collect();
    assert!(rewards.last() > Some(&0.9), "the known optimum is 1.1: {rewards:?}");
    let has_ce = |row: &Value| row.get("ppo/ce_loss").is_some();
    assert!(!metrics(&place.path("run")).iter().any(has_ce), "with weight 0 no cross-entropy is computed");

    // It imitates only its right programs, although nearly all programs that it was taught are
    // wrong.
    copy_directory(&place.path("run/sft"), &place.path("own/sft"));
    let choices =
        ["data.programs_limit=16", "ppo.steps=8", "ppo.ce_weight=1", "ppo.ce_own_share=1", "ppo.ce_own_iou=0.95"];
    let choices = choices.iter().flat_map(|choice| ["--set", choice]);
    let finished =
        place.cadwright(["ppo", "--config", "toy.toml", "--output-dir", "own"].into_iter().chain(choices)).succeeds();
    let steps: Vec<Value> = metrics(&place.path("own")).into_iter().filter(has_ce).collect();
    let own: Vec<f64> = steps.iter().filter_map(|row| row["ppo/own_programs"].as_f64()).collect();
    assert!(own.len() == 8 && own.is_sorted() && own[0] > 0.0, "{own:?}\n{finished}");
    // 12 pictures a step, 144 of the 160 without a program.
    assert!(own[7] > own[0] && own[7] <= 96.0, "{own:?}");
}
