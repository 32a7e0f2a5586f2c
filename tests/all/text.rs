//! Tokenizers, chat templates and prompts, compared with `transformers`
//! (scripts/reference/tokenizer.py), and the errors for those that cannot be used.

use std::path::{Path, PathBuf};

use cadwright::model::template::ChatTemplate;
use cadwright::model::{Prompt, Tokenizer};
use minijinja::value::Value as Jinja;
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    crate::harness::fixture("text")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn expected() -> Value {
    serde_json::from_str(&read(&fixture().join("expected.json"))).unwrap()
}

const TOKENIZER: [&str; 5] =
    ["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"];

/// A directory with these files of the fixture.
fn copy_of(names: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(fixture().join(name), directory.path().join(name)).unwrap();
    }
    directory
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json = serde_json::from_str(&read(path)).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

fn ids(case: &Value) -> Vec<i64> {
    case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

#[track_caller]
fn check_tokens(tokenizer: &Tokenizer, decoded: impl Fn(&Value) -> Option<String>) {
    let expected = expected();
    let cases = expected["tokens"].as_array().unwrap();
    assert!(cases.len() > 200);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text), ids(case), "{text:?}");
        if let Some(decoded) = decoded(case) {
            assert_eq!(tokenizer.decode(&ids(case)), decoded, "{text:?}");
        }
    }
}

fn as_configured(case: &Value) -> Option<String> {
    case["decoded"].as_str().map(str::to_owned)
}

#[test]
fn the_files_of_a_published_checkpoint_tokenise_as_in_transformers() {
    let tokenizer = Tokenizer::load(&fixture()).unwrap();
    check_tokens(&tokenizer, as_configured);
    let added: Value = serde_json::from_str(&read(&fixture().join("added_tokens.json"))).unwrap();
    assert_eq!(Some(tokenizer.image_token), added["<IMG_CONTEXT>"].as_i64());
    assert_eq!(Some(tokenizer.end_of_turn), added["<|im_end|>"].as_i64());
    let last = added.as_object().unwrap().values().filter_map(Value::as_i64).max().unwrap();
    assert_eq!(tokenizer.vocab_size() as i64, last + 1);
}

#[test]
fn files_of_older_checkpoints_tokenise_as_in_transformers() {
    let directory = copy_of(&["vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"]);
    let expected = expected();
    check_tokens(&Tokenizer::load(directory.path()).unwrap(), |case| {
        expected["legacy_decoded"][case["text"].as_str()?].as_str().map(str::to_owned)
    });
}

