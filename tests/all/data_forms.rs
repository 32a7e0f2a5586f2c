//! Data in other forms than GenCAD-Code's: folders of files, JSONL, other names of columns and splits.

use std::collections::BTreeSet;
use std::fs::{create_dir_all, write};
use std::path::Path;

use cadwright::data::dataset::SkipReason;
use cadwright::data::folder::{MatchBy, SplitBy};
use cadwright::data::{
    Columns, DataError, DataSource, Dataset, Folder, Place, Selection, Split, SplitNames, encode_png,
};
use serde_json::json;

use crate::harness::{bytes, fixture};

const STL: &str = "solid a\nendsolid a\n";

fn png(grey: u8) -> Vec<u8> {
    encode_png(&image::RgbImage::from_pixel(3, 2, image::Rgb([grey; 3]))).unwrap()
}

/// Writes files below a directory.
fn files(directory: &Path, files: &[(&str, &[u8])]) {
    for (name, content) in files {
        let path = directory.join(name);
        create_dir_all(path.parent().unwrap()).unwrap();
        write(path, content).unwrap();
    }
}

/// A source of all parts in one split, the training one.
fn folder(path: &Path, folder: Folder) -> DataSource {
    let undivided = folder.split_by == SplitBy::Hash;
    let share = |share: f64| if undivided { 0.0 } else { share };
    let folder =
        Folder { validation_share: share(folder.validation_share), test_share: share(folder.test_share), ..folder };
    DataSource::new(Place::Folder(path.to_owned(), folder))
}

fn open(source: &DataSource) -> Result<Dataset, DataError> {
    Dataset::open(source, Split::Train, None)
}

fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.examples().iter().map(|example| example.id.as_str()).collect()
}

#[track_caller]
fn says(error: DataError, texts: &[&str]) {
    let message = error.to_string();
    for text in texts {
        assert!(message.contains(text), "expected {text:?} in: {message}");
    }
}

#[test]
fn files_of_one_stem_are_a_part_in_one_folder_or_in_several() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (jpeg, webp) = (bytes(fixture("images/420.jpg")), bytes(fixture("images/lossless.webp")));
    files(
        root,
        &[
            ("pictures/a.PNG", &png(1)),
            ("pictures/b.jpg", &jpeg),
            ("pictures/deeper/c.webp", &webp),
            ("pictures/alone.png", &png(1)),
            ("code/a.py", b"one"),
            ("code/c.py", b"three"),
            ("code/d.py", b"four"),
            ("shapes/b.stl", STL.as_bytes()),
            ("shapes/c.step", b"ISO-10303-21;"),
            ("shapes/c.stl", STL.as_bytes()),
            ("shapes/notes.txt", b"no part"),
            ("shapes/.hidden.stl", STL.as_bytes()),
        ],
    );
    let several = Folder {
        images: root.join("pictures"),
        programs: root.join("code"),
        shapes: root.join("shapes"),
        ..Folder::default()
    };
    for source in [folder(root, Folder::default()), folder(Path::new(""), several)] {
        let dataset = open(&source).unwrap();
        assert_eq!(ids(&dataset), ["a", "b", "c"]);
        let [a, b, c] = [0, 1, 2].map(|i| dataset.get(i).unwrap());
        assert_eq!(
            (a.image.as_ref(), a.program.as_deref(), a.ground_truth.program()),
            (&png(1)[..], Some("one"), Some("one"))
        );
        assert_eq!((b.image.as_ref(), b.program.as_deref()), (&jpeg[..], None));
        assert_eq!(b.ground_truth.shape().unwrap().bytes(), STL.as_bytes());
        // The shape is what is built, the program is what is learned; STEP is exact.
        assert_eq!((c.image.as_ref(), c.program.as_deref()), (&webp[..], Some("three")));
        assert_eq!(c.ground_truth.shape().unwrap().bytes(), b"ISO-10303-21;");
        let skipped: Vec<_> = dataset.skipped.iter().map(|row| (row.id.as_str(), &row.reason)).collect();
        assert_eq!(skipped, [("alone", &SkipReason::NoProgram), ("d", &SkipReason::NoImage)]);
    }
}

