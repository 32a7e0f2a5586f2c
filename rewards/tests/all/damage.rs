//! Bad files for property tests of all three crates: random bytes, and valid files that are
//! damaged. The number of cases is `PROPTEST_CASES` if that is set; the draws follow from
//! `PROPTEST_RNG_SEED`, 0 by default, so that `cargo test` always draws the same.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};
use serde_json::{Value, json};

/// One edit. A place is a number that is taken modulo the length, or the number of places.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Inverts bits of a byte.
    Flip(usize, u8),
    /// Writes bytes over those that are there.
    Overwrite(usize, &'static [u8]),
    /// Inserts bytes, several times.
    Insert(usize, &'static [u8], usize),
    /// Removes bytes.
    Remove(usize, usize),
    /// Inserts a part once more, several times.
    Repeat(usize, usize, usize),
    /// Removes everything from a place on.
    Cut(usize),
    /// Replaces a number that is written in digits.
    Digits(usize, &'static str),
    /// Replaces a value in a JSON document; none in other files.
    Json(usize, usize),
}

#[rustfmt::skip]
static BINARY: [&[u8]; 16] = [
    &[0],
    &[255],
    &[0; 4],
    &[255; 4],
    &[0; 8],
    &[255; 8],
    &[255, 255, 255, 127],
    &[255, 255, 255, 255, 255, 255, 255, 127],
    &[0, 0, 0, 128],
    // As a varint, and as the header of a thrift list of structs: some 2^31.
    &[0xfc, 255, 255, 255, 255, 7],
    // f32: NaN, infinite, largest.
    &[0, 0, 192, 127],
    &[0, 0, 128, 127],
    &[255, 255, 127, 127],
    // f64: NaN, infinite, largest.
    &[0, 0, 0, 0, 0, 0, 248, 127],
    &[0, 0, 0, 0, 0, 0, 240, 127],
    &[255, 255, 255, 255, 255, 255, 239, 127],
];

#[rustfmt::skip]
static TEXT: [&[u8]; 40] = [
    b"\"", b"'", b"\"\"\"", b"'''", b"{", b"}", b"[", b"]", b"(", b")", b"{%", b"%}", b"{{", b"}}", b"{%}", b"#",
    b":", b",", b"=", b"-", b".", b"\n", b"\r\n", b"\t", b" ", b"\\", b"\\ud800", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
    "é\u{301}\u{10ffff}".as_bytes(), b"null", b"NaN", b"-inf", b"true", b"```", b"vertex ", b"<image>", b"/", b"..",
];

#[rustfmt::skip]
static NUMBERS: [&str; 22] = [
    "0", "-1", "1", "2", "7", "0.5", "-0.0", "1e-308", "1e38", "1e200", "1e308", "1e999", "NaN", "inf", "999999999",
    "2147483647", "4294967295", "4294967296", "9223372036854775807", "-9223372036854775808", "18446744073709551615",
    "123456789012345678901234567890",
];

/// How often a piece is inserted: the last one nests deeper than any stack allows.
static TIMES: [usize; 4] = [1, 2, 30, 20_000];

fn values() -> Vec<Value> {
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let mut values = vec![json!(null), json!(true), json!(""), json!("x"), json!("x".repeat(100_000)), json!("é\0\n")];
    values.extend([json!(0), json!(-1), json!(1), json!(2), json!(3), json!(0.5), json!(1e300), json!(-1e-300)]);
    values.extend([json!(u32::MAX), json!(i64::MAX), json!(i64::MIN), json!(u64::MAX), json!(1_000_000_000)]);
    values.extend([json!([]), json!({}), json!([null]), json!([1, 2]), json!({"a": 1}), json!({"": {}}), nested]);
    values
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize| at % (bytes.len() + 1);
        match *self {
            Self::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Overwrite(at, new) => {
                let at = place(at);
                let end = (at + new.len()).min(bytes.len());
                bytes.splice(at..end, new.iter().copied());
            }
            Self::Insert(at, new, times) => {
                let at = place(at);
                bytes.splice(at..at, new.repeat(times));
            }
            Self::Remove(at, length) => {
                let at = place(at);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Repeat(at, length, times) => {
                let at = place(at);
                let end = (at + length).min(bytes.len());
                let part = bytes[at..end].repeat(times);
                bytes.splice(at..at, part);
            }
            Self::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
            Self::Digits(at, new) => {
                let is_start = |i: usize| bytes[i].is_ascii_digit() && (i == 0 || !is_numeric(bytes[i - 1]));
                let starts: Vec<usize> = (0..bytes.len()).filter(|&i| is_start(i)).collect();
                if let Some(&start) = starts.get(at % starts.len().max(1)) {
                    let end = (start..bytes.len()).find(|&i| !is_numeric(bytes[i])).unwrap_or(bytes.len());
                    bytes.splice(start..end, new.bytes());
                }
            }
            Self::Json(at, value) => {
                let Ok(mut document) = serde_json::from_slice::<Value>(bytes) else { return };
                let values = values();
                let mut left = at % count(&document);
                replace(&mut document, &mut left, &values[value % values.len()]);
                *bytes = document.to_string().into_bytes();
            }
        }
    }
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.' || byte == b'-'
}

/// The number of values in a document, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Replaces the value before which there are `left` others.
fn replace(value: &mut Value, left: &mut usize, new: &Value) -> bool {
    if *left == 0 {
        *value = new.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, new)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, left, new)),
        _ => false,
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => (any::<usize>(), 1u8..).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        3 => (any::<usize>(), select(&BINARY[..])).prop_map(|(at, new)| Edit::Overwrite(at, new)),
        3 => (any::<usize>(), select(&TEXT[..]), select(&TIMES[..])).prop_map(|(at, new, n)| Edit::Insert(at, new, n)),
        1 => (any::<usize>(), select(&BINARY[..])).prop_map(|(at, new)| Edit::Insert(at, new, 1)),
        2 => (any::<usize>(), 1..200usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (any::<usize>(), 1..200usize, 1..300usize).prop_map(|(at, length, n)| Edit::Repeat(at, length, n)),
        1 => any::<usize>().prop_map(Edit::Cut),
        4 => (any::<usize>(), select(&NUMBERS[..])).prop_map(|(at, new)| Edit::Digits(at, new)),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(at, value)| Edit::Json(at, value)),
    ]
}

