//! The trainer.

pub mod data;
