//! Programs that another model wrote: read from a file and scored like a policy's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cadwright_rewards::extract_program;
use cadwright_rollout::{ScoreRequest, Scorer, ScorerConfig, TokenCounts};
use serde_json::{Map, Value};

use super::predict::{Prediction, report};
use super::{Evaluation, stratum};
use crate::config::Config;
use crate::data::Dataset;
use crate::eval::choices::Hints;

/// Fields that hold the part's id, in the order in which they are tried.
const ID_FIELDS: [&str; 4] = ["file_id", "id", "deepcad_id", "name"];
/// Fields that hold the program.
const PROGRAM_FIELDS: [&str; 6] = ["generated", "predicted_code", "prediction", "program", "code", "cadquery"];
/// Programs that are scored together; the solids of earlier ones are dropped.
const BATCH: usize = 256;
/// The most ids in a message.
const NAMED: usize = 3;

/// The programs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    path: PathBuf,
    /// By id of the part, in the order of the file. All have the same number.
    by_part: BTreeMap<String, Vec<String>>,
}

impl Programs {
    /// Reads JSONL rows with an id and a program, or the `predictions.json` of an evaluation. Rows
    /// of one id are samples of that part. `id_field` and `program_field` name the fields; `None`:
    /// `file_id`, `id`, `deepcad_id` or `name`, and `generated`, `predicted_code`, `prediction`,
    /// `program`, `code` or `cadquery`, whichever the first row has.
    ///
    /// # Errors
    /// A file that cannot be read or has another form, no rows, or parts with different numbers of
    /// programs.
    pub fn read(path: &Path, id_field: Option<&str>, program_field: Option<&str>) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let rows = match our_own(&text) {
            Some(rows) => rows,
            None => rows_of(&text, id_field, program_field).with_context(|| path.display().to_string())?,
        };
        let mut by_part: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, program) in rows {
            by_part.entry(id).or_default().push(program);
        }
        let (first, programs) =
            by_part.first_key_value().with_context(|| format!("{} has no predictions", path.display()))?;
        let count = programs.len();
        if let Some((other, programs)) = by_part.iter().find(|(_, programs)| programs.len() != count) {
            bail!(
                "{} has {count} programs for {first} and {} for {other}: give every part the same number",
                path.display(),
                programs.len()
            );
        }
        Ok(Self { path: path.to_owned(), by_part })
    }

    /// Number of programs for each part.
    pub fn samples(&self) -> usize {
        self.by_part.values().next().map_or(0, Vec::len)
    }
}

/// The rows of a `predictions.json`; `None` if the text is none.
fn our_own(text: &str) -> Option<Vec<(String, String)>> {
    let parts: Map<String, Value> = serde_json::from_str(text).ok()?;
    let mut rows = Vec::new();
    for (name, part) in &parts {
        let id = part.get("id").and_then(Value::as_str).unwrap_or(name).to_owned();
        let code = |row: &Value| Some(row.get("predicted_code")?.as_str()?.to_owned());
        match part.get("samples").and_then(Value::as_array) {
            Some(samples) => {
                for sample in samples {
                    rows.push((id.clone(), code(sample)?));
                }
            }
            None => rows.push((id, code(part)?)),
        }
    }
    Some(rows)
}

/// The rows of JSONL.
fn rows_of(text: &str, id_field: Option<&str>, program_field: Option<&str>) -> Result<Vec<(String, String)>> {
    let mut fields: Option<(String, String)> = None;
    let mut rows = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let place = || format!("line {}", line + 1);
        let row: Map<String, Value> = serde_json::from_str(text)
            .with_context(|| format!("{}: expected a JSON object, or a predictions.json", place()))?;
        let (id_field, program_field) = match &fields {
            Some(fields) => fields,
            None => fields.insert((
                chosen("id", id_field, &ID_FIELDS, &row)?,
                chosen("program", program_field, &PROGRAM_FIELDS, &row)?,
            )),
        };
        let id = match row.get(id_field) {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => bail!("{}: field {id_field:?} is missing or no text", place()),
        };
        // A model that wrote nothing has failed on this part.
        let program = match row.get(program_field) {
            Some(Value::String(program)) => program.clone(),
            Some(Value::Null) | None => String::new(),
            Some(_) => bail!("{}: field {program_field:?} is no text", place()),
        };
        rows.push((id, program));
    }
    Ok(rows)
}

/// The field that plays a role.
fn chosen(role: &str, given: Option<&str>, usual: &[&str], row: &Map<String, Value>) -> Result<String> {
    let found = match given {
        Some(name) => Some(name).filter(|name| row.contains_key(*name)),
        None => usual.iter().copied().find(|name| row.contains_key(*name)),
    };
    found.map(str::to_owned).with_context(|| {
        let there: Vec<&str> = row.keys().map(String::as_str).collect();
        let wanted = given.map_or_else(|| usual.join(", "), str::to_owned);
        format!("no field for the {role}: expected {wanted}, found {}; name it with --{role}-field", there.join(", "))
    })
}

