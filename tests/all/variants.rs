//! Every kind of InternVL3 checkpoint against `transformers` and `peft`: both layouts, both vision
//! transformers, one to seven queries to a key, tied and untied heads, pictures of several tiles,
//! left padding, adapters beside the weights and in them. `scripts/reference/variants.py` made
//! `tests/fixtures/variants`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cadwright::generate::{GenerateOptions, PromptInput, Sampling, generate};
use cadwright::model::files::{read_tensors, write_checkpoint, write_safetensors};
use cadwright::model::{InternVl, Layout, LoraConfig, TargetModules, Tokenizer};
use tch::{Device, Kind, Tensor};

use crate::harness::sole_user_of_the_generator;

const VARIANTS: [&str; 3] = ["1b", "8b-tied", "78b"];
const LAYOUTS: [&str; 2] = ["hf", "original"];
const IMAGE: i64 = 5;

fn fixture(variant: &str) -> PathBuf {
    crate::harness::fixture("variants").join(variant)
}

fn read(path: &Path) -> BTreeMap<String, Tensor> {
    read_tensors(path).unwrap()
}

fn load(directory: &Path) -> InternVl {
    InternVl::load(directory, Kind::Float, Kind::Float, Device::Cpu).unwrap()
}

/// The inputs and outputs of the Python reference.
struct Reference(BTreeMap<String, Tensor>);

impl Reference {
    fn read(variant: &str) -> Self {
        Self(read(&fixture(variant).join("expected.safetensors")))
    }

    fn get(&self, name: &str) -> Tensor {
        self.0[name].shallow_clone()
    }

    fn logits(&self, model: &InternVl) -> Tensor {
        let (pixels, mask) = (self.get("pixel_values"), self.get("attention_mask"));
        tch::no_grad(|| model.logits(&self.get("input_ids"), Some(&pixels), Some(&mask), Some(IMAGE))).unwrap()
    }

    /// The largest difference at positions that hold a token.
    fn error(&self, model: &InternVl, name: &str) -> f64 {
        let is_token = self.get("attention_mask").to_kind(Kind::Bool).unsqueeze(-1);
        (self.logits(model) - self.get(name)).masked_select(&is_token).abs().max().double_value(&[])
    }
}

fn assert_small(what: &str, error: f64, tolerance: f64) {
    println!("{what}: max error {error:.1e}, tolerance {tolerance:.0e}");
    assert!(error <= tolerance, "{what}: max error {error:.2e} is above {tolerance:.0e}");
}

#[test]
fn logits_equal_those_of_transformers_in_both_layouts() {
    for variant in VARIANTS {
        for layout in LAYOUTS {
            let error = Reference::read(variant).error(&load(&fixture(variant).join(layout)), "logits");
            assert_small(&format!("{variant} {layout}"), error, 1e-4);
        }
    }
}

/// Newer versions of `transformers` write tensors under their names in memory.
#[test]
fn both_spellings_of_the_hf_layout_load() {
    let (variant, directory) = ("1b", tempfile::tempdir().unwrap());
    let from = fixture(variant).join("hf");
    std::fs::copy(from.join("config.json"), directory.path().join("config.json")).unwrap();
    let spelt = |name: String| match name.strip_prefix("language_model.") {
        Some(inner) => match inner.strip_prefix("model.") {
            Some(decoder) => format!("model.language_model.{decoder}"),
            None => inner.to_owned(),
        },
        None => format!("model.{name}"),
    };
    let tensors: Vec<_> = read(&from.join("model.safetensors")).into_iter().map(|(name, t)| (spelt(name), t)).collect();
    assert!(tensors.iter().any(|(name, _)| name == "lm_head.weight"));
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(&directory.path().join("model.safetensors"), named).unwrap();
    assert_small("memory's names", Reference::read(variant).error(&load(directory.path()), "logits"), 1e-4);
}

#[test]
fn a_checkpoint_in_shards_loads_and_is_written() {
    let (variant, directory) = ("78b", tempfile::tempdir().unwrap());
    let from = fixture(variant).join("hf");
    std::fs::copy(from.join("config.json"), directory.path().join("config.json")).unwrap();
    let tensors: Vec<_> = read(&from.join("model.safetensors")).into_iter().collect();
    write_checkpoint(directory.path(), &tensors, 20_000).unwrap();
    let names =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let shards: Vec<String> = names.filter(|name| name.starts_with("model-0000")).collect();
    assert!(
        shards.len() > 2 && shards.iter().all(|name| name.ends_with(&format!("of-0000{}.safetensors", shards.len())))
    );
    assert!(directory.path().join("model.safetensors.index.json").exists());
    assert!(!directory.path().join("model.safetensors").exists());
    assert_small("shards", Reference::read(variant).error(&load(directory.path()), "logits"), 1e-4);
}

