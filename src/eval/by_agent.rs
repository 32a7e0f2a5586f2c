//! Evaluates the agent: for each part, the program that it chooses without the ground truth (unless
//! `agent.verifier = "truth"`), scored as any other.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result};
use cadwright_rollout::{ScoreRequest, Scorer, TokenCounts};
use serde::{Deserialize, Serialize};

use super::choices::Hints;
use super::predict::{Prediction, gathered};
use crate::agent::neighbours::Neighbours;
use crate::agent::prior::Prior;
use crate::agent::session::{Agent, Part, Workshop, generation};
use crate::agent::trace::Trace;
use crate::agent::verifier::{Verifier, look_at, look_options};
use crate::config::Config;
use crate::distributed::World;
use crate::model::InternVl;
use crate::pictures::{Picture, decoded};
use crate::rollouts::PromptedDataset;
use crate::seeds::seed;

/// Separates the seeds of the agent from all others.
const AGENT_STREAM: u64 = 0xa9e7;

/// What the agent spent, on average for a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PartCost {
    /// Programs that were built and judged.
    pub programs: f64,
    /// Of these, changes of other programs.
    pub refined: f64,
    /// Tokens that the model wrote.
    pub tokens: f64,
    /// Wall time in seconds, with all parts of a rank worked on side by side.
    pub seconds: f64,
    /// The verifier's score of the chosen program.
    pub score: f64,
    /// The verifier's score of the greedy program.
    pub first_score: f64,
}

/// The agent's program for each part in `indices`, scored by `scorer`, on every rank; and what it
/// cost. Each rank works on its share of the parts, `agent.samples * parts` programs at once.
///
/// # Errors
/// A scorer cannot start or go on, or another rank is gone.
pub fn evaluate_agent(
    config: &Config,
    world: &World,
    model: &InternVl,
    prompted: &PromptedDataset,
    indices: &[usize],
    prior: &Prior,
    scorer: &Scorer,
) -> Result<(Vec<Prediction>, PartCost)> {
    let started = Instant::now();
    let engine = config.rollout.engine;
    let own_scorer =
        Scorer::new(world.own_share(config.scorer(engine, config.rollout.grid, &[config.rollout.frame], None)))?;
    let stop = AtomicBool::new(false);
    let neighbours = own_scorer.install(|| Neighbours::new(prior));
    let agent = Agent {
        model,
        prompted,
        generation: generation(config),
        workshop: Workshop { options: &config.agent, scorer: &own_scorer, prior, neighbours: &neighbours, stop: &stop },
        progress: &|_| {},
    };
    let own: Vec<usize> = world.share(indices).copied().collect();
    let (mut predictions, mut cost) = (Vec::new(), [0.0; 6]);
    for chunk in own.chunks((config.generate.batch_size / config.agent.samples).max(1)) {
        let part = |&index: &usize| part(config, prompted, index, &own_scorer);
        let parts = chunk.iter().map(part).collect::<Result<Vec<_>>>()?;
        let traces = agent.run(&parts)?;
        let mut batch = scorer.batch();
        for (place, (trace, &index)) in traces.iter().zip(chunk).enumerate() {
            let prediction = chosen(trace).to_owned();
            let ground_truth = prompted.ground_truth(index).clone();
            batch.submit(place, ScoreRequest { prediction, ground_truth, truncated: false });
        }
        for ((trace, &index), score) in traces.iter().zip(chunk).zip(batch.finish()?) {
            spent(trace).into_iter().zip(&mut cost).for_each(|(part, all)| *all += part);
            predictions.push(Prediction {
                id: prompted.dataset.examples()[index].id.clone(),
                index,
                earlier: Vec::new(),
                program: chosen(trace).to_owned(),
                plan: String::new(),
                truncated: false,
                counts: TokenCounts {
                    prompt: prompted.prompt_ids(model, index).len(),
                    completion: trace.cost.tokens,
                    plan: 0,
                },
                logprob: trace.best.and_then(|best| trace.candidates[best].logprob).unwrap_or(0.0),
                hints: Hints::default(),
                score,
            });
        }
        world.say(&format!("eval {}/{}", (predictions.len() * world.size()).min(indices.len()), indices.len()));
    }
    cost[3] = started.elapsed().as_secs_f64();
    let sums = world.sum("the agent's cost", cost)?;
    let of_part = |sum: f64| sum / indices.len().max(1) as f64;
    let [programs, refined, tokens, seconds, score, first_score] = sums.map(of_part);
    // Ranks work at the same time.
    let cost = PartCost { programs, refined, tokens, seconds: seconds / world.size() as f64, score, first_score };
    Ok((gathered(world, indices.len(), 1, predictions)?, cost))
}

fn part(config: &Config, prompted: &PromptedDataset, index: usize, scorer: &Scorer) -> Result<Part> {
    let dataset = prompted.dataset;
    let look = || Ok(look_at(dataset, index, &look_options(&config.agent.views, &dataset.views)?));
    let ground_truth = prompted.ground_truth(index);
    Ok(Part {
        verifier: Verifier::new(config, scorer, look, Some(ground_truth))
            .with_context(|| dataset.examples()[index].id.clone())?,
        picture: decoded(&dataset.examples()[index]),
        pictures: vec![Picture::Part(index)],
        seed: seed(&[u64::from(config.run.seed), AGENT_STREAM, index as u64]),
    })
}

/// The chosen program; if none builds a solid, the greedy one, whose outcome then counts.
fn chosen(trace: &Trace) -> &str {
    trace.program().or_else(|| Some(trace.candidates.first()?.program.as_str())).unwrap_or_default()
}

/// What a part cost, in the order of [`PartCost`]; the time is measured over all parts.
fn spent(trace: &Trace) -> [f64; 6] {
    let score = |at: Option<usize>| at.map_or(0.0, |at| trace.candidates[at].score);
    let cost = &trace.cost;
    let first = (!trace.candidates.is_empty()).then_some(0);
    [cost.programs as f64, cost.refined as f64, cost.tokens as f64, 0.0, score(trace.best), score(first)]
}
