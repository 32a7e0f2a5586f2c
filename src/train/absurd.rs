//! Numbers that cannot be right: they are left out, counted, and written down for a post-mortem in
//! `<run>/post_mortem`.

use std::path::Path;

use serde_json::{Value, json};

use super::examples::TokenizedExample;
use super::metrics::Means;
use crate::distributed::World;
use crate::files::write_whole;
use crate::rollouts::Rollout;

/// Absolute reward above which it cannot be meant.
const MOST_REWARD: f64 = 1e4;
/// Rounding of a log-probability, which is at most 0.
const ROUNDING: f32 = 1e-3;
/// Mean estimate of KL(policy that sampled || policy), in nats a token, of a policy that is another
/// one altogether.
const MOST_KL: f64 = 100.0;
/// Post-mortems of a stage; further ones say the same.
const MOST_DUMPS: usize = 20;

/// Why a completion cannot be learned from; `None` if it can.
pub fn of_rollout(rollout: &Rollout) -> Option<String> {
    for score in rollout.scores().flatten() {
        if !score.reward.is_finite() || score.reward.abs() > MOST_REWARD {
            return Some(format!("a reward of {}", score.reward));
        }
        if let Some(iou) = score.iou.values().flatten().find(|iou| !(0.0..=1.0).contains(*iou)) {
            return Some(format!("an IoU of {iou}"));
        }
    }
    let is_absurd = |logprob: &&f32| !logprob.is_finite() || **logprob > ROUNDING;
    let logprob = rollout.completion.logprobs.iter().find(is_absurd)?;
    Some(format!("a token was sampled with a log-probability of {logprob}"))
}

/// Takes the scores of completions that cannot be learned from, so that they take no part in the
/// update. Returns them as they were, with the reason.
pub(super) fn set_aside(rollouts: &mut [Rollout]) -> Vec<Value> {
    let mut found = Vec::new();
    for rollout in rollouts {
        if let Some(reason) = of_rollout(rollout) {
            let mut row = described(rollout);
            row["reason"] = reason.into();
            found.push(row);
            rollout.score = None;
            rollout.earlier.iter_mut().for_each(|turn| turn.score = None);
        }
    }
    found
}

/// Why a minibatch must not be applied; `None` if it may.
pub(super) fn of_minibatch(numbers: &Means, grad_norm: f64) -> Option<String> {
    if let Some((name, value)) = numbers.iter().find(|(_, value)| !value.is_finite()) {
        return Some(format!("{name} is {value}"));
    }
    let kl = numbers.get("approx_kl").unwrap_or(0.0);
    if kl > MOST_KL {
        return Some(format!("sampler and trainer are {kl:.1} nats a token apart"));
    }
    (!grad_norm.is_finite()).then(|| format!("the gradient's norm is {grad_norm}"))
}

/// A completion for a post-mortem.
pub(super) fn described(rollout: &Rollout) -> Value {
    let numbers = |numbers: &[f32]| numbers.iter().map(|&value| number(f64::from(value))).collect::<Vec<_>>();
    let score = rollout.score.as_ref();
    json!({
        "row": rollout.index,
        "program": rollout.program,
        "outcome": score.map(|score| score.verdict.name()),
        "score_reward": score.map(|score| number(score.reward)),
        "reward": rollout.reward.map(|reward| number(f64::from(reward))),
        "truncated": rollout.completion.truncated,
        "tokens": rollout.tokens(),
        "sampler_logprobs": numbers(&rollout.completion.logprobs),
        "reference_logprobs": numbers(&rollout.ref_logprobs),
        "advantages": numbers(&rollout.advantages),
    })
}

/// A labelled example for a post-mortem.
pub(super) fn described_example(example: &TokenizedExample) -> Value {
    json!({"row": example.index, "tokens": example.response})
}

/// A number as JSON; text if it is not finite, because JSON has no such numbers.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

/// Writes `<run>/post_mortem/<stage>-step-<step>-<count>.json` on rank 0: why, with which numbers,
/// and the batch. `count` numbers those of the stage from 1. A full disk is only told.
pub(super) fn dump<'a>(
    world: &World,
    run_dir: &Path,
    (stage, step, count): (&str, usize, usize),
    reason: &str,
    numbers: impl Iterator<Item = (&'a str, f64)>,
    batch: Vec<Value>,
) {
    if !world.is_main() || count > MOST_DUMPS {
        return;
    }
    let directory = run_dir.join("post_mortem");
    let path = directory.join(format!("{stage}-step-{step:06}-{count}.json"));
    let numbers: serde_json::Map<String, Value> =
        numbers.map(|(name, value)| (name.to_owned(), number(value))).collect();
    let text = json!({"stage": stage, "step": step, "reason": reason, "numbers": numbers, "batch": batch});
    let written = std::fs::create_dir_all(&directory)
        .map_err(anyhow::Error::from)
        .and_then(|()| write_whole(&path, &format!("{text:#}\n")));
    match written {
        Ok(()) => world.warn(&format!("warning: {stage}: step {step}: {reason}; skipped, see {}", path.display())),
        Err(error) => world.warn(&format!("warning: {stage}: step {step}: {reason}; skipped ({error:#})")),
    }
}

