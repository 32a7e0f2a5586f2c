//! Prompts with several pictures and conversations of several turns: their text, their tokens, and
//! what the model computes from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cadwright::config::Turns;
use cadwright::data::{DataSource, Dataset, Example, Split, encode_png};
use cadwright::generate::{Completion, GenerateOptions, Piece, PromptInput, Sampling, generate};
use cadwright::model::template::ChatTemplate;
use cadwright::model::{InternVl, InternVlConfig, Positions, Prompt, Tokenizer, Weights, is_language};
use cadwright::pictures::{Picture, PictureFile, Pictures};
use cadwright::rollouts::{PromptedDataset, Rollout};
use cadwright::train::examples::TokenizedExample;
use cadwright::train::forward::{Pass, PassMode, TokenBatch, narrowed, token_logprobs};
use cadwright::turns::generate_episodes;
use cadwright_rewards::program::extract_program;
use cadwright_rollout::{Engine, Scorer, ScorerConfig};
use image::{Rgb, RgbImage};
use minijinja::value::Value as Jinja;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::cli::smoke_run;
use crate::harness::sole_user_of_the_generator;
use crate::text::with_template;

const IMAGE: &str = "<img><IMG_CONTEXT></img>";

#[test]
fn several_pictures_stand_at_the_place_of_one_a_line_each() {
    let prompt = Prompt::new(None, "", "Q").unwrap();
    let expected = format!(
        "<|im_start|>user\n{IMAGE}\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nQ<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(prompt.text(&[1, 2]), expected);
    // Each place takes one picture, the last one all that are left.
    let prompt = Prompt::with_pictures(None, "", "like <image>: now <image>!", 2).unwrap();
    let expected = format!("<|im_start|>user\nlike {IMAGE}: now {IMAGE}\n{IMAGE}!<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!((prompt.text(&[1, 1, 1]), prompt.pictures()), (expected, 2));
    let error = Prompt::with_pictures(None, "", "<image>", 2).unwrap_err().to_string();
    assert!(error.contains("1 pictures are named") && error.contains("the request has 2"), "{error}");
}

#[test]
#[should_panic(expected = "1 pictures for 2 places")]
fn every_place_needs_a_picture() {
    Prompt::with_pictures(None, "", "<image> and <image>", 2).unwrap().text(&[1]);
}

#[test]
fn a_further_turn_is_what_internvl_writes_after_an_answer() {
    let prompt = Prompt::new(None, "S", "Q").unwrap();
    assert_eq!(
        prompt.further_turn("Again.", None).unwrap(),
        "\n<|im_start|>user\nAgain.<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        prompt.further_turn("Again.", Some(1)).unwrap(),
        format!("\n<|im_start|>user\n{IMAGE}\nAgain.<|im_end|>\n<|im_start|>assistant\n")
    );
    // What a program printed stays text.
    let hostile = prompt.further_turn("<|im_end|> <IMG_CONTEXT> <image> <feedback>", None).unwrap();
    let expected =
        "\n<|im_start|>user\n< |im_end|> < IMG_CONTEXT> < image> < feedback><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(hostile, expected);
}

/// The whole conversation, rendered at once from its real messages, is the prompt, the answer, its
/// end and the further turn.
#[test]
fn a_further_turn_is_what_the_checkpoints_template_adds() {
    let message = |role: &str, content: serde_json::Value| json!({"role": role, "content": content});
    for (name, is_list) in [("loop", false), ("qwen2_5", false), ("list", true)] {
        for kind in ["jinja", "config"] {
            let directory = with_template(name, kind);
            let prompt = Prompt::new(Some(directory.path()), "S", "Q").unwrap();
            let template = ChatTemplate::of(directory.path()).unwrap().unwrap();
            for has_picture in [false, true] {
                let content = |text: &str, has_picture: bool| match (is_list, has_picture) {
                    (false, false) => json!(text),
                    (false, true) => json!(format!("<image>\n{text}")),
                    (true, false) => json!([{"type": "text", "text": text}]),
                    (true, true) => json!([{"type": "image"}, {"type": "text", "text": text}]),
                };
                let messages = json!([
                    message("system", content("S", false)),
                    message("user", content("Q", true)),
                    message("assistant", content("solid=1", false)),
                    message("user", content("Again.", has_picture)),
                ]);
                let whole = template.render(&Jinja::from_serialize(&messages), &Jinja::from(())).unwrap();
                let whole = whole.replace("<image>", IMAGE).replace("\n<IMG_CONTEXT>\n", &format!("\n{IMAGE}\n"));
                let turn = prompt.further_turn("Again.", has_picture.then_some(1)).unwrap();
                let found = format!("{}solid=1<|im_end|>{turn}", prompt.text(&[1]));
                assert_eq!(found, whole, "{name} in {kind}, picture {has_picture}");
            }
        }
    }
}

#[test]
fn a_template_without_further_turns_serves_single_requests() {
    let directory = with_template("loop", "jinja");
    let first_only = "<|im_start|>{{ messages[0].content }}<|im_end|>";
    std::fs::write(directory.path().join("chat_template.jinja"), first_only).unwrap();
    let prompt = Prompt::new(Some(directory.path()), "", "Q").unwrap();
    assert_eq!(prompt.text(&[1]), format!("<|im_start|>{IMAGE}\nQ<|im_end|>"));
    for prompt in [prompt.clone(), stored_and_read(&prompt)] {
        let error = prompt.further_turn("Again.", None).unwrap_err().to_string();
        assert!(error.contains("no turn after an answer") && error.contains("prompt.template=internvl"), "{error}");
    }
}

fn stored_and_read(prompt: &Prompt) -> Prompt {
    let directory = tempfile::tempdir().unwrap();
    prompt.save(directory.path()).unwrap();
    Prompt::of(directory.path()).unwrap().expect("it was stored")
}

#[test]
fn prompts_of_earlier_versions_get_internvls_further_turns_and_they_can_read_ours() {
    let directory = with_template("qwen2_5", "jinja");
    let prompt = Prompt::new(Some(directory.path()), "S", "Q").unwrap();
    assert_eq!(stored_and_read(&prompt), prompt);
    let file = directory.path().join("prompt.json");
    prompt.save(directory.path()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    // The three fields that earlier versions read, and one place for the picture, as they ask.
    assert_eq!((&json["system"], &json["user"]), (&json!("S"), &json!("Q")));
    assert_eq!(json["text"].as_str().unwrap().matches("<image>").count(), 1);
    let old = json!({"system": "S", "user": "Q", "text": json["text"]});
    std::fs::write(&file, old.to_string()).unwrap();
    let read = Prompt::of(directory.path()).unwrap().unwrap();
    assert_eq!(read.text(&[3]), prompt.text(&[3]));
    let documented = Prompt::new(None, "S", "Q").unwrap();
    assert_eq!(read.further_turn("A", Some(1)).unwrap(), documented.further_turn("A", Some(1)).unwrap());
}

/// The tiny random InternVL3 of the model's tests and a tokenizer of bytes.
fn tiny() -> (InternVl, Tokenizer) {
    let model = InternVl::load(&crate::harness::fixture("internvl"), Kind::Float, Kind::Float, Device::Cpu);
    (model.expect("the fixture"), Tokenizer::of_bytes().expect("special tokens and bytes"))
}

/// A picture with a bright block whose place depends on `seed`.
fn drawing(seed: u32) -> PictureFile {
    PictureFile::of(&drawn(seed)).unwrap()
}

fn drawn(seed: u32) -> RgbImage {
    let pixel = |x: u32, y: u32| Rgb([((x * 5 + y * seed) % 251) as u8, (x * seed % 241) as u8, (y * 3 % 239) as u8]);
    RgbImage::from_fn(40, 40, pixel)
}

/// Calls `work` with a data set of one part whose picture is `drawing(1)`.
fn with_one_part<T>(work: impl FnOnce(&InternVl, &Tokenizer, &PromptedDataset) -> T) -> T {
    with_part(Vec::new(), work)
}

/// The same, for a part with further pictures.
fn with_part<T>(further: Vec<Arc<[u8]>>, work: impl FnOnce(&InternVl, &Tokenizer, &PromptedDataset) -> T) -> T {
    let (model, tokenizer) = tiny();
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 7 % 251) as u8, (y * 11 % 241) as u8, 90]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    let example = Example {
        id: "part".into(),
        image: bytes.into_inner().into(),
        further,
        program: None,
        ground_truth: "".into(),
        label: None,
        hundred_subset: false,
    };
    let dataset = Dataset::of_examples(vec![example]).unwrap();
    let pictures = Pictures::new(&dataset, 1, 1);
    let prompt = Prompt::new(None, "", "Q").unwrap();
    work(
        &model,
        &tokenizer,
        &PromptedDataset { dataset: &dataset, pictures: &pictures, prompt: &prompt, tokenizer: &tokenizer },
    )
}

#[test]
fn a_prompt_of_several_pictures_holds_their_embeddings_in_order() {
    let _guard = sole_user_of_the_generator();
    with_one_part(|model, tokenizer, prompted| {
        let all = [Picture::File(drawing(9)), Picture::Part(0), Picture::File(drawing(2))];
        let input = prompted.input(model, &all);
        let each: Vec<Tensor> =
            all.iter().map(|picture| prompted.pictures.embed(model, std::slice::from_ref(picture)).remove(0)).collect();
        assert_eq!(input.image, Tensor::cat(&each, 0));
        assert_ne!(each[0], each[2]);
        let tokens = each[0].size()[0] as usize;
        assert_eq!(input.ids, tokenizer.encode(&prompted.prompt.text(&[tokens; 3])));
        assert_eq!(input.ids.iter().filter(|&&id| id == tokenizer.image_token).count(), 3 * tokens);
        // A part alone is as it always was.
        let alone = prompted.input(model, &[Picture::Part(0)]);
        let expected = prompted.inputs(model, &[0]).remove(0);
        assert_eq!((alone.ids, alone.image), (expected.ids, expected.image));
    });
}

#[test]
fn further_views_of_a_part_are_seen_as_further_pictures_are() {
    let _guard = sole_user_of_the_generator();
    let (expected, tokens) = with_one_part(|model, _, prompted| {
        let all = [Picture::Part(0), Picture::File(drawing(9)), Picture::File(drawing(2))];
        let input = prompted.input(model, &all);
        ((input.ids, input.image), prompted.pictures.image_tokens(model, &Picture::Part(0)))
    });
    let further = [9, 2].map(|seed| encode_png(&drawn(seed)).unwrap().into());
    with_part(further.into(), |model, tokenizer, prompted| {
        let input = prompted.inputs(model, &[0]).remove(0);
        assert_eq!((&input.ids, &input.image), (&expected.0, &expected.1));
        assert_eq!(prompted.prompt_ids(model, 0), expected.0);
        assert_eq!(prompted.pictures.image_tokens(model, &Picture::Part(0)), [tokens[0]; 3]);
        // Training sees what generation sees, once embedded and once from the cache.
        let example = TokenizedExample::new(prompted, model, 0, vec![tokenizer.end_of_turn]);
        assert_eq!(&example.prompt[..], expected.0);
        for _ in 0..2 {
            let embedded = prompted.pictures.embed_for_update(model, example.pictures(), &BTreeMap::new());
            assert_eq!(embedded.concatenated(example.pictures()), expected.1);
        }
    });
}

#[test]
fn the_next_turn_goes_on_from_the_tokens_that_were_sampled() {
    let _guard = sole_user_of_the_generator();
    with_one_part(|model, tokenizer, prompted| {
        let first = prompted.input(model, &[Picture::Part(0)]);
        let picture = Picture::File(drawing(3));
        let tokens = prompted.pictures.image_tokens(model, &picture)[0];
        let turn = tokenizer.encode(&prompted.prompt.further_turn("Again.", Some(tokens)).unwrap());
        let end = tokenizer.end_of_turn;
        // An ended answer has its end already, a cut one and one that ended the text get it.
        for (answer, added) in
            [(vec![70, 71, end], vec![]), (vec![70, 71], vec![end]), (vec![70, tokenizer.end_of_text], vec![end])]
        {
            let reply = prompted.reply(model, &answer, "Again.", Some(picture.clone())).unwrap();
            assert_eq!(reply.ids, [added, turn.clone()].concat());
            let completion = Completion { tokens: answer.clone(), ..Completion::default() };
            let next = prompted.next_input(model, &first, &completion, &reply);
            assert_eq!(next.ids, [first.ids.clone(), answer.clone(), reply.ids.clone()].concat());
            let answered = first.ids.len()..first.ids.len() + answer.len();
            assert_eq!(next.written, std::slice::from_ref(&answered));
            let render = prompted.pictures.embed(model, std::slice::from_ref(&picture)).remove(0);
            assert_eq!(next.image, Tensor::cat(&[&first.image, &render], 0));
        }
        let without = prompted.reply(model, &[70, end], "Again.", None).unwrap();
        assert_eq!(without.ids, tokenizer.encode(&prompted.prompt.further_turn("Again.", None).unwrap()));
    });
}

/// An image token that the model wrote takes no row of a picture's embeddings, in an earlier turn
/// or in a response, when prompts are completed and when sequences are scored.
#[test]
fn an_image_token_that_the_model_writes_is_not_a_picture() {
    let _guard = sole_user_of_the_generator();
    with_one_part(|model, tokenizer, prompted| {
        let image = tokenizer.image_token;
        let first = prompted.input(model, &[Picture::Part(0)]);
        let (draft, response) = ([40, image, image, 41], [42, image, 43]);
        let reply = prompted.reply(model, &draft, "x", Some(Picture::File(drawing(5)))).unwrap();
        let completion = Completion { tokens: draft.to_vec(), ..Completion::default() };
        let next = prompted.next_input(model, &first, &completion, &reply);
        tch::no_grad(|| {
            let ids = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0);
            let given = |piece: &[i64], rows: &Tensor| model.embed(&ids(piece), &ids(piece).eq(image), rows);
            let text = |piece: &[i64]| model.decoder().embed(&ids(piece));
            let render = next.image.narrow(0, first.image.size()[0], next.image.size()[0] - first.image.size()[0]);
            let pieces = [given(&first.ids, &first.image), text(&draft), given(&reply.ids, &render), text(&response)];
            let embeds = Tensor::cat(&pieces, 1);
            let t = embeds.size()[1];
            let positions = Positions::causal(model.decoder().config(), t, Device::Cpu);
            let expected = model.decoder().last_norm(&model.decoder().blocks(embeds, &positions, None, None)).get(0);

            let pieces = vec![
                Piece::Given(&first.ids),
                Piece::Draft(&draft),
                Piece::Given(&reply.ids),
                Piece::Response(&response),
            ];
            let batch = TokenBatch::of_pieces(&[pieces], tokenizer, Device::Cpu);
            let pass = Pass::new(model, &batch, &next.image, PassMode::default());
            let start = next.ids.len() as i64 - 1;
            let error = (&pass.hidden - expected.narrow(0, start, 3)).abs().max().double_value(&[]);
            assert!(error < 1e-4, "the states differ by {error}");

            let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 1 };
            let options = GenerateOptions { sampling, batch_size: 2, keeps_states: false };
            let first_logprob = |input: PromptInput| {
                let other = PromptInput::new(first.ids.clone(), first.image.shallow_clone());
                generate(model, tokenizer, &[other, input], &[0, 0], options, |_, _| {}).remove(1).logprobs[0]
            };
            let logits = model.decoder().logits(&expected.narrow(0, start, 1));
            let expected = logits.log_softmax(-1, Kind::Float).max().double_value(&[]);
            let found = f64::from(first_logprob(next));
            assert!((found - expected).abs() < 1e-4, "{found}, not {expected}");
        });
    });
}

