//! The recipes of docs/data.md on small copies of each layout, and the programs of other models.

use std::fs::{File, create_dir_all, write};
use std::path::Path;
use std::sync::Arc;

use cadwright::data::encode_png;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use super::run::smoke_run;
use crate::harness::{Place, json, rows, smoke_config, text};

fn box_of([a, b, c]: [f64; 3]) -> String {
    format!("import cadquery as cq\nsolid = cq.Workplane('XY').box({a:?}, {b:?}, {c:?}, centered=False)")
}

/// The triangles of a box with a corner in the origin, each with its corners anticlockwise from
/// outside.
fn triangles(size: [f64; 3]) -> Vec<[[f64; 3]; 3]> {
    let corner = |bits: usize| [0, 1, 2].map(|axis| if bits >> axis & 1 == 1 { size[axis] } else { 0.0 });
    // Bit 0 of a corner is x, bit 1 is y, bit 2 is z.
    let faces = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
        .map(|face| face.map(corner));
    faces.iter().flat_map(|&[a, b, c, d]| [[a, b, c], [a, c, d]]).collect()
}

fn ascii_stl(size: [f64; 3]) -> String {
    let vertex = |[x, y, z]: &[f64; 3]| format!("vertex {x} {y} {z}\n");
    let facet = |corners: &[[f64; 3]; 3]| {
        let corners: String = corners.iter().map(vertex).collect();
        format!("facet normal 0 0 0\nouter loop\n{corners}endloop\nendfacet\n")
    };
    format!("solid part\n{}endsolid part\n", triangles(size).iter().map(facet).collect::<String>())
}

fn binary_stl(size: [f64; 3]) -> Vec<u8> {
    let triangles = triangles(size);
    let mut bytes = vec![0; 80];
    bytes.extend((triangles.len() as u32).to_le_bytes());
    for corners in triangles {
        let numbers = [0.0; 3].into_iter().chain(corners.into_iter().flatten());
        bytes.extend(numbers.flat_map(|number: f64| (number as f32).to_le_bytes()));
        bytes.extend([0, 0]);
    }
    bytes
}

fn predictions(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(id, program)| format!("{}\n", json!({"file_id": id, "generated": program}))).collect()
}

/// Evaluates `p.jsonl` natively with `more` flags; returns `out.json` and `summary.json`.
#[track_caller]
fn evaluated(place: &Place, more: &[&str]) -> (Value, Value) {
    let flags = ["eval", "--predictions", "p.jsonl", "--output-json", "out.json", "--summary", "summary.json"];
    let native = ["--set", "eval.engine=auto"];
    place.cadwright(flags.iter().chain(&native).chain(more).copied()).succeeds();
    (json(place.path("out.json")), json(place.path("summary.json")))
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer} in {value:#}"))
}

#[track_caller]
fn near(found: f64, expected: f64, slack: f64) {
    assert!((found - expected).abs() <= slack, "{found}, not {expected}");
}

#[test]
fn gencad_code_needs_nothing_but_its_name() {
    let place = Place::new();
    let data = smoke_run().join("data").display().to_string();
    let dataset = cadwright::data::DataSource::path(&data);
    let parts = cadwright::data::Dataset::open(&dataset, cadwright::data::Split::Test, Some(3)).unwrap();
    let own: Vec<(&str, String)> =
        parts.examples().iter().map(|part| (part.id.as_str(), part.program.clone().unwrap())).collect();
    // The third part has no prediction, and another model knows a part of its own.
    let fenced = format!("Here it is:\n```python\n{}\n```", own[1].1);
    let others = [own[0].clone(), (own[1].0, fenced), ("stranger", "x = 1".to_owned())];
    place.write("p.jsonl", &predictions(&others));
    let (out, summary) = evaluated(&place, &["--dataset", &data, "--num-samples", "3"]);
    near(number(&summary, "/vsr"), 2.0 / 3.0, 1e-9);
    near(number(&summary, "/iou"), 2.0 / 3.0, 1e-6);
    assert_eq!(out["sample_0"]["id"], own[0].0);
    assert_eq!(out["sample_1"]["predicted_code"], own[1].1.trim_end());
    assert_eq!((&out["sample_2"]["outcome"], &out["sample_2"]["token_counts"]), (&json!("no_solid"), &Value::Null));
    // What eval wrote is itself a file of predictions.
    std::fs::rename(place.path("out.json"), place.path("p.jsonl")).unwrap();
    let (again, _) = evaluated(&place, &["--dataset", &data, "--num-samples", "3"]);
    assert_eq!(again, out);
}

