//! All integration tests of the crate in one program: `cargo test -p cadwright-rollout --test all
//! hostile::` runs one module. They share the workers of `common::scorer`.

mod audit;
mod bad_files;
mod common;
#[path = "../../../rewards/tests/all/damage.rs"]
mod damage;
mod exploits;
mod export;
mod frames;
mod hostile;
mod jsonl;
mod meshes;
mod refusals;
mod report;
mod result_name;
mod reward_metrics;
mod routing;
mod scorer;
mod shapes;
mod tame;
