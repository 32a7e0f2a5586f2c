//! The keys of `[ppo]`.

use cadwright_rewards::section;
use serde::{Deserialize, Serialize};

use super::keys::OptimizerKind;

/// The decay of the cross-entropy weight over PPO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeSchedule {
    /// Linear, to 0 at `ce_anneal_until`.
    Linear,
    /// Half a cosine, to 0 at `ce_anneal_until`.
    Cosine,
    /// No decay.
    Constant,
    /// As `linear`, but the decay pauses while the rollouts' VSR is below that of the SFT policy or
    /// the KL is above its target.
    Guarded,
}

/// The policy from which reinforcement learning starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PpoStart {
    /// The SFT policy of the same run.
    Sft,
    /// The model of `model.path`, with the adapter of `ppo.lora_path` if there is one.
    Model,
}

/// The baseline of a completion's reward, and how advantages are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The estimate of a value head, by GAE (Schulman et al. 2017, arXiv:1707.06347).
    Ppo,
    /// The mean reward of the picture's other completions (Ahmadian et al. 2024, arXiv:2402.14740).
    Rloo,
    /// The mean reward of the picture's completions; differences are divided by their standard
    /// deviation, and every completion has the same weight, whatever its length (Shao et al. 2024,
    /// arXiv:2402.03300).
    Grpo,
    /// The mean reward of the picture's completions, without any normalisation (Liu et al. 2025,
    /// arXiv:2503.20783).
    DrGrpo,
}

impl Algorithm {
    /// Whether rewards are compared within a picture's completions, so that no value head is
    /// needed.
    pub fn is_grouped(self) -> bool {
        self != Self::Ppo
    }
}

/// The form in which the cross-entropy imitates the policy's own programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnSource {
    /// As the policy wrote them.
    Sampled,
    /// After a search has improved them, if it did.
    Refined,
}

/// The choice of the pictures of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curriculum {
    /// All pictures, epoch by epoch.
    Uniform,
    /// Draws pictures more often if the rewards of their completions differed when last seen.
    Signal,
}