#[cfg(test)]
mod tests {
    use cadwright_rollout::{Engine, Scorer, ScorerConfig};

    use super::*;
    use crate::generate::Completion;

    fn rollout() -> Rollout {
        let config = ScorerConfig { engine: Engine::Native, jobs: 1, grid: 16, ..ScorerConfig::default() };
        let program = "solid = cq.Workplane().box(1, 1, 1)";
        let request = cadwright_rollout::ScoreRequest {
            prediction: program.into(),
            ground_truth: program.into(),
            truncated: false,
        };
        let completion =
            Completion { tokens: vec![1, 2], logprobs: vec![-0.5, 0.0], truncated: false, ..Completion::default() };
        let score = Scorer::new(config).unwrap().score(&request).unwrap();
        Rollout { completion, score: Some(score), ..Rollout::default() }
    }

    #[test]
    fn completions_with_absurd_numbers_are_set_aside_and_no_others() {
        assert_eq!(of_rollout(&rollout()), None);
        type Change<'a> = (&'a dyn Fn(&mut Rollout), &'a str);
        let changes: [Change; 5] = [
            (&|r| r.score.as_mut().unwrap().reward = f64::NAN, "a reward of NaN"),
            (&|r| r.score.as_mut().unwrap().reward = -1e5, "a reward of -100000"),
            (&|r| r.score.as_mut().unwrap().iou.values_mut().for_each(|iou| *iou = Some(1.5)), "an IoU of 1.5"),
            (&|r| r.completion.logprobs[1] = f32::NEG_INFINITY, "log-probability of -inf"),
            (&|r| r.completion.logprobs[1] = 0.1, "log-probability of 0.1"),
        ];
        for (change, says) in changes {
            let mut rollouts = [rollout(), rollout(), rollout()];
            change(&mut rollouts[1]);
            let found = set_aside(&mut rollouts);
            assert_eq!(found.len(), 1, "{says}");
            assert!(found[0]["reason"].as_str().is_some_and(|reason| reason.contains(says)), "{}", found[0]);
            let kept: Vec<bool> = rollouts.iter().map(|rollout| rollout.score.is_some()).collect();
            assert_eq!(kept, [true, false, true], "{says}");
        }
    }

    #[test]
    fn minibatches_with_absurd_numbers_are_not_applied() {
        let of = |name: &'static str, value: f64, grad_norm: f64| {
            let mut numbers = Means::default();
            numbers.add("policy_loss", 0.1, 1.0);
            numbers.add(name, value, 1.0);
            of_minibatch(&numbers, grad_norm)
        };
        assert_eq!(of("approx_kl", 0.5, 3.0), None);
        assert_eq!(of("approx_kl", 1e3, 3.0), Some("sampler and trainer are 1000.0 nats a token apart".into()));
        assert_eq!(of("kl", f64::NAN, 3.0), Some("kl is NaN".into()));
        assert_eq!(of("entropy", f64::INFINITY, 3.0), Some("entropy is inf".into()));
        assert_eq!(of("kl", 0.1, f64::NAN), Some("the gradient's norm is NaN".into()));
    }

    #[test]
    fn a_post_mortem_keeps_numbers_that_json_has_not() {
        let run = tempfile::tempdir().unwrap();
        let batch = vec![described(&rollout())];
        let numbers = [("kl", f64::NAN), ("entropy", 0.5)].into_iter();
        dump(&World::single(), run.path(), ("ppo", 7, 1), "kl is NaN", numbers, batch);
        let text = std::fs::read_to_string(run.path().join("post_mortem/ppo-step-000007-1.json")).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&found["numbers"]["kl"], &found["numbers"]["entropy"]), (&json!("NaN"), &json!(0.5)));
        assert_eq!(found["batch"][0]["tokens"], json!([1, 2]));
        let none = || std::iter::empty();
        dump(&World::single(), run.path(), ("ppo", 8, MOST_DUMPS + 1), "kl is NaN", none(), Vec::new());
        assert_eq!(std::fs::read_dir(run.path().join("post_mortem")).unwrap().count(), 1, "only so many are written");
    }
}
