//! cadwright teaches a vision-language model to write the CadQuery program of the part in a picture: LoRA fine-tuning,
//! then PPO with an IoU reward.

pub mod data;
pub mod generate;
pub mod model;
