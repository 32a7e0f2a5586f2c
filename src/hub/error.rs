//! Why a file of the hub cannot be used.

use std::path::PathBuf;

use thiserror::Error;

/// Why files of the hub are not to be had.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither here nor a name on the hub.
    #[error("{path}: no such directory, and not a hub id of the form owner/name: give one of the two")]
    NoSuchPlace {
        /// The text given.
        path: String,
    },
    /// A download is not of the size that was announced.
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
        /// Bytes there.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The cache cannot be written.
    #[error("cannot write {} in the hub's cache; set HF_HOME to a directory with room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Offline, and the cache does not have it.
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
        /// The cache looked in.
        cache: PathBuf,
    },
    /// The hub cannot be reached or refuses, and the cache does not have it.
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
        /// What the client says.
        detail: String,
        /// The cache looked in.
        cache: PathBuf,
    },
    /// The repository does not have what is looked for.
    #[error("{repo}@{revision} has no {wanted}: found {}", if found.is_empty() { "no such file".to_owned() } else { found.join(", ") })]
    Missing {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// There is no home directory to keep the cache in.
    #[error("no place for the hub's cache: HOME is not set; set HF_HOME to a directory")]
    NoCache,
}
