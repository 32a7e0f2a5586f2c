//! Gets files from the Hugging Face hub through its local cache.
//!
//! The cache is the one that other tools use: `HF_HUB_CACHE`, else `HF_HOME/hub`, else
//! `~/.cache/huggingface/hub`. With `HF_HUB_OFFLINE=1` only the cache is read. The token comes from
//! `HF_TOKEN`, else from the file that `hf auth login` writes; `HF_ENDPOINT` names a mirror.
//! Without a network, files that are in the cache are used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use thiserror::Error;

use crate::data::Split;
use crate::data::dataset::split_of;

/// The reason why files of the hub are not available.
#[derive(Debug, Error)]
pub enum HubError {
    /// The text is neither a local directory nor a hub id.
    #[error("{path}: no such directory, and not a hub id of the form owner/name: give one of the two")]
    NoSuchPlace {
        /// The text given.
        path: String,
    },
    /// A download does not have the announced size.
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
        /// Bytes received.
        found: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// The cache cannot be written.
    #[error("cannot write {} in the hub's cache: {source}; set HF_HOME to a directory with room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Offline, and the cache does not have the repository.
    #[error(
        "{repo}@{revision} is not in the cache {cache}, and HF_HUB_OFFLINE is set: unset it, or download on a machine \
         with a network (hf download --repo-type {kind} {repo} --revision {revision}) and copy the cache, or give a local directory"
    )]
    Offline {
        /// `owner/name`.
        repo: String,
        /// The requested revision.
        revision: String,
        /// `model` or `dataset`.
        kind: &'static str,
        /// The cache directory.
        cache: PathBuf,
    },
    /// The hub cannot be reached or refuses, and the cache does not have the files.
    #[error(
        "cannot get {what} of {repo}@{revision} from the hub ({detail}), and it is not in the cache {cache}: check the name, \
         the network, and, for a private or gated repository, HF_TOKEN; or give a local directory"
    )]
    Request {
        /// A file, or the list of files.
        what: String,
        /// `owner/name`.
        repo: String,
        /// The requested revision.
        revision: String,
        /// The client's message.
        detail: String,
        /// The cache directory.
        cache: PathBuf,
    },
    /// The repository does not have the requested file.
    #[error("{repo}@{revision} has no {wanted}: found {}", if found.is_empty() { "no such file".to_owned() } else { found.join(", ") })]
    Missing {
        /// `owner/name`.
        repo: String,
        /// The revision.
        revision: String,
        /// The requested file or split.
        wanted: String,
        /// The files found.
        found: Vec<String>,
    },
    /// The cache has some files of a split, but not all.
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
        /// Files in the cache.
        found: usize,
        /// Files of the split.
        expected: usize,
        /// The cache directory.
        cache: PathBuf,
    },
    /// There is no home directory for the cache.
    #[error("no place for the hub's cache: HOME is not set; set HF_HOME to a directory")]
    NoCache,
}

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model: weights and tokenizer.
    Model,
    /// A data set: parquet files.
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

/// The settings for access to the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The cache directory, in the layout that all of the hub's clients share.
    pub cache: PathBuf,
    /// Whether to read only the cache.
    pub offline: bool,
    /// The token for private and gated repositories.
    pub token: Option<String>,
    /// The URL of a mirror instead of the hub.
    pub endpoint: Option<String>,
}

impl Hub {
    /// Reads the environment variables that all of the hub's clients use.
    ///
    /// # Errors
    /// [`HubError::NoCache`]: there is no place for the cache.
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

