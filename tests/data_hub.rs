//! The hub's cache, without the hub.

use std::path::{Path, PathBuf};

use cadwright::data::Split;
use cadwright::data::hub::{Hub, HubError, RepoKind};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

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
    // Nothing listens on the discard port: a hub that cannot be reached, without waiting for it.
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
            let files = hub.split_files("someone/parts", revision, Split::Train).unwrap();
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
    let error = offline.split_files("someone/else", "main", Split::Train).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }));
    let error = error.to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("hf download --repo-type dataset someone/else"),
        "{error}"
    );
    let error = offline.split_files("someone/parts", "main", Split::Test).unwrap_err().to_string();
    assert!(error.contains("no test split") && error.contains("data/train-00000-of-00002.parquet"), "{error}");
    let error = offline.split_files("someone/parts", "main", Split::Train).unwrap_err().to_string();
    assert!(error.contains("1 of 2 files"), "{error}");
    let error = hub(cache.path(), false).split_files("someone/else", "main", Split::Train).unwrap_err().to_string();
    assert!(
        error.contains("cannot get the list of files of someone/else@main") && error.contains("HF_TOKEN"),
        "{error}"
    );
}