section! {
    /// `[ppo]`
    Ppo {
        /// Number of steps. Each collects rollouts and updates on them. 0 skips the stage.
        steps: usize = 500usize,
        /// Ends the stage after this many seconds of wall time from the first step on, validations
        /// included. Schedules then follow the time. 0: no limit. A run with a limit is not
        /// repeatable bit by bit.
        max_seconds: f64 = 0.0,
        /// Number of pictures in a step.
        images_per_step: usize = 32usize,
        /// Number of programs generated for each picture.
        samples_per_image: usize = 8usize,
        /// Softmax temperature of the rollouts. The update scores under the same temperature.
        temperature: f64 = 1.0,
        /// Programs that an episode writes one after another. Before each but the first, the policy
        /// is told what came of the one before (src/agent/feedback.rs). Validation does the same,
        /// greedily. An episode of two turns costs more than twice as much as one of one turn.
        turns: usize = 1usize,
        /// Shows the policy a render of its own program in a further turn, if the program built a
        /// solid: in RL, in SFT with `sft.turns`, and in evaluations with `eval.turns`.
        turn_render: bool = true,
        /// Share of an episode's reward, in [0, 1], that is the mean of its earlier turns' rewards.
        /// The rest is the last turn's. 0: only the last program counts.
        turn_reward_share: f64 = 0.0,
        /// Passes over a step's rollouts.
        epochs: usize = 1usize,
        /// Completions in one optimiser step.
        minibatch_size: usize = 64usize,
        /// Completions in one forward pass, which limits memory; 0 for the whole minibatch. May
        /// change when a run is continued.
        micro_batch_size: usize = 0usize,
        /// Optimiser of matrices: `adamw` or `muon`. All other weights use AdamW.
        optimizer: OptimizerKind = OptimizerKind::Adamw,
        /// Peak learning rate of the policy.
        learning_rate: f64 = 1e-5,
        /// Share of the stage, in [0, 1], after which the linear decay begins; 0 decays from the
        /// start.
        hold: f64 = 0.0,
        /// Learning rate at the end of the decay, as a share of the peak.
        final_lr: f64 = 0.0,
        /// Steps in which the learning rate rises linearly from 0.
        warmup_steps: usize = 5usize,
        /// Learning rate of the value head.
        value_learning_rate: f64 = 1e-3,
        /// Passes of the value head over a step's rollouts.
        value_epochs: usize = 2usize,
        /// `sft` (the SFT policy of the same run) or `model` (`model.path`, with `ppo.lora_path`): a
        /// checkpoint of one's own, from which `cadwright ppo` starts without an SFT stage.
        start: PpoStart = PpoStart::Sft,
        /// With `start = "model"`: directory or hub id of an adapter in PEFT's format, from which
        /// the adapter goes on. Needs `model.tune = "lora"`. Empty: a new adapter.
        lora_path: String = "",
        /// `rloo`, `grpo`, `dr_grpo` or `ppo`. The first three take the mean reward of a picture's
        /// completions as the baseline; `ppo` takes a critic's estimate, by GAE. The group shows
        /// whether a picture was read correctly, which a critic does not know: see docs/log.md.
        algorithm: Algorithm = Algorithm::Rloo,
        /// With `rloo`, takes as a token's baseline the mean over the picture's completions that
        /// share all tokens before it.
        prefix_baseline: bool = false,
        /// `uniform` (epochs over the training parts) or `signal` (draws parts more often if their
        /// rewards differed when last seen).
        curriculum: Curriculum = Curriculum::Uniform,
        /// Number of completions of each picture that the update uses, some of the best and some of
        /// the worst; 0 for all.
        keep_per_image: usize = 0usize,
        /// Number of a step's pictures that the update uses, those whose kept rewards vary most; 0
        /// for all.
        keep_images: usize = 0usize,
        /// Penalty subtracted from the reward of a completion of `generate.max_new_tokens` tokens.
        /// For shorter completions it is proportional to their length.
        length_penalty: f64 = 0.0,
        /// Divides rewards by their running standard deviation.
        reward_normalisation: bool = false,
        /// Maximum absolute value of an advantage, beyond which it is clipped; 0 for no limit.
        advantage_clip: f64 = 0.0,
        /// Discount of rewards, per token.
        gamma: f64 = 1.0,
        /// Lambda of GAE: 1 uses only the return, 0 only the critic. The whole reward is given at
        /// the last token. If lambda is below 1, it reaches early tokens mainly through the critic.
        gae_lambda: f64 = 1.0,
        /// Clips the probability ratio to the range 1 - `clip_range` to 1 + `clip_range`.
        clip_range: f64 = 0.2,
        /// Maximum distance of a value from its old value, beyond which it is clipped.
        value_clip_range: f64 = 0.2,
        /// Ends a step's updates as soon as a minibatch's mean KL per token to the policy that
        /// sampled exceeds this, in nats; 0 never ends them.
        target_kl: f64 = 0.0,
        /// Freezes the vision tower and the projector, even if `model.freeze_vision` is false.
        /// Picture embeddings are then computed once per step.
        freeze_vision: bool = true,
        /// Weight of the KL divergence to the SFT model.
        kl_coef: f64 = 0.01,
        /// Adapts the weight of the KL divergence so that the mean KL per token approaches this, in
        /// nats; 0 keeps it at `kl_coef`.
        kl_target: f64 = 0.0,
        /// Weight of the entropy bonus.
        entropy_coef: f64 = 0.0,
        /// Weight of the cross-entropy on ground-truth programs at the first step.
        ce_weight: f64 = 0.3,
        /// Decay of the cross-entropy weight: `linear`, `cosine`, `constant` or `guarded` (linear,
        /// but paused while the rollouts' VSR is more than 0.02 below the SFT policy's or the KL is
        /// above `kl_target`).
        ce_schedule: CeSchedule = CeSchedule::Linear,
        /// Share of the stage, in [0, 1], at which the cross-entropy weight reaches 0.
        ce_anneal_until: f64 = 1.0,
        /// Number of programs in the cross-entropy of one optimiser step.
        ce_batch_size: usize = 16usize,
        /// Share of the cross-entropy's programs, in [0, 1], that the policy has written. They are
        /// its best programs so far for rows without a program (self-imitation).
        ce_own_share: f64 = 0.0,
        /// Minimum IoU of the policy's own programs in the cross-entropy. With `reward.source =
        /// "image"` it is compared with the image score instead.
        ce_own_iou: f64 = 0.8,
        /// `sampled` (programs as the policy wrote them) or `refined`: programs of a step that are
        /// worse than `ce_own_iou` are also improved by search (docs/agent.md), on the IoU, or on
        /// the image score with `reward.source = "image"`. What reaches `ce_own_iou` becomes the
        /// row's program.
        ce_own_source: OwnSource = OwnSource::Sampled,
        /// With `refined`: the pictures of a step whose best program is refined, those with the
        /// best programs below `ce_own_iou` first.
        refine_programs: usize = 32usize,
        /// With `refined`: changed programs that are built for each of these pictures.
        refine_budget: usize = 100usize,
        /// With `refined`: minimum IoU (or image score) of a program that is refined; below
        /// `ce_own_iou`.
        refine_from: f64 = 0.4,
        /// With `refined`: weight in the cross-entropy, in [0, 1], of the tokens that search has
        /// changed. The policy is sure of what it writes: at full weight, numbers that it finds
        /// unlikely cost validity (docs/log.md).
        ce_refined_weight: f64 = 0.3,
        /// With `refined`: maximum mean cross-entropy of a refined program under the policy that
        /// wrote the original, in nats a token. Less likely ones are not imitated. 0: no limit,
        /// which saves the forward pass.
        ce_refined_nats: f64 = 0.0,
        /// Decoupled weight decay, on matrices only.
        weight_decay: f64 = 0.0,
        /// Decay rates of AdamW's moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Maximum norm of the gradients. A greater norm is scaled down to it.
        max_grad_norm: f64 = 1.0,
        /// Steps between validations; 0 validates only at the end.
        validate_every: usize = 50usize,
        /// Number of validation parts for which programs are generated and scored.
        validation_samples: usize = 64usize,
        /// Number of validation parts for which the SFT policy generates `samples_per_image`
        /// programs, but at least eight, before the first step. The mean IoU of the best ones is
        /// the ceiling for a policy that only chooses among programs that SFT generates. 0 skips
        /// this.
        ceiling_samples: usize = 64usize,
        /// Steps between checkpoints from which a killed run continues; 0 writes none.
        checkpoint_every: usize = 50usize,
        /// Steps between those whose completions are written to `samples.jsonl.gz` (docs/metrics.md);
        /// 0 writes none. May change when a run is continued.
        samples_log_every: usize = 1usize,
        /// Maximum size of `samples.jsonl.gz`, in MiB. A step that does not fit is left out. May
        /// change when a run is continued.
        samples_log_mib: usize = 256usize,
    }
}
