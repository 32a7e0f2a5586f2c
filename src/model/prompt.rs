//! The one prompt that training, rollouts, evaluation and `generate` share.

use std::path::Path;

use minijinja::value::Value;

use super::error::ModelError;
use super::template::ChatTemplate;
use super::tokenizer::{END_OF_TURN, IMAGE_CONTEXT, IMAGE_END, IMAGE_START, START_OF_TURN};
use super::tokenizer_files::read_object;

/// Marks the place of the picture in configured text and in rendered templates.
const IMAGE: &str = "<image>";
const FILE: &str = "prompt.json";

/// A rendered chat template with one picture and one request: the text before and after the
/// picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    system: String,
    user: String,
    before: String,
    after: String,
    /// Whether the answer begins with a plan.
    plan: bool,
}

impl Prompt {
    /// The prompt of a system message and a request, either of which may be empty. It is rendered
    /// by the chat template of `checkpoint` if it has one, else by the one that InternVL
    /// documents. The picture precedes the request, unless that names its place with `<image>`.
    ///
    /// # Errors
    /// The template cannot be used, or the prompt does not have exactly one picture.
    pub fn new(checkpoint: Option<&Path>, system: &str, user: &str) -> Result<Self, ModelError> {
        let origin = "prompt.system and prompt.user";
        let pictures = picture_count(system) + picture_count(user);
        if pictures > usize::from(user.contains(IMAGE)) {
            let reason = format!("{pictures} pictures are named ({IMAGE} or {IMAGE_CONTEXT}); the request has one");
            return Err(ModelError::Prompt { origin: origin.into(), reason });
        }
        let template = match checkpoint {
            Some(directory) => ChatTemplate::of(directory)?,
            None => None,
        };
        let rendered = match template {
            Some(template) => rendered_by(&template, system, user)?,
            None => documented(system, user),
        };
        Self::split(system, user, &rendered, origin)
    }

    /// Makes a prompt from its rendered text.
    fn split(system: &str, user: &str, rendered: &str, origin: &str) -> Result<Self, ModelError> {
        let place = rendered.split_once(IMAGE).or_else(|| rendered.split_once(IMAGE_CONTEXT));
        let Some((before, after)) = place.filter(|_| picture_count(rendered) == 1) else {
            let reason = format!("expected one {IMAGE} in the prompt, found {}", picture_count(rendered));
            return Err(ModelError::Prompt { origin: origin.into(), reason });
        };
        Ok(Self { system: system.into(), user: user.into(), before: before.into(), after: after.into(), plan: false })
    }

    /// This prompt, to which the answer is a plan and a program if `plan`, else a program alone.
    #[must_use]
    pub fn answered_with_plan(self, plan: bool) -> Self {
        Self { plan, ..self }
    }

    /// Whether the answer is a plan and a program.
    pub fn expects_plan(&self) -> bool {
        self.plan
    }

    /// The text before the completion, for a picture of `image_tokens` embeddings.
    pub fn text(&self, image_tokens: usize) -> String {
        let image = IMAGE_CONTEXT.repeat(image_tokens);
        format!("{}{IMAGE_START}{image}{IMAGE_END}{}", self.before, self.after)
    }

    /// Writes the prompt beside a model or adapter that was trained with it, as `prompt.json`: in
    /// rendered form, so that loading it needs no template and does not depend on later changes of
    /// the template.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = directory.join(FILE);
        let text = format!("{}{IMAGE}{}", self.before, self.after);
        let json = serde_json::json!({"system": self.system, "user": self.user, "text": text, "plan": self.plan});
        std::fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Write { path, source })
    }

    /// The prompt that the model or adapter in `directory` was trained with, if it is stored there.
    ///
    /// # Errors
    /// `prompt.json` is malformed.
    pub fn of(directory: &Path) -> Result<Option<Self>, ModelError> {
        let path = directory.join(FILE);
        let Some(json) = read_object(&path)? else { return Ok(None) };
        let field = |name: &str| {
            json.get(name).and_then(serde_json::Value::as_str).ok_or_else(|| ModelError::Prompt {
                origin: path.display().to_string(),
                reason: format!("field {name:?} is missing or not text"),
            })
        };
        let (system, user) = (field("system")?, field("user")?);
        // Files of earlier versions have no rendered text, because there was only one template.
        if !json.contains_key("text") {
            return Self::new(None, system, user).map(Some);
        }
        let plan = json.get("plan").and_then(serde_json::Value::as_bool).unwrap_or(false);
        let prompt = Self::split(system, user, field("text")?, &path.display().to_string())?;
        Ok(Some(prompt.answered_with_plan(plan)))
    }
}

fn picture_count(text: &str) -> usize {
    text.matches(IMAGE).count() + text.matches(IMAGE_CONTEXT).count()
}

/// The request with `<image>` in front, unless it is there already.
fn with_picture(user: &str) -> String {
    match user {
        "" => IMAGE.to_owned(),
        user if user.contains(IMAGE) => user.to_owned(),
        user => format!("{IMAGE}\n{user}"),
    }
}

/// The conversation template of InternVL2.5 and InternVL3. Without a system message there is no
/// system turn.
fn documented(system: &str, user: &str) -> String {
    let system = match system {
        "" => String::new(),
        system => format!("{START_OF_TURN}system\n{system}{END_OF_TURN}\n"),
    };
    let user = with_picture(user);
    format!("{system}{START_OF_TURN}user\n{user}{END_OF_TURN}\n{START_OF_TURN}assistant\n")
}

/// Renders a prompt by a template of either kind. Templates of `-hf` checkpoints take a message as
/// a list of pictures and texts, and mark the picture themselves. Templates of language models take
/// text, in which `<image>` marks the picture. To tell them apart, a list is rendered first: the
/// second kind refuses it, or prints it without a mark.
fn rendered_by(template: &ChatTemplate, system: &str, user: &str) -> Result<String, ModelError> {
    let object = |fields: Vec<(&'static str, Value)>| Value::from_iter(fields);
    let text = |text: &str| object(vec![("type", Value::from("text")), ("text", Value::from(text))]);
    let is_shown = |rendered: &str, text: &str| text.split(IMAGE).all(|part| rendered.contains(part.trim()));
    let render = |content: &dyn Fn(&str) -> Value, user: Value| {
        let turn = |role: &str, content: Value| object(vec![("role", Value::from(role)), ("content", content)]);
        let system = (!system.is_empty()).then(|| turn("system", content(system)));
        let messages: Vec<Value> = system.into_iter().chain([turn("user", user)]).collect();
        template.render(&Value::from(messages), &Value::from(()))
    };

    let image = object(vec![("type", Value::from("image"))]);
    let (head, tail) = user.split_once(IMAGE).unwrap_or(("", user));
    let texts = |part: &str| (!part.is_empty()).then(|| text(part));
    let parts: Vec<Value> = texts(head).into_iter().chain([image]).chain(texts(tail)).collect();
    let listed = render(&|system| Value::from(vec![text(system)]), Value::from(parts));
    if let Ok(rendered) = listed
        && picture_count(&rendered) == 1
        && is_shown(&rendered, system)
        && is_shown(&rendered, user)
    {
        return Ok(rendered);
    }
    let rendered = render(&|system| Value::from(system), Value::from(with_picture(user)))?;
    let failed = |reason: String| Err(ModelError::Template { path: template.path().to_owned(), reason });
    match picture_count(&rendered) {
        1 if is_shown(&rendered, system) && is_shown(&rendered, user) => Ok(rendered),
        1 => failed("it leaves out the system message or the request".into()),
        count => failed(format!("it shows the picture {count} times instead of once")),
    }
}
