//! `cadwright plan`

use std::path::Path;

use anyhow::{Result, bail, ensure};
use cadwright::config::Config;
use cadwright::model::{InternVlConfig, Preset};
use cadwright::plan::{Assumptions, Device, Plan, Planner, StagePlan, greatest_loss};
use clap::Args;
use clap::builder::{RangedU64ValueParser, TypedValueParser};

use super::ConfigArgs;

/// Estimate what a step costs on many GPUs: seconds, memory, and what stops scaling
#[derive(Args)]
pub struct PlanArgs {
    /// Shape of the model: nano, internvl3-1b, internvl3-2b, internvl3-8b, internvl3-14b,
    /// internvl3-38b or internvl3-78b; by default that of the configuration, if it is on this
    /// machine
    #[arg(long)]
    preset: Option<String>,
    /// Number of GPUs; the plan is for 1, 2, 4, .. and this
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1 << 20))]
    gpus: u64,
    /// Kind of GPU: a100-80g, h100, h200, or cpu-core (a rank on each core of a CPU)
    #[arg(long, default_value = "h100")]
    gpu: String,
    /// GPUs of a node
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<u64>::new().range(1..=1024))]
    gpus_per_node: u64,
    /// Cores of a node for each GPU, which score programs; by default 16, and 1 for cpu-core
    #[arg(long, value_name = "CORES", value_parser = positive())]
    cores_per_gpu: Option<f64>,
    /// Share of the peak FLOP/s that training reaches
    #[arg(long, value_name = "SHARE", value_parser = positive())]
    mfu: Option<f64>,
    /// Mean tokens of a completion; by default 0.22 of generate.max_new_tokens
    #[arg(long, value_name = "TOKENS", value_parser = positive())]
    mean_tokens: Option<f64>,
    /// Tokens at which a completion is cut off; by default generate.max_new_tokens
    #[arg(long, value_name = "TOKENS", value_parser = positive())]
    longest_tokens: Option<f64>,
    /// Programs that one core scores in a second
    #[arg(long, value_name = "PROGRAMS", value_parser = positive())]
    scores_per_second: Option<f64>,
    /// Print the numbers as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Parses a number above 0.
fn positive() -> impl TypedValueParser<Value = f64> {
    clap::builder::StringValueParser::new().try_map(|text| match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("expected a number above 0, got {text}")),
    })
}

/// Runs it.
pub fn run(args: &PlanArgs) -> Result<()> {
    let config = args.config.load(Vec::new())?;
    ensure!(
        config.sft.turns.max(config.ppo.turns) == 1,
        "plan knows episodes of one turn: set sft.turns=1 and ppo.turns=1"
    );
    let mut device: Device = args.gpu.parse()?;
    device.mfu = args.mfu.unwrap_or(device.mfu);
    let cores = args.cores_per_gpu.unwrap_or(if device.scores_itself { 1.0 } else { 16.0 });
    let mut assumptions = Assumptions::of(&config, cores, args.gpus_per_node);
    assumptions.mean_tokens = args.mean_tokens.unwrap_or(assumptions.mean_tokens);
    assumptions.longest_tokens = args.longest_tokens.unwrap_or(assumptions.longest_tokens);
    assumptions.scores_per_second = args.scores_per_second.unwrap_or(assumptions.scores_per_second);
    if assumptions.mean_tokens > assumptions.longest_tokens {
        let Assumptions { mean_tokens, longest_tokens, .. } = assumptions;
        bail!("the mean of {mean_tokens} tokens is above the longest of {longest_tokens}; give --longest-tokens too");
    }
    let model = model(args.preset.as_deref(), &config)?;
    let plan = Planner { model: &model, config: &config, device, assumptions }.plan(args.gpus);
    if args.json {
        println!("{:#}", serde_json::to_value(&plan)?);
    } else {
        print(&plan);
    }
    Ok(())
}

/// The shape of the preset, or else of the configuration's model.
fn model(preset: Option<&str>, config: &Config) -> Result<InternVlConfig> {
    let path = &config.model.path;
    let preset = match preset {
        Some(name) => name.parse::<Preset>()?,
        None if path.is_empty() => config.model.preset,
        None if Path::new(path).is_dir() => return Ok(InternVlConfig::read(Path::new(path))?),
        None => bail!("model.path = \"{path}\" is not on this machine; name its shape with --preset"),
    };
    Ok(InternVlConfig::preset(preset, config.model.vocab_size as i64))
}

fn print(plan: &Plan) {
    let Plan { device, assumptions, parameters, trained_parameters, .. } = plan;
    let million = |count: u64| count as f64 / 1e6;
    println!(
        "{}: {:.1} M parameters, {:.1} M trained; {} GPUs and {} cores for each GPU in a node",
        device.name,
        million(*parameters),
        million(*trained_parameters),
        assumptions.gpus_per_node,
        assumptions.cores_per_gpu,
    );
    println!(
        "assumed: {:.2} of peak FLOP/s; completions of {:.0} tokens on average, cut off at {:.0}; {:.0} programs scored \
         a second on a core",
        device.mfu, assumptions.mean_tokens, assumptions.longest_tokens, assumptions.scores_per_second,
    );
    print_stage(&plan.sft, "examples", device);
    print_stage(&plan.rl, "completions", device);
    println!("docs/scaling.md explains the model. \"sharded\" is distributed.shard_optimizer = true.");
}

fn print_stage(stage: &StagePlan, what: &str, device: &Device) {
    println!();
    let Some(last) = stage.steps.last() else { return };
    println!(
        "{}: {} {what} a step, {:.3e} FLOPs, {:.1} MB reduced by each GPU",
        stage.stage,
        stage.per_step,
        last.flops,
        last.bytes_reduced / 1e6
    );
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>6} {:>8} {:>8}",
        "GPUs",
        "step s",
        "generate",
        "scoring",
        "update",
        "reduce",
        "others",
        "idle",
        "a second",
        "speed-up",
        "share",
        "GiB",
        "sharded"
    );
    for step in &stage.steps {
        let seconds = &step.seconds;
        println!(
            "{:>6} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.4} {:>9.3} {:>9.3} {:>10.2} {:>9.2} {:>6.2} {:>8.2} {:>8.2}",
            step.world,
            step.seconds_total,
            seconds.generate,
            step.seconds_scoring,
            seconds.update,
            seconds.all_reduce,
            step.seconds_total - seconds.generate - seconds.update - seconds.all_reduce,
            step.seconds_idle,
            step.per_second,
            step.speed_up,
            step.efficiency,
            step.memory_gib,
            step.memory_sharded_gib,
        );
    }
    match stage.limit {
        Some((world, limit)) => {
            println!("more than half of a step is lost from {world} GPUs on, first to: {}", limit.name())
        }
        None => println!(
            "less than half of a step is lost; most of it on {} GPUs to: {}",
            last.world,
            greatest_loss(last).name()
        ),
    }
    let least = stage.steps.iter().map(|step| step.memory_sharded_gib).fold(f64::INFINITY, f64::min);
    if least > device.memory_gib {
        println!("does not fit: {least:.1} GiB even with a sharded optimiser, the GPU has {:.0}", device.memory_gib);
    }
}
