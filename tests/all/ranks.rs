//! What ranks do together, with threads of this process as ranks.

use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cadwright::config::Distributed;
use cadwright::data::{DataSource, Dataset, Split};
use cadwright::distributed::{Place, World};
use cadwright::generate::{GenerateOptions, Sampling};
use cadwright::model::{InternVl, InternVlConfig, Prompt, Tokenizer, Weights};
use cadwright::pictures::Pictures;
use cadwright::rollouts::{PromptedDataset, Rollout, divided, gathered, generate_and_score};
use cadwright::train::optim::{Optimizer, OptimizerConfig};
use cadwright::train::shards::Shard;
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use tch::{Device, Kind, Tensor};

use crate::cli::smoke_run;

/// Calls `work` on each of `size` ranks and returns what they return, in order of rank.
fn on_ranks<T: Send>(size: usize, work: impl Fn(&World) -> T + Sync) -> Vec<T> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let rank = |rank: usize| {
        let world = World::connect(Some(place(rank, size, port)), Device::Cpu, &Distributed::default());
        let world = world.expect("the ranks meet");
        world.run(|| Ok(work(&world))).expect("the ranks end together")
    };
    let rank = &rank;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|i| scope.spawn(move || rank(i))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    })
}

fn place(rank: usize, size: usize, port: u16) -> Place {
    let (host, launcher_serves) = ("127.0.0.1".to_owned(), false);
    Place { rank, size, local_rank: rank, local_size: size, host, port, launcher_serves }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1).contiguous()).expect("a tensor of f32")
}