    /// Local paths of the files of a repository whose names satisfy `wanted`, sorted by name.
    /// Missing files are downloaded.
    ///
    /// # Errors
    /// The files are not in the cache, and the hub cannot be reached, refuses, or sends an
    /// incomplete file.
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
            // Without a network, the files that an earlier run downloaded are used.
            Err(error) => match cached.map(listing).filter(|files| !files.is_empty()) {
                Some(files) => {
                    eprintln!("hub: {repo}@{revision} cannot be brought up to date; using what the cache has");
                    Ok(files)
                }
                None => Err(error),
            },
        }
    }

    /// Downloads the files that are needed to run a model, without weights in other formats.
    /// Returns their directory.
    ///
    /// # Errors
    /// The files are not available, or hold no model in safetensors.
    pub fn checkpoint(&self, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
        let is_weights = |name: &str| name.ends_with(".safetensors") && !name.contains('/');
        let is_own = |name: &str| ["config.json", "model.safetensors.index.json"].contains(&name);
        let is_wanted = |name: &str| COMPANIONS.contains(&name) || is_own(name) || is_weights(name);
        self.directory(repo, revision, is_wanted, &["config.json", "*.safetensors"])
    }

    /// Downloads an adapter. Returns its directory.
    ///
    /// # Errors
    /// The files are not available, or are not an adapter in PEFT's format.
    pub fn adapter(&self, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
        let needed = ["adapter_config.json", "adapter_model.safetensors"];
        self.directory(repo, revision, |name| needed.contains(&name) || name == "prompt.json", &needed)
    }

    /// The directory of the files that satisfy `is_wanted`. Each of `needed` must be among them;
    /// `*` stands for any beginning.
    fn directory(
        &self,
        repo: &str,
        revision: &str,
        is_wanted: impl Fn(&str) -> bool,
        needed: &[&str],
    ) -> Result<PathBuf, HubError> {
        let files = self.files(RepoKind::Model, repo, revision, is_wanted)?;
        let names: Vec<String> = files.iter().map(|path| base_name(&path.to_string_lossy()).to_owned()).collect();
        let is_there = |wanted: &str| match wanted.strip_prefix('*') {
            Some(end) => names.iter().any(|name| name.ends_with(end)),
            None => names.iter().any(|name| name == wanted),
        };
        match needed.iter().find(|wanted| !is_there(wanted)) {
            None => Ok(files[0].parent().map(Path::to_path_buf).unwrap_or_default()),
            Some(wanted) => Err(HubError::Missing {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
                wanted: (*wanted).to_owned(),
                found: names,
            }),
        }
    }

    /// Local paths of the parquet files of a split. Missing files are downloaded.
    ///
    /// # Errors
    /// As [`Self::files`]; also if the repository has no such split, or the cache only a part of
    /// it.
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

    /// The files of a revision in the cache, as name and path; `None` if the revision is not there.
    fn cached(&self, kind: RepoKind, repo: &str, revision: &str) -> Option<Vec<(String, PathBuf)>> {
        let root = self.cache.join(repository(kind, repo, revision).folder_name());
        // A branch or tag is a file that contains a commit; otherwise the revision is a commit.
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
            detail: source.to_string().trim_start_matches("request error: ").to_owned(),
            cache: self.cache.clone(),
        };
        // Retries are made here, because the client's own retries begin where its first attempt
        // began, and repeat bytes.
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_token(self.token.clone())
            .with_retries(0)
            .with_progress(true);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| failed("the client", source))?;
        let info = api.repo(repository(kind, repo, revision)).info();
        let info = info.map_err(|source| failed("the list of files", source))?;
        let mut names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        names.retain(|name| wanted(name));
        names.sort();
        // All files belong to one commit, even if the branch moves meanwhile.
        let pinned = repository(kind, repo, &info.sha);
        let from = Pinned {
            api: &api,
            files: api.repo(pinned.clone()),
            root: self.cache.join(pinned.folder_name()),
            commit: &info.sha,
        };
        let missing = names.iter().filter(|name| !from.path(name).exists()).count();
        if missing > 0 {
            eprintln!("hub: {missing} files of {repo}@{revision} to {}", self.cache.display());
        }
        let mut paths = Vec::with_capacity(names.len());
        for name in &names {
            paths.push(from.get(
                name,
                |source| failed(name, source),
                |found, expected| HubError::Truncated {
                    name: name.clone(),
                    repo: repo.to_owned(),
                    revision: revision.to_owned(),
                    found,
                    expected,
                },
            )?);
        }
        // The branch is set to this commit last: without a network, the cache then serves only
        // complete revisions.
        if revision != info.sha {
            let reference = from.root.join("refs").join(revision);
            let written = write_with_parents(&reference, |path| std::fs::write(path, &info.sha));
            written.map_err(|source| HubError::Write { path: reference, source })?;
        }
        Ok(paths)
    }
}

