//! Statistics of the protocols of others: what their tables print.

use std::collections::BTreeMap;

use cadwright_rewards::protocol::{Protocol, ProtocolScore};
use serde::{Deserialize, Serialize};

use crate::scoring::Score;

/// What tables of each protocol print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProtocolReports {
    /// As cadrille's and CAD-Recode's `evaluate.py` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadrille: Option<CadrilleReport>,
    /// As CADBench's tables print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cadbench: Option<CadbenchReport>,
}

/// cadrille's numbers. Those that `_all` ends count a failure as 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CadrilleReport {
    /// Predictions.
    pub n: usize,
    /// Predictions with a chamfer distance.
    pub scored: usize,
    /// 1,000 times the median chamfer distance of the scored ones.
    pub median_cd_x1000: Option<f64>,
    /// 1,000 times the quartiles of the chamfer distance of the scored ones.
    pub quartiles_cd_x1000: Option<[f64; 3]>,
    /// Mean IoU of the scored ones.
    pub mean_iou: Option<f64>,
    /// Quartiles of the IoU of the scored ones.
    pub quartiles_iou: Option<[f64; 3]>,
    /// Invalid share of the predictions that are not empty: the published denominator.
    pub ir: f64,
    /// Invalid share of all predictions.
    pub ir_all: f64,
    /// Mean IoU of all predictions.
    pub iou_all: f64,
    /// With several samples of a part: the best one by each metric, which only the ground truth can
    /// choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle_best_of_n: Option<OracleReport>,
}

/// The best of the samples of a part, by each metric for itself: an oracle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OracleReport {
    /// Samples of a part.
    pub n: usize,
    /// 1,000 times the median of the least chamfer distances.
    pub median_cd_x1000: Option<f64>,
    /// Mean of the largest IoUs.
    pub mean_iou: Option<f64>,
    /// Share of the parts without a valid sample.
    pub ir: f64,
}

/// CADBench's numbers over all rows, in each cell, and weighted over cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CadbenchReport {
    /// Over all rows.
    #[serde(flatten)]
    pub all: CadbenchNumbers,
    /// By family and label of a row, such as `benchB/easy`, or by one of them if a row has only one.
    pub labels: BTreeMap<String, CadbenchNumbers>,
    /// The weighted mean over these cells: 3 for the families `benchM` and `benchO`, which have no
    /// labels, and 1 for every other. `None` without cells.
    pub weighted: Option<CadbenchMeans>,
}

/// CADBench's numbers over some rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CadbenchNumbers {
    /// Rows.
    pub n: usize,
    /// Share of rows with a solid.
    pub vsr: f64,
    /// Median of the aligned IoU; a failure counts 0. The headline.
    pub aligned_iou_adjusted_median: f64,
    /// Quartiles of the same.
    pub aligned_iou_adjusted_quartiles: [f64; 3],
    /// Median of the aligned IoU of those with a solid.
    pub aligned_iou_success_only_median: Option<f64>,
    /// Median of the chamfer distance of those with a solid.
    pub aligned_chamfer_distance_success_only_median: Option<f64>,
    /// Median of the surface IoU; a failure counts 0.
    pub aligned_surface_iou_adjusted_median: f64,
}

/// Means of [`CadbenchNumbers`] over cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CadbenchMeans {
    /// Of the shares.
    pub vsr: f64,
    /// Of the medians of the aligned IoU.
    pub aligned_iou_adjusted_median: f64,
    /// Of the medians of the chamfer distance, over the cells that have one.
    pub aligned_chamfer_distance_success_only_median: Option<f64>,
    /// Of the medians of the surface IoU.
    pub aligned_surface_iou_adjusted_median: f64,
}

/// What a row says about itself besides its score.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stratum {
    /// Whether there is a prediction at all.
    pub is_empty: bool,
    /// For example `benchB`.
    pub family: Option<String>,
    /// For example `easy`.
    pub label: Option<String>,
}

#[derive(Debug, Clone)]
struct Row {
    is_valid: bool,
    scores: BTreeMap<Protocol, ProtocolScore>,
    stratum: Stratum,
}

impl Row {
    fn score(&self, protocol: Protocol) -> ProtocolScore {
        self.scores.get(&protocol).copied().filter(|_| self.is_valid).unwrap_or_default()
    }

    fn cell(&self) -> Option<String> {
        match (&self.stratum.family, &self.stratum.label) {
            (Some(family), Some(label)) => Some(format!("{family}/{label}")),
            (Some(name), None) | (None, Some(name)) => Some(name.clone()),
            (None, None) => None,
        }
    }
}

