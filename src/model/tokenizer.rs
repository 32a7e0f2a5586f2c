//! Converts text to tokens and back, with InternVL's special tokens.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, SplitDelimiterBehavior, TokenizerImpl,
};

use super::error::ModelError;
use super::tokenizer_files::TokenizerConfig;

/// A byte-level BPE with the special tokens of InternVL3.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The tokenizer files of the checkpoint besides `tokenizer.json`, by name; other programs need
    /// them.
    companions: Vec<(&'static str, Vec<u8>)>,
    /// The id of `<IMG_CONTEXT>`, the placeholder of one picture embedding.
    pub image_token: i64,
    /// The id of `<|im_end|>`, which ends a turn.
    pub end_of_turn: i64,
    /// The id of `<|endoftext|>`, which pads, and also ends a completion.
    pub end_of_text: i64,
}

pub(super) const END_OF_TEXT: &str = "<|endoftext|>";
pub(super) const START_OF_TURN: &str = "<|im_start|>";
pub(super) const END_OF_TURN: &str = "<|im_end|>";
pub(super) const IMAGE_START: &str = "<img>";
pub(super) const IMAGE_END: &str = "</img>";
pub(super) const IMAGE_CONTEXT: &str = "<IMG_CONTEXT>";

/// The files besides `tokenizer.json` that describe a tokenizer.
const COMPANIONS: [&str; 7] = [
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint directory: `tokenizer.json`, or else Qwen2's
    /// `vocab.json` and `merges.txt`, which the published InternVL3 checkpoints have.
    ///
    /// # Errors
    /// Files are missing or malformed, or the tokenizer lacks special tokens of InternVL; the error
    /// names them.
    pub fn load(directory: &Path) -> Result<Self, ModelError> {
        let config = TokenizerConfig::read(directory)?;
        let [fast, vocab, merges] = ["tokenizer.json", "vocab.json", "merges.txt"].map(|name| directory.join(name));
        let malformed = |path: &Path, error: &dyn std::fmt::Display| ModelError::Tokenizer {
            path: path.to_owned(),
            reason: format!("malformed: {error}"),
        };
        let (inner, path) = if fast.exists() {
            let bytes = std::fs::read(&fast).map_err(|source| ModelError::Read { path: fast.clone(), source })?;
            // The library panics on some files, such as one with half a surrogate pair in a decoder.
            let read = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes)));
            let read = read.map_err(|_| malformed(&fast, &"the tokenizer library panicked"))?;
            let mut inner = read.map_err(|error| malformed(&fast, &error))?;
            add_configured(&mut inner, &config, &fast)?;
            (inner, fast)
        } else if vocab.exists() && merges.exists() {
            let json = config.qwen2()?;
            let inner = serde_json::from_value(json).map_err(|error| malformed(&vocab, &error))?;
            (inner, vocab)
        } else {
            let reason = "has no tokenizer: looked for tokenizer.json, and for vocab.json with merges.txt; copy them from where \
                          the model comes from";
            return Err(ModelError::Tokenizer { path: directory.to_owned(), reason: reason.to_owned() });
        };
        let mut tokenizer = Self::new(inner, &path)?;
        for name in COMPANIONS {
            let path = directory.join(name);
            if path.is_file() {
                let bytes = std::fs::read(&path).map_err(|source| ModelError::Read { path, source })?;
                tokenizer.companions.push((name, bytes));
            }
        }
        Ok(tokenizer)
    }

    fn new(mut inner: tokenizers::Tokenizer, path: &Path) -> Result<Self, ModelError> {
        let failed = |reason: String| ModelError::Tokenizer { path: path.into(), reason };
        // `transformers` also ignores what the file says of these.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        let all = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, IMAGE_START, IMAGE_END, IMAGE_CONTEXT];
        let missing: Vec<_> = all.into_iter().filter(|token| inner.token_to_id(token).is_none()).collect();
        if !missing.is_empty() {
            let reason = format!("special tokens are missing: {}; is this InternVL3's tokenizer?", missing.join(" "));
            return Err(failed(reason));
        }
        let bytes: String = (0..=255u8).map(char::from).collect();
        if let Err(error) = inner.encode_fast(bytes, false) {
            return Err(failed(format!("it cannot encode every text ({error}); is this InternVL3's tokenizer?")));
        }
        let id = |token| i64::from(inner.token_to_id(token).unwrap_or_default());
        let (image_token, end_of_turn, end_of_text) = (id(IMAGE_CONTEXT), id(END_OF_TURN), id(END_OF_TEXT));
        Ok(Self { inner, companions: Vec::new(), image_token, end_of_turn, end_of_text })
    }

    /// Trains a byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909) for the nano model. A
    /// number keeps its sign and never merges with its neighbours, so a frequent number becomes one
    /// token. Other text merges freely, across spaces and lines, so boilerplate becomes short. Any
    /// text can be encoded.
    ///
    /// # Errors
    /// The library cannot train on this text.
    pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Self, ModelError> {
        let failed = |reason: String| ModelError::Tokenizer { path: "tokenizer.json".into(), reason };
        let number = SplitPattern::Regex(r"-?\d+\.\d+".into());
        let split = Split::new(number, SplitDelimiterBehavior::Isolated, false).map_err(|e| failed(e.to_string()))?;
        let bytes = ByteLevel::new(false, false, false);
        let pre_tokenizer = Sequence::new(vec![PreTokenizerWrapper::Split(split), bytes.into()]);
        let special = |token: &str| AddedToken::from(token, true);
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                [END_OF_TEXT, START_OF_TURN, END_OF_TURN, IMAGE_START, IMAGE_END, IMAGE_CONTEXT].map(special).to_vec(),
            )
            .build();
        let mut inner: TokenizerImpl<
            BPE,
            NormalizerWrapper,
            PreTokenizerWrapper,
            PostProcessorWrapper,
            DecoderWrapper,
        > = TokenizerImpl::new(BPE::default());
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::from(pre_tokenizer)));
        inner.with_decoder(Some(DecoderWrapper::from(ByteLevelDecoder::new(false, false, false))));
        inner.train(&mut trainer, texts).map_err(|error| failed(error.to_string()))?;
        let json = inner.to_string(false).map_err(|error| failed(error.to_string()))?;
        let inner = json.parse().map_err(|error: tokenizers::Error| failed(error.to_string()))?;
        Self::new(inner, Path::new("tokenizer.json"))
    }

    /// A tokenizer of the special tokens and the 256 bytes, which encodes any text: for random
    /// models.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn of_bytes() -> Result<Self, ModelError> {
        Self::train(std::iter::once(""), 262)
    }

    /// Writes `tokenizer.json` and the other tokenizer files of the original checkpoint into an
    /// existing directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = directory.join("tokenizer.json");
        let failed = |source| ModelError::Write { path: path.clone(), source };
        let json = self.inner.to_string(true).map_err(|error| failed(std::io::Error::other(error)))?;
        std::fs::write(&path, json).map_err(failed)?;
        for (name, bytes) in &self.companions {
            let path = directory.join(name);
            std::fs::write(&path, bytes).map_err(|source| ModelError::Write { path, source })?;
        }
        Ok(())
    }

    /// The number of embedding rows that the tokens need, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1)
    }

    /// Checks that a model with `vocab_size` embeddings has one for every token.
    ///
    /// # Errors
    /// It has fewer: model and tokenizer are not of one checkpoint.
    pub fn check_fits(&self, vocab_size: i64) -> Result<(), ModelError> {
        let tokens = self.vocab_size();
        if usize::try_from(vocab_size).is_ok_and(|rows| tokens <= rows) {
            return Ok(());
        }
        Err(ModelError::Vocabulary { tokens, vocab_size })
    }

    /// Encodes text. Special tokens in the text become their ids.
    ///
    /// # Panics
    /// Never for a byte-level tokenizer, which can encode any text.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let encoding = self.inner.encode_fast(text, false).expect("a byte-level tokenizer encodes any text");
        encoding.get_ids().iter().map(|&id| i64::from(id)).collect()
    }

    /// Decodes tokens, without special tokens. Bytes that are not UTF-8 become replacement
    /// characters.
    pub fn decode(&self, ids: &[i64]) -> String {
        let ids: Vec<u32> = ids.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        self.inner.decode(&ids, true).unwrap_or_default()
    }

    /// Whether this token ends a completion.
    pub fn is_stop(&self, id: i64) -> bool {
        id == self.end_of_turn || id == self.end_of_text
    }
}