#[test]
fn two_files_of_one_name_are_refused_unless_paths_tell_them_apart() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    files(root, &[("i/0/a.png", &png(0)), ("i/1/a.png", &png(1)), ("p/0/a.py", b"zero"), ("p/1/a.py", b"one")]);
    let of = |match_by| Folder { images: root.join("i"), programs: root.join("p"), match_by, ..Folder::default() };
    let error = open(&folder(Path::new(""), of(MatchBy::Stem))).unwrap_err();
    says(error, &["i/0/a.png", "i/1/a.png", "the same name", "data.folder.match_by = \"path\""]);
    let dataset = open(&folder(Path::new(""), of(MatchBy::Path))).unwrap();
    assert_eq!(ids(&dataset), ["0/a", "1/a"]);
    assert_eq!(
        (dataset.get(1).unwrap().image.as_ref(), dataset.get(1).unwrap().program.as_deref()),
        (&png(1)[..], Some("one"))
    );
    // Of two pictures side by side, neither is meant.
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), &[("a.png", &png(0)), ("a.webp", b""), ("a.py", b"x")]);
    says(open(&folder(directory.path(), Folder::default())).unwrap_err(), &["a.png", "a.webp"]);
}

#[test]
fn a_suffix_of_pictures_is_not_part_of_the_name() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), &[("a_render.png", &png(1)), ("a.png", &png(2)), ("a.stl", STL.as_bytes())]);
    let dataset =
        open(&folder(directory.path(), Folder { image_suffix: "_render".into(), ..Folder::default() })).unwrap();
    assert_eq!((ids(&dataset), dataset.get(0).unwrap().image.as_ref()), (vec!["a"], &png(1)[..]));
}

/// A folder with 60 parts of programs and pictures.
fn sixty(directory: &Path) {
    for i in 0..60 {
        files(directory, &[(&format!("{i:02}.png"), &png(i)), (&format!("{i:02}.py"), b"x")]);
    }
}

#[test]
fn hash_and_fraction_divide_all_parts_without_overlap() {
    let directory = tempfile::tempdir().unwrap();
    sixty(directory.path());
    for (split_by, expected) in [(SplitBy::Hash, None), (SplitBy::Fraction, Some([42, 6, 12]))] {
        let settings = Folder { split_by, validation_share: 0.1, test_share: 0.2, ..Folder::default() };
        let source = DataSource::new(Place::Folder(directory.path().to_owned(), settings));
        let parts = Split::ALL.map(|split| Dataset::open(&source, split, None).unwrap());
        let sizes = [0, 1, 2].map(|i| parts[i].len());
        assert_eq!(sizes.iter().sum::<usize>(), 60, "{split_by:?}");
        assert_eq!(parts.iter().flat_map(ids).collect::<BTreeSet<_>>().len(), 60, "{split_by:?}");
        match expected {
            Some(expected) => assert_eq!(sizes, expected),
            None => assert!(sizes[0] > 30 && sizes[2] > 4, "{sizes:?}"),
        }
    }
    let settings = Folder { split_by: SplitBy::Fraction, validation_share: 0.0, ..Folder::default() };
    let source = DataSource::new(Place::Folder(directory.path().to_owned(), settings));
    let error = Dataset::open(&source, Split::Validation, None).unwrap_err();
    says(error, &["validation split", "is empty", "60 parts: train 57, validation 0, test 3", "validation_share = 0"]);
}

#[test]
fn lists_name_the_parts_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    sixty(directory.path());
    files(directory.path(), &[("lists/train.txt", b"07\n\n03.stl\nnone\n"), ("lists/empty.txt", b"\n")]);
    let lists = directory.path().join("lists");
    let source = folder(directory.path(), Folder { split_by: SplitBy::List, lists, ..Folder::default() });
    let dataset = open(&source).unwrap();
    assert_eq!((ids(&dataset), dataset.skipped[0].id.as_str()), (vec!["07", "03"], "none"));
    let error = Dataset::open(&source, Split::Test, None).unwrap_err();
    says(error, &["there is no", "test.txt", "lists there:", "train.txt", "(data.folder.split_by = \"list\")"]);
    let splits = SplitNames { test: "empty".into(), ..SplitNames::default() };
    says(Dataset::open(&DataSource { splits, ..source }, Split::Test, None).unwrap_err(), &["empty.txt has no line"]);
}