#[test]
fn collectives_give_every_rank_the_same() {
    for size in [1, 2, 3] {
        let results = on_ranks(size, |world| {
            let rank = world.rank() as f32;
            let sum = Tensor::from_slice(&[rank, 1.0]);
            world.all_reduce("numbers", &sum).unwrap();
            let all = world.all_gather("numbers", &Tensor::from_slice(&[rank, 10.0 * rank])).unwrap();
            let ramp: Vec<f32> = (0..2 * size).map(|i| i as f32).collect();
            let own = world.reduce_scatter("numbers", &Tensor::from_slice(&ramp)).unwrap();
            let sent = Tensor::from_slice(&[rank]);
            world.broadcast("a number", &sent, size - 1).unwrap();
            // Texts of different lengths, an empty one among them.
            let texts = world.gather("texts", "x".repeat(3 * world.rank())).unwrap();
            let main = world.from_main("a number", || Ok(world.rank() + 7)).unwrap();
            let shares: Vec<usize> = world.share(&[0, 1, 2, 3, 4]).copied().collect();
            (numbers(&sum), numbers(&all), numbers(&own), numbers(&sent), texts, main, shares)
        });
        let n = size as f32;
        for (rank, (sum, all, own, sent, texts, main, shares)) in results.into_iter().enumerate() {
            assert_eq!(sum, [n * (n - 1.0) / 2.0, n]);
            assert_eq!(all, (0..size).flat_map(|i| [i as f32, 10.0 * i as f32]).collect::<Vec<_>>());
            assert_eq!(own, [n * 2.0 * rank as f32, n * (2.0 * rank as f32 + 1.0)]);
            assert_eq!(sent, [n - 1.0]);
            assert_eq!(texts, (0..size).map(|i| "x".repeat(3 * i)).collect::<Vec<_>>());
            assert_eq!(main, 7);
            assert_eq!(shares, (rank..5).step_by(size).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_main_rank_prepares_before_the_others_look() {
    let made = AtomicUsize::new(0);
    let found = on_ranks(3, |world| {
        let prepare = || {
            if world.is_main() {
                std::thread::sleep(Duration::from_millis(300));
                made.store(5, Ordering::SeqCst);
            }
            Ok(made.load(Ordering::SeqCst))
        };
        world.main_first("the data", prepare).unwrap()
    });
    assert_eq!(found, [5, 5, 5]);
}

#[test]
fn a_rank_that_never_comes_is_reported_after_the_timeout() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let config = Distributed { timeout_s: 1.0, ..Distributed::default() };
    let started = Instant::now();
    let error = World::connect(Some(place(0, 2, port)), Device::Cpu, &config).err().expect("nobody else is there");
    let message = error.to_string();
    assert!(started.elapsed() < Duration::from_secs(20), "{message}");
    for text in ["rank 0 of 2: meeting", &format!("MASTER_PORT {port}"), "failed after"] {
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn an_operation_without_one_rank_says_who_waited_for_what_and_how_long() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let config = Distributed { timeout_s: 2.0, ..Distributed::default() };
    let both_done = Barrier::new(2);
    let rank = |rank: usize| {
        let world = World::connect(Some(place(rank, 2, port)), Device::Cpu, &config).expect("both come");
        let numbers = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let message = match rank {
            0 => world.all_reduce("the gradients", &numbers).unwrap_err().to_string(),
            _ => String::new(),
        };
        // Rank 0 serves the store: if it left sooner, rank 1 would end this process.
        both_done.wait();
        message
    };
    let messages: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|i| {
                scope.spawn({
                    let rank = &rank;
                    move || rank(i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    });
    assert!(messages[0].starts_with("rank 0 of 2: all-reduce of the gradients failed after 2."), "{}", messages[0]);
}

/// Weights with matrices of several sizes, a vector, and one tensor that never gets a gradient.
fn weights() -> Weights {
    let mut weights = Weights::empty();
    for (name, shape) in [("a", &[4i64, 6] as &[i64]), ("b", &[3, 2]), ("c", &[5]), ("d", &[4, 6]), ("unused", &[2, 2])]
    {
        let count: i64 = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7 + 3) % 11) as f32 / 10.0 - 0.5).collect();
        weights.insert(name.into(), Tensor::from_slice(&values).view(shape));
    }
    weights.set_trainable(|_| true);
    weights
}

/// Five steps on a loss that is a sum over examples, of which each rank has its share; rank 1 of 2
/// or more has none in the last step.
fn five_steps(world: &World, optimizer: &mut Optimizer, weights: &Weights) -> Vec<f64> {
    (0..5)
        .map(|step| {
            let examples: Vec<i64> = if step == 4 { vec![1] } else { (1..6).collect() };
            for &example in world.share(&examples) {
                let loss =
                    ["a", "b", "c", "d"].map(|name| (weights.get(name) - example as f64 / 7.0).pow_tensor_scalar(4));
                (loss.map(|part| part.sum(Kind::Float)).into_iter().sum::<Tensor>() * (step + 1) as f64).backward();
            }
            optimizer.step(world, 0.01).unwrap()
        })
        .collect()
}

#[test]
fn a_sharded_optimizer_equals_the_plain_one_of_one_rank() {
    use cadwright::config::OptimizerKind::{Adamw, Muon};
    for kind in [Adamw, Muon] {
        let config = OptimizerConfig { kind, weight_decay: 0.1, betas: [0.9, 0.99], max_grad_norm: 1.0 };
        let train = |world: &World, is_sharded: bool| {
            let weights = weights();
            let mut optimizer = Optimizer::sharded(&weights, config, Shard::of(world, is_sharded));
            let norms = five_steps(world, &mut optimizer, &weights);
            let state = optimizer.state(world).unwrap();
            let state: Vec<(String, Vec<f32>)> =
                state.into_iter().map(|(name, tensor)| (name, numbers(&tensor.to_kind(Kind::Float)))).collect();
            (weights.iter().map(|(_, tensor)| numbers(tensor)).collect::<Vec<_>>(), norms, state)
        };
        let (expected, norms, state) = train(&World::single(), false);
        assert_ne!(expected[0], numbers(&weights().get("a")));
        assert_eq!(expected[4], numbers(&weights().get("unused")), "no gradient, no weight decay");
        for (size, is_sharded) in [(2, false), (2, true), (3, true), (7, true)] {
            let ranks = on_ranks(size, |world| train(world, is_sharded));
            for (found, found_norms, _) in &ranks {
                assert_eq!(found, &ranks[0].0, "all ranks have the same bits");
                for (found, expected) in found.concat().iter().zip(expected.concat()) {
                    assert!((found - expected).abs() < 1e-6, "{kind:?}, {size} ranks: {found} and {expected}");
                }
                for (found, expected) in found_norms.iter().zip(&norms) {
                    assert!((found / expected - 1.0).abs() < 1e-5, "{kind:?}, {size} ranks: {found} and {expected}");
                }
            }
            // What rank 0 would write to a checkpoint.
            for ((name, found), (expected_name, expected)) in ranks[0].2.iter().zip(&state) {
                assert_eq!((name, found.len()), (expected_name, expected.len()));
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-6, "{name}: {found} and {expected}");
                }
            }
            assert_eq!(ranks[0].2.len(), state.len());
        }
    }
}

#[test]
fn a_sharded_optimizer_goes_on_from_the_state_of_a_plain_one() {
    let kind = cadwright::config::OptimizerKind::Adamw;
    let config = OptimizerConfig { kind, weight_decay: 0.0, betas: [0.9, 0.99], max_grad_norm: 1.0 };
    let single = World::single();
    let first = weights();
    let mut optimizer = Optimizer::new(&first, config);
    five_steps(&single, &mut optimizer, &first);
    let copied = |tensor: &Tensor| (numbers(&tensor.to_kind(Kind::Float)), tensor.size(), tensor.kind());
    let state: Vec<_> = optimizer.state(&single).unwrap().iter().map(|(name, t)| (name.clone(), copied(t))).collect();
    let middle: Vec<_> = first.iter().map(|(name, tensor)| (name.to_owned(), copied(tensor))).collect();
    five_steps(&single, &mut optimizer, &first);
    let expected: Vec<f32> = first.iter().flat_map(|(_, tensor)| numbers(tensor)).collect();
    let ranks = on_ranks(3, |world| {
        let tensor = |(values, size, kind): &(Vec<f32>, Vec<i64>, Kind)| {
            Tensor::from_slice(values).view(size.as_slice()).to_kind(*kind)
        };
        let mut weights = Weights::empty();
        middle.iter().for_each(|(name, saved)| weights.insert(name.clone(), tensor(saved)));
        weights.set_trainable(|_| true);
        let mut optimizer = Optimizer::sharded(&weights, config, Shard::of(world, true));
        optimizer.restore(&state.iter().map(|(name, saved)| (name.clone(), tensor(saved))).collect()).unwrap();
        five_steps(world, &mut optimizer, &weights);
        weights.iter().flat_map(|(_, tensor)| numbers(tensor)).collect::<Vec<f32>>()
    });
    for found in ranks {
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        }
    }
}

