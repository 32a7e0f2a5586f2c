//! Errors of models on disk.

use std::path::PathBuf;

use super::preset::Preset;

/// The reason why a checkpoint, tokenizer or adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A configuration that is malformed or contradicts itself.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The problems, field by field.
        reason: String,
    },
    /// The architecture is not supported.
    #[error("{}: architecture {architecture} is not supported; supported are InternVLChatModel and InternVLForConditionalGeneration over Qwen2ForCausalLM (InternVL3 1B, 2B, 8B, 14B, 38B, 78B, with or without -hf, and nano)", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture that the file names.
        architecture: String,
    },
    /// An unknown preset.
    #[error("unknown model preset {name:?}; known are {}", Preset::ALL.map(Preset::name).join(", "))]
    Preset {
        /// The requested name.
        name: String,
    },
    /// A safetensors file that cannot be parsed.
    #[error("{}: not a complete safetensors file ({reason}); copy or download it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
    /// Weights that do not fit the architecture; all names are reported at once.
    #[error("{}: weights do not fit {expected}:\n  {}", path.display(), problems.join("\n  "))]
    Weights {
        /// The file or directory.
        path: PathBuf,
        /// The architecture or checkpoint that they were compared with.
        expected: String,
        /// One line for each tensor that is missing, unexpected or has the wrong shape.
        problems: Vec<String>,
    },
    /// A tokenizer that lacks tokens that the prompt needs, or that is malformed.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// Tensors that a model cannot use.
    #[error("{reason}")]
    Input {
        /// The tensor, the expected value and the found value.
        reason: String,
    },
    /// A tokenizer of another model.
    #[error(
        "the tokenizer has {tokens} tokens, but the model only {vocab_size} embeddings (vocab_size in its config.json): take both \
         from one checkpoint"
    )]
    Vocabulary {
        /// Tokens, special tokens included.
        tokens: usize,
        /// Rows of the embedding.
        vocab_size: i64,
    },
    /// A chat template that cannot be used.
    #[error("{}: chat template: {reason}; correct it, or use InternVL's own with --set prompt.template=internvl", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// A prompt that cannot be built or read.
    #[error("{origin}: {reason}")]
    Prompt {
        /// The file, or the configuration keys, of the prompt.
        origin: String,
        /// The problem.
        reason: String,
    },
    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
