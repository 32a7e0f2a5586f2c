//! The cache of the hub, first without a hub and then with a server that imitates it.

pub mod server;

use std::path::{Path, PathBuf};

use cadwright::data::source::split_files;
use cadwright::data::{DataError, Split, SplitNames};
use cadwright::hub::{Hub, HubError, RepoKind, is_hub_id, resolve_checkpoint};

use server::{COMMIT, Server};

/// A cache as the hub's clients leave it: blobs, links to them by commit, and a ref for the branch.
fn cache(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("datasets--someone--parts");
    std::fs::create_dir_all(root.join("refs")).unwrap();
    std::fs::create_dir_all(root.join("blobs")).unwrap();
    std::fs::write(root.join("refs/main"), COMMIT).unwrap();
    for (number, name) in files.iter().enumerate() {
        let blob = root.join("blobs").join(number.to_string());
        std::fs::write(&blob, name).unwrap();
        let link = root.join("snapshots").join(COMMIT).join(name);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&blob, &link).unwrap();
    }
    directory
}

fn hub(cache: &Path, offline: bool) -> Hub {
    // Nothing listens on the discard port, so connections fail at once.
    Hub { cache: cache.to_owned(), offline, token: None, endpoint: Some("http://127.0.0.1:9".to_owned()) }
}

fn names(files: Vec<PathBuf>) -> Vec<String> {
    files.into_iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_cache_serves_a_branch_and_a_commit_offline_and_without_a_network() {
    let cache = cache(&[
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ]);
    for offline in [true, false] {
        let hub = hub(cache.path(), offline);
        for revision in ["main", COMMIT] {
            let files = split_files(&hub, "someone/parts", revision, (Split::Train, &SplitNames::default())).unwrap();
            assert!(files.iter().all(|file| file.exists()));
            assert_eq!(names(files), ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]);
        }
        let files = hub.files(RepoKind::Dataset, "someone/parts", "main", |name| name == "README.md").unwrap();
        assert_eq!(names(files), ["README.md"]);
    }
}

#[test]
fn what_is_not_there_is_named_with_a_way_out() {
    let cache = cache(&["data/train-00000-of-00002.parquet"]);
    let offline = hub(cache.path(), true);
    let error = split_files(&offline, "someone/else", "main", (Split::Train, &SplitNames::default())).unwrap_err();
    assert!(matches!(error, DataError::Hub(HubError::Offline { .. })));
    let error = error.to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("hf download --repo-type dataset someone/else"),
        "{error}"
    );
    let error =
        split_files(&offline, "someone/parts", "main", (Split::Test, &SplitNames::default())).unwrap_err().to_string();
    assert!(error.contains("no test split") && error.contains("data/train-00000-of-00002.parquet"), "{error}");
    let error =
        split_files(&offline, "someone/parts", "main", (Split::Train, &SplitNames::default())).unwrap_err().to_string();
    assert!(error.contains("1 of 2 files"), "{error}");
    let error = split_files(&hub(cache.path(), false), "someone/else", "main", (Split::Train, &SplitNames::default()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot get the list of files of someone/else@main") && error.contains("HF_TOKEN"),
        "{error}"
    );
}

fn hub_of(server: &Server, cache: &Path) -> Hub {
    Hub { cache: cache.to_owned(), offline: false, token: None, endpoint: Some(server.address.clone()) }
}

fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| ((i * 7919) >> 3) as u8).collect()
}

fn model_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", b"# Model".to_vec()),
        ("config.json", b"{ }".to_vec()),
        ("model-00001-of-00002.safetensors", weights()),
        ("model-00002-of-00002.safetensors", b"two".to_vec()),
        ("model.safetensors.index.json", b"{\"weight_map\": {}}".to_vec()),
        ("modeling_internvl_chat.py", b"import os".to_vec()),
        ("onnx/config.json", b"{\"onnx\": 1}".to_vec()),
        ("onnx/model.safetensors", b"onnx".to_vec()),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("vocab.json", b"{\"a\": 1}".to_vec()),
    ]
}

fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

const NEEDED: [&str; 5] = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "vocab.json",
];

#[test]
fn of_a_checkpoint_what_is_needed_is_downloaded_once() {
    let server = Server::start(&model_files());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub_of(&server, cache.path());
    let directory = hub.checkpoint("someone/model", "main").unwrap();
    assert_eq!(listing(&directory), NEEDED);
    assert_eq!(std::fs::read(directory.join(NEEDED[1])).unwrap(), weights());
    assert_eq!(hub.checkpoint("someone/model", "main").unwrap(), directory);
    assert_eq!(server.downloads(NEEDED[1]), [0], "the second time it is there");
    // Without a server, and offline.
    let away = Hub { endpoint: Some("http://127.0.0.1:9".into()), ..hub.clone() };
    assert_eq!(away.checkpoint("someone/model", "main").unwrap(), directory);
    let offline = Hub { offline: true, ..away };
    assert_eq!(offline.checkpoint("someone/model", "main").unwrap(), directory);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let server = Server::start(&model_files());
    server.repository.lock().unwrap().breaks = (100_000, 1);
    let cache = tempfile::tempdir().unwrap();
    let directory = hub_of(&server, cache.path()).checkpoint("someone/model", "main").unwrap();
    assert_eq!(std::fs::read(directory.join(NEEDED[1])).unwrap(), weights());
    assert_eq!(server.downloads(NEEDED[1]), [0, 100_000]);
}