#[test]
fn directories_may_be_splits() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    files(
        root,
        &[
            ("train/0.png", &png(0)),
            ("train/batch/0.py", b"zero"),
            ("val/0.png", &png(1)),
            ("val/0.py", b"one"),
            ("val/lost.py", b"two"),
        ],
    );
    let splits = SplitNames { validation: "val".into(), ..SplitNames::default() };
    let settings = Folder { split_by: SplitBy::Directory, ..Folder::default() };
    let source = DataSource { splits, ..folder(root, settings) };
    let of = |split| Dataset::open(&source, split, None);
    let programs =
        |split| -> Vec<Option<String>> { of(split).unwrap().examples().iter().map(|e| e.program.clone()).collect() };
    assert_eq!(programs(Split::Train), [Some("zero".to_owned())]);
    assert_eq!(programs(Split::Validation), [Some("one".to_owned())]);
    assert_eq!(of(Split::Validation).unwrap().skipped[0].id, "lost");
    says(of(Split::Test).unwrap_err(), &["test split", "no files in test/", "train, val"]);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), &[("a.png", &png(1)), ("b.py", b"x"), ("c.py", b"x"), ("d.py", b"x"), ("e.py", b"x")]);
    let source = folder(directory.path(), Folder::default());
    says(
        open(&source).unwrap_err(),
        &[
            "a picture, and a program or a shape, of the same name are needed",
            "a.png",
            "programs: 4 (",
            "b.py",
            "shapes: none",
        ],
    );
    // Programs alone are enough to score others.
    let dataset = open(&source.clone().without_pictures()).unwrap();
    assert_eq!((ids(&dataset), dataset.get(0).unwrap().image.len()), (vec!["b", "c", "d", "e"], 0));
    says(open(&folder(&directory.path().join("nowhere"), Folder::default())).unwrap_err(), &["no data at", "nowhere"]);
}

#[test]
fn an_unreadable_picture_is_skipped_by_name_and_nothing_usable_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), &[("a.png", b"no picture"), ("a.py", b"x"), ("b.png", &png(2)), ("b.py", b"x")]);
    let source = folder(directory.path(), Folder::default());
    let dataset = open(&source).unwrap();
    assert_eq!((ids(&dataset), dataset.skipped[0].id.as_str()), (vec!["b"], "a"));
    assert!(matches!(dataset.skipped[0].reason, SkipReason::BadImage(_)), "{}", dataset.skipped[0]);
    std::fs::remove_file(directory.path().join("b.py")).unwrap();
    says(open(&source).unwrap_err(), &["no usable row: 2 skipped, the first: a", "cannot be decoded"]);
}

fn jsonl(path: &Path) -> DataSource {
    DataSource::new(Place::Jsonl(path.to_owned()))
}