/// CAD-Recode: `train/batch_<i>/<name>.py` and `val/<name>.py`, with the part in `r`.
#[test]
fn cad_recode_is_a_folder_of_programs_with_their_part_in_r() {
    let place = Place::new();
    let program = |size: f64| {
        format!("import cadquery as cq\nw0=cq.Workplane('XY').box(1,1,1)\nr=cq.Workplane('XY').box({size:?},2.0,3.0)")
    };
    for (name, size) in [("train/batch_00/0000.py", 4.0), ("train/batch_01/0000.py", 5.0), ("val/0000.py", 6.0)] {
        create_dir_all(place.path(name).parent().unwrap()).unwrap();
        place.write(name, &program(size));
    }
    let config = "[data]\nsource = \"folder\"\npath = \".\"\nresult_name = \"r\"\n[data.folder]\nmatch_by = \"path\"\nsplit_by = \"directory\"\n[data.splits]\nvalidation = \"val\"\ntest = \"val\"\n";
    place.write("recode.toml", config);
    place.write("p.jsonl", &predictions(&[("batch_00/0000", program(4.0)), ("batch_01/0000", program(4.0))]));
    let (_, summary) = evaluated(&place, &["--config", "recode.toml", "--split", "train"]);
    // Boxes of 4 and 5 x 2 x 3 about one centre: IoU 4/5.
    near(number(&summary, "/iou"), (1.0 + 0.8) / 2.0, 0.02);
    place.write("p.jsonl", &predictions(&[("0000", program(6.0))]));
    let (_, summary) = evaluated(&place, &["--config", "recode.toml", "--split", "validation"]);
    near(number(&summary, "/iou"), 1.0, 1e-6);
    // By the published rule, every program is the cube `w0`.
    place.write("p.jsonl", &predictions(&[("0000", program(9.0))]));
    let published = ["--config", "recode.toml", "--split", "validation", "--set", "data.result_name="];
    near(number(&evaluated(&place, &published).1, "/iou"), 1.0, 1e-6);
    near(number(&evaluated(&place, &published[..4]).1, "/iou"), 6.0 / 9.0, 0.02);
}

/// cadrille's test sets: one directory of `<name>.stl`.
#[test]
fn cadrilles_test_sets_are_folders_of_stl_files() {
    let place = Place::new();
    create_dir_all(place.path("deepcad_test_mesh")).unwrap();
    let sizes = [[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]];
    place.write("deepcad_test_mesh/00000093.stl", &ascii_stl(sizes[0]));
    write(place.path("deepcad_test_mesh/00000163.stl"), binary_stl(sizes[1])).unwrap();
    let half = [1.0, 2.0, 1.5];
    place.write("p.jsonl", &predictions(&[("00000093", box_of(half)), ("00000163", box_of(sizes[1]))]));
    let all_test = ["--set", "data.folder.test_share=1", "--set", "data.folder.validation_share=0"];
    let flags = ["--dataset", "deepcad_test_mesh", "--protocol", "cadrille"];
    let (out, summary) = evaluated(&place, &[&flags[..], &all_test].concat());
    near(number(&out, "/sample_0/iou"), 0.5, 0.02);
    near(number(&out, "/sample_1/iou"), 1.0, 0.02);
    assert!(out["sample_0"]["ground_truth_mesh"].as_str().is_some_and(|hash| hash.starts_with("blake3:")));
    assert_eq!(number(&summary, "/protocols/cadrille/n"), 2.0);
    assert_eq!(number(&summary, "/protocols/cadrille/ir"), 0.0);
}

