//! Without ground truth: judging and improving programs by the picture alone.

pub mod feedback;
