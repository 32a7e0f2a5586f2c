//! Tokens, the special ones of InternVL, and the one prompt that training, rollouts and evaluation share.

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

/// A `tokenizer.json` with the special tokens of InternVL3.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `<IMG_CONTEXT>`: stands for one picture embedding.
    pub image_token: i64,
    /// `<|im_end|>`: ends a turn.
    pub end_of_turn: i64,
    /// `<|endoftext|>`: pads, and ends a completion as well.
    pub end_of_text: i64,
}

const END_OF_TEXT: &str = "<|endoftext|>";
const START_OF_TURN: &str = "<|im_start|>";
const END_OF_TURN: &str = "<|im_end|>";
const IMAGE_START: &str = "<img>";
const IMAGE_END: &str = "</img>";
const IMAGE_CONTEXT: &str = "<IMG_CONTEXT>";

impl Tokenizer {
    /// Reads `tokenizer.json` of a checkpoint directory.
    ///
    /// # Errors
    /// A missing or malformed file, or one without the special tokens, by name.
    pub fn load(directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| ModelError::Tokenizer { path: path.clone(), reason: format!("malformed: {error}") })?;
        Self::new(inner, &path)
    }

    fn new(inner: tokenizers::Tokenizer, path: &Path) -> Result<Self, ModelError> {
        let all = [END_OF_TEXT, START_OF_TURN, END_OF_TURN, IMAGE_START, IMAGE_END, IMAGE_CONTEXT];
        let missing: Vec<_> = all.into_iter().filter(|token| inner.token_to_id(token).is_none()).collect();
        if !missing.is_empty() {
            let reason = format!("special tokens are missing: {}; is this InternVL3's tokenizer?", missing.join(" "));
            return Err(ModelError::Tokenizer { path: path.into(), reason });
        }
        let id = |token| i64::from(inner.token_to_id(token).unwrap_or_default());
        let (image_token, end_of_turn, end_of_text) = (id(IMAGE_CONTEXT), id(END_OF_TURN), id(END_OF_TEXT));
        Ok(Self { inner, image_token, end_of_turn, end_of_text })
    }

    /// A byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909) for the nano model. A number is never split from its
    /// sign nor merged with its neighbours, so a number that occurs often becomes one token; other text merges
    /// freely, across spaces and lines, so that boilerplate is short. Any text can be encoded.
    ///
    /// # Errors
    /// Where the library cannot train on this text.
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

    /// The special tokens and the 256 bytes: what any text can be written with, for models that are only tried out.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn of_bytes() -> Result<Self, ModelError> {
        Self::train(std::iter::once(""), 262)
    }

    /// Writes `tokenizer.json` into an existing directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = directory.join("tokenizer.json");
        let failed = |source| ModelError::Write { path: path.clone(), source };
        let json = self.inner.to_string(true).map_err(|error| failed(std::io::Error::other(error)))?;
        std::fs::write(&path, json).map_err(failed)
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Text to tokens; special tokens may be spelled out.
    ///
    /// # Panics
    /// Never for a byte-level tokenizer, which can encode any text.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let encoding = self.inner.encode_fast(text, false).expect("a byte-level tokenizer encodes any text");
        encoding.get_ids().iter().map(|&id| i64::from(id)).collect()
    }

    /// Tokens to text, without special tokens; bytes that are not UTF-8 become replacement characters.
    pub fn decode(&self, ids: &[i64]) -> String {
        let ids: Vec<u32> = ids.iter().filter_map(|&id| u32::try_from(id).ok()).collect();
        self.inner.decode(&ids, true).unwrap_or_default()
    }

    /// Whether this token ends a completion.
    pub fn is_stop(&self, id: i64) -> bool {
        id == self.end_of_turn || id == self.end_of_text
    }
}

/// InternVL2.5's conversation template, filled with one picture and one request.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The system message; without text there is no system turn.
    pub system: String,
    /// The request that follows the picture.
    pub user: String,
}

impl Prompt {
    /// Writes the prompt beside a model or adapter that was trained with it, as `prompt.json`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = directory.join("prompt.json");
        let json = serde_json::json!({"system": self.system, "user": self.user});
        std::fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Write { path, source })
    }

    /// The prompt that the model or adapter in `directory` was trained with, where it says so.
    pub fn of(directory: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(directory.join("prompt.json")).ok()?;
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(Self { system: json["system"].as_str()?.into(), user: json["user"].as_str()?.into() })
    }

    /// Everything before the completion, for a picture that becomes `image_tokens` embeddings.
    pub fn text(&self, image_tokens: usize) -> String {
        let system = match self.system.as_str() {
            "" => String::new(),
            system => format!("{START_OF_TURN}system\n{system}{END_OF_TURN}\n"),
        };
        let image = IMAGE_CONTEXT.repeat(image_tokens);
        let user = match self.user.as_str() {
            "" => String::new(),
            user => format!("\n{user}"),
        };
        format!(
            "{system}{START_OF_TURN}user\n{IMAGE_START}{image}{IMAGE_END}{user}{END_OF_TURN}\n{START_OF_TURN}assistant\n"
        )
    }
}