/// The files of one commit.
struct Pinned<'a> {
    api: &'a Api,
    files: ApiRepo,
    root: PathBuf,
    commit: &'a str,
}

impl Pinned<'_> {
    /// The path of the file in the cache, whether it is there or not.
    fn path(&self, name: &str) -> PathBuf {
        self.root.join("snapshots").join(self.commit).join(name)
    }

    /// Gets the file from the cache or the hub. Resumes an interrupted download.
    fn get(
        &self,
        name: &str,
        failed: impl Fn(ApiError) -> HubError,
        truncated: impl Fn(u64, u64) -> HubError,
    ) -> Result<PathBuf, HubError> {
        const ATTEMPTS: u32 = 4;
        let path = self.path(name);
        if path.exists() {
            return Ok(path);
        }
        let metadata = self.api.metadata(&self.files.url(name)).map_err(&failed)?;
        let size = metadata.size() as u64;
        let blob = self.root.join("blobs").join(metadata.etag());
        let unwritable = |source| HubError::Write { path: path.clone(), source };
        // The blob is there already, from another commit.
        if length(&blob) == Some(size) {
            let up = "../".repeat(name.matches('/').count() + 2);
            let target = PathBuf::from(format!("{up}blobs/{}", metadata.etag()));
            write_with_parents(&path, |path| std::os::unix::fs::symlink(&target, path)).map_err(unwritable)?;
            return Ok(path);
        }
        let part = blob.with_extension("part");
        for attempt in 1.. {
            // A partial file that is complete or too long cannot be resumed.
            if length(&part).is_some_and(|length| length >= size) {
                std::fs::remove_file(&part).map_err(unwritable)?;
            }
            match self.files.download(name) {
                Ok(_) => break,
                Err(error) if attempt == ATTEMPTS => return Err(failed(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(300 << attempt)),
            }
        }
        match length(&path) {
            Some(found) if found == size => Ok(path),
            found => {
                let _ = (std::fs::remove_file(&path), std::fs::remove_file(&blob));
                Err(truncated(found.unwrap_or_default(), size))
            }
        }
    }
}

fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}

fn write_with_parents(path: &Path, write: impl Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    write(path)
}

/// Files that a checkpoint may have besides its weights and `config.json`: tokenizer, chat
/// template, preprocessing.
pub const COMPANIONS: [&str; 11] = [
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The directory of a checkpoint: a local directory, or that of a model on the hub, which is
/// downloaded if necessary.
///
/// # Errors
/// `path` is neither a directory nor a hub id, or the download fails.
pub fn resolve_checkpoint(path: &str, revision: &str) -> Result<PathBuf, HubError> {
    resolve(path, |hub| hub.checkpoint(path, revision))
}

/// The directory of an adapter; see [`resolve_checkpoint`].
///
/// # Errors
/// `path` is neither a directory nor a hub id, or the download fails.
pub fn resolve_adapter(path: &str, revision: &str) -> Result<PathBuf, HubError> {
    resolve(path, |hub| hub.adapter(path, revision))
}

fn resolve(path: &str, download: impl Fn(&Hub) -> Result<PathBuf, HubError>) -> Result<PathBuf, HubError> {
    let local = PathBuf::from(path);
    if local.is_dir() {
        return Ok(local);
    }
    if local.exists() || !is_hub_id(path) {
        return Err(HubError::NoSuchPlace { path: path.to_owned() });
    }
    download(&Hub::from_env()?)
}

/// Whether text has the form `owner/name`.
pub fn is_hub_id(text: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
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

/// The number of files that names such as `train-00000-of-00003.parquet` state.
pub(crate) fn shard_count(names: &[String]) -> Option<usize> {
    names.iter().find_map(|name| name.strip_suffix(".parquet")?.rsplit_once("-of-")?.1.parse().ok())
}

/// Collects the files under a directory by their path from `root`; follows links.
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

/// [`Hub::split_files`] with the environment's settings.
pub(crate) fn split_files(repo: &str, revision: &str, split: Split) -> Result<Vec<PathBuf>, HubError> {
    Hub::from_env()?.split_files(repo, revision, split)
}
