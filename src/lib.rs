//! cadwright teaches a vision-language model to write the CadQuery program of the part in a
//! picture: LoRA fine-tuning, then PPO with an IoU reward.

pub mod agent;
pub mod config;
pub mod conversation;
pub mod cuda;
pub mod data;
pub mod device;
pub mod distributed;
pub mod eval;
pub mod failpoint;
pub mod files;
pub mod generate;
pub mod hub;
pub mod interrupt;
pub mod libtorch;
pub mod machine;
pub mod model;
pub mod pictures;
pub mod plan;
pub mod policy;
pub mod report;
pub mod rollouts;
pub mod run;
pub mod seeds;
pub mod telemetry;
pub mod terminal;
pub mod train;
pub mod turns;
