//! JSONL in, JSONL out: the work of `cadwright exec` and `cadwright score`.
//!
//! The input is read twice. The first pass checks every line, so that an error in the last line
//! costs no work. Rows are executed on all workers and written in input order, with a bounded
//! number in flight. Output is written aside and renamed: an old file stays until the new one is
//! complete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cadwright_rewards::{OutcomeClass, Protocol, ProtocolScore, extract_program};
use crossbeam::channel::unbounded;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::Verdict;
use crate::config::{Engine, ScorerConfig};
use crate::error::{Error, Result};
use crate::files::WholeFile;
use crate::protocols::Stratum;
use crate::scorer::Scorer;
use crate::scoring::{Execution, Score, ScoreRequest, Shared, caught};
use crate::summary::{Report, ReportBuilder};
use crate::truth::{GroundTruth, Shape};

/// Settings of [`exec`].
#[derive(Debug, Clone, PartialEq)]
pub struct ExecOptions {
    /// Rows `{"id", "code"}`; other fields are ignored. `id` is a string or a number.
    pub input: PathBuf,
    /// The file for the rows; see [`exec`].
    pub output: PathBuf,
    /// Whether to apply [`extract_program`] to `code` first.
    pub extract: bool,
    /// Settings of the scorer.
    pub scorer: ScorerConfig,
}

/// Settings of [`score`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreOptions {
    /// Rows `{"id", "ground_truth", "prediction"}`. Instead of `"ground_truth"`, a row may have
    /// `"ground_truth_mesh"`, the path of an STL or STEP file. Relative paths are from the JSONL
    /// file's directory, or else from the working directory. `"bench"` and `"label"` name the cell of
    /// a row in CADBench's tables. Other fields are ignored. `id` is a string or a number.
    pub input: PathBuf,
    /// The file for the rows; see [`score`].
    pub output: PathBuf,
    /// The file for the [`Report`]; see [`Report::score_summary`].
    pub summary: Option<PathBuf>,
    /// Whether to apply [`extract_program`] to `prediction` first.
    pub extract: bool,
    /// Settings of the scorer.
    pub scorer: ScorerConfig,
}

/// The summary of [`exec`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExecSummary {
    /// Number of rows.
    pub n: usize,
    /// Share of rows whose program gave a solid.
    pub vsr: f64,
    /// Rows by outcome class; every class is there. A program that was declined has none.
    pub outcomes: BTreeMap<OutcomeClass, usize>,
    /// Rows by the engine that answered or declined.
    pub engines: BTreeMap<Engine, usize>,
    /// Programs that the native engine handed on, by reason.
    pub declined: BTreeMap<Cow<'static, str>, usize>,
    /// Rows on whose program our own code panicked: faults of ours.
    pub panics: usize,
    /// Wall time from the first row to the last; see [`Report::seconds`].
    pub seconds: f64,
}

#[derive(Deserialize)]
pub(crate) struct ExecIn {
    id: Value,
    code: String,
}

#[derive(Deserialize)]
pub(crate) struct ScoreIn {
    id: Value,
    #[serde(default)]
    ground_truth: Option<String>,
    #[serde(default)]
    ground_truth_mesh: Option<PathBuf>,
    prediction: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    bench: Option<String>,
}

/// A row of an input file.
pub(crate) trait Row: for<'de> Deserialize<'de> {
    /// Checks more than the types of its fields; `directory` is that of the JSONL file.
    fn check(&self, _directory: &Path) -> Result<(), String> {
        Ok(())
    }
}

impl Row for ExecIn {}

impl Row for ScoreIn {
    fn check(&self, directory: &Path) -> Result<(), String> {
        match (&self.ground_truth, &self.ground_truth_mesh) {
            (Some(_), None) => Ok(()),
            (None, Some(path)) if found(directory, path).is_file() => Ok(()),
            (None, Some(path)) => Err(format!("field \"ground_truth_mesh\": there is no file {}", path.display())),
            (Some(_), Some(_)) => {
                Err("both \"ground_truth\" and \"ground_truth_mesh\" are given: keep one of them".to_owned())
            }
            (None, None) => {
                Err("\"ground_truth\" (a program) or \"ground_truth_mesh\" (an STL or STEP file) is missing".to_owned())
            }
        }
    }
}

