//! Puts libtorch's directory into the run path of every binary and test, so that they run without
//! LD_LIBRARY_PATH, and compiles the C++ half of `src/distributed`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        panic!(
            "LIBTORCH is not set: build inside the repository, where .cargo/config.toml sets it, after scripts/setup"
        );
    };
    let libtorch = libtorch.canonicalize().unwrap_or_else(|error| {
        panic!("no libtorch at {}: {error}. Run scripts/setup first", libtorch.display());
    });
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    println!("cargo:rustc-env=CADWRIGHT_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=build.rs");
    if Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    println!("cargo:rerun-if-changed={DISTRIBUTED}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    compile_c10d(&libtorch, &out);
    compile_nccl(&libtorch, &out);
}

/// The commit that is built, for run.json.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    commit.map_or("unknown".into(), |commit| String::from_utf8_lossy(&commit).trim().to_owned())
}

const DISTRIBUTED: &str = "src/distributed";

/// A header of each package that NCCL's backend includes: NCCL, and CUDA's runtime, crt and CCCL.
const NCCL_HEADERS: [&str; 4] = ["nccl.h", "cuda_runtime_api.h", "crt/host_config.h", "nv/target"];

/// A compiler for code that includes libtorch's headers. They make warnings of their own.
fn compiler(libtorch: &Path) -> cc::Build {
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").warnings(false).opt_level(1).cargo_metadata(false).include(DISTRIBUTED);
    build.include(include.join("torch/csrc/api/include")).include(include);
    build
}

/// Compiles c10d's face as a static library: TCPStore and Gloo, which every libtorch has.
fn compile_c10d(libtorch: &Path, out: &Path) {
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=cadwright_c10d");
    println!("cargo:rustc-link-lib=stdc++");
    unless_done(libtorch, out, "c10d", || {
        compiler(libtorch)
            .define("USE_C10D_GLOO", None)
            .file(format!("{DISTRIBUTED}/c10d.cpp"))
            .compile("cadwright_c10d");
    });
}

/// Compiles NCCL's backend as a library that the binary carries and loads where there is a GPU.
/// Without the headers of CUDA and NCCL, which `scripts/setup --full` installs, it is empty.
fn compile_nccl(libtorch: &Path, out: &Path) {
    let library = out.join("libcadwright_nccl.so");
    println!("cargo:rustc-env=CADWRIGHT_NCCL={}", library.display());
    let packages = libtorch.parent().unwrap_or(libtorch).join("nvidia");
    // Packages of CUDA differ in where they put the headers of CCCL, of which c10d needs nv/target.
    let includes = ["cu13/include", "cu13/include/cccl", "nccl/include"].map(|path| packages.join(path));
    let existing = includes.iter().filter(|path| path.exists());
    for path in existing.clone() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let is_there = |header: &&str| existing.clone().any(|path| path.join(header).exists());
    if !NCCL_HEADERS.iter().all(is_there) {
        let _ = std::fs::remove_file(out.join("nccl.stamp"));
        std::fs::write(&library, b"").expect("OUT_DIR can be written");
        return;
    }
    unless_done(libtorch, out, "nccl", || {
        let mut build = compiler(libtorch);
        build.define("USE_C10D_NCCL", None).includes(&includes).pic(true);
        let objects = build.file(format!("{DISTRIBUTED}/nccl.cpp")).compile_intermediates();
        let mut link = build.get_compiler().to_command();
        let status = link.arg("-shared").args(objects).arg("-o").arg(&library).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot link {}", library.display());
    });
}

/// Calls `compile` unless its result is there: this script runs after each commit, and libtorch's
/// headers take a compiler half a minute.
fn unless_done(libtorch: &Path, out: &Path, name: &str, compile: impl FnOnce()) {
    let sources = ["c10d.h", "c10d.cpp", "nccl.cpp"].map(|file| std::fs::read(Path::new(DISTRIBUTED).join(file)));
    let mut hasher = blake3::Hasher::new();
    for source in sources {
        hasher.update(&source.expect("the sources of src/distributed can be read"));
    }
    hasher.update(libtorch.as_os_str().as_encoded_bytes());
    hasher.update(&std::fs::read(libtorch.join("version.py")).unwrap_or_default());
    let (key, stamp) = (hasher.finalize().to_string(), out.join(format!("{name}.stamp")));
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == key) {
        return;
    }
    compile();
    std::fs::write(stamp, key).expect("OUT_DIR can be written");
}
