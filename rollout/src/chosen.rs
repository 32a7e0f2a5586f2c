//! Statistics of programs that were chosen among several samples of each part.

use std::collections::BTreeMap;

use cadwright_rewards::Frame;
use serde::{Deserialize, Serialize};

use crate::summary::MeanCi;

/// One program of each part, chosen in several ways out of several numbers of samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenReport {
    /// The way that chose the programs in `predictions.json`, out of all samples.
    pub by: String,
    /// By way, then by number of samples.
    pub table: Vec<ChosenRow>,
    /// By way: wall time that choosing took, without the execution of the programs.
    pub seconds: BTreeMap<String, f64>,
}

/// The programs that one way chose out of `k` samples.
///
/// The samples of a part are divided into groups of `k`, one after another, and one program of each
/// group is chosen; an incomplete group is left out. Means are over all groups. Intervals are 95 %
/// bootstrap intervals over parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChosenRow {
    /// The name of the way to choose.
    pub by: String,
    /// Number of samples from which one is chosen.
    pub k: usize,
    /// Share of the chosen programs whose outcome is a solid.
    pub vsr: MeanCi,
    /// IoU of the chosen programs in each configured frame; a failure counts 0.
    pub iou: BTreeMap<Frame, MeanCi>,
    /// Mean number of different programs among `k` samples: so many are executed.
    pub programs: f64,
    /// Mean number of tokens of `k` samples.
    pub tokens: f64,
}

impl ChosenReport {
    /// The row of the programs in `predictions.json`: the first way, out of all samples. `None` if
    /// the table is empty.
    pub fn quoted(&self) -> Option<&ChosenRow> {
        self.table.iter().filter(|row| row.by == self.by).max_by_key(|row| row.k)
    }

    /// The table in Markdown. All ways choose the same one out of one sample, so that is one row.
    pub fn markdown(&self) -> String {
        let Some(first) = self.table.first() else { return String::new() };
        let frames: String = first.iou.keys().map(|frame| format!(" IoU ({frame}) [95 %] |")).collect();
        let mut text = format!("| chosen by | of |{frames} VSR [95 %] | programs | tokens |\n");
        text += &format!("|---|---|{}---|---|---|\n", "---|".repeat(first.iou.len()));
        let cell = |MeanCi { mean, ci95: [low, high] }: &MeanCi| format!(" {mean:.3} [{low:.3}, {high:.3}] |");
        for row in self.table.iter().filter(|row| row.k > 1 || row.by == first.by) {
            let by = if row.k > 1 { &row.by } else { "one sample" };
            let ious: String = row.iou.values().map(cell).collect();
            let ChosenRow { k, programs, tokens, .. } = row;
            text += &format!("| {by} | {k} |{ious}{} {programs:.1} | {tokens:.0} |\n", cell(&row.vsr));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(by: &str, k: usize, iou: f64) -> ChosenRow {
        let exactly = |mean: f64| MeanCi { mean, ci95: [mean; 2] };
        let iou = BTreeMap::from([(Frame::Canonical, exactly(iou))]);
        ChosenRow { by: by.into(), k, vsr: exactly(1.0), iou, programs: 1.5, tokens: 80.25 }
    }

    #[test]
    fn the_table_has_one_row_of_one_sample_and_the_first_way_out_of_all_is_quoted() {
        let table = vec![row("image", 1, 0.25), row("image", 4, 0.5), row("truth", 1, 0.25), row("truth", 4, 0.75)];
        let report = ChosenReport { by: "image".into(), table, seconds: BTreeMap::new() };
        assert_eq!(report.quoted(), Some(&row("image", 4, 0.5)));
        let expected = "\
            | chosen by | of | IoU (canonical) [95 %] | VSR [95 %] | programs | tokens |\n\
            |---|---|---|---|---|---|\n\
            | one sample | 1 | 0.250 [0.250, 0.250] | 1.000 [1.000, 1.000] | 1.5 | 80 |\n\
            | image | 4 | 0.500 [0.500, 0.500] | 1.000 [1.000, 1.000] | 1.5 | 80 |\n\
            | truth | 4 | 0.750 [0.750, 0.750] | 1.000 [1.000, 1.000] | 1.5 | 80 |\n";
        assert_eq!(report.markdown(), expected);
    }
}
