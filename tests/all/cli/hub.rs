//! Models and adapters from a server that imitates the hub.

use cadwright::data::encode_png;
use cadwright::model::Tokenizer;

use crate::harness::{Finished, Place, bytes, copy_directory, repository, text};
use crate::hub::server::{COMMIT, Server};

/// The fixture's model with a tokenizer of its size, in a directory `model`, and a picture.
fn place_with_model() -> Place {
    let place = Place::new();
    let fixture = repository().join("tests/fixtures/internvl");
    std::fs::create_dir(place.path("model")).expect("a directory");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture.join(name), place.path("model").join(name)).expect("a copy");
    }
    let tokenizer = Tokenizer::train([""].into_iter(), 262).expect("special tokens and bytes");
    tokenizer.save(&place.path("model")).expect("a directory");
    copy_directory(&fixture.join("adapter"), &place.path("adapter"));
    let picture = image::RgbImage::from_fn(56, 56, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 99]));
    std::fs::write(place.path("part.png"), encode_png(&picture).expect("a picture")).expect("a file");
    place
}

const GENERATE: [&str; 8] = [
    "generate",
    "--image",
    "part.png",
    "--set",
    "generate.max_new_tokens=8",
    "--set",
    "model.dtype=f32",
    "--model-path",
];

fn serve(place: &Place, directory: &str) -> Server {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(place.path(directory)).expect("a directory") {
        let path = entry.expect("an entry").path();
        files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes(&path)));
    }
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    Server::start(&files)
}

#[test]
fn a_model_and_an_adapter_from_the_hub_say_what_the_local_ones_say() {
    let place = place_with_model();
    std::fs::write(place.path("adapter/prompt.json"), "{\"system\": \"\", \"user\": \"What?\"}").expect("a file");
    let model = serve(&place, "model");
    let from_hub = |arguments: &[&str], server: &Server| -> Finished {
        let invocation = place.cadwright([&GENERATE[..], arguments].concat());
        invocation.env("HF_ENDPOINT", &server.address).env("HF_HOME", place.path("hf")).succeeds()
    };
    let local = place.cadwright([&GENERATE[..], &["model"]].concat()).succeeds().stdout();
    assert_eq!(from_hub(&["someone/model"], &model).stdout(), local);
    assert_eq!(model.downloads("model.safetensors"), [0]);
    assert!(place.path("hf/hub/models--someone--model/refs/main").exists());
    // A commit that is in the cache needs no server.
    let offline = place.cadwright([&GENERATE[..], &["someone/model", "--revision", COMMIT]].concat());
    let offline = offline.env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.path("hf"));
    assert_eq!(offline.succeeds().stdout(), local);

    let tuned = place.cadwright([&GENERATE[..], &["model", "--lora-path", "adapter"]].concat()).succeeds().stdout();
    assert_ne!(tuned, local, "the adapter changes what the model says");
    std::fs::rename(place.path("adapter/prompt.json"), place.path("prompt.json")).expect("a file of ours");
    let configured =
        place.cadwright([&GENERATE[..], &["model", "--lora-path", "adapter"]].concat()).succeeds().stdout();
    assert_ne!(tuned, configured, "the adapter is asked what it was trained with");
    std::fs::rename(place.path("prompt.json"), place.path("adapter/prompt.json")).expect("a file of ours");
    std::fs::remove_dir_all(place.path("hf")).expect("a directory of ours");
    let adapter = serve(&place, "adapter");
    assert_eq!(from_hub(&["model", "--lora-path", "someone/model"], &adapter).stdout(), tuned);
}

#[test]
fn a_model_that_the_hub_does_not_have_is_named_with_what_to_do() {
    let place = place_with_model();
    let server = serve(&place, "model");
    let asked = |name: &str| {
        let invocation = place.cadwright([&GENERATE[..], &[name]].concat());
        invocation.env("HF_ENDPOINT", &server.address).env("HF_HOME", place.path("hf"))
    };
    asked("someone/else").fails_with(&["someone/else@main", "404", "check the name", "local directory"]);
    asked("else").fails_with(&["else: no such directory", "owner/name"]);
    asked("someone/else").env("HF_HUB_OFFLINE", "1").fails_with(&["someone/else@main", "HF_HUB_OFFLINE"]);
}

#[test]
fn a_tokenizer_or_template_that_does_not_fit_is_refused_before_the_model_is_read() {
    let place = place_with_model();
    let generate = |more: &[&str]| place.cadwright([&GENERATE[..], &["model"], more].concat());
    place.write("model/chat_template.jinja", "{% for m in messages %}");
    generate(&[]).fails_with(&["chat_template.jinja", "line 1", "prompt.template=internvl"]);
    generate(&["--set", "prompt.template=internvl"]).succeeds();
    generate(&["--set", "prompt.template=chatml"]).fails_with(&["template", "chatml", "auto", "internvl"]);
    let larger =
        Tokenizer::train([text(repository().join("README.md")).as_str()].into_iter(), 300).expect("a tokenizer");
    larger.save(&place.path("model")).expect("a directory");
    generate(&["--set", "prompt.template=internvl"]).fails_with(&["300 tokens", "262 embeddings"]);
    std::fs::remove_file(place.path("model/tokenizer.json")).expect("a file of ours");
    generate(&[]).fails_with(&["model", "tokenizer.json", "vocab.json with merges.txt"]);
}