/// Collects scores for [`ProtocolReports`].
#[derive(Debug, Clone, Default)]
pub struct ProtocolRows(Vec<Row>);

impl ProtocolRows {
    /// Adds a score.
    pub fn add(&mut self, score: &Score, stratum: Stratum) {
        self.0.push(Row { is_valid: score.verdict.is_valid(), scores: score.protocols.clone(), stratum });
    }

    /// The reports of these protocols; `None` without one. `samples` of each part follow one another.
    pub fn report(&self, protocols: &[Protocol], samples: usize) -> Option<ProtocolReports> {
        let has = |protocol| protocols.contains(&protocol);
        (!protocols.is_empty()).then(|| ProtocolReports {
            cadrille: has(Protocol::Cadrille).then(|| self.cadrille(samples)),
            cadbench: has(Protocol::Cadbench).then(|| self.cadbench()),
        })
    }

    fn cadrille(&self, samples: usize) -> CadrilleReport {
        let scores: Vec<ProtocolScore> = self.0.iter().map(|row| row.score(Protocol::Cadrille)).collect();
        let cds: Vec<f64> = scores.iter().filter_map(|score| score.cd).map(|cd| 1e3 * cd).collect();
        let ious: Vec<f64> = scores.iter().filter_map(|score| score.iou).collect();
        let n = scores.len();
        let invalid = self.0.iter().filter(|row| !row.is_valid && !row.stratum.is_empty).count();
        let empty = self.0.iter().filter(|row| row.stratum.is_empty).count();
        let share = |count: usize, of: usize| if of == 0 { 0.0 } else { count as f64 / of as f64 };
        CadrilleReport {
            n,
            scored: cds.len(),
            median_cd_x1000: quartiles(&cds).map(|[_, median, _]| median),
            quartiles_cd_x1000: quartiles(&cds),
            mean_iou: mean(&ious),
            quartiles_iou: quartiles(&ious),
            ir: share(invalid, n - empty),
            ir_all: share(invalid + empty, n),
            iou_all: ious.iter().sum::<f64>() / n.max(1) as f64,
            oracle_best_of_n: (samples > 1).then(|| oracle(&scores, samples)),
        }
    }

    fn cadbench(&self) -> CadbenchReport {
        let mut cells: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
        for row in &self.0 {
            if let Some(cell) = row.cell() {
                cells.entry(cell).or_default().push(row);
            }
        }
        let labels: BTreeMap<String, CadbenchNumbers> =
            cells.into_iter().map(|(cell, rows)| (cell, numbers(&rows))).collect();
        let weighted = (!labels.is_empty()).then(|| weighted(&labels));
        CadbenchReport { all: numbers(&self.0.iter().collect::<Vec<_>>()), labels, weighted }
    }
}

fn oracle(scores: &[ProtocolScore], samples: usize) -> OracleReport {
    let parts = || scores.chunks(samples);
    let least = |part: &[ProtocolScore]| part.iter().filter_map(|score| score.cd).min_by(f64::total_cmp);
    let largest = |part: &[ProtocolScore]| part.iter().filter_map(|score| score.iou).max_by(f64::total_cmp);
    let cds: Vec<f64> = parts().filter_map(least).map(|cd| 1e3 * cd).collect();
    let ious: Vec<f64> = parts().filter_map(largest).collect();
    let count = parts().count();
    OracleReport {
        n: samples,
        median_cd_x1000: quartiles(&cds).map(|[_, median, _]| median),
        mean_iou: mean(&ious),
        ir: (count - cds.len()) as f64 / count.max(1) as f64,
    }
}

fn numbers(rows: &[&Row]) -> CadbenchNumbers {
    let scores: Vec<ProtocolScore> = rows.iter().map(|row| row.score(Protocol::Cadbench)).collect();
    let adjusted = |of: fn(&ProtocolScore) -> Option<f64>| {
        let values: Vec<f64> = scores.iter().map(|score| of(score).unwrap_or(0.0)).collect();
        quartiles(&values).unwrap_or_default()
    };
    let of_solids = |of: fn(&ProtocolScore) -> Option<f64>| {
        let values: Vec<f64> = scores.iter().filter_map(of).collect();
        quartiles(&values).map(|[_, median, _]| median)
    };
    let solids = scores.iter().filter(|score| score.iou.is_some()).count();
    CadbenchNumbers {
        n: rows.len(),
        vsr: solids as f64 / rows.len().max(1) as f64,
        aligned_iou_adjusted_median: adjusted(|score| score.iou)[1],
        aligned_iou_adjusted_quartiles: adjusted(|score| score.iou),
        aligned_iou_success_only_median: of_solids(|score| score.iou),
        aligned_chamfer_distance_success_only_median: of_solids(|score| score.cd),
        aligned_surface_iou_adjusted_median: adjusted(|score| score.siou)[1],
    }
}