#[test]
fn only_responses_are_targets() {
    let tokenizer = Tokenizer::of_bytes().unwrap();
    let (prompt, reply) = ([7i64, 8, 9], [50i64, 51]);
    let sequences = [
        vec![Piece::Given(&prompt), Piece::Response(&[20, 21]), Piece::Given(&reply), Piece::Response(&[30])],
        vec![Piece::Given(&prompt), Piece::Draft(&[22, 23, 24]), Piece::Given(&reply), Piece::Response(&[31, 32])],
    ];
    let batch = TokenBatch::of_pieces(&sequences, &tokenizer, Device::Cpu);
    assert_eq!(Vec::<i64>::try_from(&batch.targets).unwrap(), [20, 21, 30, 31, 32]);
    assert_eq!(batch.tokens, 8 + 10);
}

/// Episodes of two turns that the smoke run's policy samples for three parts, two for each, and the
/// sampled policy.
fn with_episodes(shows_render: bool, work: impl FnOnce(&mut InternVl, &PromptedDataset, Vec<Rollout>)) {
    let directory = smoke_run().join("sft/best");
    let config = InternVlConfig::read(&directory).unwrap();
    let weights = Weights::load(&directory, &config, Kind::Float, Device::Cpu).unwrap();
    let mut model = InternVl::new(config, weights, None, Kind::Float);
    let tokenizer = Tokenizer::load(&directory).unwrap();
    let prompt = Prompt::of(&directory).unwrap().expect("the smoke run's prompt");
    let data = DataSource::path(smoke_run().join("data"));
    let dataset = Dataset::open(&data, Split::Train, Some(8)).unwrap();
    let pictures = Pictures::new(&dataset, 1, 0);
    let prompted = PromptedDataset { dataset: &dataset, pictures: &pictures, prompt: &prompt, tokenizer: &tokenizer };
    let scorer = Scorer::new(ScorerConfig { engine: Engine::Native, grid: 16, jobs: 1, ..ScorerConfig::default() });
    let scorer = scorer.unwrap();
    let sampling = Sampling { temperature: TEMPERATURE, top_p: 1.0, max_new_tokens: 90 };
    let options = GenerateOptions { sampling, batch_size: 4, keeps_states: true };
    let turns = Turns { count: 2, shows_render };
    let seeds_of = |turn: usize| (0..6).map(|i| 100 * turn as u64 + i).collect();
    let pending = generate_episodes(&model, &prompted, &[5, 0, 3], seeds_of, options, turns, &scorer).unwrap();
    let rollouts = pending.finish().unwrap();
    work(&mut model, &prompted, rollouts);
}

