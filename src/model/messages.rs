//! Renders the messages of a conversation by a chat template, with marks for pictures.

use minijinja::value::Value;

use super::error::ModelError;
use super::template::ChatTemplate;
use super::tokenizer::{END_OF_TURN, IMAGE_CONTEXT, START_OF_TURN};

/// Marks the place of a picture in configured text and in rendered templates.
pub(super) const IMAGE: &str = "<image>";

/// A message: its role, its text, and the number of its pictures, whose places `<image>` marks. If
/// the text has no mark, its one picture precedes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    role: &'static str,
    text: &'a str,
    pictures: usize,
}

impl<'a> Message<'a> {
    /// A message without pictures.
    pub(super) fn new(role: &'static str, text: &'a str) -> Self {
        Self { role, text, pictures: 0 }
    }

    /// A message with pictures.
    pub(super) fn with_pictures(role: &'static str, text: &'a str, pictures: usize) -> Self {
        Self { role, text, pictures }
    }

    /// Whether there is nothing to say or show.
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.pictures == 0
    }

    /// The text with a mark for each picture.
    fn marked(&self) -> String {
        match self.text {
            text if self.pictures == 0 || text.contains(IMAGE) => text.to_owned(),
            "" => IMAGE.to_owned(),
            text => format!("{IMAGE}\n{text}"),
        }
    }

    /// The message as a list of pictures and texts.
    fn listed(&self) -> Value {
        let text = |text: &str| object(vec![("type", Value::from("text")), ("text", Value::from(text))]);
        let unmarked = self.pictures > 0 && !self.text.contains(IMAGE);
        let mut parts: Vec<Value> = Vec::new();
        for (i, part) in self.text.split(IMAGE).enumerate() {
            if unmarked || i > 0 {
                parts.push(object(vec![("type", Value::from("image"))]));
            }
            parts.extend((!part.is_empty()).then(|| text(part)));
        }
        self.turn(Value::from(parts))
    }

    fn turn(&self, content: Value) -> Value {
        object(vec![("role", Value::from(self.role)), ("content", content)])
    }
}

fn object(fields: Vec<(&'static str, Value)>) -> Value {
    Value::from_iter(fields)
}

/// Marks of pictures in a text.
pub(super) fn picture_count(text: &str) -> usize {
    text.matches(IMAGE).count() + text.matches(IMAGE_CONTEXT).count()
}

/// The messages up to the start of the assistant's answer, rendered by `template`, or else by the
/// one that InternVL documents. Empty messages are left out.
///
/// # Errors
/// The template cannot be used.
pub(super) fn rendered(template: Option<&ChatTemplate>, messages: &[Message]) -> Result<String, ModelError> {
    let messages: Vec<Message> = messages.iter().copied().filter(|message| !message.is_empty()).collect();
    match template {
        Some(template) => rendered_by(template, &messages),
        None => Ok(documented(&messages)),
    }
}

/// The conversation template of InternVL2.5 and InternVL3. Without a system message there is no
/// system turn.
fn documented(messages: &[Message]) -> String {
    let turn = |message: &Message| format!("{START_OF_TURN}{}\n{}{END_OF_TURN}\n", message.role, message.marked());
    let turns: String = messages.iter().map(turn).collect();
    format!("{turns}{START_OF_TURN}assistant\n")
}

/// Renders messages by a template of either kind. Templates of `-hf` checkpoints take a message as
/// a list of pictures and texts, and mark the picture themselves. Templates of language models take
/// text, in which `<image>` marks the picture. To tell them apart, a list is rendered first: the
/// second kind refuses it, or prints it without a mark.
fn rendered_by(template: &ChatTemplate, messages: &[Message]) -> Result<String, ModelError> {
    let is_shown = |rendered: &str| {
        messages.iter().flat_map(|message| message.text.split(IMAGE)).all(|part| rendered.contains(part.trim()))
    };
    let render = |messages: Vec<Value>| template.render(&Value::from(messages), &Value::from(()));
    let expected = messages.iter().map(|message| message.pictures).sum::<usize>();
    let listed = render(messages.iter().map(Message::listed).collect());
    if let Ok(rendered) = listed
        && picture_count(&rendered) == expected
        && is_shown(&rendered)
    {
        return Ok(rendered);
    }
    let rendered = render(messages.iter().map(|message| message.turn(Value::from(message.marked()))).collect())?;
    let failed = |reason: String| Err(ModelError::Template { path: template.path().to_owned(), reason });
    match picture_count(&rendered) {
        count if count != expected => failed(format!("it shows the picture {count} times instead of {expected}")),
        _ if is_shown(&rendered) => Ok(rendered),
        _ => failed("it leaves out the system message or the request".into()),
    }
}
