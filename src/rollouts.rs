//! The life of a completion: its prompt, its tokens, its program and the program's score, then the
//! numbers that reinforcement learning adds. Validation, evaluation and PPO all generate and score
//! programs here.

use std::rc::Rc;

use anyhow::{Context, Result};
use cadwright_rewards::frames::Frame;
use cadwright_rewards::program::{extract_program, outside_of_plan};
use cadwright_rollout::{GroundTruth, Score, ScoreBatch, ScoreRequest, Scorer};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::data::{Dataset, Example};
use crate::distributed::World;
use crate::generate::{Completion, GenerateOptions, Piece, PromptInput, generate};
use crate::model::{InternVl, Prompt, Tokenizer};
use crate::pictures::{Picture, PictureFile, Pictures};
use crate::turns::EarlierTurn;

/// A dataset with its pictures, and the prompt for each of them.
pub struct PromptedDataset<'a> {
    /// The parts.
    pub dataset: &'a Dataset,
    /// Their pictures.
    pub pictures: &'a Pictures<'a>,
    /// The prompt for each picture.
    pub prompt: &'a Prompt,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
}

impl PromptedDataset<'_> {
    /// The token ids before the completion, for the picture at `index`.
    pub fn prompt_ids(&self, model: &InternVl, index: usize) -> Vec<i64> {
        let (prompt, pictures) = self.shown(&[Picture::Part(index)]);
        self.ids(model, &prompt, &pictures)
    }

    /// The token ids of `prompt` with `pictures`.
    pub(crate) fn ids(&self, model: &InternVl, prompt: &Prompt, pictures: &[Picture]) -> Vec<i64> {
        let tokens: Vec<usize> =
            pictures.iter().flat_map(|picture| self.pictures.image_tokens(model, picture)).collect();
        self.tokenizer.encode(&prompt.text(&tokens))
    }

    /// The prompt for `pictures` of a part, of which the first is that of its row, and all pictures
    /// in it. Those of the examples for the row, if the prompt shows any, come first.
    pub(crate) fn shown(&self, pictures: &[Picture]) -> (Prompt, Vec<Picture>) {
        let examples: Vec<&Example> = match (pictures.first(), &self.dataset.shown) {
            (Some(Picture::Part(row)), Some(shown)) => shown.of_row(*row).take(self.prompt.pictures() - 1).collect(),
            _ => Vec::new(),
        };
        let prompt = self.prompt.with_examples(examples.iter().filter_map(|example| example.program.as_deref()));
        let files = examples.iter().map(|example| Picture::File(PictureFile::of_example(example)));
        (prompt, files.chain(pictures.iter().cloned()).collect())
    }

    /// The part at `index`, as a program or a file.
    pub fn ground_truth(&self, index: usize) -> &GroundTruth {
        &self.dataset.examples()[index].ground_truth
    }

    /// Prompts with embedded pictures, without gradients.
    pub fn inputs(&self, model: &InternVl, indices: &[usize]) -> Vec<PromptInput> {
        let shown: Vec<_> = indices.iter().map(|&index| self.shown(&[Picture::Part(index)])).collect();
        let pictures: Vec<Picture> = shown.iter().flat_map(|(_, pictures)| pictures).cloned().collect();
        let mut images = self.pictures.embed(model, &pictures).into_iter();
        let input = |(prompt, pictures): &(Prompt, Vec<Picture>)| {
            let own: Vec<Tensor> = images.by_ref().take(pictures.len()).collect();
            PromptInput::new(self.ids(model, prompt, pictures), Tensor::cat(&own, 0))
        };
        shown.iter().map(input).collect()
    }
}

