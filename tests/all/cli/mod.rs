//! Tests of the binary from the outside, one promised property per test, with real CadQuery.

mod agent;
mod algorithms;
mod bad_input;
mod choose;
mod configs;
mod data;
mod gates;
mod habits;
mod hub;
mod launch;
mod model;
mod plan;
mod prompts;
mod ranks;
mod recovery;
mod report;
mod run;
mod starts;
mod teachers;
mod tools;
mod toy;
mod turns;

pub use run::smoke_run;