impl Evaluation {
    /// Scores programs of another model on the first `eval.num_samples` rows of a data set. No model
    /// is loaded. A part without a program counts as a failure.
    ///
    /// # Errors
    /// No part of the file is in the data set, or the scorer cannot start or continue.
    pub fn of_programs(
        config: &Config,
        dataset: &Dataset,
        programs: &Programs,
        cache_dir: Option<PathBuf>,
    ) -> Result<Self> {
        let started = Instant::now();
        let eval = &config.eval;
        let scorer = config.scorer(eval.engine, eval.grid, &eval.frames, cache_dir);
        let scorer = Scorer::new(ScorerConfig { protocols: eval.protocols.clone(), ..scorer })?;
        let n = if eval.num_samples == 0 { dataset.len() } else { eval.num_samples.min(dataset.len()) };
        let samples = programs.samples();
        let examples = &dataset.examples()[..n];
        report_matches(programs, dataset, n)?;
        let mut requests = Vec::with_capacity(n * samples);
        for (index, example) in examples.iter().enumerate() {
            let written = programs.by_part.get(&example.id);
            for sample in 0..samples {
                let program = written.map_or_else(String::new, |written| extract_program(&written[sample]));
                requests.push((index, program));
            }
        }
        let mut predictions = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            let mut scores = scorer.batch();
            for (place, (index, program)) in batch.iter().enumerate() {
                let ground_truth = examples[*index].ground_truth.clone();
                scores.submit(place, ScoreRequest { prediction: program.clone(), ground_truth, truncated: false });
            }
            for ((index, program), mut score) in batch.iter().zip(scores.finish()?) {
                score.solid = None;
                predictions.push(Prediction {
                    id: examples[*index].id.clone(),
                    index: *index,
                    program: program.clone(),
                    plan: String::new(),
                    earlier: Vec::new(),
                    truncated: false,
                    counts: TokenCounts::default(),
                    logprob: 0.0,
                    hints: Hints::default(),
                    score,
                });
            }
            eprintln!("eval {}/{n}", predictions.len() / samples);
        }
        let seconds = started.elapsed().as_secs_f64();
        let of = |prediction: &Prediction| stratum(config, dataset, prediction);
        let report = report(&predictions, &scorer, samples, &eval.thresholds, seconds, of);
        Ok(Self { predictions, report, select: None, agent: None })
    }
}

/// Says which parts have no program, and which programs no part.
fn report_matches(programs: &Programs, dataset: &Dataset, n: usize) -> Result<()> {
    let path = programs.path.display();
    let known: std::collections::BTreeSet<&str> =
        dataset.examples().iter().map(|example| example.id.as_str()).collect();
    let few = |ids: Vec<&str>| {
        let more = if ids.len() > NAMED { ", .." } else { "" };
        format!("{}{more}", ids.into_iter().take(NAMED).collect::<Vec<_>>().join(", "))
    };
    let ids = || programs.by_part.keys().map(String::as_str);
    ensure!(
        ids().any(|id| known.contains(id)),
        "no part of {path} is in the data set: ids there {}, in the data set {}",
        few(ids().collect()),
        few(dataset.examples().iter().map(|example| example.id.as_str()).collect())
    );
    let strangers: Vec<&str> = ids().filter(|id| !known.contains(id)).collect();
    if !strangers.is_empty() {
        eprintln!(
            "eval: {} of {path} are not among the {} parts and are left out: {}",
            strangers.len(),
            known.len(),
            few(strangers)
        );
    }
    let has_none = |id: &&str| !programs.by_part.contains_key(*id);
    let missing: Vec<&str> =
        dataset.examples()[..n].iter().map(|example| example.id.as_str()).filter(has_none).collect();
    if !missing.is_empty() {
        eprintln!("eval: {} of {n} parts have no program and count as failures: {}", missing.len(), few(missing));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Programs> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.jsonl");
        std::fs::write(&path, text).unwrap();
        Programs::read(&path, None, None)
    }

    fn pairs(programs: &Programs) -> Vec<(&str, Vec<&str>)> {
        programs.by_part.iter().map(|(id, p)| (id.as_str(), p.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn every_form_of_predictions_is_read() {
        let jsonl = "{\"file_id\": \"b\", \"generated\": \"x\"}\n\n{\"file_id\": 7, \"generated\": null}\n";
        assert_eq!(pairs(&read(jsonl).unwrap()), [("7", vec![""]), ("b", vec!["x"])]);
        let own = "{\n\"sample_0\": {\"id\": \"b\", \"predicted_code\": \"x\"}}";
        assert_eq!(pairs(&read(own).unwrap()), [("b", vec!["x"])]);
        let samples = "{\"s\": {\"id\": \"b\", \"predicted_code\": \"y\", \"samples\": [{\"predicted_code\": \"x\"}, {\"predicted_code\": \"y\"}]}}";
        assert_eq!(pairs(&read(samples).unwrap()), [("b", vec!["x", "y"])]);
        let twice = "{\"id\": \"b\", \"code\": \"x\"}\n{\"id\": \"b\", \"code\": \"y\"}\n";
        assert_eq!(pairs(&read(twice).unwrap()), [("b", vec!["x", "y"])]);
    }

    #[test]
    fn other_forms_say_what_is_there() {
        for (text, says) in [
            ("", "has no predictions"),
            ("{\"part\": \"a\", \"text\": \"x\"}\n", "found part, text; name it with --id-field"),
            ("{\"id\": \"a\", \"text\": \"x\"}\n", "found id, text; name it with --program-field"),
            ("{\"id\": \"a\", \"code\": \"x\"}\nnothing\n", "line 2: expected a JSON object"),
            ("{\"id\": \"a\", \"code\": 3}\n", "line 1: field \"code\" is no text"),
            (
                "{\"id\": \"a\", \"code\": \"\"}\n{\"id\": \"b\", \"code\": \"\"}\n{\"id\": \"b\", \"code\": \"\"}\n",
                "1 programs for a and 2 for b",
            ),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
