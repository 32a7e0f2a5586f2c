//! TensorBoard's event files, as TensorFlow's own writers make them.
//!
//! A file is a sequence of records: length (u64), checksum of the length (u32), data, checksum of
//! the data (u32), all little endian (`tensorflow/core/lib/io/record_writer.h`). The data of a
//! record is an `Event` in the encoding of protocol buffers (`tensorflow/core/util/event.proto`,
//! `tensorflow/core/framework/summary.proto`).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use image::RgbImage;

use crate::data::encode_png;

/// An event file that is being written.
pub struct EventFile {
    file: BufWriter<File>,
}

impl EventFile {
    /// Creates a new file in `directory`. It says that the writer starts, or goes on, at `step`:
    /// readers drop what earlier files of the directory have from that step on.
    ///
    /// # Errors The directory cannot be written.
    pub fn create(directory: &Path, step: usize) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // Readers take the files in the order of their names.
        let now = since_epoch();
        let name =
            format!("events.out.tfevents.{:010}.{:09}.{}", now.as_secs(), now.subsec_nanos(), std::process::id());
        let path = directory.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut events = Self { file: BufWriter::new(file) };
        let version = Message::default().bytes(FILE_VERSION, b"brain.Event:2");
        let start = Message::default().bytes(SESSION_LOG, &Message::default().integer(STATUS, START).0);
        events.write(0, version)?;
        events.write(step, start)?;
        events.flush()?;
        Ok(events)
    }

    /// Adds numbers under their tags.
    ///
    /// # Errors
    /// The disk is full.
    pub fn scalars<'a>(&mut self, step: usize, numbers: impl IntoIterator<Item = (&'a str, f32)>) -> Result<()> {
        let summary = numbers.into_iter().fold(Message::default(), |summary, (tag, number)| {
            let value = Message::default().bytes(TAG, tag.as_bytes()).float(SIMPLE_VALUE, number);
            summary.bytes(VALUE, &value.0)
        });
        self.write(step, Message::default().bytes(SUMMARY, &summary.0))
    }

    /// Adds a picture under a tag.
    ///
    /// # Errors
    /// The disk is full.
    pub fn picture(&mut self, step: usize, tag: &str, picture: &RgbImage) -> Result<()> {
        const RGB: u64 = 3;
        let png = encode_png(picture).context("cannot encode a picture for TensorBoard")?;
        let image = Message::default()
            .integer(HEIGHT, picture.height().into())
            .integer(WIDTH, picture.width().into())
            .integer(COLORSPACE, RGB)
            .bytes(ENCODED_IMAGE, &png);
        let value = Message::default().bytes(TAG, tag.as_bytes()).bytes(IMAGE, &image.0);
        let summary = Message::default().bytes(VALUE, &value.0);
        self.write(step, Message::default().bytes(SUMMARY, &summary.0))
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// The disk is full.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().context("cannot write TensorBoard's events")
    }

    fn write(&mut self, step: usize, content: Message) -> Result<()> {
        let stamp = Message::default().double(WALL_TIME, since_epoch().as_secs_f64()).integer(STEP, step as u64);
        write_record(&mut self.file, &[stamp.0, content.0].concat()).context("cannot write TensorBoard's events")
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

// Field numbers of `Event`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;
// Of `SessionLog`, and a value of its status.
const STATUS: u64 = 1;
const START: u64 = 1;
// Of `Summary`.
const VALUE: u64 = 1;
// Of `Summary.Value`.
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;
const IMAGE: u64 = 4;
// Of `Summary.Image`.
const HEIGHT: u64 = 1;
const WIDTH: u64 = 2;
const COLORSPACE: u64 = 3;
const ENCODED_IMAGE: u64 = 4;

/// A protocol buffer in its encoding: for each field its number and wire type, then its content.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(self, field: u64, value: u64) -> Self {
        self.varint(field << 3).varint(value)
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self = self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self = self.varint(field << 3 | 2).varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self = self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
}

fn write_record(file: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked(crc32c(&length)).to_le_bytes())?;
    file.write_all(data)?;
    file.write_all(&masked(crc32c(data)).to_le_bytes())
}

/// The checksum as records store it (`tensorflow/core/lib/hash/crc32c.h`).
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bits reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut value, mut bit) = (byte as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // Appendix B.4: 32 bytes of zeros, of ones, and ascending; and the check value of the CRC
        // catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&std::array::from_fn::<u8, 32, _>(|i| i as u8)), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn integers_and_strings_are_encoded_as_in_the_guide_to_protocol_buffers() {
        // protobuf.dev/programming-guides/encoding: field 1 = 150, and field 2 = "testing".
        assert_eq!(Message::default().integer(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().bytes(2, b"testing").0, b"\x12\x07testing");
    }
}
