//! The tokenizer files of a checkpoint besides `tokenizer.json`, read as `transformers` reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::error::ModelError;

/// `tokenizer_config.json` and, if that does not decide it, `special_tokens_map.json` and
/// `added_tokens.json`.
pub(super) struct TokenizerConfig {
    directory: PathBuf,
    settings: Map<String, Value>,
}

/// The roles of special tokens, in the order in which `transformers` visits them.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const ADDITIONAL: &str = "additional_special_tokens";
/// Roles that Qwen2's tokenizer fills if the files do not.
const QWEN2_ROLES: [&str; 3] = ["eos_token", "unk_token", "pad_token"];

/// The pattern by which Qwen2 splits text before it merges bytes.
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl TokenizerConfig {
    /// Reads the files of a directory; each may be absent.
    ///
    /// # Errors
    /// A file is not a JSON object.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        let mut settings = read_object(&directory.join("tokenizer_config.json"))?.unwrap_or_default();
        // Files from before 2023 keep the special tokens in separate files; a list of added tokens
        // marks newer ones.
        if !settings.contains_key("added_tokens_decoder")
            && let Some(map) = read_object(&directory.join("special_tokens_map.json"))?
        {
            settings.extend(map);
        }
        Ok(Self { directory: directory.to_owned(), settings })
    }

    /// A value of `tokenizer_config.json`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.settings.get(key).filter(|value| !value.is_null())
    }

    /// The special tokens by role, without `additional_special_tokens`.
    pub fn roles(&self) -> BTreeMap<String, String> {
        let mut roles = BTreeMap::new();
        if self.get("tokenizer_class").and_then(Value::as_str).is_none_or(|class| class.starts_with("Qwen2")) {
            roles.extend(QWEN2_ROLES.map(|role| (role.to_owned(), super::tokenizer::END_OF_TEXT.to_owned())));
        }
        for role in ROLES {
            match self.settings.get(role) {
                Some(Value::Null) => _ = roles.remove(role),
                Some(value) => roles.extend(content(value).map(|token| (role.to_owned(), token))),
                None => {}
            }
        }
        if let Some(Value::Object(extra)) = self.get("extra_special_tokens") {
            roles.extend(extra.iter().filter_map(|(role, value)| Some((role.clone(), content(value)?))));
        }
        roles
    }

    /// The special tokens without a role.
    pub fn additional(&self) -> Vec<String> {
        let list = |value: &Value| value.as_array().map(|tokens| tokens.iter().filter_map(content).collect());
        self.get(ADDITIONAL).and_then(list).unwrap_or_default()
    }

    /// The tokens that the files add to the vocabulary, by their ids.
    ///
    /// # Errors
    /// An entry is malformed.
    pub fn added_tokens(&self) -> Result<BTreeMap<u32, AddedToken>, ModelError> {
        let mut added = BTreeMap::new();
        if let Some(decoder) = self.settings.get("added_tokens_decoder") {
            let malformed = |entry: &str| {
                let path = self.directory.join("tokenizer_config.json");
                ModelError::Tokenizer { path, reason: format!("added_tokens_decoder has a malformed entry {entry}") }
            };
            for (id, value) in decoder.as_object().ok_or_else(|| malformed(&decoder.to_string()))? {
                let token = value["content"].as_str().filter(|content| !content.is_empty());
                let (Ok(number), Some(token)) = (id.parse(), token) else { return Err(malformed(id)) };
                let flag = |name: &str| value[name].as_bool();
                let is_special = flag("special").unwrap_or(false);
                let token = AddedToken {
                    content: token.to_owned(),
                    single_word: flag("single_word").unwrap_or(false),
                    lstrip: flag("lstrip").unwrap_or(false),
                    rstrip: flag("rstrip").unwrap_or(false),
                    normalized: flag("normalized").unwrap_or(!is_special),
                    special: is_special,
                };
                added.insert(number, token);
            }
        } else {
            let path = self.directory.join("added_tokens.json");
            let special = self.special();
            for (token, id) in read_object(&path)?.unwrap_or_default() {
                let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                    return Err(ModelError::Tokenizer { path, reason: format!("{token:?} has id {id}") });
                };
                let is_special = special.contains(token.as_str());
                added.insert(id, AddedToken::from(token, is_special));
            }
        }
        Ok(added)
    }

    /// All special tokens.
    pub fn special(&self) -> BTreeSet<String> {
        self.roles().into_values().chain(self.additional()).collect()
    }

    /// Builds the JSON of `tokenizer.json` for Qwen2's tokenizer from `vocab.json` and
    /// `merges.txt`.
    ///
    /// # Errors
    /// Files are missing or malformed, or do not fit each other.
    pub fn qwen2(&self) -> Result<Value, ModelError> {
        let path = self.directory.join("vocab.json");
        let failed = |path: &Path, reason: String| ModelError::Tokenizer { path: path.to_owned(), reason };
        let vocab = read_object(&path)?.unwrap_or_default();
        let mut ids: BTreeMap<String, u32> = BTreeMap::new();
        for (token, id) in vocab {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number.ok_or_else(|| failed(&path, format!("{token:?} has id {id}, not a whole number")))?;
            ids.insert(token, number);
        }
        let missing = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let missing = missing.into_iter().filter(|byte| !ids.contains_key(&byte.to_string())).count();
        if missing > 0 {
            return Err(failed(&path, format!("{missing} of the 256 single bytes are no tokens: is it complete?")));
        }
        let merges = self.merges(&ids)?;

        let mut added = self.added_tokens()?;
        let mut unlisted = self.special();
        for token in added.values_mut() {
            token.special |= unlisted.remove(&token.content);
        }
        let mut tokens: BTreeMap<u32, String> = ids.iter().map(|(token, &id)| (id, token.clone())).collect();
        for token in unlisted {
            let next = tokens.keys().chain(added.keys()).max().map_or(Some(0), |id| id.checked_add(1));
            let id = ids.get(&token).copied().or(next);
            let id = id.ok_or_else(|| failed(&path, format!("no id is left for {token:?}")))?;
            added.insert(id, AddedToken::from(token, true));
        }
        // Added tokens are put into the vocabulary with their own ids, because the library would
        // renumber them otherwise. No merge makes them, so text never becomes one by accident.
        for (&id, token) in &added {
            let taken = tokens.insert(id, token.content.clone()).filter(|taken| *taken != token.content);
            let moved = ids.insert(token.content.clone(), id).filter(|&before| before != id);
            if taken.is_some() || moved.is_some() {
                let other = taken
                    .map_or_else(|| format!("is {} there", moved.unwrap_or_default()), |t| format!("is {t:?} there"));
                return Err(failed(
                    &path,
                    format!("does not fit the added tokens: {:?} is {id} among them, which {other}", token.content),
                ));
            }
        }
        let added: Vec<Value> = added
            .iter()
            .map(|(id, token)| {
                json!({
                    "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                    "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
                })
            })
            .collect();
        let bytes = |trim_offsets: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trim_offsets, "use_regex": false});
        let split = json!({
            "type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": false,
        });
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes(true)]},
            "post_processor": bytes(false),
            "decoder": bytes(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": merges,
            },
        }))
    }

    fn merges(&self, ids: &BTreeMap<String, u32>) -> Result<Vec<[String; 2]>, ModelError> {
        let path = self.directory.join("merges.txt");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let mut merges = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || number == 0 && line.starts_with("#version:") {
                continue;
            }
            let failed = |reason: String| ModelError::Tokenizer {
                path: path.clone(),
                reason: format!("line {}: {reason}", number + 1),
            };
            let parts: Vec<&str> = line.split_whitespace().collect();
            let &[first, second] = parts.as_slice() else {
                return Err(failed(format!("expected two tokens, got {line:?}")));
            };
            let merged = format!("{first}{second}");
            if let Some(unknown) = [first, second, &merged].into_iter().find(|&token| !ids.contains_key(token)) {
                return Err(failed(format!("{unknown:?} is not in vocab.json: are both files of one tokenizer?")));
            }
            merges.push([first.to_owned(), second.to_owned()]);
        }
        Ok(merges)
    }
}

/// The text of a token that is given as text, or as an object with flags.
fn content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The object in a file of JSON; `None` if there is no such file.
pub(super) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, ModelError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ModelError::Read { path: path.to_owned(), source }),
    };
    let failed = |reason: String| ModelError::Tokenizer { path: path.to_owned(), reason };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(failed("malformed: expected a JSON object".into())),
        Err(error) => Err(failed(format!("malformed: {error}"))),
    }
}