/// An episode from its prompt to its advantages: one completion, or several with a reply after
/// each but the last. Generation fills the first six fields, scoring the seventh, and a step of
/// reinforcement learning the rest; lists have one f32 per token that the policy wrote.
#[derive(Debug, Default)]
pub struct Rollout {
    /// Index of the part in its dataset.
    pub index: usize,
    /// The token ids of the first prompt, shared by all completions of the part.
    pub prompt: Rc<[i64]>,
    /// The embeddings of the picture that the policy saw, `[image tokens, hidden]` f32. `None` if
    /// another rank has generated the completion.
    pub image: Option<Rc<Tensor>>,
    /// The generated tokens of all turns. It is cut off if the last turn is.
    pub completion: Completion,
    /// The turns before the last one; empty for an episode of one turn.
    pub earlier: Vec<EarlierTurn>,
    /// The program of the last turn.
    pub program: String,
    /// The program's score; `None` until it is known.
    pub score: Option<Score>,
    /// How much the render of the program's solid is like the picture, in [0, 1]; 0 without a solid.
    /// `None` unless the reward needs it.
    pub image_score: Option<f64>,
    /// The reward command's answer about the last program. `None` without one.
    pub command_reward: Option<f64>,
    /// The reward that is trained on: that of the scores, shaped. `None` for a completion that
    /// could not be compared with its ground truth, which says nothing about the policy.
    pub reward: Option<f32>,
    /// The critic's value of each token; empty without a critic.
    pub values: Vec<f32>,
    /// The advantage of each token.
    pub advantages: Vec<f32>,
    /// The critic's target for each token; empty without a critic.
    pub returns: Vec<f32>,
    /// The reference's log-probability of each token; empty unless the KL divergence needs it.
    pub ref_logprobs: Vec<f32>,
}

impl Rollout {
    /// The generated tokens of all turns.
    pub fn tokens(&self) -> &[i64] {
        &self.completion.tokens
    }

    /// The generated tokens of the last turn.
    pub fn last_tokens(&self) -> &[i64] {
        &self.completion.tokens[self.earlier.last().map_or(0, |turn| turn.end)..]
    }

    /// Tokens of prompt, completions and replies.
    pub fn sequence_len(&self) -> usize {
        let replies: usize = self.earlier.iter().map(|turn| turn.reply.ids.len()).sum();
        self.prompt.len() + self.completion.tokens.len() + replies
    }

    /// The whole episode in one sequence.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let (mut pieces, mut start) = (vec![Piece::Given(&self.prompt)], 0);
        for turn in &self.earlier {
            pieces.extend([Piece::Response(&self.tokens()[start..turn.end]), Piece::Given(&turn.reply.ids)]);
            start = turn.end;
        }
        pieces.push(Piece::Response(self.last_tokens()));
        pieces
    }

    /// The pictures of the sequence, in order.
    pub fn pictures(&self) -> impl Iterator<Item = Picture> {
        let replied = self.earlier.iter().filter_map(|turn| turn.reply.picture.clone());
        std::iter::once(Picture::Part(self.index)).chain(replied)
    }

    /// The pictures whose embeddings this rank has, with those embeddings.
    pub fn known_images(&self) -> impl Iterator<Item = (Picture, &Tensor)> {
        let own = self.image.as_ref().map(|image| (Picture::Part(self.index), &**image));
        let turns = self.earlier.iter();
        own.into_iter().chain(turns.filter_map(|turn| Some((turn.reply.picture.clone()?, turn.image.as_deref()?))))
    }

    /// The prompt of the turn after the last reply.
    ///
    /// # Errors
    /// Another rank has generated the rollout, and this one has no embeddings.
    pub fn input(&self) -> Result<PromptInput> {
        let image = self.image.as_ref().context("the rank that wrote a turn writes the next one")?;
        let mut input = PromptInput::new(self.prompt.to_vec(), image.shallow_clone());
        let mut start = 0;
        for turn in &self.earlier {
            input = input.followed_by(&self.tokens()[start..turn.end], &turn.reply.ids, turn.image.as_deref());
            start = turn.end;
        }
        Ok(input)
    }

    /// The scores of all turns, the last one last; `None` for those that are not known.
    pub fn scores(&self) -> impl Iterator<Item = Option<&Score>> {
        self.earlier.iter().map(|turn| turn.score.as_ref()).chain([self.score.as_ref()])
    }

    /// Whether the program was executed and compared with its ground truth.
    pub fn is_scored(&self) -> bool {
        self.score.as_ref().is_some_and(is_scored)
    }

    /// Whether the program built a solid.
    pub fn is_valid(&self) -> bool {
        self.score.as_ref().is_some_and(|score| score.verdict.is_valid())
    }

    /// IoU in `frame`, in [0, 1]; 0 if there is none.
    pub fn iou_in(&self, frame: Frame) -> f64 {
        self.score.as_ref().map_or(0.0, |score| score.iou_in(frame))
    }
}

