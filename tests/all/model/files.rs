//! Checkpoints and adapters on disk: what is saved, what loads, and what is refused and why.

use super::*;

#[test]
fn a_saved_model_loads_as_it_was() {
    let model = load_tuned(Kind::Float);
    let directory = tempfile::tempdir().unwrap();
    model.save(directory.path(), Layout::Original).unwrap();
    let loaded = InternVl::load(directory.path(), Kind::Float, Kind::Float, CPU).unwrap();
    assert_eq!(loaded.config, model.config);
    let base: Vec<_> = model.weights().iter().filter(|(name, _)| !is_adapter(name)).collect();
    assert_eq!(loaded.weights().iter().count(), base.len());
    for ((found, a), (expected, b)) in loaded.weights().iter().zip(base) {
        assert_eq!((found, a.kind()), (expected, b.kind()));
        assert_close(found, a, b, 0.0);
    }
}

#[test]
fn a_saved_adapter_has_the_keys_and_values_of_peft() {
    let model = load_tuned(Kind::Float);
    let directory = tempfile::tempdir().unwrap();
    model.save_adapter(directory.path(), "base").unwrap();
    let found = read(&directory.path().join("adapter_model.safetensors"));
    let expected = read(&fixture().join("adapter/adapter_model.safetensors"));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, expected) in &expected {
        assert_close(name, &found[name], expected, 0.0);
    }
    let loaded = load(Kind::Float).with_adapter(directory.path()).unwrap();
    assert_eq!(loaded.lora(), model.lora());
    let reference = Reference::read();
    assert_close("logits", &reference.logits(&loaded), &reference.logits(&model), 0.0);
}

#[test]
fn adapters_match_whichever_module_peft_wrapped() {
    let expected = Reference::read();
    let logits = expected.logits(&load_tuned(Kind::Float));
    for prefix in [
        "base_model.model.layers",
        "base_model.model.language_model.model.layers",
        "base_model.model.model.language_model.layers",
    ] {
        let directory = edited("adapter", "adapter_model.safetensors", |tensors| {
            let rename = |name: String| name.replace("base_model.model.model.layers", prefix);
            *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (rename(name), tensor)).collect();
        });
        let model = load(Kind::Float).with_adapter(directory.path()).unwrap();
        assert_close(prefix, &expected.logits(&model), &logits, 0.0);
    }
}

#[test]
fn a_new_adapter_changes_nothing_until_it_is_trained() {
    let _guard = sole_user_of_the_generator();
    let lora = |targets: &[&str]| LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: 0.0,
        target_modules: TargetModules::Names(targets.iter().map(ToString::to_string).collect()),
        use_rslora: false,
        modules_to_save: None,
    };
    let reference = Reference::read();
    let model = load(Kind::Float).with_new_adapter(lora(&["q_proj", "mlp.up_proj", "attn.qkv"]), 1).unwrap();
    assert_close("logits", &reference.logits(&model), &reference.logits(&load(Kind::Float)), 0.0);
    // A and B of two targets in each of three decoder layers, and of one target in each of two
    // vision layers.
    assert_eq!(model.weights().iter().filter(|(name, _)| is_adapter(name)).count(), 2 * (3 + 3 + 2));
    let error = load(Kind::Float).with_new_adapter(lora(&["q_proj", "proj_q", "oj"]), 1).err().unwrap().to_string();
    assert!(error.contains("named proj_q") && error.contains("named oj") && !error.contains("named q_proj"), "{error}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_every_name() {
    let directory = edited("adapter", "adapter_model.safetensors", |tensors| {
        let key = |name: &str| format!("base_model.model.model.layers.{name}.weight");
        tensors.remove(&key("0.self_attn.q_proj.lora_A"));
        tensors.remove(&key("1.self_attn.q_proj.lora_B"));
        tensors.insert(key("2.self_attn.v_proj.lora_B"), Tensor::zeros([17, 4], (Kind::Float, CPU)));
        tensors.insert(key("3.self_attn.v_proj.lora_A"), Tensor::zeros([4, 48], (Kind::Float, CPU)));
    });
    let error = load(Kind::Float).with_adapter(directory.path()).err().unwrap().to_string();
    for problem in [
        "missing: language_model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "missing: language_model.model.layers.1.self_attn.q_proj.lora_B.weight",
        "shape: base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight expected [16, 4], got [17, 4]",
        "no layer for: base_model.model.model.layers.3.self_attn.v_proj.lora_A.weight [4, 48]",
    ] {
        assert!(error.contains(problem), "{problem:?} is not in:\n{error}");
    }
}