/// Adds the tokens of `tokenizer_config.json` that are not in `tokenizer.json`, or are not special
/// there.
fn add_configured(inner: &mut tokenizers::Tokenizer, config: &TokenizerConfig, path: &Path) -> Result<(), ModelError> {
    if config.get("added_tokens_decoder").is_none() {
        return Ok(());
    }
    let same = |a: &AddedToken, b: &AddedToken| {
        let flags = |t: &AddedToken| (t.single_word, t.lstrip, t.rstrip, t.normalized, t.special);
        a.content == b.content && flags(a) == flags(b)
    };
    let configured = config.added_tokens()?;
    let known = inner.get_added_tokens_decoder();
    let mut special = config.special();
    let differing = configured.iter().filter(|(id, token)| known.get(*id).is_none_or(|known| !same(known, token)));
    let mut new: Vec<AddedToken> = differing.map(|(_, token)| token.clone()).collect();
    for token in &mut new {
        token.special |= special.contains(&token.content);
    }
    for token in known.values().chain(configured.values()) {
        special.remove(&token.content);
    }
    new.extend(special.into_iter().map(|token| AddedToken::from(token, true)));
    inner.add_tokens(&new);
    for (id, token) in &configured {
        let found = inner.token_to_id(&token.content);
        if found != Some(*id) {
            let found = found.map_or("none".to_owned(), |id| id.to_string());
            let reason = format!("{:?} has id {found}, but {id} in tokenizer_config.json", token.content);
            return Err(ModelError::Tokenizer { path: path.to_owned(), reason });
        }
    }
    Ok(())
}
