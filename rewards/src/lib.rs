//! From an outcome to a reward.

pub mod csg;
