//! TensorBoard's event files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use image::RgbImage;
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Image, Summary_Value};
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

    /// The crate writes on a thread of its own. Flushing hands everything to the system.
    fn add(&mut self, step: usize, summary: Summary) {
        self.file.add_summary(summary, step);
        self.file.flush();
    }
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
