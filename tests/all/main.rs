//! All integration tests of the crate in one program, because linking libtorch takes longer than
//! most of them run. `cargo test -p cadwright --test all ppo::` runs one module.

mod bad_files;
mod cli;
#[path = "../../rewards/tests/all/damage.rs"]
mod damage;
mod data_files;
mod data_forms;
mod data_image;
mod data_synth;
mod harness;
mod hub;
mod losses;
mod model;
mod ppo;
mod prompts;
mod ranks;
mod telemetry;
mod text;
mod turns;
mod variants;
