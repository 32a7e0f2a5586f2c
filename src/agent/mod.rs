//! The agent: it writes programs, builds them, looks at them, and corrects them, without any ground
//! truth.

pub mod choose;
pub mod draft;
pub mod feedback;
pub mod look;
pub mod prior;
pub mod refine;
