//! Alarms of reinforcement learning: what has gone wrong in other people's runs, seen in the numbers
//! of the steps. docs/gates.md defines each.

use std::collections::{BTreeMap, BTreeSet};

use cadwright_rewards::OutcomeClass;
use cadwright_rewards::stats::mean;
use serde::{Deserialize, Serialize};

use crate::rollouts::Rollout;

/// Steps whose mean is compared: the last ones, and the first ones of the stage.
const WINDOW: usize = 5;
/// Steps before the last [`WINDOW`], with which a jump is compared.
const BEFORE: usize = 20;

/// An alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// The policy has stopped trying different programs.
    Entropy,
    /// The policy has gone far from the SFT policy, or goes fast.
    Kl,
    /// One program answers many pictures.
    OneProgram,
    /// Completions have become much longer or shorter.
    Length,
    /// A kind of failure has become frequent.
    Failures,
    /// The reward of training has risen while the IoU of validations fell.
    RewardOnly,
    /// The trainer gives tokens other log-probabilities than the sampler.
    Sampler,
}

impl Alarm {
    /// Every alarm, in the order of logs.
    pub const ALL: [Self; 7] =
        [Self::Entropy, Self::Kl, Self::OneProgram, Self::Length, Self::Failures, Self::RewardOnly, Self::Sampler];

    /// The name in metrics: `alarm/<name>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entropy => "entropy",
            Self::Kl => "kl",
            Self::OneProgram => "one_program",
            Self::Length => "length",
            Self::Failures => "failures",
            Self::RewardOnly => "reward_only",
            Self::Sampler => "sampler",
        }
    }
}

/// What a step says about the health of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Mean entropy of a token's distribution, in nats; `None` without an update.
    pub entropy: Option<f64>,
    /// Mean KL to the SFT policy, in nats a token; `None` without an update.
    pub kl: Option<f64>,
    /// Share of the step's pictures that have the commonest program among their completions.
    pub one_program: f64,
    /// Mean tokens of a completion.
    pub length: f64,
    /// Share of the completions with each failure, and of those that were cut off.
    pub failures: BTreeMap<String, f64>,
    /// Mean reward.
    pub reward: f64,
    /// Mean difference between sampler and trainer, in nats a token; `None` without an update.
    pub sampler_gap: Option<f64>,
}

/// The steps of a stage, as far as alarms need them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// The first [`WINDOW`] steps.
    first: Vec<Health>,
    /// The last `BEFORE + WINDOW` steps.
    last: Vec<Health>,
    /// Rewards since the last validation.
    rewards: Vec<f64>,
    /// Of each validation after the first step: the mean reward of the steps before it, and its IoU.
    validations: Vec<[f64; 2]>,
    /// The alarms that were on after the last step.
    on: BTreeSet<Alarm>,
}

/// Limits that depend on the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// KL to the SFT policy, in nats a token.
    pub kl: f64,
    /// Difference between sampler and trainer, in nats a token.
    pub sampler_gap: f64,
}

impl Limits {
    /// Share of the first steps' entropy below which it has collapsed.
    const ENTROPY: f64 = 0.1;
    /// KL above which its growth counts, and the growth.
    const KL_GROWTH: (f64, f64) = (0.1, 5.0);
    /// Share of a step's pictures that one program answers.
    const ONE_PROGRAM: f64 = 0.5;
    /// Fewest pictures of a step that can say so.
    const FEWEST_PICTURES: usize = 4;
    /// Factor by which the first steps' length has changed.
    const LENGTH: f64 = 2.0;
    /// Rise of the share of a failure.
    const FAILURES: f64 = 0.2;
    /// Rise of the mean reward, and fall of the IoU, that count.
    const CHANGE: f64 = 0.03;

