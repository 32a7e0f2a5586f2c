//! `cadwright doctor`

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use cadwright::cuda::{Cuda, cuda, libtorch};
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use clap::Args;
use tch::{Kind, Tensor};

/// Report what this machine has, what is missing, and how to repair it
#[derive(Args)]
pub struct DoctorArgs {}

/// Runs it. Exits with 1 if something that every run needs is missing, or if an NVIDIA device
/// cannot be used.
pub fn run(_: &DoctorArgs) -> Result<()> {
    let mut faults = 0;
    let mut say = |is_well: bool, what: &str, detail: String| {
        println!("{:<6} {what:<12} {detail}", if is_well { "ok" } else { "FAULT" });
        faults += usize::from(!is_well);
    };
    say(true, "cadwright", format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("CADWRIGHT_COMMIT")));
    say(true, "libtorch", libtorch().map_or_else(|| "linked".to_owned(), |path| path.display().to_string()));
    match cuda() {
        Cuda::Usable(count) => say(true, "devices", format!("{count} CUDA devices")),
        Cuda::Absent => say(true, "devices", "CPU only: this machine has no NVIDIA device".to_owned()),
        unusable @ Cuda::Unusable { .. } => say(false, "devices", unusable.warning().unwrap_or_default()),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    say(true, "threads", format!("{} for torch, {cores} cores", tch::get_num_threads()));
    say(
        true,
        "matmul",
        format!("bf16 {:.3}, f32 {:.3} TFLOP/s on the CPU", teraflops(Kind::BFloat16), teraflops(Kind::Float)),
    );
    match smoke_test() {
        Ok(detail) => say(true, "cadquery", detail),
        Err(error) => say(false, "cadquery", format!("{error:#}")),
    }
    let isolation = "programs write as this user: run as one who has nothing to lose, or in a container";
    say(true, "sandbox", isolation.to_owned());
    let memory = memory_gib().unwrap_or_default();
    say(
        memory >= 4.0,
        "memory",
        format!("{memory:.1} GiB available; the quickstart takes up to 4: close other programs"),
    );
    let disk = disk_gib(Path::new(".")).unwrap_or_default();
    say(disk >= 2.0, "disk", format!("{disk:.1} GiB free here; the quickstart needs 1, the build 4: make room"));
    if faults > 0 {
        bail!("{faults} faults; see above");
    }
    Ok(())
}

fn teraflops(kind: Kind) -> f64 {
    const SIDE: i64 = 512;
    let matrix = Tensor::ones([SIDE, SIDE], (kind, tch::Device::Cpu));
    let _warm_up = matrix.matmul(&matrix);
    let started = Instant::now();
    let rounds = 4;
    for _ in 0..rounds {
        let _ = matrix.matmul(&matrix);
    }
    rounds as f64 * 2.0 * (SIDE as f64).powi(3) / started.elapsed().as_secs_f64() / 1e12
}

/// Executes a program that makes a box, and checks the volume of the box.
fn smoke_test() -> Result<String> {
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Cadquery, jobs: 1, ..ScorerConfig::default() })?;
    let info = scorer.ready()?;
    let started = Instant::now();
    let answer = scorer.execute("import cadquery as cq\nresult = cq.Workplane().box(1.0, 2.0, 3.0)")?.answer;
    match answer.solid() {
        Some(solid) if (solid.mass().volume - 6.0).abs() < 1e-9 => {
            let filter = if info.confined { "yes" } else { "NO: programs may start processes and open sockets" };
            Ok(format!(
                "CadQuery {} on Python {}, system call filter {filter}; a box in {} ms",
                info.cadquery,
                info.python,
                started.elapsed().as_millis()
            ))
        }
        _ => bail!("a box of 1 x 2 x 3 gave {}; run scripts/setup again", answer.verdict().name()),
    }
}

fn memory_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / (1 << 20) as f64)
}

fn disk_gib(path: &Path) -> Option<f64> {
    let path = std::ffi::CString::new(path.to_str()?).ok()?;
    let mut status = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a NUL-terminated path, and a buffer that statvfs fills if it returns 0.
    let status = unsafe {
        if libc::statvfs(path.as_ptr(), status.as_mut_ptr()) != 0 {
            return None;
        }
        status.assume_init()
    };
    Some(status.f_bavail as f64 * status.f_frsize as f64 / (1 << 30) as f64)
}