#[test]
fn a_checkpoint_saved_in_either_layout_is_the_same_model() {
    for variant in VARIANTS {
        let reference = Reference::read(variant);
        for (from, to) in [("hf", Layout::Original), ("original", Layout::Hf), ("hf", Layout::Hf)] {
            let directory = tempfile::tempdir().unwrap();
            load(&fixture(variant).join(from)).save(directory.path(), to).unwrap();
            let loaded = load(directory.path());
            assert_eq!(loaded.config.layout, to);
            assert_small(&format!("{variant}: {from} as {to}"), reference.error(&loaded, "logits"), 1e-4);
        }
        // The names and shapes are those that transformers writes.
        let directory = tempfile::tempdir().unwrap();
        load(&fixture(variant).join("original")).save(directory.path(), Layout::Hf).unwrap();
        let shapes = |directory: &Path| -> Vec<_> {
            read(&directory.join("model.safetensors")).into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
        };
        assert_eq!(shapes(directory.path()), shapes(&fixture(variant).join("hf")), "{variant}");
    }
}

#[test]
fn adapters_of_the_whole_model_equal_pefts_beside_the_weights_and_in_them() {
    for variant in VARIANTS {
        let reference = Reference::read(variant);
        for layout in LAYOUTS {
            let base = load(&fixture(variant).join(layout));
            assert!(reference.error(&base, "lora_logits") > 0.1, "the adapter should matter");
            let tuned = base.with_adapter(&fixture(variant).join("adapter")).unwrap();
            assert_small(&format!("{variant} {layout} + adapter"), reference.error(&tuned, "lora_logits"), 1e-4);
            let merged = tuned.merged();
            assert!(merged.weights().iter().all(|(name, _)| !name.contains("lora")));
            assert_small(&format!("{variant} {layout} merged"), reference.error(&merged, "lora_logits"), 1e-4);
        }
    }
}

#[test]
fn loss_and_gradients_of_an_adapter_equal_pefts() {
    for variant in VARIANTS {
        let reference = Reference::read(variant);
        let mut model = load(&fixture(variant).join("hf")).with_adapter(&fixture(variant).join("adapter")).unwrap();
        model.weights_mut().set_trainable(cadwright::model::lora::is_adapter);
        let (ids, mask) = (reference.get("input_ids"), reference.get("attention_mask"));
        let logits = model.logits(&ids, Some(&reference.get("pixel_values")), Some(&mask), Some(IMAGE)).unwrap();
        let t = ids.size()[1];
        let targets = ids.narrow(1, t - 5, 5).flatten(0, 1);
        let loss = logits.narrow(1, t - 6, 5).flatten(0, 1).cross_entropy_for_logits(&targets);
        let error = (loss.double_value(&[]) - reference.get("lora_loss").double_value(&[])).abs();
        assert_small(&format!("{variant} loss"), error, 1e-5);
        loss.backward();
        let mut compared = 0;
        for (name, tensor) in model.weights().trainable() {
            let key = format!("gradient.base_model.model.{}", Layout::Hf.peft_name(name));
            let expected = reference.get(&key);
            let error = ((tensor.grad() - &expected).norm() / expected.norm()).double_value(&[]);
            assert!(error <= 1e-3, "{variant} {name}: relative error {error:.2e}");
            compared += 1;
        }
        // Three layers in each of two blocks, with two factors each.
        assert_eq!(compared, 2 * 3 * 2);
    }
}

#[test]
fn a_saved_adapter_has_the_keys_that_peft_wrote() {
    let variant = "1b";
    let (from, directory) = (fixture(variant).join("adapter"), tempfile::tempdir().unwrap());
    let model = load(&fixture(variant).join("hf")).with_adapter(&from).unwrap();
    model.save_adapter(directory.path(), "base").unwrap();
    let (found, expected) = [directory.path(), &from].map(|at| read(&at.join("adapter_model.safetensors"))).into();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        let error = (&found[name] - expected).abs().max().double_value(&[]);
        // A module that is saved whole has the dtype of the base, which is fp32 here.
        assert!(error < 1e-6, "{name}: {error}");
    }
    let again = load(&fixture(variant).join("hf")).with_adapter(directory.path()).unwrap();
    assert_eq!(again.lora(), model.lora());
}

