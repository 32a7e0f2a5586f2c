//! Conversations with the model: a request with pictures, an answer, the user's reply to it.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::generate::{Completion, PromptInput};
use crate::model::{InternVl, ModelError};
use crate::pictures::Picture;
use crate::rollouts::PromptedDataset;

/// What the user says and shows after an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The token ids from the end of the answer's tokens to the start of the next answer, with
    /// image tokens for the picture.
    pub ids: Vec<i64>,
    /// The picture, if there is one.
    pub picture: Option<Picture>,
}

impl PromptedDataset<'_> {
    /// The prompt of a request that shows `pictures`, embedded without gradients.
    ///
    /// # Panics
    /// There are fewer pictures than the prompt has places.
    pub fn input(&self, model: &InternVl, pictures: &[Picture]) -> PromptInput {
        let (prompt, shown) = self.shown(pictures);
        PromptInput::new(self.ids(model, &prompt, &shown), Tensor::cat(&self.pictures.embed(model, &shown), 0))
    }

    /// The reply to `answer` with this text and picture. An answer that was cut off, or that ended
    /// otherwise than with the end of its turn, is given that end.
    ///
    /// # Errors
    /// The prompt's chat template has no further turns.
    pub fn reply(
        &self,
        model: &InternVl,
        answer: &[i64],
        text: &str,
        picture: Option<Picture>,
    ) -> Result<Reply, ModelError> {
        let image_tokens = picture.as_ref().map(|picture| self.pictures.image_tokens(model, picture).iter().sum());
        let text = self.prompt.further_turn(text, image_tokens)?;
        let end = self.tokenizer.end_of_turn;
        let is_ended = answer.last() == Some(&end);
        let ids = (!is_ended).then_some(end).into_iter().chain(self.tokenizer.encode(&text)).collect();
        Ok(Reply { ids, picture })
    }

    /// The prompt of the turn after `completion` of `so_far` and the `reply` to it. Its ids begin
    /// with those of `so_far` and of the completion, so that the log-probabilities of the earlier
    /// turns stay what they were.
    pub fn next_input(
        &self,
        model: &InternVl,
        so_far: &PromptInput,
        completion: &Completion,
        reply: &Reply,
    ) -> PromptInput {
        let image =
            reply.picture.as_ref().map(|picture| self.pictures.embed(model, std::slice::from_ref(picture)).remove(0));
        so_far.followed_by(&completion.tokens, &reply.ids, image.as_ref())
    }
}
