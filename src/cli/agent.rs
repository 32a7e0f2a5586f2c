//! `cadwright agent`

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cadwright::agent::look::Look;
use cadwright::agent::neighbours::Neighbours;
use cadwright::agent::output;
use cadwright::agent::session::{Agent, Part, Workshop, generation};
use cadwright::agent::verifier::{Verifier, look_options};
use cadwright::config::{Config, VerifierKind};
use cadwright::data::image::decode_rgb;
use cadwright::data::{Dataset, Example};
use cadwright::interrupt;
use cadwright::pictures::{Picture, PictureFile, Pictures};
use cadwright::rollouts::PromptedDataset;
use cadwright::terminal::status;
use cadwright_rollout::{GroundTruth, Scorer, Shape};
use clap::{Args, ValueEnum};
use image::RgbImage;

use super::eval::PolicyArgs;
use super::{ConfigArgs, text_override};

/// Write the program of the part in a picture, build it, look at it, and correct it
#[derive(Args)]
pub struct AgentArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// A picture of the part (PNG, JPEG or WebP); repeat it for several pictures of one part
    #[arg(long, value_name = "FILE", required = true)]
    image: Vec<PathBuf>,
    /// Rounds in which the model writes (agent.rounds, by default 1)
    #[arg(long)]
    rounds: Option<usize>,
    /// Programs that the model writes in a round (agent.samples, by default 8)
    #[arg(long)]
    samples: Option<usize>,
    /// Changed programs to build and judge after the last round; 0 refines nothing (agent.refine, by
    /// default 500)
    #[arg(long)]
    refine: Option<usize>,
    /// What candidates are judged by (agent.verifier, by default image)
    #[arg(long, value_enum)]
    verifier: Option<VerifierName>,
    /// With --verifier truth: a CadQuery program (.py), an STL or a STEP file
    #[arg(long, value_name = "FILE")]
    ground_truth: Option<PathBuf>,
    /// Directory for program.py, part.stl, part.step, trace.json and strip.png
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

/// The names of verifiers.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerifierName {
    /// The likeness of the candidate's picture to the input picture
    Image,
    /// Whether the program builds a solid
    Execution,
    /// IoU with --ground-truth: the upper bound of what a verifier can do
    Truth,
}

impl AgentArgs {
    fn flags(&self) -> Vec<String> {
        let verifier = |name: VerifierName| {
            let name = match name {
                VerifierName::Image => "image",
                VerifierName::Execution => "execution",
                VerifierName::Truth => "truth",
            };
            text_override("agent.verifier", name)
        };
        let flags = [
            self.rounds.map(|n| format!("agent.rounds={n}")),
            self.samples.map(|n| format!("agent.samples={n}")),
            self.refine.map(|n| format!("agent.refine={n}")),
            self.verifier.map(verifier),
        ];
        flags.into_iter().flatten().chain(self.policy.flags()).collect()
    }

    fn ground_truth(&self, config: &Config) -> Result<Option<GroundTruth>> {
        match (&self.ground_truth, config.agent.verifier) {
            (Some(path), VerifierKind::Truth) => read_ground_truth(path).map(Some),
            (None, VerifierKind::Truth) => bail!("--verifier truth needs --ground-truth FILE"),
            (Some(_), _) => bail!("--ground-truth is used by --verifier truth only"),
            (None, _) => Ok(None),
        }
    }
}

/// Runs it.
pub fn run(args: &AgentArgs) -> Result<()> {
    let mut config = args.config.load(args.flags())?;
    if args.image.len() > 1 && config.agent.views.is_empty() {
        config.agent.views = ["corners", "axes"].map(str::to_owned).to_vec();
    }
    let ground_truth = args.ground_truth(&config)?;
    let files = args.image.iter().map(|path| read_picture(path)).collect::<Result<Vec<_>>>()?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("cannot create {}", args.output.display()))?;
    let policy = args.policy.load(&config, config.run.device.open()?)?;
    let scorer = Scorer::new(config.scorer(config.rollout.engine, config.rollout.grid, &[config.rollout.frame], None))?;

    let images: Vec<RgbImage> = files.iter().map(|(_, image)| image.clone()).collect();
    let dataset = Dataset::of_examples(vec![example(&args.image[0], &files[0].0)])?;
    let pictures = Pictures::new(&dataset, config.model.max_tiles, 0);
    let prompted = PromptedDataset {
        dataset: &dataset,
        pictures: &pictures,
        prompt: &policy.prompt,
        tokenizer: &policy.tokenizer,
    };
    let further = files[1..].iter().map(|(bytes, _)| Ok(Picture::File(PictureFile::new(bytes.clone())?)));
    let shown = std::iter::once(Ok(Picture::Part(0))).chain(further).collect::<Result<Vec<_>>>()?;
    let part = Part {
        verifier: Verifier::new(
            &config,
            &scorer,
            || Ok(Look::new(&images, &look_options(&config.agent.views, &[])?)),
            ground_truth.as_ref(),
        )?,
        picture: images[0].clone(),
        pictures: shown,
        seed: u64::from(config.run.seed),
    };
    let stop = AtomicBool::new(false);
    let neighbours = scorer.install(|| Neighbours::new(&policy.prior));
    let agent = Agent {
        model: &policy.model.frozen_copy(),
        prompted: &prompted,
        generation: generation(&config),
        workshop: Workshop {
            options: &config.agent,
            scorer: &scorer,
            prior: &policy.prior,
            neighbours: &neighbours,
            stop: &stop,
        },
        progress: &|line| status(format_args!("agent: {line}")),
    };
    let trace = stopped_by_signals(&stop, || agent.run(std::slice::from_ref(&part)))?.remove(0);
    let written = output::write(&args.output, &images[0], &part.verifier, &trace, &scorer)?;
    status(format_args!("agent: {written}"));
    match trace.program() {
        Some(program) => println!("{program}"),
        None => bail!(
            "none of {} programs builds a solid; {} has their errors. Try more --samples, another checkpoint, or a \
             lower --set agent.temperature",
            trace.candidates.len(),
            args.output.join("trace.json").display()
        ),
    }
    Ok(())
}

/// Runs `work`; the first Ctrl-C or SIGTERM sets `stop`.
fn stopped_by_signals<T>(stop: &AtomicBool, work: impl FnOnce() -> T) -> T {
    interrupt::listen(c"interrupted: the best program so far is written; once more stops at once\n");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if interrupt::is_requested() {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn read_picture(path: &Path) -> Result<(Vec<u8>, RgbImage)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = decode_rgb(&bytes).with_context(|| format!("{} is not a picture", path.display()))?;
    ensure!(image.width() > 0 && image.height() > 0, "{} is an empty picture", path.display());
    Ok((bytes, image))
}

fn read_ground_truth(path: &Path) -> Result<GroundTruth> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if path.extension().is_some_and(|extension| extension == "py") {
        let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
        return Ok(GroundTruth::Program(text.into()));
    }
    Ok(GroundTruth::Shape(Shape::new(bytes).into()))
}

fn example(path: &Path, bytes: &[u8]) -> Example {
    Example {
        id: path.display().to_string(),
        image: bytes.into(),
        further: Vec::new(),
        program: None,
        // The agent compares with the ground truth itself, if there is one.
        ground_truth: "".into(),
        label: None,
        hundred_subset: false,
    }
}