impl ScoreIn {
    fn truth(&self, directory: &Path) -> Result<GroundTruth> {
        match &self.ground_truth_mesh {
            None => Ok(self.ground_truth.as_deref().unwrap_or_default().into()),
            Some(path) => {
                let path = found(directory, path);
                let shape = Shape::read(&path).map_err(|error| Error::file(&path, "read", &error))?;
                Ok(GroundTruth::Shape(Arc::new(shape)))
            }
        }
    }
}

/// A path in a JSONL file: from the file's directory if it exists there, or else as it is.
fn found(directory: &Path, path: &Path) -> PathBuf {
    let beside = directory.join(path);
    if beside.exists() { beside } else { path.to_owned() }
}

#[derive(Serialize)]
struct ExecOut<'a> {
    id: &'a Value,
    valid: bool,
    outcome: Verdict,
    error: Option<String>,
    engine: Engine,
    volume: Option<f64>,
    centroid: Option<[f64; 3]>,
    bounding_box: Option<[[f64; 3]; 2]>,
    inertia: Option<[[f64; 3]; 3]>,
    solids: Option<u32>,
    micros: u64,
    malformed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    iou_uncertain: bool,
}

#[derive(Serialize)]
struct ScoreOut<'a> {
    id: &'a Value,
    valid: bool,
    outcome: Verdict,
    error: Option<&'a str>,
    engine: Engine,
    iou: BTreeMap<&'a str, Option<f64>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    protocols: &'a BTreeMap<Protocol, ProtocolScore>,
    reward: Option<f64>,
    micros: u64,
    malformed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ground_truth_error: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    iou_uncertain: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shell_undetermined: bool,
}

