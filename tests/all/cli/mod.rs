//! Tests of the binary from the outside, one promised property per test, with real CadQuery.

mod agent;
mod algorithms;
mod bad_input;
mod choose;
mod configs;
mod data;
mod data_convert;
mod data_render;
mod data_stats;
mod gates;
mod habits;
mod hub;
mod launch;
mod model;
mod newcomer;
mod own_data;
mod plan;
mod prompts;
mod ranks;
mod recovery;
mod report;
mod rewards;
mod run;
mod samples;
mod starts;
mod teachers;
mod tools;
mod toy;
mod turns;

pub use run::smoke_run;