    /// The limits of a run whose KL is steered to `kl_target` (0: it is not) and whose gate `ratio`
    /// allows `sampler_gap`.
    pub fn new(kl_target: f64, sampler_gap: f64) -> Self {
        Self { kl: (10.0 * kl_target).max(0.5), sampler_gap: 2.0 * sampler_gap }
    }
}

impl History {
    /// Takes a step into account. Returns the alarms that are on, with the reason, and which of them
    /// have just come on.
    pub fn observe(&mut self, step: Health, limits: Limits) -> (Vec<(Alarm, String)>, BTreeSet<Alarm>) {
        self.rewards.push(step.reward);
        if self.first.len() < WINDOW {
            self.first.push(step.clone());
        }
        self.last.push(step);
        if self.last.len() > BEFORE + WINDOW {
            self.last.remove(0);
        }
        let found = self.alarms(limits);
        let on: BTreeSet<Alarm> = found.iter().map(|(alarm, _)| *alarm).collect();
        let new = on.difference(&self.on).copied().collect();
        self.on = on;
        (found, new)
    }

    /// Takes a validation after a step into account.
    pub fn validated(&mut self, iou: f64) {
        let rewards = std::mem::take(&mut self.rewards);
        if !rewards.is_empty() {
            self.validations.push([mean(&rewards), iou]);
        }
    }

    /// The alarms that the history gives, with their reasons.
    pub fn alarms(&self, limits: Limits) -> Vec<(Alarm, String)> {
        let found = |alarm: Alarm| {
            let reason = match alarm {
                Alarm::Entropy => self.entropy(),
                Alarm::Kl => self.kl(limits),
                Alarm::OneProgram => self.one_program(),
                Alarm::Length => self.length(),
                Alarm::Failures => self.failures(),
                Alarm::RewardOnly => self.reward_only(),
                Alarm::Sampler => self.sampler(limits),
            };
            reason.map(|reason| (alarm, reason))
        };
        if self.last.len() < WINDOW { Vec::new() } else { Alarm::ALL.into_iter().filter_map(found).collect() }
    }

    fn entropy(&self) -> Option<String> {
        let (first, now) = (means(&self.first, |step| step.entropy)?, self.now(|step| step.entropy)?);
        (now < Limits::ENTROPY * first)
            .then(|| format!("the entropy fell from {first:.3} in the first steps to {now:.4}"))
    }

    fn kl(&self, limits: Limits) -> Option<String> {
        let now = self.now(|step| step.kl)?;
        let (least, growth) = Limits::KL_GROWTH;
        let before = self.before(|step| step.kl).unwrap_or(f64::INFINITY);
        if now > limits.kl {
            return Some(format!("the KL to the SFT policy is {now:.3} nats a token, above {:.3}", limits.kl));
        }
        (now > least && now > growth * before)
            .then(|| format!("the KL to the SFT policy rose from {before:.4} to {now:.3} nats a token"))
    }

    fn one_program(&self) -> Option<String> {
        let now = self.now(|step| Some(step.one_program))?;
        (now > Limits::ONE_PROGRAM).then(|| format!("one program answers {:.0} % of a step's pictures", 100.0 * now))
    }

    fn length(&self) -> Option<String> {
        let (first, now) = (means(&self.first, |step| Some(step.length))?, self.now(|step| Some(step.length))?);
        (now > Limits::LENGTH * first || now * Limits::LENGTH < first)
            .then(|| format!("completions had {first:.0} tokens in the first steps, and have {now:.0}"))
    }

    fn failures(&self) -> Option<String> {
        let names: BTreeSet<&String> = self.last.iter().flat_map(|step| step.failures.keys()).collect();
        let jumped = |name: &&String| {
            let share = |step: &Health| Some(step.failures.get(*name).copied().unwrap_or(0.0));
            let (before, now) = (self.before(share)?, self.now(share)?);
            (now > before + Limits::FAILURES).then(|| {
                format!("`{name}` rose from {:.0} % of the completions to {:.0} %", 100.0 * before, 100.0 * now)
            })
        };
        names.iter().find_map(jumped)
    }

