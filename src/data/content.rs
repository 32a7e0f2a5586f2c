//! What a field of a data set holds: bytes, or text that leads to them.

use std::path::{Path, PathBuf};

/// The content of a picture, a program or a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The bytes themselves.
    Bytes(Vec<u8>),
    /// For a program, its text. For a picture or a shape: a path relative to the directory of the
    /// data file, base64, or a `data:` URI.
    Text(String),
    /// A file.
    File(PathBuf),
}

impl Content {
    /// The bytes. Paths are relative to `directory`; text is taken as base64 if no such file exists
    /// and `is_known` recognises what it holds.
    ///
    /// # Errors
    /// Why there are no bytes.
    pub fn bytes(self, directory: &Path, is_known: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let text = match self {
            Self::Bytes(bytes) => return Ok(bytes),
            Self::File(path) => return read(&path),
            Self::Text(text) => text,
        };
        if let Some(scheme) = ["http://", "https://", "s3://", "gs://"].into_iter().find(|it| text.starts_with(it)) {
            return Err(format!(
                "{} is a URL ({scheme}..): nothing is downloaded while a data set is read, so that a run does not depend on other machines; download the files and give their paths",
                clipped(&text)
            ));
        }
        if let Some((head, data)) = text.strip_prefix("data:").and_then(|rest| rest.split_once(',')) {
            let decoded = head.ends_with(";base64").then(|| decoded(data)).flatten();
            return decoded.ok_or_else(|| format!("{} is no data URI in base64", clipped(&text)));
        }
        let path = directory.join(&text);
        if path.is_file() {
            return read(&path);
        }
        decoded(&text).filter(|bytes| is_known(bytes)).ok_or_else(|| format!("there is no file {}", clipped(&text)))
    }

    /// The text of a program.
    ///
    /// # Errors
    /// A file that cannot be read, or bytes that are not UTF-8.
    pub fn text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()),
            Self::File(path) => std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display())),
        }
    }
}

/// Whether bytes begin as PNG, JPEG or WebP do.
pub fn is_picture(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG") || bytes.starts_with(b"\xff\xd8\xff") || bytes.starts_with(b"RIFF")
}

/// The bytes that base64 (RFC 4648, section 4) stands for. White space is ignored, and padding may
/// be missing.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let characters = text.trim_end().trim_end_matches('=').bytes().filter(|c| !c.is_ascii_whitespace());
    let sextets = characters.map(value).collect::<Option<Vec<u8>>>()?;
    let mut bytes = Vec::with_capacity(sextets.len() / 4 * 3 + 2);
    for group in sextets.chunks(4) {
        let bits = group.iter().enumerate().fold(0, |bits, (i, &sextet)| bits | u32::from(sextet) << (18 - 6 * i));
        // Two characters give one byte, three give two. One alone is less than a byte.
        let count = if group.len() == 1 { return None } else { group.len() - 1 };
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=count]);
    }
    Some(bytes)
}

/// The start of a text for a message.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}..", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str, directory: &Path) -> Result<Vec<u8>, String> {
        Content::Text(text.to_owned()).bytes(directory, is_picture)
    }

    #[test]
    fn text_is_a_path_or_base64_or_a_data_uri() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.png"), "file").unwrap();
        // The first bytes of every PNG file, and their base64 (RFC 4648).
        let (png, base64) = (b"\x89PNG\r\n\x1a\n", "iVBORw0KGgo=");
        assert_eq!(bytes("a.png", directory.path()).unwrap(), b"file");
        assert_eq!(bytes(base64, directory.path()).unwrap(), png);
        assert_eq!(bytes("iVBO\nRw0K Ggo=", directory.path()).unwrap(), png);
        assert_eq!(bytes(&format!("data:image/png;base64,{base64}"), directory.path()).unwrap(), png);
        // "abcd" is base64, but of no picture.
        for (text, why) in [("abcd", "no file \"abcd\""), ("b.png", "no file"), ("data:image/png,x", "no data URI")] {
            let error = bytes(text, directory.path()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decoded("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(decoded("Zm9vYg").unwrap(), b"foob");
        for wrong in ["Z", "Zm9v!", "a b.png"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls_are_refused_with_the_reason() {
        let error = bytes("https://example.com/a.png", Path::new(".")).unwrap_err();
        assert!(error.contains("is a URL") && error.contains("download the files"), "{error}");
    }
}