/// Tokens, log-probabilities, program, outcome and reward of each rollout.
type Described = (usize, Vec<i64>, Vec<f32>, bool, String, Option<(&'static str, f64)>);

/// 5 parts, 3 completions each: neither divides by 2 or 4.
#[test]
fn completions_and_scores_do_not_depend_on_the_number_of_ranks() {
    let model = smoke_run().join("sft/best");
    let data = DataSource::path(smoke_run().join("data"));
    let write = |world: &World| -> Vec<Described> {
        let config = InternVlConfig::read(&model).unwrap();
        let weights = Weights::load(&model, &config, Kind::Float, Device::Cpu).unwrap();
        let model_of_rank = InternVl::new(config, weights, None, Kind::Float);
        let tokenizer = Tokenizer::load(&model).unwrap();
        let prompt = Prompt::of(&model).unwrap().expect("the smoke run's prompt");
        let dataset = Dataset::open(&data, Split::Train, Some(20)).unwrap();
        let pictures = Pictures::new(&dataset, 1, 0);
        let prompted =
            PromptedDataset { dataset: &dataset, pictures: &pictures, prompt: &prompt, tokenizer: &tokenizer };
        let scorer = Scorer::new(ScorerConfig { engine: Engine::Native, grid: 32, jobs: 1, ..ScorerConfig::default() });
        let scorer = scorer.unwrap();
        let (parts, samples) = ([3, 11, 4, 19, 7], 3);
        let places = divided(&[5.0, 9.0, 1.0, 7.0, 3.0], world.size());
        let own: Vec<usize> = places[world.rank()].iter().map(|&place| parts[place]).collect();
        let completions = places[world.rank()].iter().flat_map(|place| (0..samples).map(move |s| place * samples + s));
        let seeds: Vec<u64> = completions.map(|i| 1000 + i as u64).collect();
        let sampling = Sampling { temperature: 0.7, top_p: 1.0, max_new_tokens: 64 };
        let options = GenerateOptions { sampling, batch_size: 64, keeps_states: false };
        let pending = generate_and_score(&model_of_rank, &prompted, &own, &seeds, options, &scorer);
        let rollouts = pending.finish().unwrap();
        let rollouts = gathered(world, &model_of_rank, &prompted, &parts, &places, rollouts, samples).unwrap();
        rollouts.into_iter().map(described).collect()
    };
    let expected = write(&World::single());
    assert_eq!(expected.len(), 15);
    assert_eq!(expected.iter().map(|rollout| rollout.0).collect::<Vec<_>>()[..6], [3, 3, 3, 11, 11, 11]);
    for size in [2, 4] {
        for found in on_ranks(size, write) {
            for (found, expected) in found.iter().zip(&expected) {
                let (logprobs, expected_logprobs) = (&found.2, &expected.2);
                assert_eq!((found.0, &found.1, found.3), (expected.0, &expected.1, expected.3));
                assert_eq!((&found.4, &found.5), (&expected.4, &expected.5));
                for (found, expected) in logprobs.iter().zip(expected_logprobs) {
                    assert!((found - expected).abs() < 1e-4, "{found} and {expected}");
                }
            }
            assert_eq!(found.len(), expected.len());
        }
    }
}

fn described(rollout: Rollout) -> Described {
    let score = rollout.score.map(|score| (score.verdict.name(), score.reward));
    let completion = rollout.completion;
    (rollout.index, completion.tokens, completion.logprobs, completion.truncated, rollout.program, score)
}
