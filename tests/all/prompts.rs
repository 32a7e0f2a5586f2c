//! Prompts with examples and prompts that expect plans, in the library.

use cadwright::config::Config;
use cadwright::data::design::{design, with_design};
use cadwright::data::{DataSource, Dataset, Example, Split};
use cadwright::model::{InternVl, Prompt, Tokenizer};
use cadwright::pictures::Pictures;
use cadwright::policy::configured_prompt;
use cadwright::rollouts::{PromptedDataset, plan_of};
use cadwright::train::examples::{TokenizedRows, tokenized_examples};
use tch::{Device, Kind};

use crate::cli::smoke_run;

fn prompt_of(strategy: &str, request: &str) -> Prompt {
    let overrides = [format!("prompt.strategy={strategy}"), format!("prompt.user={request:?}")];
    configured_prompt(&Config::load(None, &overrides).unwrap(), None).unwrap()
}

#[test]
fn a_prompt_with_examples_shows_each_picture_before_its_program_and_the_part_last() {
    let prompt = prompt_of("examples", "Q");
    assert_eq!(prompt.pictures(), 4);
    let filled = prompt.with_examples(["first\n", "second = a < b", "<|im_end|>"]);
    let expected = "<|im_start|>user\n\
        <img><IMG_CONTEXT></img>\nThe program of this part:\nfirst\n\n\
        <img><IMG_CONTEXT><IMG_CONTEXT></img>\nThe program of this part:\nsecond = a <  b\n\n\
        <img><IMG_CONTEXT></img>\nThe program of this part:\n< |im_end|>\n\
        <img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\nQ<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(filled.text(&[1, 2, 1, 3]), expected);
}

#[test]
fn whether_a_plan_is_expected_is_stored_with_the_prompt() {
    let directory = tempfile::tempdir().unwrap();
    for (strategy, plan) in [("plan", true), ("planned", true), ("plain", false), ("reference", false)] {
        let prompt = prompt_of(strategy, "Q");
        assert_eq!(prompt.expects_plan(), plan, "{strategy}");
        prompt.save(directory.path()).unwrap();
        assert_eq!(Prompt::of(directory.path()).unwrap(), Some(prompt));
    }
    // Earlier versions wrote no such field.
    let text = r#"{"system": "", "user": "Q", "text": "a<image>b"}"#;
    std::fs::write(directory.path().join("prompt.json"), text).unwrap();
    assert!(!Prompt::of(directory.path()).unwrap().unwrap().expects_plan());
}

#[test]
fn labels_begin_with_a_plan_if_the_prompt_expects_one() {
    let directory = smoke_run().join("sft/best");
    let model = InternVl::load(&directory, Kind::Float, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::load(&directory).unwrap();
    let rows = Dataset::open(&DataSource::path(smoke_run().join("data")), Split::Train, Some(4)).unwrap();
    let mut examples: Vec<Example> = rows.examples().to_vec();
    examples[2].program = Some("import cadquery as cq\nsolid = cq.Workplane().box(1, 2, 3)".into());
    let dataset = Dataset::of_examples(examples).unwrap();
    let pictures = Pictures::new(&dataset, 1, 0);
    let labels = |strategy: &str| {
        let prompt = prompt_of(strategy, "");
        let prompted =
            PromptedDataset { dataset: &dataset, pictures: &pictures, prompt: &prompt, tokenizer: &tokenizer };
        tokenized_examples(&prompted, &model, 4096)
    };

    let TokenizedRows { examples, without_plan, .. } = labels("planned");
    assert_eq!((examples.iter().map(|e| e.index).collect::<Vec<_>>(), without_plan), (vec![0, 1, 3], 1));
    for example in &examples {
        let program = dataset.examples()[example.index].program.as_deref().unwrap();
        assert_eq!(tokenizer.decode(&example.response), with_design(program).unwrap());
        assert_eq!(example.response.last(), Some(&tokenizer.end_of_turn));
        let (plan, tokens) = plan_of(&tokenizer, &example.response);
        assert_eq!(plan, format!("<think>\n{}\n</think>", design(program).unwrap()));
        // Tokens of this tokenizer, which learnt no plans, have one to two bytes of a plan.
        assert!(tokens > plan.len() / 4 && tokens < example.response.len(), "{tokens}");
    }
    let TokenizedRows { examples, without_plan, .. } = labels("plain");
    assert_eq!((examples.len(), without_plan), (4, 0));
    assert!(examples.iter().all(|example| plan_of(&tokenizer, &example.response).1 == 0));
}
