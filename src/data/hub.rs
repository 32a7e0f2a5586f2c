//! Files from the Hugging Face hub, by way of its cache.
//!
//! The cache is the one other tools use: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`. With
//! `HF_HUB_OFFLINE=1` nothing but the cache is read. A token comes from `HF_TOKEN`, else from the file that
//! `hf auth login` leaves; `HF_ENDPOINT` names a mirror. Without a network the cache serves what it has.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use thiserror::Error;

use super::Split;
use super::dataset::split_of;

/// Why files of the hub are not to be had.
#[derive(Debug, Error)]
pub enum HubError {
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
    /// Some files of a split are in the cache, but not all.
    #[error(
        "the cache {cache} has {found} of {expected} files of the {split} split of {repo}@{revision}: download it completely \
         (hf download --repo-type dataset {repo} --revision {revision})"
    )]
    Incomplete {
        /// The split.
        split: Split,
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// Files there.
        found: usize,
        /// Files there should be.
        expected: usize,
        /// The cache looked in.
        cache: PathBuf,
    },
    /// There is no home directory to keep the cache in.
    #[error("no place for the hub's cache: HOME is not set; set HF_HOME to a directory")]
    NoCache,
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// Weights and tokenizers.
    Model,
    /// Parquet files.
    Dataset,
}

impl RepoKind {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }
}

/// How to reach the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The cache, in the layout all of the hub's clients share.
    pub cache: PathBuf,
    /// Read the cache only.
    pub offline: bool,
    /// For private and gated repositories.
    pub token: Option<String>,
    /// A mirror instead of the hub.
    pub endpoint: Option<String>,
}

impl Hub {
    /// Reads the variables that all of the hub's clients know.
    pub fn from_env() -> Result<Self, HubError> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let cache = match (var("HF_HUB_CACHE"), var("HF_HOME"), var("HOME")) {
            (Some(cache), _, _) => PathBuf::from(cache),
            (_, Some(home), _) => Path::new(&home).join("hub"),
            (_, _, Some(home)) => Path::new(&home).join(".cache/huggingface/hub"),
            _ => return Err(HubError::NoCache),
        };
        let is_true = |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        let token = var("HF_TOKEN").map(|token| token.trim().to_owned()).or_else(|| Cache::new(cache.clone()).token());
        Ok(Self { cache, offline: var("HF_HUB_OFFLINE").is_some_and(is_true), token, endpoint: var("HF_ENDPOINT") })
    }

    /// Local paths of the files of a repository whose name is `wanted`, sorted by name; downloaded if need be.
    pub fn files(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, HubError> {
        let listing = |found: Vec<(String, PathBuf)>| -> Vec<PathBuf> {
            found.into_iter().filter(|(name, _)| wanted(name)).map(|(_, path)| path).collect()
        };
        let cached = self.cached(kind, repo, revision);
        if self.offline {
            return cached.map(listing).ok_or_else(|| HubError::Offline {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                kind: kind.name(),
                cache: self.cache.clone(),
            });
        }
        match self.download(kind, repo, revision, &wanted) {
            Ok(files) => Ok(files),
            // Without a network, what an earlier run has downloaded is as good.
            Err(error) => cached.map(listing).filter(|files| !files.is_empty()).ok_or(error),
        }
    }

    /// Local paths of the parquet files of a split.
    pub fn split_files(&self, repo: &str, revision: &str, split: Split) -> Result<Vec<PathBuf>, HubError> {
        let is_parquet = |name: &str| name.ends_with(".parquet");
        let of_split = |name: &str| split_of(base_name(name)) == Some(split.name());
        let files = self.files(RepoKind::Dataset, repo, revision, of_split)?;
        let names: Vec<String> = files.iter().map(|path| base_name(&path.to_string_lossy()).to_owned()).collect();
        if files.is_empty() {
            let found = self.cached(RepoKind::Dataset, repo, revision).unwrap_or_default();
            return Err(HubError::Missing {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                wanted: format!("{split} split ({split}-*.parquet)"),
                found: found.into_iter().map(|(name, _)| name).filter(|name| is_parquet(name)).collect(),
            });
        }
        match shard_count(&names) {
            Some(expected) if expected != files.len() => Err(HubError::Incomplete {
                split,
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                found: files.len(),
                expected,
                cache: self.cache.clone(),
            }),
            _ => Ok(files),
        }
    }

    /// The files of a revision in the cache, by name; `None` where the revision is not there.
    fn cached(&self, kind: RepoKind, repo: &str, revision: &str) -> Option<Vec<(String, PathBuf)>> {
        let root = self.cache.join(repository(kind, repo, revision).folder_name());
        // A branch or tag is a file that names a commit; a commit is its own name.
        let commit = std::fs::read_to_string(root.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
        let snapshot = root.join("snapshots").join(commit.trim());
        let mut found = Vec::new();
        collect_files(&snapshot, &snapshot, &mut found).ok()?;
        found.sort();
        Some(found)
    }

    fn download(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        wanted: &impl Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, HubError> {
        let failed = |what: &str, source: ApiError| HubError::Request {
            what: what.to_owned(),
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            detail: source.to_string(),
            cache: self.cache.clone(),
        };
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_token(self.token.clone())
            .with_retries(3)
            .with_progress(true);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| failed("the client", source))?;
        let repository = api.repo(repository(kind, repo, revision));
        let info = repository.info().map_err(|source| failed("the list of files", source))?;
        let mut names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        names.retain(|name| wanted(name));
        names.sort();
        names.iter().map(|name| repository.get(name).map_err(|source| failed(name, source))).collect()
    }
}

fn repository(kind: RepoKind, repo: &str, revision: &str) -> Repo {
    let kind = match kind {
        RepoKind::Model => RepoType::Model,
        RepoKind::Dataset => RepoType::Dataset,
    };
    Repo::with_revision(repo.to_owned(), kind, revision.to_owned())
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// How many files names like `train-00000-of-00003.parquet` promise.
pub(super) fn shard_count(names: &[String]) -> Option<usize> {
    names.iter().find_map(|name| name.strip_suffix(".parquet")?.rsplit_once("-of-")?.1.parse().ok())
}

/// Files under a directory, links followed, by their path from `root`.
fn collect_files(root: &Path, directory: &Path, found: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_files(root, &path, found)?;
        } else if path.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    Ok(())
}

/// [`Hub::split_files`] with the settings of the environment.
pub(super) fn split_files(repo: &str, revision: &str, split: Split) -> Result<Vec<PathBuf>, HubError> {
    Hub::from_env()?.split_files(repo, revision, split)
}