#[test]
fn a_process_that_was_killed_leaves_a_download_that_the_next_goes_on_with() {
    // A partial file may also have the whole length, or more.
    for (part, starts) in [(100_000, vec![100_000]), (300_000, vec![0]), (300_001, vec![0])] {
        let server = Server::start(&model_files());
        let cache = tempfile::tempdir().unwrap();
        let hub = hub_of(&server, cache.path());
        // This download shows the name of the blob.
        let directory = hub.checkpoint("someone/model", "main").unwrap();
        let blob = std::fs::canonicalize(directory.join(NEEDED[1])).unwrap();
        std::fs::remove_file(directory.join(NEEDED[1])).unwrap();
        std::fs::remove_file(&blob).unwrap();
        let mut bytes = weights();
        bytes.push(0);
        std::fs::write(blob.with_extension("part"), &bytes[..part]).unwrap();
        server.repository.lock().unwrap().requests.clear();
        hub.checkpoint("someone/model", "main").unwrap();
        assert_eq!(std::fs::read(directory.join(NEEDED[1])).unwrap(), weights(), "{part} bytes there");
        assert_eq!(server.downloads(NEEDED[1]), starts, "{part} bytes there");
    }
}

#[test]
fn a_download_of_another_size_than_announced_is_removed() {
    let server = Server::start(&model_files());
    // This download shows the name of the blob.
    let other = tempfile::tempdir().unwrap();
    let directory = hub_of(&server, other.path()).checkpoint("someone/model", "main").unwrap();
    let blob = std::fs::canonicalize(directory.join(NEEDED[1])).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--someone--model/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(blob.file_name().unwrap()).with_extension("part"), &weights()[..100_000]).unwrap();
    // A server that ignores ranges sends the whole file again.
    server.repository.lock().unwrap().ignores_ranges = true;
    let hub = hub_of(&server, cache.path());
    let error = hub.checkpoint("someone/model", "main").unwrap_err().to_string();
    assert!(error.contains(NEEDED[1]) && error.contains("400000 of 300000 bytes"), "{error}");
    let directory = hub.checkpoint("someone/model", "main").unwrap();
    assert_eq!(std::fs::read(directory.join(NEEDED[1])).unwrap(), weights());
}

#[test]
fn an_incomplete_download_is_no_checkpoint() {
    let server = Server::start(&model_files());
    server.repository.lock().unwrap().breaks = (10_000, 100);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub_of(&server, cache.path());
    let error = hub.checkpoint("someone/model", "main").unwrap_err().to_string();
    assert!(error.contains("model-00001-of-00002.safetensors") && error.contains("someone/model@main"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let offline = Hub { offline: true, ..hub };
    assert!(matches!(offline.checkpoint("someone/model", "main"), Err(HubError::Offline { .. })));
}

#[test]
fn a_branch_that_moves_gives_all_files_of_the_new_commit_and_downloads_those_that_changed() {
    let server = Server::start(&model_files());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub_of(&server, cache.path());
    let before = hub.checkpoint("someone/model", "main").unwrap();
    {
        let mut repository = server.repository.lock().unwrap();
        repository.commit = COMMIT.chars().rev().collect();
        repository.files.insert("config.json".into(), b"{\"new\": 1}".to_vec());
        repository.requests.clear();
    }
    let after = hub.checkpoint("someone/model", "main").unwrap();
    assert_ne!(after, before);
    assert_eq!(listing(&after), NEEDED);
    assert_eq!(std::fs::read(after.join("config.json")).unwrap(), b"{\"new\": 1}");
    assert_eq!(std::fs::read(after.join(NEEDED[1])).unwrap(), weights());
    assert_eq!(server.downloads("config.json"), [0]);
    assert_eq!(server.downloads(NEEDED[1]), Vec::<usize>::new());
}

#[test]
fn a_private_repository_takes_the_token_and_is_refused_without() {
    let server = Server::start(&model_files());
    server.repository.lock().unwrap().token = Some("secret".into());
    let cache = tempfile::tempdir().unwrap();
    let hub = hub_of(&server, cache.path());
    let error = hub.checkpoint("someone/model", "main").unwrap_err().to_string();
    assert!(error.contains("401") && error.contains("HF_TOKEN"), "{error}");
    let known = Hub { token: Some("secret".into()), ..hub };
    known.checkpoint("someone/model", "main").unwrap();
}

#[test]
fn a_repository_without_what_is_needed_is_refused() {
    let server = Server::start(&[("config.json", b"{}".to_vec()), ("pytorch_model.bin", b"pickle".to_vec())]);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub_of(&server, cache.path());
    let error = hub.checkpoint("someone/model", "main").unwrap_err().to_string();
    assert!(error.contains("someone/model@main has no *.safetensors") && error.contains("config.json"), "{error}");
    let error = hub.adapter("someone/model", "main").unwrap_err().to_string();
    assert!(error.contains("has no adapter_config.json"), "{error}");
}

#[test]
fn an_adapter_comes_with_its_prompt() {
    let files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "prompt.json"];
    let server = Server::start(&files.map(|name| (name, name.as_bytes().to_vec())));
    let cache = tempfile::tempdir().unwrap();
    let directory = hub_of(&server, cache.path()).adapter("someone/model", "main").unwrap();
    assert_eq!(listing(&directory), ["adapter_config.json", "adapter_model.safetensors", "prompt.json"]);
}

#[test]
fn a_name_is_a_directory_or_an_id() {
    for id in ["OpenGVLab/InternVL3-2B", "a/b.c_d-1"] {
        assert!(is_hub_id(id), "{id}");
    }
    for text in ["model", "a/b/c", "/a", "a/", "./a", "../a", "~/a", "a b/c", "", "/", ".git/x"] {
        assert!(!is_hub_id(text), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(resolve_checkpoint(path, "main").unwrap(), directory.path());
    let missing = format!("{path}/nothing");
    let error = resolve_checkpoint(&missing, "main").unwrap_err().to_string();
    for text in [missing.as_str(), "no such directory", "owner/name"] {
        assert!(error.contains(text), "expected {text:?} in {error}");
    }
}
