//! The files of a checkpoint: weights, architecture, adapter, tokenizer, chat template.

use std::path::Path;

use cadwright::model::files::{headers, read_tensors, shards, stored_kind};
use cadwright::model::template::ChatTemplate;
use cadwright::model::{InternVl, InternVlConfig, Prompt, Tokenizer};
use serde_json::{Value, json};
use tch::{Device, Kind};

use super::{check_message, fixture, linked, with_bad_file};
use crate::harness;

fn load(directory: &Path) -> Result<InternVl, cadwright::model::ModelError> {
    InternVl::load(directory, Kind::Float, Kind::Float, Device::Cpu)
}

/// A safetensors file with this header.
fn safetensors(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn damaged_safetensors_are_refused_or_give_tensors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let header = json!({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    });
    let samples = vec![safetensors(&header, &[1; 32]), fixture("images/normalised.safetensors")];
    with_bad_file("safetensors", 1500, samples, directory.path(), "model.safetensors", || {
        for error in [headers(&path).err(), stored_kind(directory.path()).err()].into_iter().flatten() {
            check_message("model.safetensors", &error);
        }
        match read_tensors(&path) {
            Ok(tensors) => assert!(tensors.values().all(|tensor| tensor.numel() < 1 << 20)),
            Err(error) => check_message("", &error),
        }
    });
}

/// No element, but sides whose product overflows.
#[test]
fn an_impossible_shape_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    for shape in [json!([1u64 << 62, 2, 0]), json!([0, 1u64 << 63]), json!([0, u64::MAX])] {
        let header = json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}});
        std::fs::write(&path, safetensors(&header, &[])).unwrap();
        check_message("model.safetensors", &read_tensors(&path).unwrap_err());
    }
}

#[test]
fn a_damaged_checkpoint_is_not_loaded() {
    let directory = linked(&harness::fixture("internvl"));
    let whole = fixture("internvl/model.safetensors");
    with_bad_file("checkpoint", 60, vec![whole], directory.path(), "model.safetensors", || {
        if let Err(error) = load(directory.path()) {
            check_message(&directory.path().display().to_string(), &error);
        }
    });
}

#[test]
fn a_damaged_index_of_shards_is_refused_or_names_files_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("one.safetensors"), "").unwrap();
    let name = "model.safetensors.index.json";
    let index = json!({"metadata": {"total_size": 10}, "weight_map": {"a": "one.safetensors", "b": "one.safetensors"}});
    with_bad_file("index", 600, vec![index.to_string().into_bytes()], directory.path(), name, || {
        match shards(directory.path()) {
            Ok(files) => assert!(files.iter().all(|file| file.parent() == Some(directory.path()) && file.exists())),
            Err(error) => check_message(name, &error),
        }
    });
    for outside in ["../one.safetensors", "/etc/passwd", "", ".", ".."] {
        let index = json!({"weight_map": {"a": outside}});
        std::fs::write(directory.path().join(name), index.to_string()).unwrap();
        check_message("not the name of a file", &shards(directory.path()).unwrap_err());
    }
}

fn configs() -> Vec<Vec<u8>> {
    let original = fixture("internvl/config.json");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), &original).unwrap();
    let config = InternVlConfig::read(directory.path()).unwrap();
    let hf = InternVlConfig { layout: cadwright::model::Layout::Hf, ..config }.to_json("bfloat16");
    vec![original, hf.to_string().into_bytes()]
}

#[test]
fn a_damaged_architecture_is_refused_or_has_a_list_of_parameters() {
    let directory = tempfile::tempdir().unwrap();
    with_bad_file("config", 1500, configs(), directory.path(), "config.json", || {
        match InternVlConfig::read(directory.path()) {
            Ok(config) => {
                assert!(config.parameters().iter().all(|parameter| parameter.shape.iter().all(|side| *side > 0)));
                assert!(config.tokens_per_tile() > 0 && config.llm_config.head_dim() > 0);
                config.to_json("float32");
            }
            Err(error) => check_message("config.json", &error),
        }
    });
}

/// Found by damaging: a head without numbers, which has no weights.
#[test]
fn heads_that_do_not_fit_the_width_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let whole: serde_json::Value = serde_json::from_slice(&configs()[0]).unwrap();
    let language = if whole.get("llm_config").is_some() { "llm_config" } else { "text_config" };
    for (key, value, says) in [
        ("hidden_size", 1, "llm_config.hidden_size = 1 is not a multiple of num_attention_heads"),
        ("head_dim", 7, "a head has 7 numbers"),
    ] {
        let mut config = whole.clone();
        config[language][key] = value.into();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        check_message(says, &InternVlConfig::read(directory.path()).unwrap_err());
    }
}

#[test]
fn weights_of_another_architecture_are_refused() {
    let directory = linked(&harness::fixture("internvl"));
    with_bad_file("config_of_weights", 150, configs(), directory.path(), "config.json", || {
        if let Err(error) = load(directory.path()) {
            check_message(&directory.path().display().to_string(), &error);
        }
    });
}

#[test]
fn a_damaged_adapter_is_refused_or_can_be_merged() {
    let base = harness::fixture("internvl");
    for (target, name, cases) in
        [("adapter_config", "adapter_config.json", 300), ("adapter", "adapter_model.safetensors", 60)]
    {
        let directory = linked(&base.join("adapter"));
        let sample = fixture(&format!("internvl/adapter/{name}"));
        with_bad_file(target, cases, vec![sample], directory.path(), name, || {
            match load(&base).unwrap().with_adapter(directory.path()) {
                Ok(model) => drop(model.merged()),
                Err(error) => check_message("", &error),
            }
        });
    }
}