#[test]
fn jsonl_rows_give_pictures_as_paths_or_base64_and_refuse_urls() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    // A PNG of 1 x 1 pixel, as `base64` encodes it.
    let base64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    files(root, &[("pictures/a.png", &png(1)), ("a.stl", STL.as_bytes())]);
    let lines = [
        json!({"id": "path", "image": "pictures/a.png", "program": "one"}),
        json!({"id": 2, "image": base64, "program": "two", "label": "easy"}),
        json!({"image": {"bytes": base64, "path": "x.png"}, "shape": "a.stl", "program": null}),
        json!({"id": "uri", "image": format!("data:image/png;base64,{base64}"), "program": "four"}),
        json!({"id": "url", "image": "https://example.com/a.png", "program": "five"}),
        json!({"id": "lost", "image": "b.png", "program": "six"}),
        json!({"id": "none", "program": "seven"}),
        json!({"id": "flat", "image": "pictures/a.png", "shape": "b.stl"}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    files(root, &[("train.jsonl", text.as_bytes())]);
    for path in [root.to_owned(), root.join("train.jsonl"), root.join("*.jsonl")] {
        let dataset = open(&jsonl(&path)).unwrap();
        assert_eq!(ids(&dataset), ["path", "2", "train.jsonl:2", "uri"]);
        assert_eq!(dataset.get(1).unwrap().label.as_deref(), Some("easy"));
        assert_eq!(dataset.get(1).unwrap().image, dataset.get(3).unwrap().image);
        assert_eq!(dataset.get(2).unwrap().ground_truth.shape().unwrap().bytes(), STL.as_bytes());
        let skipped: Vec<String> = dataset.skipped.iter().map(|row| format!("{}: {}", row.id, row.reason)).collect();
        for (skipped, text) in skipped.iter().zip([
            "url: cannot read the picture",
            "lost: ",
            "none: there is no picture",
            "flat: cannot read the shape",
        ]) {
            assert!(skipped.starts_with(text), "{skipped}");
        }
        assert!(skipped[0].contains("is a URL") && skipped[1].contains("no file \"b.png\""), "{skipped:?}");
    }
    says(Dataset::open(&jsonl(root), Split::Test, None).unwrap_err(), &["test-*.jsonl", "found train"]);
}

#[test]
fn a_missing_field_lists_those_there_are_and_names_can_be_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("parts.jsonl");
    let line = json!({"img": "a.png", "code": "x", "uid": "7"});
    files(directory.path(), &[("a.png", &png(1)), ("parts.jsonl", format!("{line}\n").as_bytes())]);
    says(open(&jsonl(&path)).unwrap_err(), &["no column \"image\"", "data.columns.image", "found code, img, uid"]);
    let columns = Columns { image: "img".into(), ..Columns::default() };
    let error = open(&DataSource { columns, ..jsonl(&path) }).unwrap_err();
    says(error, &["no column \"program\", nor \"shape\" (data.columns.shape)", "found code, img, uid"]);
    let columns = Columns { image: "img".into(), program: "code".into(), id: "name".into(), ..Columns::default() };
    let error = open(&DataSource { columns: columns.clone(), ..jsonl(&path) }).unwrap_err();
    says(error, &["no column \"name\"", "data.columns.id", "found code, img, uid"]);
    let columns = Columns { id: "uid".into(), ..columns };
    assert_eq!(ids(&open(&DataSource { columns, ..jsonl(&path) }).unwrap()), ["7"]);
}

#[test]
fn damaged_jsonl_names_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.jsonl");
    let good = json!({"image": "a.png", "program": "x"});
    for (line, problem) in [
        ("{\"image\": ", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ("{\"image\": 5}", "field \"image\": expected text, found a number"),
        ("{\"program\": [\"x\"]}", "field \"program\": expected text, found a list"),
    ] {
        write(&path, format!("{good}\n{line}\n")).unwrap();
        says(open(&jsonl(&path)).unwrap_err(), &["train.jsonl, line 2: ", problem]);
    }
    write(&path, "\n").unwrap();
    says(open(&jsonl(&path)).unwrap_err(), &["no usable row: 0 skipped"]);
}

#[test]
fn a_name_stands_for_the_form_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    files(
        root,
        &[
            ("p/data/train-0.parquet", b""),
            ("j/train.jsonl", b""),
            ("f/x/a.stl", b""),
            ("empty/readme.txt", b""),
            ("rows.jsonl", b""),
        ],
    );
    let form = |name: &str| match DataSource::named(&root.join(name).display().to_string(), "main").place {
        Place::Parquet(_) => "parquet",
        Place::Jsonl(_) => "jsonl",
        Place::Folder(..) => "folder",
        Place::Hub { .. } => "hub",
    };
    let expected = [("p", "parquet"), ("j", "jsonl"), ("f", "folder"), ("empty", "parquet"), ("rows.jsonl", "jsonl")];
    for (name, expected) in expected {
        assert_eq!(form(name), expected, "{name}");
    }
    assert!(matches!(DataSource::named("owner/name", "main").place, Place::Hub { .. }));
}

#[test]
fn a_limit_counts_usable_parts_in_every_form() {
    let directory = tempfile::tempdir().unwrap();
    sixty(directory.path());
    write(directory.path().join("00.png"), "no picture").unwrap();
    let source = folder(directory.path(), Folder::default());
    let selection = Selection { limit: Some(2), ..Selection::all(Split::Train) };
    assert_eq!(ids(&Dataset::open_selection(&source, selection).unwrap()), ["01", "02"]);
}
