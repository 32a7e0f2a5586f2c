//! The agent: it writes programs, builds them, looks at them, and corrects them, without any ground
//! truth.

pub mod choose;
pub mod draft;
pub mod feedback;
pub mod learned;
pub mod look;
pub mod neighbours;
pub mod output;
pub mod prior;
pub mod refine;
pub mod session;
pub mod trace;
pub mod verifier;