/// Writes parquet rows as CADBench's are: a picture, STEP and STL files as bytes, and a label.
fn cadbench(directory: &Path, rows: &[(&str, &str, Vec<u8>)]) {
    create_dir_all(directory.join("data")).unwrap();
    let schema = "message row { required binary file_id (STRING); required binary label (STRING); required binary stl; required group singleview_image { optional binary bytes; optional binary path (STRING); } }";
    let file = File::create(directory.join("data/benchB-00000-of-00001.parquet")).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let picture = encode_png(&image::RgbImage::from_pixel(28, 28, image::Rgb([255; 3]))).unwrap();
    let columns: [(Vec<&[u8]>, i16); 5] = [
        (rows.iter().map(|row| row.0.as_bytes()).collect(), 0),
        (rows.iter().map(|row| row.1.as_bytes()).collect(), 0),
        (rows.iter().map(|row| row.2.as_slice()).collect(), 0),
        (vec![picture.as_slice(); rows.len()], 1),
        (vec![b"x.png".as_slice(); rows.len()], 1),
    ];
    for (values, level) in columns {
        let values: Vec<ByteArray> = values.into_iter().map(|bytes| ByteArray::from(bytes.to_vec())).collect();
        let levels = vec![level; values.len()];
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, (level > 0).then_some(&levels[..]), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn cadbench_is_read_by_its_columns_and_written_for_its_leaderboard() {
    let place = Place::new();
    let sizes = [[1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [3.0, 1.0, 1.0]];
    let labels = ["easy", "easy", "hard"];
    let names = ["00708740", "00714815", "00000001"];
    let row = |i: usize| (names[i], labels[i], binary_stl(sizes[i]));
    cadbench(&place.path("cadbench"), &[row(0), row(1), row(2)]);
    let config = "[data]\nsource = \"parquet\"\npath = \"cadbench\"\n[data.columns]\nid = \"file_id\"\nimage = \"singleview_image\"\nshape = \"stl\"\nlabel = \"label\"\n[data.splits]\ntest = \"benchB\"\n";
    place.write("bench.toml", config);
    place.write(
        "p.jsonl",
        &predictions(&[(names[0], box_of(sizes[0])), (names[1], box_of(sizes[1])), (names[2], String::new())]),
    );
    let flags = ["--config", "bench.toml", "--protocol", "cadbench", "--export", "cadbench", "mine"];
    let (_, summary) = evaluated(&place, &flags);
    let report = |cell: &str, name: &str| number(&summary["protocols"]["cadbench"]["labels"][cell], name);
    near(report("benchB/easy", "/aligned_iou_adjusted_median"), 1.0, 0.03);
    near(report("benchB/easy", "/vsr"), 1.0, 0.0);
    near(report("benchB/hard", "/aligned_iou_adjusted_median"), 0.0, 0.0);
    let written = rows(place.path("mine/singleview/r1/benchB.jsonl"));
    let expected = [(names[0], box_of(sizes[0])), (names[1], box_of(sizes[1])), (names[2], String::new())];
    assert_eq!(written, expected.clone().map(|(id, program)| json!({"file_id": id, "generated": program})));
    // Of two programs for each part, the second ones are the second run.
    let twice = [expected.clone(), expected].concat();
    place.write("p.jsonl", &predictions(&twice));
    evaluated(&place, &[&flags[..], &["--export-modality", "pbr"]].concat());
    let run = |i: usize| text(place.path(&format!("mine/pbr/r{i}/benchB.jsonl")));
    assert_eq!((run(1), run(2)), (text(place.path("mine/singleview/r1/benchB.jsonl")), run(1)));
    let refused = |more: &[&str]| {
        place.cadwright(
            ["eval", "--predictions", "p.jsonl", "--set", "eval.engine=auto"]
                .iter()
                .chain(&flags[..2])
                .chain(more)
                .copied(),
        )
    };
    refused(&["--export", "tables", "x"]).fails_with(&["--export tables x: the layouts are cadbench"]);
    let test = ["--export", "cadbench", "x", "--export-modality", "sound"];
    refused(&test).fails_with(&["--export-modality sound", "singleview, multiview, pbr"]);
}

#[test]
fn predictions_that_fit_nothing_are_refused_by_name() {
    let place = Place::new();
    let data = smoke_run().join("data").display().to_string();
    let with =
        |more: &[&str]| place.cadwright([&["eval", "--predictions", "p.jsonl", "--dataset", &data], more].concat());
    with(&[]).fails_with(&["cannot read p.jsonl"]);
    place.write("p.jsonl", &predictions(&[("nobody", String::new())]));
    with(&[]).fails_with(&["no part of p.jsonl is in the data set", "ids there nobody"]);
    place.write("p.jsonl", "{\"part\": \"a\", \"text\": \"x\"}\n");
    with(&[]).fails_with(&["p.jsonl", "no field for the id", "found part, text", "--id-field"]);
    with(&["--id-field", "part", "--program-field", "txt"]).fails_with(&["no field for the program: expected txt"]);
    let error = place.cadwright(["eval"]).fails().error();
    assert!(error.contains("--model-path"), "{error}");
    assert!(!place.path("predictions.json").exists());
}

#[test]
fn exec_and_score_take_the_name_of_the_result() {
    let place = Place::new();
    let code = "w0 = cq.Workplane().box(1, 1, 1)\nr = cq.Workplane().box(2, 2, 2)";
    place.write("e.jsonl", &format!("{}\n", json!({"id": 1, "code": code})));
    place.write(
        "s.jsonl",
        &format!(
            "{}\n",
            json!({"id": 1, "ground_truth": box_of([2.0; 3]).replace(", centered=False", ""), "prediction": code})
        ),
    );
    for (flag, volume, iou) in [(&[][..], 1.0, 0.125), (&["--result-name", "r"][..], 8.0, 1.0)] {
        let run = |command: &str, input: &str| {
            place
                .cadwright([&[command, "--engine", "native", "--input", input, "--output", "out.jsonl"], flag].concat())
                .succeeds();
            rows(place.path("out.jsonl")).remove(0)
        };
        near(number(&run("exec", "e.jsonl"), "/volume"), volume, 1e-9);
        near(number(&run("score", "s.jsonl"), "/iou/canonical"), iou, 0.03);
    }
}

/// Pictures, programs and meshes as plain files: every stage runs, and rewards are those of the
/// meshes.
#[test]
fn a_folder_of_files_goes_through_every_stage() {
    let place = Place::new();
    let source = cadwright::data::DataSource::path(smoke_run().join("data"));
    for (split, name, count) in
        [(cadwright::data::Split::Train, "train", 20), (cadwright::data::Split::Test, "test", 3)]
    {
        let parts = cadwright::data::Dataset::open(&source, split, Some(count)).unwrap();
        for (i, part) in parts.examples().iter().enumerate() {
            for directory in ["images", "programs", "shapes"] {
                create_dir_all(place.path(&format!("parts/{directory}/{name}"))).unwrap();
            }
            let file = |directory: &str, ending: &str| place.path(&format!("parts/{directory}/{name}/{i:03}.{ending}"));
            write(file("images", "png"), &part.image).unwrap();
            write(file("programs", "py"), part.program.as_ref().unwrap()).unwrap();
            write(file("shapes", "stl"), binary_stl([1.0, 1.0 + i as f64, 2.0])).unwrap();
        }
    }
    let keys = [
        "data.source=folder",
        "data.folder.images=parts/images",
        "data.folder.programs=parts/programs",
        "data.folder.shapes=parts/shapes",
        "data.folder.split_by=directory",
        "data.splits.validation=test",
        "sft.max_steps=3",
        "sft.validate_every=3",
        "sft.validation_samples=2",
        "sft.checkpoint_every=3",
        "ppo.steps=1",
        "ppo.images_per_step=2",
        "ppo.samples_per_image=2",
        "ppo.minibatch_size=2",
        "ppo.ce_batch_size=0",
        "ppo.ce_weight=0.0",
        "ppo.validate_every=1",
        "ppo.validation_samples=2",
        "eval.num_samples=3",
        "eval.engine=auto",
    ];
    let config = smoke_config();
    let mut command = vec!["run", "--config", &config, "--set", "run.output_dir=run"];
    command.extend(keys.iter().flat_map(|key| ["--set", key]));
    place.cadwright(command).succeeds();
    let out = json(place.path("run/eval/ppo/predictions.json"));
    assert_eq!(out.as_object().unwrap().len(), 3);
    for (i, row) in out.as_object().unwrap().values().enumerate() {
        assert_eq!(row["id"], format!("{i:03}"));
        assert!(row["ground_truth_mesh"].as_str().is_some() && row["ground_truth_error"].is_null(), "{row:#}");
    }
}