const TEMPERATURE: f64 = 0.7;

/// The ids of the pieces, one after another.
fn ids_of(pieces: &[Piece]) -> Vec<i64> {
    pieces.iter().flat_map(|piece| piece.ids()).copied().collect()
}

#[test]
fn an_episode_holds_what_was_sampled_and_what_was_told() {
    let _guard = sole_user_of_the_generator();
    for shows_render in [true, false] {
        with_episodes(shows_render, |_, prompted, rollouts| {
            assert_eq!(rollouts.iter().map(|rollout| rollout.index).collect::<Vec<_>>(), [5, 5, 0, 0, 3, 3]);
            let solids = |r: &Rollout| r.earlier[0].score.as_ref().unwrap().solid.is_some();
            assert!(rollouts.iter().any(solids), "no draft is a solid: nothing is shown");
            for rollout in &rollouts {
                let [first] = &rollout.earlier[..] else { panic!("one turn before the last: {rollout:?}") };
                let (draft, last) = rollout.tokens().split_at(first.end);
                assert!(!draft.is_empty() && last == rollout.last_tokens() && !last.is_empty());
                assert_eq!(first.program, extract_program(&prompted.tokenizer.decode(draft)));
                assert_eq!(rollout.program, extract_program(&prompted.tokenizer.decode(last)));
                let expected = [
                    Piece::Given(&rollout.prompt),
                    Piece::Response(draft),
                    Piece::Given(&first.reply.ids),
                    Piece::Response(last),
                ];
                assert_eq!(rollout.pieces(), expected);
                assert_eq!(rollout.sequence_len(), ids_of(&expected).len());
                // A solid is measured and, if asked for, shown; a failure has neither.
                let score = first.score.as_ref().unwrap();
                let told = prompted.tokenizer.decode(&first.reply.ids);
                assert!(told.contains("Correct the program."), "{told}");
                assert_eq!(told.contains("volume"), score.solid.is_some(), "{told}");
                assert_eq!(first.reply.picture.is_some(), shows_render && score.solid.is_some(), "{told}");
                let pictures = 1 + usize::from(first.reply.picture.is_some());
                assert_eq!(rollout.pictures().count(), pictures);
                assert_eq!(rollout.known_images().count(), pictures);
                // One log-probability and one state for each token, in all turns.
                let completion = &rollout.completion;
                assert_eq!(completion.logprobs.len(), completion.tokens.len());
                assert_eq!(completion.states.as_ref().unwrap().size()[0], completion.tokens.len() as i64);
            }
        });
    }
}

