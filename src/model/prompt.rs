//! The one prompt that training, rollouts, evaluation and `generate` share: a request with its
//! pictures, and the turns that may follow an answer.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::ModelError;
use super::messages::{IMAGE, Message, picture_count, rendered};
use super::strategy::Strategy;
use super::template::ChatTemplate;
use super::tokenizer::{END_OF_TURN, IMAGE_CONTEXT, IMAGE_END, IMAGE_START};
use super::tokenizer_files::read_object;

const FILE: &str = "prompt.json";
/// Stand for an answer and for the user's next text while a further turn is rendered.
const ANSWER: &str = "<answer>";
const FEEDBACK: &str = "<feedback>";

/// A rendered chat template with one request: the text around its pictures, and that of further
/// turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    system: String,
    user: String,
    /// The text around the pictures: one piece more than there are places for pictures.
    around: Vec<String>,
    /// The further turns; `None` if the template has none.
    turn: Option<FurtherTurn>,
    /// Whether the answer begins with a plan.
    plan: bool,
}

/// The text after an answer, whose own end is left out, to the start of the next answer.
/// `<feedback>` and `<image>` mark what the user says and shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FurtherTurn {
    plain: String,
    with_picture: String,
}

impl Prompt {
    /// The prompt of a system message and a request, either of which may be empty. It is rendered
    /// by the chat template of `checkpoint` if it has one, else by the one that InternVL
    /// documents. The picture precedes the request, unless that names its place with `<image>`.
    ///
    /// # Errors
    /// The template cannot be used, or the prompt does not have exactly one picture.
    pub fn new(checkpoint: Option<&Path>, system: &str, user: &str) -> Result<Self, ModelError> {
        Self::with_pictures(checkpoint, system, user, 1)
    }

    /// As [`Self::new`], for a request that names the places of `pictures` pictures with `<image>`,
    /// such as one with examples. (A request for one part needs one place, however many pictures
    /// the part has: see [`Self::text`].)
    ///
    /// # Errors
    /// The template cannot be used, or the prompt has another number of pictures.
    pub fn with_pictures(
        checkpoint: Option<&Path>,
        system: &str,
        user: &str,
        pictures: usize,
    ) -> Result<Self, ModelError> {
        let origin = "prompt.system and prompt.user";
        let named = user.matches(IMAGE).count();
        let is_right = named == pictures || (named, pictures) == (0, 1);
        let count = picture_count(system) + picture_count(user);
        if !is_right || count > named {
            let reason = format!("{count} pictures are named ({IMAGE} or {IMAGE_CONTEXT}); the request has {pictures}");
            return Err(ModelError::Prompt { origin: origin.into(), reason });
        }
        let template = match checkpoint {
            Some(directory) => ChatTemplate::of(directory)?,
            None => None,
        };
        let request = [Message::new("system", system), Message::with_pictures("user", user, pictures)];
        let text = rendered(template.as_ref(), &request)?;
        let around = around_pictures(&text, origin)?;
        let turn = FurtherTurn::rendered(template.as_ref(), &request);
        Ok(Self { system: system.into(), user: user.into(), around, turn, plan: false })
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

    /// The number of places for pictures, at least 1. All but the last are those of examples.
    pub fn pictures(&self) -> usize {
        self.around.len() - 1
    }

    /// This prompt with the programs of its examples, in their order. In a program, a space after
    /// each `<` keeps text from becoming a special token.
    #[must_use]
    pub fn with_examples<'a>(&self, programs: impl IntoIterator<Item = &'a str>) -> Self {
        let mut programs = programs.into_iter();
        let filled = |text: &String| {
            let mut pieces = text.split(Strategy::PROGRAM);
            let mut filled = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                filled += &programs.next().unwrap_or_default().trim_end().replace('<', "< ");
                filled += piece;
            }
            filled
        };
        Self { around: self.around.iter().map(filled).collect(), ..self.clone() }
    }

    /// The text before the completion, for pictures of `image_tokens` embeddings each. If there are
    /// more pictures than places, the last place takes all that are left, one a line.
    ///
    /// # Panics
    /// There are fewer pictures than places.
    pub fn text(&self, image_tokens: &[usize]) -> String {
        let places = self.pictures();
        assert!(image_tokens.len() >= places, "{} pictures for {places} places", image_tokens.len());
        let (single, last) = image_tokens.split_at(places - 1);
        let last: Vec<String> = last.iter().map(|&tokens| picture(tokens)).collect();
        let shown = single.iter().map(|&tokens| picture(tokens)).chain([last.join("\n")]);
        let (before, after) = self.around.split_at(1);
        before.iter().cloned().chain(shown.zip(after).flat_map(|(shown, after)| [shown, after.clone()])).collect()
    }

    /// The text of a further turn, in which the user says `feedback` and shows a picture of
    /// `image_tokens` embeddings, if any: from the end of the answer before it, whose end-of-turn
    /// token is left out, to the start of the next answer. In the feedback, a space after each `<`
    /// keeps text from becoming a special token.
    ///
    /// # Errors
    /// The prompt's chat template has no further turns.
    pub fn further_turn(&self, feedback: &str, image_tokens: Option<usize>) -> Result<String, ModelError> {
        let Some(turn) = &self.turn else {
            let reason = format!(
                "the checkpoint's chat template shows no turn after an answer, or does not end an answer with {END_OF_TURN}; \
                 use InternVL's own with --set prompt.template=internvl"
            );
            return Err(ModelError::Prompt { origin: "prompt.template".into(), reason });
        };
        let text = match image_tokens {
            Some(tokens) => turn.with_picture.replacen(IMAGE, &picture(tokens), 1),
            None => turn.plain.clone(),
        };
        Ok(text.replacen(FEEDBACK, &feedback.replace('<', "< "), 1))
    }

    /// Writes the prompt beside a model or adapter that was trained with it, as `prompt.json`: in
    /// rendered form, so that loading it needs no template and does not depend on later changes of
    /// the template.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), ModelError> {
        let path = directory.join(FILE);
        let json = json!({
            "system": self.system,
            "user": self.user,
            "text": self.around.join(IMAGE),
            "turn": self.turn.as_ref().map(|turn| &turn.plain),
            "turn_with_picture": self.turn.as_ref().map(|turn| &turn.with_picture),
            "plan": self.plan,
        });
        std::fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Write { path, source })
    }

    /// The prompt that the model or adapter in `directory` was trained with, if it is stored there.
    ///
    /// # Errors
    /// `prompt.json` is malformed.
    pub fn of(directory: &Path) -> Result<Option<Self>, ModelError> {
        let path = directory.join(FILE);
        let Some(json) = read_object(&path)? else { return Ok(None) };
        let origin = path.display().to_string();
        let (system, user) = (field(&json, "system", &origin)?, field(&json, "user", &origin)?);
        // Files of earlier versions have no rendered text, because there was only one template.
        if !json.contains_key("text") {
            return Self::new(None, system, user).map(Some);
        }
        let around = around_pictures(field(&json, "text", &origin)?, &origin)?;
        let turn = match json.get("turn") {
            Some(Value::Null) => None,
            Some(_) => Some(FurtherTurn {
                plain: field(&json, "turn", &origin)?.into(),
                with_picture: field(&json, "turn_with_picture", &origin)?.into(),
            }),
            // Earlier versions had no further turns.
            None => FurtherTurn::rendered(None, &[]),
        };
        // Those had no plans either.
        let plan = json.get("plan").and_then(Value::as_bool).unwrap_or(false);
        Ok(Some(Self { system: system.into(), user: user.into(), around, turn, plan }))
    }
}