    fn reward_only(&self) -> Option<String> {
        let (&[reward, iou], earlier) = self.validations.split_last()?;
        let is_better = |before: &&[f64; 2]| before[0] + Limits::CHANGE < reward && before[1] > iou + Limits::CHANGE;
        let [before_reward, before_iou] = earlier.iter().rev().find(is_better)?;
        Some(format!(
            "the reward rose from {before_reward:.3} to {reward:.3} while the validation's IoU fell from \
             {before_iou:.3} to {iou:.3}"
        ))
    }

    fn sampler(&self, limits: Limits) -> Option<String> {
        let now = self.now(|step| step.sampler_gap)?;
        let most = limits.sampler_gap;
        (now > most).then(|| format!("sampler and trainer differ by {now:.3} nats a token, more than {most:.3}"))
    }

    /// The mean over the last steps.
    fn now(&self, number: impl Fn(&Health) -> Option<f64>) -> Option<f64> {
        means(&self.last[self.last.len().saturating_sub(WINDOW)..], number)
    }

    /// The mean over the steps before them, at least [`WINDOW`].
    fn before(&self, number: impl Fn(&Health) -> Option<f64>) -> Option<f64> {
        let before = &self.last[..self.last.len().saturating_sub(WINDOW)];
        if before.len() < WINDOW { None } else { means(before, number) }
    }
}

/// The mean of a number over the steps that have it; `None` if none has.
fn means(steps: &[Health], number: impl Fn(&Health) -> Option<f64>) -> Option<f64> {
    let numbers: Vec<f64> = steps.iter().filter_map(number).collect();
    (!numbers.is_empty()).then(|| mean(&numbers))
}

/// Share of the pictures that have the commonest program among their completions; 0 for fewer than
/// four pictures. The rollouts of a picture follow each other.
pub fn one_program(rollouts: &[Rollout]) -> f64 {
    let mut pictures: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = 0;
    for part in rollouts.chunk_by(|a, b| a.index == b.index) {
        count += 1;
        let programs: BTreeSet<&str> = part.iter().map(|rollout| rollout.program.trim()).collect();
        programs.into_iter().for_each(|program| *pictures.entry(program).or_default() += 1);
    }
    let most = pictures.values().copied().max().unwrap_or(0);
    if count < Limits::FEWEST_PICTURES { 0.0 } else { most as f64 / count as f64 }
}

