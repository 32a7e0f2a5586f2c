//! `cadwright model`: makes, inspects, compares and merges checkpoints, and refuses unusable ones.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Place, copy_directory, repository};

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/variants/1b").join(name)
}

fn tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    parsed.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec())).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Logits that the program writes for the fixture's input.
fn logits(place: &Place, model: &str, more: &[&str]) -> Vec<f32> {
    let input = fixture("expected.safetensors").display().to_string();
    let arguments = ["model", "logits", "--model-path", model, "--input", &input, "--output", "out.safetensors"];
    place.cadwright([&arguments, more].concat()).succeeds();
    let written = tensors(&place.path("out.safetensors"));
    let [(name, shape, data)] = written.as_slice() else { panic!("{written:?}") };
    assert_eq!((name.as_str(), shape.as_slice()), ("logits", [3, 20, 64].as_slice()));
    floats(data)
}

/// The largest difference from the reference's logits, at positions that hold a token.
fn error(found: &[f32], reference: &str) -> f32 {
    let expected = tensors(&fixture("expected.safetensors"));
    let get = |name: &str| expected.iter().find(|(found, ..)| found == name).unwrap().2.clone();
    let is_token = get("attention_mask").chunks_exact(8).map(|id| id[0] == 1).collect::<Vec<_>>();
    let pairs = found.iter().zip(floats(&get(reference))).enumerate();
    pairs.filter(|(index, _)| is_token[index / 64]).map(|(_, (a, b))| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_transformers_and_a_merged_checkpoint_is_the_same_model() {
    let place = Place::new();
    let adapter = fixture("adapter").display().to_string();
    for layout in ["hf", "original"] {
        let model = fixture(layout).display().to_string();
        assert!(error(&logits(&place, &model, &[]), "logits") < 1e-4);
        assert!(error(&logits(&place, &model, &["--lora-path", &adapter]), "lora_logits") < 1e-4);
        let merged = format!("merged-{layout}");
        let arguments =
            ["model", "merge", "--model-path", &model, "--lora-path", &adapter, "--dtype", "f32", "--output", &merged];
        place.cadwright(arguments).succeeds();
        assert!(error(&logits(&place, &merged, &[]), "lora_logits") < 1e-4);
        // Both are written as transformers reads them, unless asked otherwise.
        let config: Value =
            serde_json::from_str(&std::fs::read_to_string(place.path(&merged).join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!(["InternVLForConditionalGeneration"]));
        place.cadwright(arguments).fails_with(&[&merged, "exists"]);
        assert!(!place.path(&merged).join("prompt.json").exists(), "a prompt that nobody trained with");
    }
}

#[test]
fn a_merged_checkpoint_keeps_the_prompt_of_its_adapter() {
    let place = Place::new();
    copy_directory(&fixture("adapter"), &place.path("adapter"));
    let prompt = json!({"system": "", "user": "What?", "text": "<image> What?"}).to_string();
    place.write("adapter/prompt.json", &prompt);
    let model = fixture("hf").display().to_string();
    let arguments = ["model", "merge", "--model-path", &model, "--lora-path", "adapter", "--output", "merged"];
    place.cadwright(arguments).succeeds();
    let written = crate::harness::json(place.path("merged/prompt.json"));
    assert_eq!(written["text"], "<image> What?");
}

#[test]
fn models_are_made_in_either_layout_and_described() {
    let place = Place::new();
    for layout in ["original", "hf"] {
        place.cadwright(["model", "init", "--preset", "nano", "--layout", layout, "--output", layout]).succeeds();
        let shown = place.cadwright(["model", "inspect", layout]).succeeds();
        let shown = shown.stdout();
        for text in [layout, "M parameters", "16 picture tokens a tile", "LoRA SFT", "PPO", "GiB"] {
            assert!(shown.contains(text), "{text:?} is not in\n{shown}");
        }
    }
    // Of the same configuration, in the layout that its file has.
    let config = place.path("hf/config.json").display().to_string();
    place.cadwright(["model", "init", "--config", &config, "--dtype", "f32", "--output", "again"]).succeeds();
    assert_eq!(
        tensors(&place.path("again/model.safetensors")).len(),
        tensors(&place.path("hf/model.safetensors")).len()
    );
}

/// GiB of the line that starts with `name`.
fn gib(shown: &str, name: &str) -> f64 {
    let line = shown.lines().find_map(|line| line.trim_start().strip_prefix(name)).expect(name);
    line.split_whitespace().next().unwrap().parse().expect(line)
}

/// Of AdamW's moments, 8 bytes a parameter, each of four GPUs keeps 2: 6 bytes less.
#[test]
fn memory_of_many_gpus_is_described_with_and_without_a_sharded_optimiser() {
    let place = Place::new();
    let config = cadwright::model::InternVlConfig::preset(cadwright::model::Preset::InternVl3_1b, 0);
    let p = config.parameter_count() as f64;
    // Only the configuration is read.
    std::fs::create_dir(place.path("model")).unwrap();
    place.write("model/config.json", &config.to_json("bfloat16").to_string());
    let shown = |more: &[&str]| {
        let finished = place.cadwright([&["model", "inspect", "model"], more].concat()).succeeds();
        finished.stdout()
    };
    let alone = shown(&[]);
    assert!(!alone.contains("GPUs"), "{alone}");
    let full = shown(&["--world", "4", "--tune", "full"]);
    // The other lines stay.
    let memory = alone.lines().take_while(|line| *line != "{").collect::<Vec<_>>().join("\n");
    assert!(full.starts_with(&memory), "{full}");
    for stage in ["SFT", "PPO"] {
        let whole = gib(&full, &format!("{stage}, whole optimiser:"));
        let sharded = gib(&full, &format!("{stage}, sharded optimiser:"));
        let expected = 6.0 * p / f64::from(1 << 30);
        assert!((whole - sharded - expected).abs() < 0.02, "{whole} - {sharded} is not {expected}\n{full}");
    }
    let lora = shown(&["--world", "4"]);
    assert!(gib(&lora, "SFT, whole optimiser:") < gib(&full, "SFT, sharded optimiser:"), "{lora}\n{full}");
    place.cadwright(["model", "inspect", "model", "--world", "0"]).fails();
    place.cadwright(["model", "inspect", "model", "--tune", "full"]).fails();
}

/// A copy of the fixture in which something is wrong.
fn broken(place: &Place, layout: &str, change: impl FnOnce(&Path)) -> String {
    let path = place.path("broken");
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    copy_directory(&fixture(layout), &path);
    change(&path);
    path.display().to_string()
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_checkpoint_that_is_no_good_gets_one_clear_message() {
    let place = Place::new();
    let input = fixture("expected.safetensors").display().to_string();
    let refused = |model: &str, says: &[&str]| {
        let arguments = ["model", "logits", "--model-path", model, "--input", &input, "--output", "out.safetensors"];
        place.cadwright(arguments).fails_with(says);
    };
    let model = broken(&place, "hf", |path| {
        let file = path.join("model.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    });
    refused(&model, &["model.safetensors", "not a complete safetensors file", "download it again"]);

    let model = broken(&place, "hf", |path| {
        let map = json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}});
        std::fs::write(path.join("model.safetensors.index.json"), map.to_string()).unwrap();
    });
    refused(&model, &["model.safetensors.index.json", "not there: model-00001-of-00002.safetensors"]);

    let model = broken(&place, "original", |path| std::fs::remove_file(path.join("model.safetensors")).unwrap());
    refused(&model, &["neither model.safetensors nor model.safetensors.index.json"]);

    for (layout, section, field) in
        [("original", "llm_config", "num_hidden_layers"), ("hf", "vision_config", "hidden_size")]
    {
        let model = broken(&place, layout, |path| {
            edit_json(&path.join("config.json"), |json| {
                json[section].as_object_mut().unwrap().remove(field);
            });
        });
        refused(&model, &["config.json", "missing field", field]);
    }

    let model = broken(&place, "original", |path| {
        edit_json(&path.join("config.json"), |json| {
            json["llm_config"]["architectures"] = json!(["InternLM3ForCausalLM"])
        });
    });
    refused(
        &model,
        &["InternVLChatModel over InternLM3ForCausalLM is not supported", "supported are", "Qwen2ForCausalLM"],
    );

    let model = broken(&place, "hf", |path| {
        edit_json(&path.join("config.json"), |json| json["architectures"] = json!(["LlavaForConditionalGeneration"]));
    });
    refused(
        &model,
        &["architecture LlavaForConditionalGeneration is not supported", "InternVLForConditionalGeneration"],
    );
}

#[test]
fn weights_of_another_dtype_are_named() {
    let place = Place::new();
    let model = broken(&place, "original", |path| {
        let file = path.join("model.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let views = parsed.iter().map(|(name, view)| {
            let dtype = if name == "mlp1.3.bias" { safetensors::Dtype::I16 } else { view.dtype() };
            (name, safetensors::tensor::TensorView::new(dtype, view.shape().to_vec(), view.data()).unwrap())
        });
        let changed = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
        std::fs::write(file, changed).unwrap();
    });
    let arguments = ["model", "logits", "--model-path", &model, "--input", "in", "--output", "out"];
    let message = place.cadwright(arguments).fails().error();
    assert!(message.contains("dtype: mlp1.3.bias expected BF16, F16 or F32, got I16"), "{message}");
}

#[test]
fn an_adapter_of_another_shape_is_refused_tensor_by_tensor() {
    let place = Place::new();
    let other = repository().join("tests/fixtures/internvl/adapter").display().to_string();
    let model = fixture("original").display().to_string();
    let arguments = ["model", "merge", "--model-path", &model, "--lora-path", &other, "--output", "out"];
    let message = place.cadwright(arguments).fails().error();
    for text in [
        "weights do not fit the base model",
        "self_attn.q_proj.lora_A.weight expected [4, 56], got [4, 48]",
        "no layer for",
    ] {
        assert!(message.contains(text), "{text:?} is not in\n{message}");
    }
    assert!(!place.path("out").exists());
}

#[test]
fn tensors_that_a_model_cannot_take_are_named() {
    let place = Place::new();
    let model = fixture("hf").display().to_string();
    let write = |shape: Vec<usize>, id: i64| {
        let ids: Vec<u8> = std::iter::repeat_n(id, shape.iter().product()).flat_map(i64::to_le_bytes).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape, &ids).unwrap();
        let bytes = safetensors::serialize([("input_ids", view)], None).unwrap();
        std::fs::write(place.path("in.safetensors"), bytes).unwrap();
    };
    let arguments =
        ["model", "logits", "--model-path", &model, "--input", "in.safetensors", "--output", "out.safetensors"];
    write(vec![4], 1);
    place.cadwright(arguments).fails_with(&["in.safetensors", "input_ids: expected [b, t], got [4]"]);
    write(vec![1, 4], 64);
    place.cadwright(arguments).fails_with(&["input_ids: 64..=64", "64 tokens"]);
    write(vec![1, 4], 63);
    place.cadwright(arguments).succeeds();
}