/// A bad file. Its `Debug` is short enough for a message.
#[derive(Clone)]
pub struct BadFile(pub Vec<u8>);

impl fmt::Debug for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.0[..self.0.len().min(2000)];
        write!(f, "{} bytes: b\"{}\"", self.0.len(), start.escape_ascii())
    }
}

/// Random bytes, or one of `samples` with up to six edits.
pub fn bad_file(samples: Vec<Vec<u8>>) -> impl Strategy<Value = BadFile> {
    let edited = (select(samples), prop::collection::vec(edit(), 1..7)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..400), 15 => edited].prop_map(BadFile)
}

/// Far above the time of any case: more than this counts as a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Gives bad files to `read`, which must return, within seconds and without a panic. With
/// `FUZZ_LAST_INPUT`, the name of a directory, each file is written there first, so that one that
/// ends the process or never returns is found.
///
/// # Panics
/// A file for which `read` panics or takes too long, made as short as possible.
#[track_caller]
pub fn read_bad_files(target: &str, cases: u32, samples: Vec<Vec<u8>>, read: impl Fn(&[u8])) {
    let last = std::env::var_os("FUZZ_LAST_INPUT").map(|directory| PathBuf::from(directory).join(target));
    let mut config = ProptestConfig { failure_persistence: None, max_shrink_time: 60_000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    let outcome = TestRunner::new(config).run(&bad_file(samples), |file| {
        if let Some(last) = &last {
            std::fs::write(last, &file.0).map_err(|error| TestCaseError::fail(format!("{last:?}: {error}")))?;
        }
        let start = Instant::now();
        read(&file.0);
        prop_assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{target}: {error}");
    }
}
