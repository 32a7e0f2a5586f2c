//! `cadwright doctor`

use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use cadwright::config::Config;
use cadwright::cuda::{Cuda, cuda, libtorch};
use cadwright::distributed::{AllReduces, Place, World, is_first_to_report, nccl};
use cadwright::machine::{available_bytes, free_disk_bytes};
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use clap::Args;
use tch::{Device, Kind, Tensor};

/// Report what this machine has, what is missing, and how to repair it
#[derive(Args)]
pub struct DoctorArgs {}

/// Runs it. Exits with 1 if something that every run needs is missing, or if an NVIDIA device
/// cannot be used. Of several ranks, the first one reports, and all exit with its code.
pub fn run(_: &DoctorArgs) -> Result<()> {
    let is_main = Place::from_environment()?.is_none_or(|place| place.rank == 0);
    let mut report = Report { is_silent: !is_main, faults: 0 };
    if is_main {
        inspect_machine(&mut report);
    }
    let (world, device) = match World::join(&Config::default()) {
        Ok(joined) => joined,
        Err(error) => {
            // Each rank has reasons of its own.
            if !is_main {
                return Err(error);
            }
            report.fault("ranks", format!("{error:#}"));
            return report.result();
        }
    };
    let faults = world.run(|| {
        if is_main {
            inspect_speed(&mut report);
        }
        inspect_ranks(&mut report, &world, device)?;
        world.from_main("the number of faults", || Ok(report.faults))
    })?;
    if !is_main {
        // Rank 0 says how many faults there are; this only sets the exit code.
        is_first_to_report();
    }
    Report { faults, ..report }.result()
}

/// The lines of the report.
struct Report {
    is_silent: bool,
    faults: usize,
}

impl Report {
    fn say(&mut self, is_well: bool, what: &str, detail: impl Display) {
        if !self.is_silent {
            println!("{:<6} {what:<12} {detail}", if is_well { "ok" } else { "FAULT" });
        }
        self.faults += usize::from(!is_well);
    }

    fn ok(&mut self, what: &str, detail: impl Display) {
        self.say(true, what, detail);
    }

    fn fault(&mut self, what: &str, detail: impl Display) {
        self.say(false, what, detail);
    }

    fn result(&self) -> Result<()> {
        if self.faults > 0 {
            bail!("{} faults; see above", self.faults);
        }
        Ok(())
    }
}

/// What does not depend on the ranks.
fn inspect_machine(report: &mut Report) {
    report.ok("cadwright", format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("CADWRIGHT_COMMIT")));
    report.ok("libtorch", libtorch().map_or_else(|| "linked".to_owned(), |path| path.display().to_string()));
    match cuda() {
        Cuda::Usable(count) => report.ok("devices", format!("{count} CUDA devices")),
        Cuda::Absent => report.ok("devices", "CPU only: this machine has no NVIDIA device"),
        unusable @ Cuda::Unusable { .. } => report.fault("devices", unusable.warning().unwrap_or_default()),
    }
    match smoke_test() {
        Ok(detail) => report.ok("cadquery", detail),
        Err(error) => report.fault("cadquery", format!("{error:#}")),
    }
    let memory = gib(available_bytes());
    report.say(
        memory >= 4.0,
        "memory",
        format!("{memory:.1} GiB available; the quickstart takes up to 4: close other programs"),
    );
    let disk = gib(free_disk_bytes(Path::new(".")));
    report.say(disk >= 2.0, "disk", format!("{disk:.1} GiB free here; the quickstart needs 1, the build 4: make room"));
    report.say(nccl_is_well(), "backends", format!("gloo; {}", nccl()));
}

/// Whether this machine needs no NCCL or can load it, if the binary has it.
fn nccl_is_well() -> bool {
    !nccl::is_built_in() || !matches!(cuda(), Cuda::Usable(_)) || nccl::load().is_ok()
}

/// The state of NCCL in words.
fn nccl() -> String {
    if !nccl::is_built_in() {
        return "nccl is not built in: for several GPUs run `scripts/setup --full` and build again".to_owned();
    }
    match cuda() {
        Cuda::Usable(_) => nccl::load().map_or_else(|reason| format!("nccl: {reason}"), |()| "nccl".to_owned()),
        _ => "nccl is built in; there is no GPU to use it".to_owned(),
    }
}

/// What this rank's share of the machine computes.
fn inspect_speed(report: &mut Report) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.ok("threads", format!("{} for torch, {cores} cores", tch::get_num_threads()));
    let [bf16, f32] = [Kind::BFloat16, Kind::Float].map(teraflops);
    report.ok("matmul", format!("bf16 {bf16:.3}, f32 {f32:.3} TFLOP/s on the CPU"));
}

/// The ranks, and how fast they sum tensors. All ranks call it together.
fn inspect_ranks(report: &mut Report, world: &World, device: Device) -> Result<()> {
    if world.size() == 1 {
        report.ok("ranks", "1: no launcher has started others (docs/distributed.md)");
        return Ok(());
    }
    let is_first_here = Place::from_environment()?.is_some_and(|place| place.local_rank == 0);
    let machines = world.gather("the machines", is_first_here.then(|| world.local_size()))?;
    let machines: Vec<String> = machines.iter().flatten().map(usize::to_string).collect();
    let (size, backend) = (world.size(), world.backend());
    report.ok("ranks", format!("{size} (on each machine: {}); backend {backend}", machines.join(", ")));
    let mut measured = vec![("gloo", AllReduces::measure(world, Device::Cpu)?)];
    if device.is_cuda() {
        measured.push(("nccl", AllReduces::measure(world, device)?));
    }
    for (name, reduces) in &measured {
        for (bytes, seconds) in &reduces.seconds {
            let message = if *bytes < 1 << 20 { format!("{bytes} B") } else { format!("{} MiB", bytes >> 20) };
            let bandwidth = reduces.bandwidth(*bytes, *seconds) / 1e9;
            let speed = if *bytes < 1 << 20 { String::new() } else { format!("  {bandwidth:.3} GB/s") };
            report.ok(name, format!("all-reduce of {message:>6}  {seconds:.6} s{speed}"));
        }
        let (latency, bandwidth) = reduces.fitted();
        report.ok(name, format!("fitted: latency {:.1} us, bandwidth {:.3} GB/s", latency * 1e6, bandwidth / 1e9));
    }
    Ok(())
}

fn teraflops(kind: Kind) -> f64 {
    const SIDE: i64 = 512;
    let matrix = Tensor::ones([SIDE, SIDE], (kind, Device::Cpu));
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
            let layers = info.layers.iter().map(|(name, layer)| {
                let holds = if layer.holds { "yes" } else { "NO" };
                format!("\n    sandbox, {name}: {holds} ({})", layer.detail)
            });
            Ok(format!(
                "CadQuery {} on Python {}; a box in {} ms{}",
                info.cadquery,
                info.python,
                started.elapsed().as_millis(),
                layers.collect::<String>()
            ))
        }
        _ => bail!("a box of 1 x 2 x 3 gave {}; run scripts/setup again", answer.verdict().name()),
    }
}

/// 0 if it is not known.
fn gib(bytes: Option<u64>) -> f64 {
    bytes.unwrap_or_default() as f64 / (1u64 << 30) as f64
}