/// The plan in a completion, its marks included, and the number of its tokens. Both are empty if
/// there is none.
pub fn plan_of(tokenizer: &Tokenizer, tokens: &[i64]) -> (String, usize) {
    let text = tokenizer.decode(tokens);
    let outside = outside_of_plan(&text);
    if outside.len() == text.len() {
        return (String::new(), 0);
    }
    // The first tokens whose text has at least this many bytes.
    let tokens_of = |bytes: usize| {
        let counts: Vec<usize> = (0..tokens.len()).collect();
        counts.partition_point(|&count| tokenizer.decode(&tokens[..count]).len() < bytes)
    };
    let before = tokens_of(outside.start);
    // The end of the turn has no text.
    let after =
        if outside.end == text.len() && !outside.is_empty() { 0 } else { tokens.len() - tokens_of(outside.end) };
    let plan = [&text[..outside.start], &text[outside.end..]].concat();
    (plan.trim().to_owned(), before + after)
}

/// Whether the program was executed and compared with its ground truth.
pub fn is_scored(score: &Score) -> bool {
    score.ground_truth_error.is_none() && score.verdict.class().is_some()
}

/// Rollouts whose programs are being scored in the background.
pub struct PendingRollouts<'a> {
    pub(crate) rollouts: Vec<Rollout>,
    pub(crate) batch: ScoreBatch<'a>,
}

impl PendingRollouts<'_> {
    /// Waits for the scores and returns the rollouts in order.
    ///
    /// # Errors
    /// The scorer cannot go on.
    pub fn finish(self) -> Result<Vec<Rollout>> {
        let Self { mut rollouts, batch } = self;
        for (rollout, score) in rollouts.iter_mut().zip(batch.finish()?) {
            rollout.score = Some(score);
        }
        Ok(rollouts)
    }
}

/// Completes the prompt of each part `seeds.len() / indices.len()` times, and submits each program
/// to `scorer` the moment its completion ends. The rollouts of a part follow each other, parts are
/// in the order of `indices`.
pub fn generate_and_score<'a>(
    model: &InternVl,
    prompted: &PromptedDataset,
    indices: &[usize],
    seeds: &[u64],
    options: GenerateOptions,
    scorer: &'a Scorer,
) -> PendingRollouts<'a> {
    let samples = (seeds.len() / indices.len().max(1)).max(1);
    let prompts = prompted.inputs(model, indices);
    let mut batch = scorer.batch();
    let mut programs = vec![String::new(); seeds.len()];
    let on_done = |i: usize, completion: &Completion| {
        programs[i] = extract_program(&prompted.tokenizer.decode(&completion.tokens));
        let ground_truth = prompted.ground_truth(indices[i / samples]).clone();
        let request = ScoreRequest { prediction: programs[i].clone(), ground_truth, truncated: completion.truncated };
        batch.submit(i, request);
    };
    let completions = generate(model, prompted.tokenizer, &prompts, seeds, options, on_done);
    let prompts: Vec<(Rc<[i64]>, Rc<Tensor>)> =
        prompts.into_iter().map(|prompt| (prompt.ids.into(), Rc::new(prompt.image))).collect();
    let rollouts = completions
        .into_iter()
        .zip(programs)
        .enumerate()
        .map(|(i, (completion, program))| Rollout {
            index: indices[i / samples],
            prompt: Rc::clone(&prompts[i / samples].0),
            image: Some(Rc::clone(&prompts[i / samples].1)),
            completion,
            program,
            ..Rollout::default()
        })
        .collect();
    PendingRollouts { rollouts, batch }
}

/// Divides `lengths.len()` parts among `ranks` ranks, so that all have as many parts and the same
/// mixture of expected lengths: a step ends with its longest completion, wherever that is. Returns
/// the parts of each rank by position, ascending.
pub fn divided(lengths: &[f64], ranks: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    let mut parts: Vec<Vec<usize>> = vec![Vec::new(); ranks];
    for (turn, dealt) in longest_first.chunks(ranks).enumerate() {
        for (place, &part) in dealt.iter().enumerate() {
            let rank = if turn % 2 == 0 { place } else { ranks - 1 - place };
            parts[rank].push(part);
        }
    }
    parts.iter_mut().for_each(|parts| parts.sort_unstable());
    parts
}

/// What the other ranks need to know of a rollout. Tensors stay where they were made.
#[derive(Serialize, Deserialize)]
struct SentRollout {
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
    truncated: bool,
    earlier: Vec<EarlierTurn>,
    program: String,
    score: Option<Score>,
    image_score: Option<f64>,
    command_reward: Option<f64>,
}