/// Variants of LoRA that compute something else from the same tensors.
#[test]
fn an_adapter_that_would_be_computed_wrongly_is_refused() {
    for (field, value) in [
        ("bias", "all".into()),
        ("use_dora", true.into()),
        ("alpha_pattern", serde_json::json!({"q_proj": 16})),
        ("peft_type", "LOHA".into()),
    ] {
        let directory = edited("adapter", "adapter_model.safetensors", |_| {});
        set_field(&directory.path().join("adapter_config.json"), &format!("/{field}"), value);
        let error = load(Kind::Float).with_adapter(directory.path()).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(field)), "{field}: {error:?}");
    }
}

#[test]
fn a_model_that_would_be_computed_wrongly_is_refused() {
    for (field, value) in [
        ("/ps_version", "v1".into()),
        ("/select_layer", (-2).into()),
        ("/vision_config/norm_type", "batch_norm".into()),
        ("/vision_config/hidden_act", "gelu_pytorch_tanh".into()),
        ("/llm_config/hidden_act", "gelu".into()),
        ("/llm_config/rope_scaling", serde_json::json!({"rope_type": "linear", "factor": 2.0})),
    ] {
        let directory = edited("", "model.safetensors", |_| {});
        set_field(&directory.path().join("config.json"), field, value);
        let error = InternVlConfig::read(directory.path()).err().map(|error| error.to_string());
        let name = field.trim_start_matches('/').replace('/', ".");
        assert!(error.as_ref().is_some_and(|error| error.contains(&name)), "{name}: {error:?}");
    }
}

#[test]
fn every_tensor_that_does_not_fit_is_named_at_once() {
    let directory = edited("", "model.safetensors", |tensors| {
        tensors.remove("mlp1.1.bias");
        tensors.remove("language_model.lm_head.weight");
        tensors.insert("vision_model.encoder.layers.7.ls1".into(), Tensor::ones([32], (Kind::Float, CPU)));
        tensors.insert("language_model.model.norm.weight".into(), Tensor::ones([47], (Kind::Float, CPU)));
    });
    let error = InternVl::load(directory.path(), Kind::Float, Kind::Float, CPU).err().unwrap();
    let ModelError::Weights { problems, .. } = error else { panic!("{error}") };
    assert_eq!(
        problems,
        [
            "missing: language_model.lm_head.weight [262, 48]",
            "shape: language_model.model.norm.weight expected [48], got [47]",
            "missing: mlp1.1.bias [48]",
            "unexpected: vision_model.encoder.layers.7.ls1 [32]",
        ]
    );
}

#[test]
fn a_file_that_is_cut_short_is_named() {
    let whole = std::fs::read(fixture().join("model.safetensors")).unwrap();
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(fixture().join("config.json"), directory.path().join("config.json")).unwrap();
        std::fs::write(directory.path().join("model.safetensors"), &whole[..length]).unwrap();
        let error = InternVl::load(directory.path(), Kind::Float, Kind::Float, CPU).err().unwrap();
        assert!(matches!(error, ModelError::Safetensors { .. }), "{length} bytes: {error}");
        let error = error.to_string();
        assert!(error.contains("model.safetensors") && error.contains("not a complete"), "{length} bytes: {error}");
    }
}

#[test]
fn random_weights_depend_on_the_seed_alone() {
    let _guard = sole_user_of_the_generator();
    let config = InternVlConfig::read(&fixture()).unwrap();
    let draw = |seed| Weights::random(&config, seed, Kind::Float, CPU).get("mlp1.1.weight");
    assert_eq!(max_error(&draw(1), &draw(1)), 0.0);
    assert!(max_error(&draw(1), &draw(2)) > 0.0);
}
