use super::*;
use crate::model::Preset;

fn config(overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::load(None, &overrides).unwrap()
}

/// The plan of InternVL3-8B on H100s.
fn plan(gpus: u64, overrides: &[&str], change: impl Fn(&mut Assumptions, &mut Device)) -> Plan {
    let config = config(overrides);
    let model = InternVlConfig::preset(Preset::InternVl3_8b, 0);
    let mut device: Device = "h100".parse().unwrap();
    let mut assumptions = Assumptions::of(&config, 16.0, 8);
    change(&mut assumptions, &mut device);
    Planner { model: &model, config: &config, device, assumptions }.plan(gpus)
}

fn assert_close(found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() < relative, "{found} is not {expected}");
}

#[test]
fn worlds_double_up_to_the_number_of_gpus() {
    assert_eq!(worlds(1), [1]);
    assert_eq!(worlds(8), [1, 2, 4, 8]);
    assert_eq!(worlds(24), [1, 2, 4, 8, 16, 24]);
}

/// By hand, LoRA of rank 128 on 7.07e9 weights of blocks and head, of which the blocks are 6.53e9;
/// 0.323e9 of the adapter. 256 + 12 + 19 tokens of prompt and 0.22 * 1024 = 225 of response. The
/// frozen blocks cost 4 operations a weight for 512 tokens, 13.4e12; the adapter 6, 1.0e12; the
/// head 4 for 225 tokens, 0.49e12. The picture, 0.3e9 weights and 1025 tokens, costs 0.65e12 and
/// some 0.1 for attention. 32 examples at 0.4 of 989e12 a second take 1.3 s.
#[test]
fn an_sft_step_takes_the_operations_of_its_examples() {
    let step = plan(1, &[], |_, _| ()).sft.steps.remove(0);
    let by_hand = 32.0 * (13.4e12 + 1.0e12 + 0.49e12 + 0.75e12);
    assert_close(step.flops, by_hand, 0.03);
    assert_close(step.seconds.update, step.flops / (0.4 * 989e12), 1e-9);
    assert_eq!((step.seconds.all_reduce, step.seconds_idle, step.bytes_reduced), (0.0, 0.0, 0.0));
}

/// 3 ranks share 32 examples as 11, 11, 10; of 64 ranks half have none.
#[test]
fn ranks_wait_for_the_one_with_an_example_more() {
    let plan = plan(64, &[], |_, _| ());
    let one = plan.sft.steps[0].seconds.update / 32.0;
    let last = &plan.sft.steps[6];
    assert_eq!(last.world, 64);
    assert_close(last.seconds.update, one, 1e-9);
    assert_close(last.seconds_idle, one / 2.0, 1e-9);
    assert_eq!(last.lost[0].0, Limit::LessThanOneExample);
    let three = &self::plan(3, &[], |_, _| ()).sft.steps[2];
    assert_close(three.seconds.update, 11.0 * one, 1e-9);
    assert_close(three.seconds_idle, (11.0 - 32.0 / 3.0) * one, 1e-9);
    assert_eq!(three.lost[0].0, Limit::UnevenShares);
}

/// Full tuning reduces 4 bytes a parameter in each optimiser step; the language model's alone if
/// the tower is frozen.
#[test]
fn gradients_of_all_trained_weights_are_reduced_once_a_minibatch() {
    let full = ["model.tune=full", "model.freeze_vision=false", "ppo.freeze_vision=false"];
    let plan = plan(2, &full, |_, _| ());
    let p = plan.parameters as f64;
    assert_eq!(plan.sft.steps[1].bytes_reduced, 4.0 * p);
    // 32 pictures x 8 completions in minibatches of 64: four.
    assert_eq!(plan.rl.steps[1].bytes_reduced, 4.0 * 4.0 * p);
    let frozen = self::plan(2, &["model.tune=full"], |_, _| ());
    assert!(frozen.sft.steps[1].bytes_reduced < 4.0 * p);
    let adapter = self::plan(2, &[], |_, _| ());
    assert_eq!(adapter.sft.steps[1].bytes_reduced, 4.0 * adapter.trained_parameters as f64);
}

