//! Puts libtorch's directory into the run path of every binary and test, so that they run without
//! LD_LIBRARY_PATH.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        panic!(
            "LIBTORCH is not set: build inside the repository, where .cargo/config.toml sets it, after scripts/setup"
        );
    };
    let lib = libtorch.join("lib");
    let lib = lib.canonicalize().unwrap_or_else(|error| {
        panic!("no libtorch at {}: {error}. Run scripts/setup first", lib.display());
    });
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-env=CADWRIGHT_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=build.rs");
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
}

/// The commit that is built, for run.json.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    commit.map_or("unknown".into(), |commit| String::from_utf8_lossy(&commit).trim().to_owned())
}
