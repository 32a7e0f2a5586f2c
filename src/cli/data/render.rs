//! `cadwright data render`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cadwright::data::encode_png;
use cadwright::data::render::{CADRILLE_SIDE, REFERENCE_SIDE, Views, render_cadrille};
use cadwright::data::shapes::{ShapeFile, ShapeKind, shape_files};
use cadwright_rewards::{Geometry, Solid};
use cadwright_rollout::files::write_whole;
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use clap::{Args, ValueEnum};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

#[derive(Args)]
pub struct RenderArgs {
    /// An STL file, a STEP file or a CadQuery program (.stl, .step, .stp, .py), or a folder of such
    /// files, searched with all folders in it. Of files that differ only in their extensions, the
    /// STEP file is drawn, or else the STL file
    #[arg(long, value_name = "SHAPES")]
    input: PathBuf,
    /// Directory for the pictures, as PNG: STEM.png, or STEM_VIEW.png if there are several views. For
    /// one picture of one file, also a name that ends with .png
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Views, separated by commas: iso (the data set's), front, back, left, right, top, bottom, other
    /// corners such as left-front-top, all of them as axes or corners; or grid2x2, which is front,
    /// top, right and iso in one picture. By default iso, and grid2x2 in cadrille's style
    #[arg(long)]
    views: Option<String>,
    /// Side of a picture in pixels; by default 448, and 268 in cadrille's style
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=4096))]
    size: Option<u32>,
    /// gencad: grey with black edges, as in GenCAD-Code; cadrille: cadrille's four views in one
    /// picture, yellow and without edges
    #[arg(long, value_enum, default_value = "gencad")]
    style: Style,
    /// Variable that holds a program's result, such as r (data.result_name); by default the published
    /// rule decides
    #[arg(long, value_name = "NAME")]
    result_name: Option<String>,
    /// Shapes drawn at the same time; 0 for one per core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Style {
    Gencad,
    Cadrille,
}

/// What is drawn of each shape.
struct Drawing {
    style: Style,
    views: Views,
    size: u32,
}

/// A shape that has no picture.
#[derive(Serialize)]
struct Failure {
    shape: String,
    /// The class of the outcome; `unreadable` and `undrawable` are ours.
    outcome: String,
    reason: String,
}

#[derive(Serialize)]
struct Summary {
    shapes: usize,
    pictures: usize,
    failed: BTreeMap<String, usize>,
    failures: Vec<Failure>,
    seconds: f64,
}

pub fn run(args: &RenderArgs) -> Result<()> {
    let start = Instant::now();
    let drawing = Drawing::of(args)?;
    let files = shape_files(&args.input)?;
    let names = drawing.views.names();
    let is_single = args.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    if is_single && (args.input.is_dir() || names.len() > 1) {
        bail!(
            "--output {} is one file, but {} pictures come of {}: give a directory",
            args.output.display(),
            names.len() * files.len(),
            args.input.display()
        );
    }
    let path = |file: &ShapeFile, view: &Option<&str>| match (is_single, view) {
        (true, _) => args.output.clone(),
        (false, None) => args.output.join(named(&file.stem, ".png")),
        (false, Some(view)) => args.output.join(named(&file.stem, &format!("_{view}.png"))),
    };
    // Cadrille's pictures show triangles, which the native engine has none of.
    let engine = if drawing.style == Style::Cadrille { Engine::Cadquery } else { Engine::Auto };
    let scorer = Scorer::new(ScorerConfig {
        engine,
        jobs: args.jobs,
        result_name: args.result_name.clone(),
        ..ScorerConfig::default()
    })?;
    let draw = |file: &ShapeFile| -> Result<Result<(), Failure>> {
        let pictures = match drawing.pictures(&scorer, file)? {
            Ok(pictures) => pictures,
            Err((outcome, reason)) => {
                return Ok(Err(Failure { shape: file.path.display().to_string(), outcome, reason }));
            }
        };
        for (picture, name) in pictures.iter().zip(&names) {
            write(&path(file, name), picture)?;
        }
        Ok(Ok(()))
    };
    let drawn = scorer.install(|| files.par_iter().map(draw).collect::<Result<Vec<_>>>())?;
    let failures: Vec<Failure> = drawn.into_iter().filter_map(Result::err).collect();
    report(files.len(), names.len(), failures, start)
}

/// Names every failure and prints the summary. It is an error if nothing was drawn.
fn report(shapes: usize, views: usize, failures: Vec<Failure>, start: Instant) -> Result<()> {
    const NAMED: usize = 20;
    for failure in failures.iter().take(NAMED) {
        eprintln!("data render: {}: {}: {}", failure.shape, failure.outcome, failure.reason);
    }
    if failures.len() > NAMED {
        eprintln!("data render: {} more; the summary on standard output names them", failures.len() - NAMED);
    }
    let mut failed = BTreeMap::new();
    for failure in &failures {
        *failed.entry(failure.outcome.clone()).or_default() += 1;
    }
    let drawn = shapes - failures.len();
    let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let summary = Summary { shapes, pictures: drawn * views, failed, failures, seconds };
    println!("{}", serde_json::to_string_pretty(&summary)?);
    ensure!(drawn > 0, "none of {shapes} shapes could be drawn");
    Ok(())
}

impl Drawing {
    fn of(args: &RenderArgs) -> Result<Self> {
        let (views, size) = match args.style {
            Style::Gencad => ("iso", REFERENCE_SIDE),
            Style::Cadrille => ("grid2x2", CADRILLE_SIDE),
        };
        let views: Views = args.views.as_deref().unwrap_or(views).parse()?;
        let size = args.size.unwrap_or(size);
        if args.style == Style::Cadrille && views != Views::Grid {
            bail!("--style cadrille draws its own four views in one picture: leave --views out, or give grid2x2");
        }
        ensure!(views != Views::Grid || size.is_multiple_of(2), "--size {size} with --views grid2x2: must be even");
        Ok(Self { style: args.style, views, size })
    }

    /// The pictures of a shape, or the class of its outcome and the reason why there are none.
    fn pictures(&self, scorer: &Scorer, file: &ShapeFile) -> Result<Result<Vec<RgbImage>, (String, String)>> {
        let truth = match file.read() {
            Ok(truth) => truth,
            Err(error) => return Ok(Err(("unreadable".to_owned(), error.to_string()))),
        };
        let answer = scorer.ground_truth(&truth)?;
        let Some(solid) = answer.solid() else {
            let reason = answer.error().unwrap_or_default();
            return Ok(Err((answer.verdict().name().to_owned(), reason)));
        };
        Ok(self.draw(solid, file.kind).map_err(|reason| ("undrawable".to_owned(), reason)))
    }

    fn draw(&self, solid: &Arc<Solid>, kind: ShapeKind) -> Result<Vec<RgbImage>, String> {
        match (self.style, &solid.geometry) {
            (Style::Gencad, _) => {
                let has_faces = kind != ShapeKind::Stl;
                self.views.pictures(solid, has_faces, self.size).map_err(|error| error.to_string())
            }
            (Style::Cadrille, Geometry::Mesh(mesh)) => {
                let picture = render_cadrille(mesh, self.size).ok_or("its triangles have no extent")?;
                Ok(vec![picture])
            }
            (Style::Cadrille, Geometry::Csg(_)) => Err("it has no triangles".to_owned()),
        }
    }
}

/// A path with text after its last name.
fn named(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn write(path: &Path, picture: &RgbImage) -> Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    write_whole(path, &encode_png(picture)?).with_context(|| format!("cannot write {}", path.display()))
}