impl FurtherTurn {
    /// What the template adds to the messages `before` when an answer and a text of the user
    /// follow them; `None` if it does not show them, or does not end an answer with `<|im_end|>`.
    fn rendered(template: Option<&ChatTemplate>, before: &[Message]) -> Option<Self> {
        let after_answer = |feedback: Message| {
            let messages = [before, &[Message::new("assistant", ANSWER), feedback]].concat();
            let text = rendered(template, &messages).ok()?;
            let (_, after) = text.rsplit_once(ANSWER)?;
            let after = after.strip_prefix(END_OF_TURN)?.replace(IMAGE_CONTEXT, IMAGE);
            (after.matches(FEEDBACK).count() == 1).then_some(after)
        };
        let plain = after_answer(Message::new("user", FEEDBACK))?;
        let with_picture = after_answer(Message::with_pictures("user", FEEDBACK, 1))?;
        let is_shown = picture_count(&plain) == 0 && picture_count(&with_picture) == 1;
        is_shown.then_some(Self { plain, with_picture })
    }
}

/// A picture of that many embeddings, as InternVL writes it.
fn picture(image_tokens: usize) -> String {
    format!("{IMAGE_START}{}{IMAGE_END}", IMAGE_CONTEXT.repeat(image_tokens))
}

/// The text around the pictures of a rendered prompt.
fn around_pictures(rendered: &str, origin: &str) -> Result<Vec<String>, ModelError> {
    let around: Vec<String> = rendered.replace(IMAGE_CONTEXT, IMAGE).split(IMAGE).map(str::to_owned).collect();
    if around.len() == 1 {
        let reason = format!("expected {IMAGE} in the prompt, found none");
        return Err(ModelError::Prompt { origin: origin.into(), reason });
    }
    Ok(around)
}

/// A text of `prompt.json`.
fn field<'a>(json: &'a Map<String, Value>, name: &str, origin: &str) -> Result<&'a str, ModelError> {
    json.get(name).and_then(Value::as_str).ok_or_else(|| ModelError::Prompt {
        origin: origin.into(),
        reason: format!("field {name:?} is missing or not text"),
    })
}
