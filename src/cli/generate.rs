//! `cadwright generate`

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use cadwright::data::nearest::Examples;
use cadwright::data::{Dataset, Example};
use cadwright::generate::{GenerateOptions, Sampling, generate};
use cadwright::pictures::{Picture, PictureFile, Pictures};
use cadwright::policy::{Policy, configured_prompt};
use cadwright::rollouts::PromptedDataset;
use cadwright::seeds::seed;
use cadwright_rewards::program::extract_program;
use cadwright_rollout::Scorer;
use clap::Args;

use super::ConfigArgs;
use super::eval::{PolicyArgs, example_library};

/// Write the program of the part in a picture
#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// The picture: PNG, JPEG or WebP. Again for further pictures of the same part
    #[arg(long, value_name = "FILE", required = true)]
    image: Vec<PathBuf>,
    /// Takes the likeliest token every time, which is the default
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Samples at this temperature
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Programs to write
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Execute each program and print its outcome
    #[arg(long)]
    execute: bool,
    /// Prompt strategy in place of the policy's own prompt: plain, reference, plan, planned,
    /// examples, or a TOML file (prompt.strategy)
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
    /// With --prompt examples: the data whose training parts are shown, a directory or file of
    /// parquet, or a dataset id on the hub
    #[arg(long, value_name = "DATA")]
    dataset: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs it.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let config = args.config.load(args.policy.flags())?;
    let Policy { model, tokenizer, mut prompt, .. } = args.policy.load(&config, config.run.device.open()?)?;
    if let Some(strategy) = &args.prompt {
        let checkpoint = args.policy.path(&config)?.checkpoint;
        prompt = configured_prompt(&config.with_strategy(strategy)?, Some(&checkpoint))?;
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut dataset = Dataset::of_examples(vec![Example {
        id: args.image[0].display().to_string(),
        image: read(&args.image[0])?.into(),
        further: Vec::new(),
        program: None,
        // No ground truth: nothing is compared.
        ground_truth: "".into(),
        label: None,
        hundred_subset: false,
    }])?;
    let examples = prompt.pictures() - 1;
    if examples > 0 {
        let data = args.dataset.as_deref().context("the prompt shows examples: name their data with --dataset")?;
        let library = example_library(&config, &config.data.named_source(data))?;
        dataset.shown = Some(Examples::of(&dataset, Arc::new(library), examples)?);
    }
    let pictures = Pictures::new(&dataset, config.model.max_tiles, 0);
    let prompted = PromptedDataset { dataset: &dataset, pictures: &pictures, prompt: &prompt, tokenizer: &tokenizer };
    let seeds: Vec<u64> = (0..args.count as u64).map(|i| seed(&[u64::from(config.run.seed), i])).collect();
    let sampling = Sampling {
        temperature: if args.greedy { 0.0 } else { args.temperature },
        top_p: config.eval.top_p,
        max_new_tokens: config.generate.max_new_tokens,
    };
    let further = args.image[1..].iter().map(|path| {
        let file = PictureFile::new(read(path)?).with_context(|| path.display().to_string())?;
        Ok(Picture::File(file))
    });
    let shown = std::iter::once(Ok(Picture::Part(0))).chain(further).collect::<Result<Vec<Picture>>>()?;
    let inputs = [prompted.input(&model, &shown)];
    let options = GenerateOptions { sampling, batch_size: config.generate.batch_size, keeps_states: false };
    let completions = generate(&model.frozen_copy(), &tokenizer, &inputs, &seeds, options, |_, _| {});
    let scorer = match args.execute {
        true => {
            Some(Scorer::new(config.scorer(config.rollout.engine, config.rollout.grid, &config.eval.frames, None))?)
        }
        false => None,
    };
    for completion in completions {
        let program = extract_program(&tokenizer.decode(&completion.tokens));
        println!("{program}");
        if let Some(scorer) = &scorer {
            let answer = scorer.execute(&program)?.answer;
            match answer.solid() {
                Some(solid) => println!("# solid, volume {}", solid.mass().volume),
                None => println!("# {}: {}", answer.verdict().name(), answer.error().unwrap_or_default()),
            }
        }
    }
    Ok(())
}