/// A turn as the other ranks get it: without embeddings.
pub(crate) fn sent_turn(turn: &EarlierTurn) -> EarlierTurn {
    let EarlierTurn { end, program, truncated, score, reply, image: _ } = turn;
    let (program, score, reply) = (program.clone(), score.clone(), reply.clone());
    EarlierTurn { end: *end, program, truncated: *truncated, score, reply, image: None }
}

/// The rollouts of all ranks: `samples` of each of `parts`, in their order. `places` are the
/// positions of each rank's parts ([`divided`]), and `own` the rollouts of this rank.
///
/// # Errors
/// Another rank is gone.
pub fn gathered(
    world: &World,
    model: &InternVl,
    prompted: &PromptedDataset,
    parts: &[usize],
    places: &[Vec<usize>],
    own: Vec<Rollout>,
    samples: usize,
) -> Result<Vec<Rollout>> {
    if world.size() == 1 {
        return Ok(own);
    }
    let sent = |rollout: &Rollout| SentRollout {
        tokens: rollout.completion.tokens.clone(),
        logprobs: rollout.completion.logprobs.clone(),
        truncated: rollout.completion.truncated,
        earlier: rollout.earlier.iter().map(sent_turn).collect(),
        program: rollout.program.clone(),
        score: rollout.score.clone(),
        image_score: rollout.image_score,
        command_reward: rollout.command_reward,
    };
    let all = world.gather("the rollouts", own.iter().map(sent).collect::<Vec<_>>())?;
    let mut found: Vec<Option<Rollout>> = (0..parts.len() * samples).map(|_| None).collect();
    let positions =
        |rank: usize| places[rank].iter().flat_map(|place| (0..samples).map(move |sample| place * samples + sample));
    for (position, rollout) in positions(world.rank()).zip(own) {
        found[position] = Some(rollout);
    }
    for (rank, rollouts) in all.into_iter().enumerate().filter(|(rank, _)| *rank != world.rank()) {
        let mut prompt: Option<(usize, Rc<[i64]>)> = None;
        for (position, sent) in positions(rank).zip(rollouts) {
            let index = parts[position / samples];
            let ids = match &prompt {
                Some((known, ids)) if *known == index => Rc::clone(ids),
                _ => prompted.prompt_ids(model, index).into(),
            };
            prompt = Some((index, Rc::clone(&ids)));
            let SentRollout { tokens, logprobs, truncated, earlier, program, score, image_score, command_reward } =
                sent;
            let completion = Completion { tokens, logprobs, truncated, states: None };
            found[position] = Some(Rollout {
                index,
                prompt: ids,
                completion,
                earlier,
                program,
                score,
                image_score,
                command_reward,
                ..Rollout::default()
            });
        }
    }
    found.into_iter().map(|rollout| rollout.context("a rank sent fewer rollouts than its share")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_a_plan_are_those_up_to_its_end() {
        // A token a byte, and one for the end of the turn.
        let tokenizer = Tokenizer::of_bytes().unwrap();
        let of = |text: &str| {
            let mut tokens = tokenizer.encode(text);
            tokens.push(tokenizer.end_of_turn);
            plan_of(&tokenizer, &tokens)
        };
        assert_eq!(of("x = 1"), (String::new(), 0));
        assert_eq!(of("<think>a</think>\nx = 1"), ("<think>a</think>".into(), 16));
        assert_eq!(of("<think>a</think>\nx = 1\n<think>b"), ("<think>a</think><think>b".into(), 16 + 8 + 1));
        // Without a program, the end of the turn belongs to the plan.
        assert_eq!(of("<think>a"), ("<think>a".into(), 9));
        assert_eq!(plan_of(&tokenizer, &tokenizer.encode("<think>a")), ("<think>a".into(), 8));
    }

    #[test]
    fn parts_are_dealt_out_longest_first_in_turns() {
        assert_eq!(
            divided(&[5.0, 1.0, 4.0, 2.0, 3.0], 2),
            [vec![0, 3, 1], vec![2, 4]].map(|mut parts: Vec<usize>| {
                parts.sort_unstable();
                parts
            })
        );
        assert_eq!(divided(&[1.0; 4], 1), [[0, 1, 2, 3]]);
        assert_eq!(divided(&[1.0], 3), [vec![0], vec![], vec![]]);
    }
}
