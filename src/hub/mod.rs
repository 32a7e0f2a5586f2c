//! Files from the Hugging Face hub, through its cache.
//!
//! The cache is the one that other tools use: `HF_HUB_CACHE`, else `HF_HOME/hub`, else
//! `~/.cache/huggingface/hub`. With `HF_HUB_OFFLINE=1` only the cache is read. The token is
//! `HF_TOKEN`, else that in the file that `hf auth login` writes; `HF_ENDPOINT` names a mirror.
//! Without a network, files are served from the cache.

mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cadwright_rollout::files::write_whole;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

pub use error::HubError;

use crate::terminal::{is_quiet, status, warn};

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

/// The settings of the hub's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The cache, in the layout that all clients of the hub share.
    pub cache: PathBuf,
    /// Whether to read only the cache.
    pub offline: bool,
    /// The token for private and gated repositories.
    pub token: Option<String>,
    /// The address of a mirror, if not the hub.
    pub endpoint: Option<String>,
}

impl Hub {
    /// Reads the environment variables that all clients of the hub know.
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

    /// Local paths of the files of a repository whose names are `wanted`, sorted by name;
    /// downloaded if need be.
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
            // Without a network, files that an earlier run downloaded are used.
            Err(error) => match cached.map(listing).filter(|files| !files.is_empty()) {
                Some(files) => {
                    warn(format_args!("hub: {repo}@{revision} cannot be brought up to date; using what the cache has"));
                    Ok(files)
                }
                None => Err(error),
            },
        }
    }

    /// The directory of a model on the hub, with the files that are needed to run it and without
    /// weights in other formats.
    ///
    /// # Errors
    /// The files cannot be downloaded, or the repository holds no model in safetensors.
    pub fn checkpoint(&self, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
        let is_weights = |name: &str| name.ends_with(".safetensors") && !name.contains('/');
        let is_own = |name: &str| ["config.json", "model.safetensors.index.json"].contains(&name);
        let is_wanted = |name: &str| COMPANIONS.contains(&name) || is_own(name) || is_weights(name);
        self.directory(repo, revision, is_wanted, &["config.json", "*.safetensors"])
    }

    /// Downloads an adapter. Returns its directory.
    ///
    /// # Errors
    /// The files cannot be downloaded, or the repository holds no adapter in PEFT's format.
    pub fn adapter(&self, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
        let needed = ["adapter_config.json", "adapter_model.safetensors"];
        self.directory(repo, revision, |name| needed.contains(&name) || name == "prompt.json", &needed)
    }

    /// The directory of the files that are wanted. Each of `needed` must be among them; a leading
    /// `*` matches any text.
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

    /// The files of a revision in the cache, by name and sorted; `None` if the revision is not
    /// there.
    pub fn cached(&self, kind: RepoKind, repo: &str, revision: &str) -> Option<Vec<(String, PathBuf)>> {
        let root = self.cache.join(repository(kind, repo, revision).folder_name());
        // A branch or tag is a file that contains a commit; else the revision is a commit itself.
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
        // Retries here, because the client's own retries begin again at the offset of its first
        // attempt and append bytes that exist already.
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_token(self.token.clone())
            .with_retries(0)
            .with_progress(!is_quiet());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| failed("the client", source))?;
        let info = api.repo(repository(kind, repo, revision)).info();
        let info = info.map_err(|source| failed("the list of files", source))?;
        let mut names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        names.retain(|name| wanted(name));
        names.sort();
        // All files are of one commit, even if the branch moves meanwhile.
        let pinned = repository(kind, repo, &info.sha);
        let from = Pinned {
            api: &api,
            files: api.repo(pinned.clone()),
            root: self.cache.join(pinned.folder_name()),
            commit: &info.sha,
        };
        let missing = names.iter().filter(|name| !from.path(name).exists()).count();
        if missing > 0 {
            status(format_args!("hub: {missing} files of {repo}@{revision} to {}", self.cache.display()));
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
        // The branch is updated last, so that without a network the cache serves only complete
        // commits.
        if revision != info.sha {
            let reference = from.root.join("refs").join(revision);
            let written = write_with_parents(&reference, |path| write_whole(path, info.sha.as_bytes()));
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

    /// The file, from the cache or the hub. An interrupted download is continued.
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
        // Another commit has the same file.
        if length(&blob) == Some(size) {
            let up = "../".repeat(name.matches('/').count() + 2);
            let target = PathBuf::from(format!("{up}blobs/{}", metadata.etag()));
            write_with_parents(&path, |path| std::os::unix::fs::symlink(&target, path)).map_err(unwritable)?;
            return Ok(path);
        }
        let part = blob.with_extension("part");
        for attempt in 1.. {
            // A partial file that is complete or too long cannot be continued.
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

/// The files that a checkpoint may have besides weights and configuration: tokenizer, chat
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

/// The directory of a checkpoint: a local one, or that of a model on the hub, which is downloaded
/// if need be.
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

/// Whether `text` has the form `owner/name`.
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

pub(crate) fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Adds the files under `directory`, with their paths from `root`. Links are followed.
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