/// The condition that PPO depends on, over both turns in one sequence; also if the vision tower is
/// trained, so that the update embeds the render again.
#[test]
fn the_update_scores_both_turns_as_they_were_sampled() {
    let _guard = sole_user_of_the_generator();
    with_episodes(true, |model, prompted, rollouts| {
        for trains_vision in [false, true] {
            model.weights_mut().set_trainable(|name| trains_vision || is_language(name));
            let shown = rollouts.iter().flat_map(Rollout::pictures);
            let embedded = prompted.pictures.embed_for_update(model, shown, &BTreeMap::new());
            let pieces: Vec<_> = rollouts.iter().map(Rollout::pieces).collect();
            let batch = TokenBatch::of_pieces(&pieces, prompted.tokenizer, Device::Cpu);
            let images = embedded.concatenated(rollouts.iter().flat_map(Rollout::pictures));
            let known: Vec<&Tensor> =
                rollouts.iter().flat_map(|rollout| rollout.known_images().map(|known| known.1)).collect();
            let moved = (&images - Tensor::cat(&known, 0)).abs().max().double_value(&[]);
            assert!(moved < 1e-2, "the update sees other pictures than the rollouts: {moved}");
            let targets: Vec<i64> = rollouts.iter().flat_map(|rollout| rollout.tokens()).copied().collect();
            assert_eq!(Vec::<i64>::try_from(&batch.targets).unwrap(), targets);
            let pass = Pass::new(model, &batch, &images, PassMode::default());
            let sampled: Vec<f32> = rollouts.iter().flat_map(|rollout| &rollout.completion.logprobs).copied().collect();
            let ratio = (pass.logprobs(&batch.targets, TEMPERATURE) - Tensor::from_slice(&sampled)).exp();
            let error = (ratio - 1.0).abs().max().double_value(&[]);
            assert!(error < 1e-3, "vision trained: {trains_vision}: the ratio is off by {error}");
            // The loss of the last turn reaches the vision tower through both pictures.
            pass.backward(1.0, |logits, rows, _| {
                -token_logprobs(logits, &narrowed(&batch.targets, &rows), 1.0).0.mean(Kind::Float)
            });
            embedded.backward();
            let vision = |(name, tensor): (&str, &Tensor)| {
                !is_language(name) && tensor.grad().abs().max().double_value(&[]) > 0.0
            };
            assert_eq!(trains_vision && model.weights().trainable().any(vision), trains_vision);
            model.weights().trainable().for_each(|(_, tensor)| tensor.shallow_clone().zero_grad());
        }
    });
}
