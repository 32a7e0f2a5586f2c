//! TensorBoard's event files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{HistogramProto, Summary, Summary_Image, Summary_Value};
use tensorboard_rs::summary_writer::FileWriter;

use crate::data::encode_png;
use crate::files::is_writable;

/// An event file that is being written.
pub struct EventFile {
    file: FileWriter,
}

impl EventFile {
    /// Creates a new file in `directory`. It says that the writer starts, or goes on, at `step`:
    /// readers drop the points that earlier files of the directory have from that step on.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn create(directory: &Path, step: usize) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // The crate panics if it cannot write.
        ensure!(is_writable(directory), "{}: no permission to write", directory.display());
        wait_for_a_free_name(directory);
        let mut file = FileWriter::new(directory);
        let mut session = SessionLog::new();
        session.set_status(SessionLog_SessionStatus::START);
        let mut event = Event::new();
        event.set_session_log(session);
        file.add_event(&event, step);
        file.flush();
        Ok(Self { file })
    }

    /// Adds numbers under their tags.
    pub fn scalars<'a>(&mut self, step: usize, numbers: impl IntoIterator<Item = (&'a str, f32)>) {
        let mut summary = Summary::new();
        for (tag, number) in numbers {
            let mut value = Summary_Value::new();
            value.set_tag(tag.to_owned());
            value.set_simple_value(number);
            summary.mut_value().push(value);
        }
        self.add(step, summary);
    }

    /// Adds a picture under a tag.
    ///
    /// # Errors
    /// The picture cannot be encoded.
    pub fn picture(&mut self, step: usize, tag: &str, picture: &RgbImage) -> Result<()> {
        const RGB: i32 = 3;
        let png = encode_png(picture).context("cannot encode a picture for TensorBoard")?;
        let mut image = Summary_Image::new();
        image.set_height(picture.height() as i32);
        image.set_width(picture.width() as i32);
        image.set_colorspace(RGB);
        image.set_encoded_image_string(png);
        let mut value = Summary_Value::new();
        value.set_tag(tag.to_owned());
        value.set_image(image);
        let mut summary = Summary::new();
        summary.mut_value().push(value);
        self.add(step, summary);
        Ok(())
    }

    /// Adds the distribution of `values` under a tag; nothing if none of them is finite.
    pub fn histogram(&mut self, step: usize, tag: &str, values: &[f64]) {
        let Some(histogram) = histogram(values) else { return };
        let mut value = Summary_Value::new();
        value.set_tag(tag.to_owned());
        value.set_histo(histogram);
        let mut summary = Summary::new();
        summary.mut_value().push(value);
        self.add(step, summary);
    }

    /// The crate writes on a thread of its own. Flushing hands everything to the system.
    fn add(&mut self, step: usize, summary: Summary) {
        self.file.add_summary(summary, step);
        self.file.flush();
    }
}

/// Number of buckets of a histogram.
const BUCKETS: usize = 30;

/// Counts the finite values in equal buckets from the smallest to the largest one; around a single
/// value, in buckets of one unit in all. A bucket includes its upper limit. `None` without a value.
fn histogram(values: &[f64]) -> Option<HistogramProto> {
    let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)));
    let (low, high) = if low < high { (low, high) } else { (low - 0.5, high + 0.5) };
    let width = (high - low) / BUCKETS as f64;
    if values.is_empty() || !width.is_finite() {
        return None;
    }
    let mut counts = vec![0.0; BUCKETS];
    for value in &values {
        let bucket = ((value - low) / width).ceil() as usize;
        counts[bucket.saturating_sub(1).min(BUCKETS - 1)] += 1.0;
    }
    let limits = (1..=BUCKETS).map(|i| if i == BUCKETS { high } else { low + width * i as f64 });
    let mut histogram = HistogramProto::new();
    histogram.set_min(low);
    histogram.set_max(high);
    histogram.set_num(values.len() as f64);
    histogram.set_sum(values.iter().sum());
    histogram.set_sum_squares(values.iter().map(|value| value * value).sum());
    histogram.set_bucket_limit(limits.collect());
    histogram.set_bucket(counts);
    Some(histogram)
}

/// The crate names a file by second and process, and empties one that has that name: the file of a
/// stage that began in this very second.
fn wait_for_a_free_name(directory: &Path) {
    let is_taken = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let prefix = format!("events.out.tfevents.{now:010}.");
        let mut entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    };
    while is_taken() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_equal_buckets_over_its_values() {
        // 0, 1, .. 60: each bucket is 2 wide and has 2 values, the first one also the smallest.
        let values: Vec<f64> = (0..=60).map(f64::from).collect();
        let found = histogram(&values).unwrap();
        let mut counts = vec![2.0; 30];
        counts[0] = 3.0;
        assert_eq!(found.get_bucket(), counts);
        assert_eq!((found.get_min(), found.get_max(), found.get_num()), (0.0, 60.0, 61.0));
        assert_eq!((found.get_sum(), found.get_sum_squares()), (1830.0, 73_810.0));
        assert_eq!(found.get_bucket_limit().last(), Some(&60.0));
        assert!(found.get_bucket_limit().is_sorted());
    }

    #[test]
    fn equal_values_lie_within_a_unit_and_numbers_that_are_none_are_left_out() {
        let found = histogram(&[0.25, f64::NAN, 0.25, f64::INFINITY]).unwrap();
        assert_eq!((found.get_min(), found.get_max(), found.get_num(), found.get_sum()), (-0.25, 0.75, 2.0, 0.5));
        assert_eq!((found.get_bucket().len(), found.get_bucket().iter().sum::<f64>()), (30, 2.0));
        assert!(histogram(&[]).is_none() && histogram(&[f64::NAN]).is_none());
    }
}