#[test]
fn a_saved_tokenizer_is_the_same_and_keeps_its_other_files() {
    let directory = tempfile::tempdir().unwrap();
    Tokenizer::load(&fixture()).unwrap().save(directory.path()).unwrap();
    for name in TOKENIZER {
        assert_eq!(read(&directory.path().join(name)), read(&fixture().join(name)), "{name}");
    }
    // tokenizer.json decides, with and without the other files.
    std::fs::write(directory.path().join("vocab.json"), "{}").unwrap();
    check_tokens(&Tokenizer::load(directory.path()).unwrap(), as_configured);
    for name in TOKENIZER {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    check_tokens(&Tokenizer::load(directory.path()).unwrap(), as_configured);
}

#[test]
fn tokenizer_config_adds_to_tokenizer_json_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    Tokenizer::load(&fixture()).unwrap().save(directory.path()).unwrap();
    let json = directory.path().join("tokenizer.json");
    edit(&json, |json| {
        json["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token != "</box>");
        let added = json["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["content"] != "</box>");
        added.iter_mut().find(|token| token["content"] == "<quad>").unwrap()["special"] = json!(false);
    });
    check_tokens(&Tokenizer::load(directory.path()).unwrap(), as_configured);
    edit(&json, |json| {
        let added = json["added_tokens"].as_array_mut().unwrap();
        added.retain(|token| token["content"] != "<ref>");
        json["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token != "<ref>");
    });
    let error = Tokenizer::load(directory.path()).err().expect("must be refused").to_string();
    assert!(error.contains("tokenizer.json") && error.contains("in tokenizer_config.json"), "{error}");
}

#[test]
fn added_tokens_keep_the_ids_that_the_files_give_them() {
    let directory = copy_of(&TOKENIZER);
    edit(&directory.path().join("tokenizer_config.json"), |json| {
        let decoder = json["added_tokens_decoder"].as_object_mut().unwrap();
        let entry = decoder.iter().find(|(_, token)| token["content"] == "<IMG_CONTEXT>").unwrap().0.clone();
        let token = decoder.remove(&entry).unwrap();
        decoder.insert("2000".into(), token);
    });
    let tokenizer = Tokenizer::load(directory.path()).unwrap();
    assert_eq!((tokenizer.image_token, tokenizer.vocab_size()), (2000, 2001));
    assert_eq!(tokenizer.encode("<IMG_CONTEXT>"), [2000]);
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused_in_one_line() {
    type Change = fn(&Path);
    let cases: [(Change, &[&str]); 8] = [
        (|d| std::fs::remove_file(d.join("merges.txt")).unwrap(), &["tokenizer.json", "vocab.json with merges.txt"]),
        (
            |d| std::fs::write(d.join("merges.txt"), "#version: 0.2\na b\nqq zz\n").unwrap(),
            &["merges.txt", "line 2", "\"ab\"", "vocab.json"],
        ),
        (|d| std::fs::write(d.join("merges.txt"), "a b c\n").unwrap(), &["merges.txt", "line 1", "two tokens"]),
        (|d| std::fs::write(d.join("vocab.json"), "{\"a\": 0}").unwrap(), &["vocab.json", "255 of the 256"]),
        (|d| std::fs::write(d.join("vocab.json"), "{\"a\": \n").unwrap(), &["vocab.json", "malformed"]),
        (|d| std::fs::write(d.join("tokenizer.json"), "{}").unwrap(), &["tokenizer.json", "malformed"]),
        (
            |d| {
                edit(&d.join("tokenizer_config.json"), |json| {
                    json["added_tokens_decoder"]
                        .as_object_mut()
                        .unwrap()
                        .retain(|_, t| t["content"] != "<IMG_CONTEXT>");
                    json["additional_special_tokens"] = json!([]);
                });
            },
            &["vocab.json", "missing: <IMG_CONTEXT>", "InternVL3"],
        ),
        (
            |d| {
                edit(&d.join("tokenizer_config.json"), |json| {
                    json["added_tokens_decoder"]["7"] = json!({"content": "<new>"})
                })
            },
            &["vocab.json", "\"<new>\" is 7"],
        ),
    ];
    for (change, says) in cases {
        let directory = copy_of(&TOKENIZER);
        change(directory.path());
        let error = Tokenizer::load(directory.path()).err().expect("must be refused").to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        for text in says {
            assert!(error.contains(text), "expected {text:?} in {error}");
        }
    }
}

#[test]
fn a_vocabulary_that_is_larger_than_the_embedding_is_refused() {
    let tokenizer = Tokenizer::load(&fixture()).unwrap();
    let tokens = tokenizer.vocab_size() as i64;
    tokenizer.check_fits(tokens).unwrap();
    tokenizer.check_fits(tokens + 7).unwrap();
    let error = tokenizer.check_fits(tokens - 1).unwrap_err().to_string();
    assert!(
        error.contains(&format!("{tokens} tokens")) && error.contains(&format!("{} embeddings", tokens - 1)),
        "{error}"
    );
}

/// The fixture's tokenizer with one of its templates, in the file that `kind` names.
pub fn with_template(template: &str, kind: &str) -> tempfile::TempDir {
    let directory = copy_of(&TOKENIZER);
    let text = read(&fixture().join(format!("{template}.jinja")));
    let config = directory.path().join("tokenizer_config.json");
    match kind {
        "jinja" => std::fs::write(directory.path().join("chat_template.jinja"), text).unwrap(),
        "json" => {
            std::fs::write(directory.path().join("chat_template.json"), json!({"chat_template": text}).to_string())
                .unwrap();
        }
        "config" => edit(&config, |json| json["chat_template"] = json!(text)),
        _ => edit(&config, |json| {
            let named = |name: &str, template: &str| json!({"name": name, "template": template});
            json["chat_template"] = json!([named("tool_use", "no"), named("default", &text)]);
        }),
    }
    directory
}

#[test]
fn prompts_are_those_of_transformers_wherever_the_template_stands() {
    let expected = expected();
    let cases = expected["prompts"].as_array().unwrap();
    assert_eq!(cases.len(), 3 * 2 * 3 * 2);
    for kind in ["jinja", "json", "config", "named"] {
        for template in ["loop", "list", "qwen2_5"] {
            let directory = with_template(template, kind);
            for case in cases.iter().filter(|case| case["template"] == template) {
                let [system, user, text] = ["system", "user", "text"].map(|field| case[field].as_str().unwrap());
                let prompt = Prompt::new(Some(directory.path()), system, user).unwrap();
                let tokens = case["tokens"].as_u64().unwrap() as usize;
                assert_eq!(prompt.text(&[tokens]), text, "{template} in {kind}");
            }
        }
    }
}

#[test]
fn conversations_with_tools_and_every_feature_render_as_in_transformers() {
    let expected = expected();
    let cases = expected["conversations"].as_array().unwrap();
    assert_eq!(cases.len(), 2 * 4 + 3);
    // Parsed again, so that tools keep the order of their fields.
    let ordered: Jinja = serde_json::from_str(&read(&fixture().join("expected.json"))).unwrap();
    let ordered = ordered.get_attr("conversations").unwrap();
    for (i, case) in cases.iter().enumerate() {
        let directory = with_template(case["template"].as_str().unwrap(), "jinja");
        let template = ChatTemplate::of(directory.path()).unwrap().unwrap();
        let ordered = ordered.get_item_by_index(i).unwrap();
        let [messages, tools] = ["messages", "tools"].map(|field| ordered.get_attr(field).unwrap());
        assert_eq!(template.render(&messages, &tools).unwrap(), case["text"].as_str().unwrap(), "{case:#}");
    }
}

#[test]
fn without_a_template_the_prompt_is_internvls() {
    let directory = copy_of(&TOKENIZER);
    for checkpoint in [None, Some(directory.path())] {
        let text = |system, user| Prompt::new(checkpoint, system, user).unwrap().text(&[2]);
        let image = "<img><IMG_CONTEXT><IMG_CONTEXT></img>";
        let answer = "<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(text("", "Q"), format!("<|im_start|>user\n{image}\nQ{answer}"));
        assert_eq!(text("S", ""), format!("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{image}{answer}"));
        assert_eq!(text("", "a <image> b"), format!("<|im_start|>user\na {image} b{answer}"));
    }
    // The order in which transformers looks, and a list of parts with a place for the picture.
    let directory = with_template("list", "jinja");
    edit(&directory.path().join("tokenizer_config.json"), |json| json["chat_template"] = json!("{{ nonsense"));
    let text = Prompt::new(Some(directory.path()), "", "a <image> b").unwrap().text(&[1]);
    assert!(text.contains("user\na <img><IMG_CONTEXT></img>\n b<|im_end|>"), "{text}");
}

#[test]
fn what_was_trained_with_is_read_back_whatever_became_of_the_template() {
    let directory = with_template("qwen2_5", "config");
    let prompt = Prompt::new(Some(directory.path()), "", "Q").unwrap();
    assert!(prompt.text(&[1]).contains("You are Qwen"));
    prompt.save(directory.path()).unwrap();
    std::fs::remove_file(directory.path().join("tokenizer_config.json")).unwrap();
    assert_eq!(Prompt::of(directory.path()).unwrap(), Some(prompt));
    // The format of earlier versions.
    std::fs::write(directory.path().join("prompt.json"), "{\"system\": \"S\", \"user\": \"Q\"}").unwrap();
    assert_eq!(Prompt::of(directory.path()).unwrap(), Some(Prompt::new(None, "S", "Q").unwrap()));
    for (text, says) in [("{", "malformed"), ("{\"system\": \"\"}", "\"user\""), ("[]", "object")] {
        std::fs::write(directory.path().join("prompt.json"), text).unwrap();
        let error = Prompt::of(directory.path()).unwrap_err().to_string();
        assert!(error.contains("prompt.json") && error.contains(says), "{error}");
    }
    assert_eq!(Prompt::of(&fixture()).unwrap(), None);
}

#[test]
fn a_template_that_cannot_be_used_is_refused_in_one_line() {
    let cases = [
        ("\n{% for m in messages %}", "line 2"),
        ("{{ raise_exception('Only\\nrobots may speak') }}", "Only robots may speak"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "the picture 2 times"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "the picture 0 times"),
        ("<image> {{ messages[0].role }}", "leaves out"),
        ("{{ messages[0].content.nonsense() }}", "nonsense"),
    ];
    for (template, says) in cases {
        let directory = copy_of(&TOKENIZER);
        std::fs::write(directory.path().join("chat_template.jinja"), template).unwrap();
        let error = Prompt::new(Some(directory.path()), "", "Q").unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        for text in ["chat_template.jinja", says, "prompt.template=internvl"] {
            assert!(error.contains(text), "expected {text:?} in {error}");
        }
    }
    let directory = copy_of(&TOKENIZER);
    edit(&directory.path().join("tokenizer_config.json"), |json| {
        json["chat_template"] = json!([{"name": "rag", "template": ""}]);
    });
    let error = Prompt::new(Some(directory.path()), "", "Q").unwrap_err().to_string();
    assert!(error.contains("none is named \"default\", only rag"), "{error}");
    for user in ["<image> or <image>", "<IMG_CONTEXT>"] {
        let error = Prompt::new(None, "", user).unwrap_err().to_string();
        assert!(error.contains("prompt.user"), "{error}");
    }
}

// The tokenizer of the nano model.

/// Plates with holes: programs with the vocabulary and the number format of real ones.
fn programs() -> Vec<String> {
    let number = |i: i64| format!("{:.2}", i as f64 / 8.0);
    let program = |i: i64| {
        let (w, h, r) = (number(i % 7 + 4), number(i % 5 + 2), number(i % 3 + 1));
        let at = if i % 2 == 0 { "(-0.25, 0.5)" } else { "(0.75, -0.25)" };
        format!(
            "import cadquery as cq\n\nplate = cq.Workplane(\"XY\").rect({w}, {h}).extrude({r})\n\
             hole = cq.Workplane(\"XY\").pushPoints([{at}, (-0.25, -0.25)]).circle({r})\n\
             result = plate.cut(hole.extrude({h}))\n"
        )
    };
    (0..50).map(program).collect()
}

fn trained() -> Tokenizer {
    Tokenizer::train(programs().iter().map(String::as_str), 400).unwrap()
}

#[test]
fn text_survives_the_tokenizer() {
    let (tokenizer, programs) = (trained(), programs());
    let strange = ["naïve — 直径 ∅25 µm 🔩", "\t\r\n  \u{0}\u{7f}", "e\u{301} مرحبا", "-1.5.-2.25--0.25", ""];
    for text in programs.iter().map(String::as_str).chain(strange) {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
    }
    let shortest = programs.iter().map(|program| program.len() / tokenizer.encode(program).len()).min();
    assert!(shortest.unwrap() >= 4, "boilerplate should become few tokens: {shortest:?} bytes a token");
}

#[test]
fn a_frequent_number_is_one_token_wherever_it_stands() {
    let tokenizer = trained();
    let number = tokenizer.encode("-0.25");
    assert_eq!(number.len(), 1);
    for text in ["(-0.25, 0.5)", "x=-0.25", "[-0.25,-0.25]", "-0.25\n"] {
        assert!(tokenizer.encode(text).contains(&number[0]), "{text}");
    }
}

#[test]
fn special_tokens_are_single_and_not_decoded() {
    let tokenizer = trained();
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"];
    let ids: Vec<Vec<i64>> = special.iter().map(|token| tokenizer.encode(token)).collect();
    assert!(ids.iter().all(|ids| ids.len() == 1), "{ids:?}");
    assert_eq!((&ids[0], &ids[2]), (&vec![tokenizer.end_of_text], &vec![tokenizer.end_of_turn]));
    assert!(tokenizer.is_stop(ids[0][0]) && tokenizer.is_stop(ids[2][0]) && !tokenizer.is_stop(ids[1][0]));
    let prompt = Prompt::new(None, "Write CadQuery.", "The part?").unwrap();
    let tokens = tokenizer.encode(&prompt.text(&[16]));
    assert_eq!(tokens.iter().filter(|&&token| token == tokenizer.image_token).count(), 16);
    assert_eq!(tokenizer.decode(&tokens), "system\nWrite CadQuery.\nuser\n\nThe part?\nassistant\n");
}

#[test]
fn a_saved_tokenizer_loads_as_it_was() {
    let (tokenizer, directory) = (trained(), tempfile::tempdir().unwrap());
    tokenizer.save(directory.path()).unwrap();
    let loaded = Tokenizer::load(directory.path()).unwrap();
    assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
    assert!(tokenizer.vocab_size() <= 400, "{}", tokenizer.vocab_size());
    for text in programs().iter().map(String::as_str).chain(["<|im_end|>é-0.25"]) {
        assert_eq!(loaded.encode(text), tokenizer.encode(text));
    }
}