/// In an hf checkpoint the vision transformer also has layers called `q_proj`, so PEFT would look
/// for their adapters.
#[test]
fn a_saved_adapter_of_names_means_the_language_model_in_peft() {
    let _guard = sole_user_of_the_generator();
    let directory = tempfile::tempdir().unwrap();
    for (targets, pattern) in [
        (TargetModules::Names(vec!["q_proj".into(), "mlp.up_proj".into()]), r"(q_proj|mlp\.up_proj)"),
        (TargetModules::Pattern("all-linear".into()), r"(\w+_proj)"),
    ] {
        let model = load(&fixture("1b").join("hf")).with_new_adapter(lora(targets), 0).unwrap();
        model.save_adapter(directory.path(), "base").unwrap();
        let again = load(&fixture("1b").join("hf")).with_adapter(directory.path()).unwrap();
        let expected = TargetModules::Pattern(format!(r"model\.language_model\.layers\..*\.{pattern}"));
        let settings = again.lora().unwrap().clone();
        assert_eq!(settings.target_modules, expected);
        // The saved settings target the same layers.
        let count = |model: &InternVl| model.weights().iter().filter(|(name, _)| name.contains("lora_A")).count();
        let anew = load(&fixture("1b").join("hf")).with_new_adapter(settings, 0).unwrap();
        assert_eq!((count(&again), count(&anew)), (count(&model), count(&model)));
    }
}

fn lora(target_modules: TargetModules) -> LoraConfig {
    LoraConfig { r: 2, lora_alpha: 2.0, lora_dropout: 0.0, target_modules, use_rslora: false, modules_to_save: None }
}

#[test]
fn greedy_tokens_equal_those_of_transformers() {
    let tokenizer = Tokenizer::of_bytes().unwrap();
    for variant in VARIANTS {
        let (reference, model) = (Reference::read(variant), load(&fixture(variant).join("hf")));
        let image = tch::no_grad(|| model.embed_pixels(&reference.get("pixel_values"))).flatten(0, 1);
        let (mut prompts, mut at) = (Vec::new(), 0);
        for row in 0..3 {
            let is_token = reference.get("attention_mask").get(row).to_kind(Kind::Bool);
            let ids: Vec<i64> = reference.get("input_ids").get(row).masked_select(&is_token).try_into().unwrap();
            let rows = ids.iter().filter(|&&id| id == IMAGE).count() as i64;
            prompts.push(PromptInput::new(ids, image.narrow(0, at, rows)));
            at += rows;
        }
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 8 };
        let options = GenerateOptions { sampling, batch_size: 3, keeps_states: false };
        let completions = generate(&model, &tokenizer, &prompts, &[0, 0, 0], options, |_, _| {});
        for (row, completion) in completions.iter().enumerate() {
            let mut tokens = completion.tokens.clone();
            tokens.resize(8, 0);
            let expected: Vec<i64> = reference.get("greedy").get(row as i64).try_into().unwrap();
            assert_eq!(tokens, expected, "{variant}, row {row}");
        }
    }
}

#[test]
fn targets_are_names_patterns_or_all_linear_layers() {
    let _guard = sole_user_of_the_generator();
    let count = |targets: TargetModules| {
        let model = load(&fixture("1b").join("hf"));
        let model = model.with_new_adapter(lora(targets), 0).map_err(|error| error.to_string())?;
        Ok::<_, String>(model.weights().iter().filter(|(name, _)| name.contains("lora_A")).count())
    };
    let pattern = |text: &str| TargetModules::Pattern(text.into());
    assert_eq!(count(TargetModules::Names(vec!["k_proj".into()])), Ok(2), "two blocks");
    assert_eq!(count(TargetModules::Names(vec!["fc1".into()])), Ok(2), "the language model has no such layer");
    assert_eq!(count(pattern("all-linear")), Ok(2 * 7));
    assert_eq!(count(pattern(r".*language_model.*\.k_proj")), Ok(2));
    assert_eq!(count(pattern(r"model\.language_model\.layers\.1\.mlp\..*")), Ok(3));
    assert!(count(pattern("k_proj")).unwrap_err().contains("no linear layer's name matches k_proj"));
    assert!(count(pattern("(")).unwrap_err().contains("no regular expression"));
}