/// Completions that are all equally long, in one batch of 8 on each rank that has a picture: every
/// rank decodes for 100 steps however many ranks there are.
#[test]
fn a_batch_takes_as_long_as_its_longest_completion() {
    let plan = plan(32, &["generate.max_new_tokens=100", "ppo.ce_weight=0"], |assumptions, _| {
        assumptions.mean_tokens = 100.0;
        assumptions.shortest_share = 1.0;
        assumptions.truncated = 0.0;
    });
    let steps = &plan.rl.steps;
    // 32 pictures x 8 in batches of 64: four batches on one GPU, one on four.
    assert_close(steps[0].seconds.generate, 4.0 * steps[2].seconds.generate, 1e-9);
    // From 4 to 32 GPUs the rows of the only batch fall from 64 to 8, and only the prompts of 7 of
    // 8 pictures are saved.
    let (four, many) = (&steps[2].seconds, &steps[5].seconds);
    assert!(many.generate > 0.8 * four.generate, "{} of {}", many.generate, four.generate);
    // 100 steps that read 14.1 GB of weights and 0.65 GB of adapter at half of 3.35 TB/s: 0.88 s.
    assert_close(many.generate, 0.9, 0.05);
    assert_eq!(greatest_loss(&steps[5]), Limit::SlowestCompletion);
    assert_eq!(steps[5].seconds_idle, 0.0);
}

/// One program of a hundred that is not cut off is likely the longest of a rank's 64, and surely of
/// all ranks': others wait.
#[test]
fn ranks_wait_for_the_longest_completion_of_all() {
    let steps = plan(4, &[], |_, _| ()).rl.steps;
    let (alone, four) = (&steps[0], &steps[2]);
    assert_eq!(alone.seconds_idle, 0.0);
    assert!(four.seconds_idle > 0.0);
    // Four batches on one GPU; on four GPUs one batch, which is the longest of four.
    assert!(four.seconds.generate > alone.seconds.generate / 4.0);
}

/// 256 programs at 0.1 a second on 16 cores: 160 s, more than all the rest.
#[test]
fn slow_scoring_is_what_stops_first() {
    let slow = plan(8, &[], |assumptions, _| assumptions.scores_per_second = 0.1).rl;
    assert_close(slow.steps[0].seconds_scoring, 160.0, 1e-9);
    let waited = 160.0 - slow.steps[0].seconds.generate + 10.0;
    assert_close(slow.steps[0].seconds.score_wait, waited, 1e-9);
    assert_eq!(slow.limit, Some((1, Limit::ScoringCores)));
    let fast = plan(8, &[], |_, _| ()).rl;
    // 256 programs at 422 a second on 16 cores: 0.04 s beside generation.
    assert_close(fast.steps[0].seconds_scoring, 256.0 * 0.002368 / 16.0, 1e-9);
    assert_close(fast.steps[0].seconds.score_wait, 0.002368, 1e-9);
}

#[test]
fn a_slow_network_is_what_stops_full_tuning() {
    let slow = |_: &mut Assumptions, device: &mut Device| device.network_bandwidth = 0.1e9;
    let plan = plan(64, &["model.tune=full", "sft.gradient_accumulation=64"], slow);
    // Within a node of 8 it does not matter.
    assert_eq!(plan.sft.limit, Some((16, Limit::AllReduce)));
}

#[test]
fn more_gpus_are_never_more_efficient() {
    for overrides in [&[][..], &["model.tune=full"], &["ppo.algorithm=ppo"], &["ppo.images_per_step=256"]] {
        let plan = plan(1024, overrides, |_, _| ());
        for stage in [plan.sft, plan.rl] {
            assert_eq!(stage.steps[0].efficiency, 1.0);
            for pair in stage.steps.windows(2) {
                let [fewer, more] = pair else { unreachable!() };
                assert!(more.efficiency <= fewer.efficiency + 1e-12, "{overrides:?}: {fewer:?} {more:?}");
                assert!(more.seconds_idle >= -1e-9);
            }
        }
    }
}

/// What is lost is what separates a step from an equal share of the step on one GPU.
#[test]
fn losses_add_up() {
    for overrides in [&[][..], &["model.tune=full", "ppo.minibatch_size=24"]] {
        let plan = plan(64, overrides, |_, _| ());
        for stage in [&plan.sft, &plan.rl] {
            for step in &stage.steps[1..] {
                let lost: f64 = step.lost.iter().map(|(_, seconds)| seconds).sum();
                let expected = step.seconds_total - stage.steps[0].seconds_total / step.world as f64;
                // The time of one program is counted as lost on every number of GPUs.
                assert!((lost - expected).abs() < 0.01, "{} {}: {lost} is not {expected}", stage.stage, step.world);
            }
        }
    }
}