/// Executes every row of a file. It writes these rows in input order:
///
/// `{"id", "valid", "outcome", "error", "engine", "volume", "centroid": [x, y, z],
/// "bounding_box": [[low], [high]], "inertia": [[..], [..], [..]], "solids", "micros",
/// "malformed"}`
///
/// The numbers of a failure are `null`, and so is `solids` if the native engine cannot tell. A row
/// has `iou_uncertain` if its triangles enclose another volume than the solid. With
/// [`Engine::Native`] a program that it declines is not executed: its `outcome` is `declined` and
/// its `error` the reason. If our own code panics on a program, its `outcome` is `panicked`.
/// `inertia` is about the centroid at unit density. `micros` is the wall time of the row, including
/// the wait for a free worker.
///
/// # Errors
/// Files that cannot be read or written, a malformed row, or workers that cannot go on.
pub fn exec(options: &ExecOptions) -> Result<ExecSummary> {
    check_rows::<ExecIn>(&options.input)?;
    let mut output = Output::create(&options.output)?;
    let scorer = Scorer::new(options.scorer.clone())?;
    if options.scorer.engine == Engine::Cadquery {
        scorer.ready()?;
    }
    let extract = options.extract;
    let mut outcomes: BTreeMap<_, _> = OutcomeClass::ALL.map(|class| (class, 0)).into();
    let (mut engines, mut declined, mut panics) = (BTreeMap::new(), BTreeMap::new(), 0);
    let start = Instant::now();
    let execute = move |shared: &Shared, row: &ExecIn| {
        if extract { shared.execute(&extract_program(&row.code)) } else { shared.execute(&row.code) }
    };
    let n = stream(&scorer, rows(&options.input)?, execute, |row: &ExecIn, execution| {
        let answer = &execution.answer;
        if let Some(class) = answer.verdict().class() {
            *outcomes.entry(class).or_default() += 1;
        }
        *engines.entry(answer.engine).or_default() += 1;
        panics += usize::from(answer.verdict() == Verdict::Panicked);
        if let Some(decline) = &answer.declined {
            *declined.entry(decline.reason.clone()).or_default() += 1;
        }
        output.row(&exec_row(&row.id, &execution))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    output.finish()?;
    let valid = outcomes.get(&OutcomeClass::Solid).copied().unwrap_or(0);
    let vsr = if n == 0 { 0.0 } else { valid as f64 / n as f64 };
    Ok(ExecSummary { n, vsr, outcomes, engines, declined, panics, seconds })
}

fn exec_row<'a>(id: &'a Value, execution: &'a Execution) -> ExecOut<'a> {
    let answer = &execution.answer;
    let solid = answer.solid();
    let mass = solid.map(|solid| solid.mass());
    ExecOut {
        id,
        valid: answer.verdict().is_valid(),
        outcome: answer.verdict(),
        error: answer.error(),
        engine: answer.engine,
        volume: mass.map(|mass| mass.volume),
        centroid: mass.map(|mass| mass.centroid),
        bounding_box: mass.map(|mass| [mass.bounds.min, mass.bounds.max]),
        inertia: mass.map(|mass| mass.inertia),
        solids: solid.and_then(|solid| solid.solids()),
        micros: execution.micros,
        malformed: solid.is_some_and(|solid| solid.malformed),
        iou_uncertain: solid.is_some_and(|solid| solid.iou_uncertain),
    }
}

/// Scores every row of a file. It writes these rows in input order:
///
/// `{"id", "valid", "outcome", "error", "engine", "iou": {"canonical": ..}, "reward", "micros",
/// "malformed"}`
///
/// With [`ScorerConfig::protocols`], a row has `"protocols": {"cadrille": {"cd", "iou"}, "cadbench":
/// {"cd", "iou", "siou"}}` besides; numbers of a failure are `null`.
///
/// All but `iou` and `reward` are about the prediction. The IoU of a prediction that failed is 0.
/// If the *ground truth* fails there is nothing to compare with: `iou` is `null` in every frame,
/// the row has one more field, `ground_truth_error`, and the summary counts it as IoU 0 and among
/// `ground_truth_failures`.
///
/// With [`Engine::Native`] a program that it declines is not executed: the `outcome` of a
/// prediction is then `declined`, and `iou` and `reward` are `null`; the error of a ground truth
/// starts with `declined`. If our own code panics on a row, its `outcome` is `panicked`, `iou` and
/// `reward` are `null`, and the summary counts it among `panics`. `micros` is the wall time of the
/// row, including the wait for a free worker.
///
/// # Errors
/// Files that cannot be read or written, a malformed row, or workers that cannot go on.
pub fn score(options: &ScoreOptions) -> Result<Report> {
    check_rows::<ScoreIn>(&options.input)?;
    let mut output = Output::create(&options.output)?;
    let mut summary_file = options.summary.as_deref().map(Output::create).transpose()?;
    let scorer = Scorer::new(options.scorer.clone())?;
    if options.scorer.engine == Engine::Cadquery {
        scorer.ready()?;
    }
    let extract = options.extract;
    let mut report = ReportBuilder::new(scorer.config(), 1, &[]);
    let start = Instant::now();
    let directory = directory_of(&options.input).to_owned();
    let score_row = move |shared: &Shared, row: &ScoreIn| {
        let prediction = row.prediction.as_str();
        shared.score(&ScoreRequest {
            prediction: if extract { extract_program(prediction) } else { prediction.to_owned() },
            ground_truth: row.truth(&directory)?,
            truncated: false,
        })
    };
    stream(&scorer, rows(&options.input)?, score_row, |row: &ScoreIn, score: Score| {
        report.add(&score, false);
        let is_empty = row.prediction.trim().is_empty();
        report.add_protocols(&score, Stratum { is_empty, family: row.bench.clone(), label: row.label.clone() });
        output.row(&ScoreOut {
            id: &row.id,
            valid: score.verdict.is_valid(),
            outcome: score.verdict,
            error: score.error.as_deref(),
            engine: score.engine,
            iou: score.iou.iter().map(|(frame, iou)| (frame.name(), *iou)).collect(),
            protocols: &score.protocols,
            reward: score.verdict.class().map(|_| score.reward),
            micros: score.micros,
            malformed: score.malformed,
            ground_truth_error: score.ground_truth_error.as_deref(),
            iou_uncertain: score.iou_uncertain,
            shell_undetermined: score.shell_undetermined,
        })
    })?;
    let report = report.finish(start.elapsed().as_secs_f64());
    output.finish()?;
    if let Some(mut file) = summary_file.take() {
        file.pretty(&report.score_summary())?;
        file.finish()?;
    }
    Ok(report)
}

/// Runs `work` on every row on the scorer's threads and gives the results to `sink` in input order.
/// Returns the number of rows.
pub(crate) fn stream<I, O>(
    scorer: &Scorer,
    mut rows: impl Iterator<Item = Result<I>>,
    work: impl Fn(&Shared, &I) -> Result<O> + Clone + Send + 'static,
    mut sink: impl FnMut(&I, O) -> Result<()>,
) -> Result<usize>
where
    I: Send + 'static,
    O: Send + 'static,
{
    let window = 16 + 8 * scorer.config().resolved_jobs();
    let (sender, receiver) = unbounded::<(usize, I, Result<O>)>();
    let mut waiting = BTreeMap::new();
    let (mut submitted, mut written) = (0, 0);
    loop {
        while submitted - written < window
            && let Some(row) = rows.next().transpose()?
        {
            let (sender, work, index) = (sender.clone(), work.clone(), submitted);
            scorer.spawn(move |shared| {
                let result = caught(|| work(shared, &row))
                    .unwrap_or_else(|message| Err(Error::Panic { row: index + 1, message }));
                // Nobody listens after an error in another row.
                let _ = sender.send((index, row, result));
            });
            submitted += 1;
        }
        if written == submitted {
            return Ok(written);
        }
        let (index, row, result) = receiver.recv().map_err(|_| Error::Closed)?;
        waiting.insert(index, (row, result?));
        while let Some((row, result)) = waiting.remove(&written) {
            sink(&row, result)?;
            written += 1;
        }
    }
}

/// Fails on the first bad line.
pub(crate) fn check_rows<I: Row>(path: &Path) -> Result<()> {
    rows::<I>(path)?.try_for_each(|row| row.map(|_| ()))
}

/// The rows of a file; blank lines are skipped.
pub(crate) fn rows<I: Row>(path: &Path) -> Result<impl Iterator<Item = Result<I>>> {
    let read_error = |error: &std::io::Error| Error::file(path, "read", error);
    let file = File::open(path).map_err(|error| read_error(&error))?;
    let path = path.to_owned();
    Ok(BufReader::new(file).lines().enumerate().filter_map(move |(index, line)| match line {
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(parse(&line, directory_of(&path)).map_err(|problem| Error::Row {
            path: path.clone(),
            line: index + 1,
            problem: clipped(problem),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Some(Err(Error::Row { path: path.clone(), line: index + 1, problem: "expected UTF-8 text".to_owned() }))
        }
        Err(error) => Some(Err(Error::file(&path, "read", &error))),
    }))
}

/// The start of a message that repeats what is in the file.
fn clipped(mut problem: String) -> String {
    if let Some((end, _)) = problem.char_indices().nth(500) {
        problem.truncate(end);
        problem.push_str(" ...");
    }
    problem
}

fn parse<I: Row>(line: &str, directory: &Path) -> Result<I, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("not JSON: {error}"))?;
    match value.get("id") {
        _ if !value.is_object() => return Err("expected a JSON object".to_owned()),
        Some(Value::String(_) | Value::Number(_)) => {}
        Some(other) => {
            return Err(format!("field \"id\": expected text or a number, got {other}"));
        }
        None => return Err("field \"id\" is missing".to_owned()),
    }
    let fields = value.as_object().into_iter().flatten();
    let names: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
    let row = I::deserialize(&value).map_err(|error| describe(&error.to_string(), &value, &names))?;
    row.check(directory).map(|()| row)
}

fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// Serde's message, or one that names the field with the wrong type, because serde does not name
/// it.
fn describe(error: &str, value: &Value, names: &[&str]) -> String {
    let texts = ["code", "ground_truth", "ground_truth_mesh", "prediction"];
    match texts.iter().find(|name| value.get(**name).is_some_and(|field| !field.is_string())) {
        Some(name) if !error.contains("missing") => {
            format!("field \"{name}\": expected text, got {}", value[*name])
        }
        _ => format!("{} (fields here: {})", error.replace('`', "\""), names.join(", ")),
    }
}

/// A file of rows, or of one JSON object, that appears under its name when it is complete.
pub(crate) struct Output {
    writer: BufWriter<WholeFile>,
}

impl Output {
    pub fn create(path: &Path) -> Result<Self> {
        let file = WholeFile::create(path).map_err(|error| Error::file(path, "write", &error))?;
        Ok(Self { writer: BufWriter::new(file) })
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::file(self.writer.get_ref().path(), "write", error)
    }

    fn row(&mut self, row: &impl Serialize) -> Result<()> {
        let written = serde_json::to_writer(&mut self.writer, row).map_err(std::io::Error::from);
        written.and_then(|()| self.writer.write_all(b"\n")).map_err(|error| self.failed(&error))
    }

    pub fn pretty(&mut self, value: &impl Serialize) -> Result<()> {
        let written = serde_json::to_writer_pretty(&mut self.writer, value).map_err(std::io::Error::from);
        written.and_then(|()| self.writer.write_all(b"\n")).map_err(|error| self.failed(&error))
    }

    pub fn finish(self) -> Result<()> {
        let path = self.writer.get_ref().path().to_owned();
        let file = self.writer.into_inner().map_err(|error| error.into_error());
        file.and_then(WholeFile::finish).map_err(|error| Error::file(&path, "write", &error))
    }
}
