//! All integration tests of the crate in one program: `cargo test -p cadwright-rewards --test all
//! grid::` runs one module.

mod bad_files;
mod common;
mod common_grid;
mod damage;
mod frames;
mod grid;
mod native;
mod native_exact;
mod native_fuzz;
mod native_iou;