#[test]
fn a_damaged_tokenizer_is_refused_or_encodes_every_text() {
    let fast = tempfile::tempdir().unwrap();
    Tokenizer::of_bytes().unwrap().save(fast.path()).unwrap();
    let names = ["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];
    let slow = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::write(slow.path().join(name), fixture(&format!("text/{name}"))).unwrap();
    }
    let cases = [(fast.path(), "tokenizer.json", 400), (fast.path(), "tokenizer_config.json", 300)];
    for (place, name, count) in cases.into_iter().chain(names.map(|name| (slow.path(), name, 150))) {
        let directory = linked(place);
        let sample = if name == "tokenizer.json" {
            std::fs::read(place.join(name)).unwrap()
        } else {
            fixture(&format!("text/{name}"))
        };
        let kind = if place == fast.path() { "fast" } else { "slow" };
        with_bad_file(
            &format!("{kind}_{name}"),
            count,
            vec![sample],
            directory.path(),
            name,
            || match Tokenizer::load(directory.path()) {
                Ok(tokenizer) => {
                    let ids = tokenizer.encode("<|im_start|>user\né 1.25 \0\u{10ffff}  <img>x</img> ");
                    assert!(ids.len() < 1000, "{} tokens", ids.len());
                    tokenizer.decode(&ids);
                    let _ = tokenizer.check_fits(300);
                }
                Err(error) => check_message("", &error),
            },
        );
    }
}

/// `transformers` ignores these settings of the file. Here they cut every text, or made it 10^9
/// tokens long.
#[test]
fn padding_and_truncation_of_the_file_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    Tokenizer::of_bytes().unwrap().save(directory.path()).unwrap();
    let path = directory.path().join("tokenizer.json");
    let mut json = harness::json(&path);
    json["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(tokenizer.encode("abc").len(), 3);
}

#[test]
fn a_tokenizer_that_cannot_encode_every_text_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Tokenizer::of_bytes().unwrap().save(directory.path()).unwrap();
    let path = directory.path().join("tokenizer.json");
    let mut json = harness::json(&path);
    json["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"});
    std::fs::write(&path, json.to_string()).unwrap();
    check_message("cannot encode every text", &Tokenizer::load(directory.path()).err().unwrap());
}

/// The tokenizer library unwraps an error of its JSON parser.
#[test]
fn a_decoder_that_is_no_unicode_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Tokenizer::of_bytes().unwrap().save(directory.path()).unwrap();
    let path = directory.path().join("tokenizer.json");
    let text = harness::text(&path);
    let decoder = text.rfind("\"decoder\"").unwrap();
    let broken = text[decoder..].replacen("\"ByteLevel\"", "\"Byte\\ud800Level\"", 1);
    std::fs::write(&path, format!("{}{broken}", &text[..decoder])).unwrap();
    check_message("tokenizer.json", &Tokenizer::load(directory.path()).err().unwrap());
}

#[test]
fn the_last_id_may_be_taken() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        std::fs::write(directory.path().join(name), fixture(&format!("text/{name}"))).unwrap();
    }
    std::fs::write(directory.path().join("added_tokens.json"), r#"{"last": 4294967295}"#).unwrap();
    check_message("no id is left", &Tokenizer::load(directory.path()).err().unwrap());
}

/// The templates of the fixture, and one with tags that are removed.
fn templates() -> Vec<Vec<u8>> {
    let names = ["features.jinja", "list.jinja", "loop.jinja", "qwen2_5.jinja"];
    let mut templates = names.map(|name| fixture(&format!("text/{name}"))).to_vec();
    templates.push(b"{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}".to_vec());
    templates
}

fn render(directory: &Path) {
    match ChatTemplate::of(directory) {
        Ok(template) => assert!(template.is_some()),
        Err(error) => check_message("chat_template.jinja", &error),
    }
    for request in ["", "Write the program.", "<image>\n{{ x }}"] {
        if let Err(error) = Prompt::new(Some(directory), "You write CadQuery.", request) {
            check_message("", &error);
        }
    }
}

#[test]
fn a_damaged_chat_template_is_refused_or_renders() {
    let directory = tempfile::tempdir().unwrap();
    with_bad_file("template", 600, templates(), directory.path(), "chat_template.jinja", || render(directory.path()));
}

#[test]
fn a_chat_template_has_limits() {
    let directory = tempfile::tempdir().unwrap();
    for (template, says) in [
        ("{%}", "line 1"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "fuel"),
        ("{% for a in range(99) %}{{ 'x' * 9999999 }}{% endfor %}", "prints more than"),
        ("{{ {'a': 1}|tojson(indent=1000000000000) }}", "spaces"),
        ("{{ 'a\nb'|indent(9223372036854775807) }}", "spaces"),
        (&format!("{{{{ {}1 }}}}", "-".repeat(60_000)), "one of its tags has"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(30_000)), "one of its tags has"),
        // Found by damaging: it took seven minutes.
        (&format!("{{{{ m.c{}t }}}}", "-".repeat(20_000)), "one of its tags has"),
        (&"x".repeat(1 << 20), "bytes"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ] {
        std::fs::write(directory.path().join("chat_template.jinja"), template).unwrap();
        let error = Prompt::new(Some(directory.path()), "", "<image>\nWrite it.").unwrap_err();
        assert!(error.to_string().to_lowercase().contains(says), "{template}: {error}");
    }
}