/// Share of the completions with each failure, and `truncated`: of those that were cut off.
pub fn failure_shares(rollouts: &[Rollout]) -> BTreeMap<String, f64> {
    let share = |is: &dyn Fn(&Rollout) -> bool| {
        rollouts.iter().filter(|rollout| is(rollout)).count() as f64 / rollouts.len().max(1) as f64
    };
    let failures = OutcomeClass::ALL.into_iter().filter(|class| *class != OutcomeClass::Solid);
    let class_of = |rollout: &Rollout| rollout.score.as_ref().and_then(|score| score.verdict.class());
    let shares = failures.map(|class| (class.name().to_owned(), share(&|rollout| class_of(rollout) == Some(class))));
    shares.chain([("truncated".to_owned(), share(&|rollout| rollout.completion.truncated))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Health {
        Health {
            entropy: Some(0.2),
            kl: Some(0.02),
            one_program: 0.1,
            length: 60.0,
            failures: [("timeout".to_owned(), 0.01)].into(),
            reward: 0.5,
            sampler_gap: Some(0.001),
        }
    }

    /// The alarms after 30 steps of which the last five are changed.
    fn after(change: impl Fn(&mut Health)) -> Vec<Alarm> {
        let mut history = History::default();
        let limits = Limits::new(0.0, 0.05);
        for step in 0..30 {
            let mut health = healthy();
            if step >= 25 {
                change(&mut health);
            }
            history.observe(health, limits);
        }
        history.alarms(limits).into_iter().map(|(alarm, _)| alarm).collect()
    }

    #[test]
    fn each_fault_rings_its_own_alarm_and_no_other() {
        type Case<'a> = (&'a dyn Fn(&mut Health), &'a [Alarm]);
        let cases: [Case; 11] = [
            (&|_| (), &[]),
            (&|step| step.entropy = Some(0.019), &[Alarm::Entropy]),
            (&|step| step.entropy = Some(0.03), &[]),
            (&|step| step.kl = Some(0.6), &[Alarm::Kl]),
            (&|step| step.kl = Some(0.11), &[Alarm::Kl]),
            (&|step| step.one_program = 0.6, &[Alarm::OneProgram]),
            (&|step| step.length = 125.0, &[Alarm::Length]),
            (&|step| step.length = 29.0, &[Alarm::Length]),
            (&|step| step.failures = [("timeout".to_owned(), 0.22)].into(), &[Alarm::Failures]),
            (&|step| step.failures = [("crash".to_owned(), 0.3)].into(), &[Alarm::Failures]),
            (&|step| step.sampler_gap = Some(0.2), &[Alarm::Sampler]),
        ];
        for (i, (change, expected)) in cases.iter().enumerate() {
            assert_eq!(after(change), *expected, "case {i}");
        }
    }

    #[test]
    fn steps_without_an_update_count_for_what_they_have() {
        let without = |step: &mut Health| (step.entropy, step.kl, step.sampler_gap) = (None, None, None);
        assert_eq!(after(without), []);
    }

    #[test]
    fn a_reward_that_rises_while_the_iou_falls_is_told() {
        let alarms = |validations: &[(f64, f64)]| -> Vec<Alarm> {
            let mut history = History::default();
            let limits = Limits::new(0.0, 0.05);
            for (reward, iou) in validations {
                for _ in 0..WINDOW {
                    history.observe(Health { reward: *reward, ..healthy() }, limits);
                }
                history.validated(*iou);
            }
            history.alarms(limits).into_iter().map(|(alarm, _)| alarm).collect()
        };
        assert_eq!(alarms(&[(0.3, 0.3), (0.5, 0.35)]), []);
        assert_eq!(alarms(&[(0.3, 0.3), (0.4, 0.4), (0.5, 0.3)]), [Alarm::RewardOnly]);
        // Both fall, or neither by enough.
        assert_eq!(alarms(&[(0.5, 0.5), (0.3, 0.3)]), []);
        assert_eq!(alarms(&[(0.3, 0.3), (0.32, 0.2)]), []);
        // The last validation has recovered.
        assert_eq!(alarms(&[(0.3, 0.4), (0.5, 0.3), (0.6, 0.4)]), []);
    }

    #[test]
    fn an_alarm_is_new_once_until_it_has_been_off() {
        let mut history = History::default();
        let limits = Limits::new(0.0, 0.05);
        let mut observe = |one_program| history.observe(Health { one_program, ..healthy() }, limits).1.len();
        let new: Vec<usize> =
            [0.1; 5].into_iter().chain([1.0; 6]).chain([0.1; 5]).chain([1.0; 5]).map(&mut observe).collect();
        assert_eq!(new.iter().sum::<usize>(), 2, "{new:?}");
    }

    #[test]
    fn one_program_counts_pictures_and_not_completions() {
        let rollout = |index: usize, program: &str| Rollout { index, program: program.into(), ..Rollout::default() };
        let all: Vec<Rollout> = [(0, "a"), (0, "a"), (1, "a"), (1, "b"), (2, "c"), (2, "a\n"), (3, "d"), (3, "e")]
            .map(|(i, p)| rollout(i, p))
            .into();
        assert_eq!(one_program(&all), 0.75);
        assert_eq!(one_program(&all[..6]), 0.0, "three pictures say nothing");
    }
}
