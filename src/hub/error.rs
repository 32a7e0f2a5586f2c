//! Why a file of the hub cannot be used.

use std::path::PathBuf;

use thiserror::Error;

/// Why files of the hub cannot be used.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither a local directory nor a hub id.
    #[error("{path}: no such directory, and not a hub id of the form owner/name: give one of the two")]
    NoSuchPlace {
        /// The text given.
        path: String,
    },
    /// A download does not have the size that the hub announced.
    #[error(
        "{name} of {repo}@{revision} came with {found} of {expected} bytes and was removed: start again to download it anew"
    )]
    Truncated {
        /// The file.
        name: String,
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The cache cannot be written.
    #[error("cannot write {} in the hub's cache; set HF_HOME to a directory with room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// `HF_HUB_OFFLINE` is set, and the cache does not have the revision.
    #[error(
        "{repo}@{revision} is not in the cache {cache}, and HF_HUB_OFFLINE is set: unset it, or download on a machine \
         with a network (hf download --repo-type {kind} {repo} --revision {revision}) and copy the cache, or give a local directory"
    )]
    Offline {
        /// `owner/name`.
        repo: String,
        /// The revision wanted.
        revision: String,
        /// `model` or `dataset`.
        kind: &'static str,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// The hub cannot be reached or refuses the request, and the cache does not have the files.
    #[error(
        "cannot get {what} of {repo}@{revision} from the hub ({detail}), and it is not in the cache {cache}: check the name, \
         the network, and, for a private or gated repository, HF_TOKEN; or give a local directory"
    )]
    Request {
        /// File, or list of files.
        what: String,
        /// `owner/name`.
        repo: String,
        /// The revision wanted.
        revision: String,
        /// The client's message.
        detail: String,
        /// The cache that was searched.
        cache: PathBuf,
    },
    /// The repository does not have the file.
    #[error("{repo}@{revision} has no {wanted}: found {}", if found.is_empty() { "no such file".to_owned() } else { found.join(", ") })]
    Missing {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// The file or files that were looked for.
        wanted: String,
        /// The files that exist.
        found: Vec<String>,
    },
    /// There is no home directory for the cache.
    #[error("no place for the hub's cache: HOME is not set; set HF_HOME to a directory")]
    NoCache,
}
