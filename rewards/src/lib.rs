//! From an outcome to a reward.
