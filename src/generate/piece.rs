//! The pieces of a sequence of tokens.

/// A piece of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Given to the model. Image tokens are places of pictures.
    Given(&'a [i64]),
    /// Written by the model in an earlier turn, and not trained on. Image tokens are text, for the
    /// model may write any token.
    Draft(&'a [i64]),
    /// A response, which is trained on. Image tokens are text.
    Response(&'a [i64]),
}

impl<'a> Piece<'a> {
    /// The token ids.
    pub fn ids(self) -> &'a [i64] {
        match self {
            Self::Given(ids) | Self::Draft(ids) | Self::Response(ids) => ids,
        }
    }
}
