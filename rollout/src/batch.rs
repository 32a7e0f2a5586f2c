//! Scoring while completions are still being generated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::error::{Error, Result};
use crate::scorer::{Score, ScoreRequest, Scorer};

/// Requests in flight. Scoring starts with [`Batch::submit`]; [`Batch::finish`] collects. Dropping
/// a batch abandons what has not started.
pub struct Batch<'a> {
    scorer: &'a Scorer,
    sender: Sender<(usize, Result<Score>)>,
    receiver: Receiver<(usize, Result<Score>)>,
    submitted: usize,
    abandoned: Arc<AtomicBool>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(scorer: &'a Scorer) -> Self {
        let (sender, receiver) = unbounded();
        let abandoned = Arc::new(AtomicBool::new(false));
        Self { scorer, sender, receiver, submitted: 0, abandoned }
    }

    /// Scores `request` in the background; never blocks. `index` decides its place in the result
    /// and must be new in this batch.
    pub fn submit(&mut self, index: usize, request: ScoreRequest) {
        let sender = self.sender.clone();
        let abandoned = Arc::clone(&self.abandoned);
        self.submitted += 1;
        self.scorer.spawn(move |shared| {
            if !abandoned.load(Ordering::Relaxed) {
                // Nobody listens if the batch has been dropped meanwhile.
                let _ = sender.send((index, shared.score(&request)));
            }
        });
    }

    /// How many requests were submitted.
    pub fn len(&self) -> usize {
        self.submitted
    }

    /// Whether nothing was submitted.
    pub fn is_empty(&self) -> bool {
        self.submitted == 0
    }

    /// Waits for all scores and returns them by ascending index, or the fault of the lowest one.
    pub fn finish(self) -> Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(self.submitted);
        for _ in 0..self.submitted {
            scores.push(self.receiver.recv().map_err(|_| Error::Closed)?);
        }
        scores.sort_by_key(|&(index, _)| index);
        scores.into_iter().map(|(_, score)| score).collect()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}