fn weighted(cells: &BTreeMap<String, CadbenchNumbers>) -> CadbenchMeans {
    let weight = |cell: &str| if matches!(cell, "benchM" | "benchO") { 3.0 } else { 1.0 };
    let mean = |of: fn(&CadbenchNumbers) -> Option<f64>| {
        let values: Vec<(f64, f64)> =
            cells.iter().filter_map(|(cell, numbers)| Some((weight(cell), of(numbers)?))).collect();
        let total: f64 = values.iter().map(|(weight, _)| weight).sum();
        (total > 0.0).then(|| values.iter().map(|(weight, value)| weight * value).sum::<f64>() / total)
    };
    CadbenchMeans {
        vsr: mean(|numbers| Some(numbers.vsr)).unwrap_or(0.0),
        aligned_iou_adjusted_median: mean(|numbers| Some(numbers.aligned_iou_adjusted_median)).unwrap_or(0.0),
        aligned_chamfer_distance_success_only_median: mean(|n| n.aligned_chamfer_distance_success_only_median),
        aligned_surface_iou_adjusted_median: mean(|n| Some(n.aligned_surface_iou_adjusted_median)).unwrap_or(0.0),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Lower quartile, median and upper quartile, by linear interpolation as numpy does; `None` of
/// nothing.
pub fn quartiles(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some([0.25, 0.5, 0.75].map(|share| {
        let at = share * last as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(iou: Option<f64>, cd: Option<f64>, family: &str, label: &str) -> Row {
        let score = ProtocolScore { cd, iou, siou: iou };
        let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Row {
            is_valid: iou.is_some(),
            scores: Protocol::ALL.map(|protocol| (protocol, score)).into(),
            stratum: Stratum { is_empty: false, family: name(family), label: name(label) },
        }
    }

    #[test]
    fn failures_count_in_one_number_and_not_in_the_other() {
        let mut rows = ProtocolRows(vec![
            row(Some(0.5), Some(0.002), "", ""),
            row(Some(1.0), Some(0.004), "", ""),
            row(None, None, "", ""),
            row(None, None, "", ""),
        ]);
        rows.0[3].stratum.is_empty = true;
        let report = rows.report(&[Protocol::Cadrille], 1).unwrap().cadrille.unwrap();
        assert_eq!((report.n, report.scored, report.median_cd_x1000, report.mean_iou), (4, 2, Some(3.0), Some(0.75)));
        assert_eq!((report.ir, report.ir_all, report.iou_all), (1.0 / 3.0, 0.5, 0.375));
        assert!(report.oracle_best_of_n.is_none());
        let oracle = rows.report(&[Protocol::Cadrille], 2).unwrap().cadrille.unwrap().oracle_best_of_n.unwrap();
        assert_eq!((oracle.median_cd_x1000, oracle.mean_iou, oracle.ir), (Some(2.0), Some(1.0), 0.5));
        assert_eq!(rows.report(&[], 1), None);
    }

    #[test]
    fn cells_are_weighted_as_in_the_published_table() {
        let rows = ProtocolRows(vec![
            row(Some(0.2), Some(0.1), "benchB", "easy"),
            row(Some(0.4), Some(0.3), "benchB", "easy"),
            row(None, None, "benchB", "hard"),
            row(Some(0.8), Some(0.5), "benchM", ""),
        ]);
        let report = rows.report(&[Protocol::Cadbench], 1).unwrap().cadbench.unwrap();
        assert_eq!(report.all.vsr, 0.75);
        assert!((report.all.aligned_iou_adjusted_median - 0.3).abs() < 1e-12);
        assert_eq!(report.labels.keys().collect::<Vec<_>>(), ["benchB/easy", "benchB/hard", "benchM"]);
        let weighted = report.weighted.unwrap();
        // (0.3 + 0 + 3 * 0.8) / 5, and over the two cells with a distance (0.2 + 3 * 0.5) / 4.
        assert!((weighted.aligned_iou_adjusted_median - 0.54).abs() < 1e-12);
        assert!((weighted.aligned_chamfer_distance_success_only_median.unwrap() - 0.425).abs() < 1e-12);
        assert!((weighted.vsr - 0.8).abs() < 1e-12);
    }

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), Some([1.75, 2.5, 3.25]));
        assert_eq!(quartiles(&[7.0]), Some([7.0; 3]));
        assert_eq!(quartiles(&[]), None);
    }
}
