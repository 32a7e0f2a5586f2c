//! A checkpoint's own chat template: Jinja, rendered as `transformers` renders it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::{Kwargs, StringInput, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, escape_formatter};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use super::error::ModelError;
use super::tokenizer_files::{TokenizerConfig, read_object};

/// A chat template with the special tokens that it may use.
pub struct ChatTemplate {
    environment: Environment<'static>,
    path: PathBuf,
    variables: BTreeMap<String, Value>,
}

const NAME: &str = "chat template";

/// The most bytes of a template. Those of published models have up to some 20,000.
const MOST_SOURCE: usize = 64 << 10;
/// The most bytes of one tag. The parser's time grows with the square of a chain of signs: 0.2 s for
/// this many, 12 s for 20,000.
const MOST_TAG: usize = 4 << 10;
/// Stack of the parser in bytes: 8 KiB for each byte of the longest template. Only what is used
/// costs memory.
const PARSER_STACK: usize = MOST_SOURCE * (8 << 10);
/// The most instructions that rendering a template may take. Templates of conversations take some
/// thousands.
const MOST_STEPS: u64 = 1_000_000;
/// The most bytes that a template may print.
const MOST_TEXT: usize = 16 << 20;
/// The most spaces by which a filter may indent.
const MOST_INDENT: usize = 1000;

impl ChatTemplate {
    /// The template of a checkpoint directory, if it has one: `chat_template.jinja`,
    /// `chat_template.json`, or `chat_template` of `tokenizer_config.json`, in this order.
    ///
    /// # Errors
    /// A file cannot be read, or the template is not Jinja.
    pub fn of(directory: &Path) -> Result<Option<Self>, ModelError> {
        let config = TokenizerConfig::read(directory)?;
        let Some((path, source)) = source(directory, &config)? else { return Ok(None) };
        let mut variables: BTreeMap<String, Value> =
            config.roles().into_iter().map(|(role, token)| (role, Value::from(token))).collect();
        match config.additional() {
            tokens if tokens.is_empty() => {}
            tokens => _ = variables.insert("additional_special_tokens".into(), Value::from(tokens)),
        }
        let environment = parsed(&source).map_err(|reason| ModelError::Template { path: path.clone(), reason })?;
        Ok(Some(Self { environment, path, variables }))
    }

    /// The file of the template.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text of a conversation up to the start of the assistant's answer. `tools` is `None` or a
    /// list of JSON schemas.
    ///
    /// # Errors
    /// The template raises an error.
    pub fn render(&self, messages: &Value, tools: &Value) -> Result<String, ModelError> {
        let mut context = self.variables.clone();
        context.insert("messages".into(), messages.clone());
        context.insert("tools".into(), tools.clone());
        context.insert("documents".into(), Value::from(()));
        context.insert("add_generation_prompt".into(), Value::from(true));
        let mut printed = Printed::default();
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| template.render_captured_to(context, &mut printed).map(drop));
        rendered
            .map(|()| String::from_utf8_lossy(&printed.text).into_owned())
            .map_err(|error| match printed.is_full {
                true => format!("it prints more than {MOST_TEXT} bytes"),
                false => one_line(&error),
            })
            .map_err(|reason| ModelError::Template { path: self.path.clone(), reason })
    }
}

/// What a template prints, up to [`MOST_TEXT`].
#[derive(Default)]
struct Printed {
    text: Vec<u8>,
    is_full: bool,
}

impl std::io::Write for Printed {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if text.len() > MOST_TEXT - self.text.len() {
            self.is_full = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The file and the text of the template.
fn source(directory: &Path, config: &TokenizerConfig) -> Result<Option<(PathBuf, String)>, ModelError> {
    let path = directory.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(ModelError::Read { path, source }),
    }
    let path = directory.join("chat_template.json");
    let (path, value) = match read_object(&path)?.and_then(|mut json| json.remove("chat_template")) {
        Some(value) => (path, value),
        None => match config.get("chat_template") {
            Some(value) => (directory.join("tokenizer_config.json"), value.clone()),
            None => return Ok(None),
        },
    };
    let failed = |reason: String| Err(ModelError::Template { path: path.clone(), reason });
    if let Some(text) = value.as_str() {
        return Ok(Some((path, text.to_owned())));
    }
    // If there are several named templates, `default` is the one for conversations without tools.
    let Some(named) = value.as_array() else { return failed("expected text or a list of named templates".into()) };
    let default = named.iter().find(|template| template["name"] == "default");
    match default.and_then(|template| template["template"].as_str()) {
        Some(text) => Ok(Some((path, text.to_owned()))),
        None => {
            let names: Vec<&str> = named.iter().filter_map(|template| template["name"].as_str()).collect();
            failed(format!("none is named \"default\", only {}", names.join(", ")))
        }
    }
}

/// An environment with this template. The parser calls itself for every sign of `----1` and every
/// term of `1+1+1`, so a long template needs more stack than a thread has.
///
/// # Errors
/// The reason why it is no template.
fn parsed(source: &str) -> Result<Environment<'static>, String> {
    if source.len() > MOST_SOURCE {
        return Err(format!("it has {} bytes; expected at most {MOST_SOURCE}", source.len()));
    }
    let longest = longest_tag(source);
    if longest > MOST_TAG {
        return Err(format!("one of its tags has {longest} bytes; expected at most {MOST_TAG}"));
    }
    let parse = || {
        let mut environment = environment();
        let added = environment.add_template_owned(NAME, without_generation_tags(source));
        added.map(|()| environment).map_err(|error| one_line(&error))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, parse);
        let result = thread.map_err(|error| format!("cannot start a thread to parse it: {error}"))?;
        result.join().unwrap_or_else(|_| Err("the parser panicked".to_owned()))
    })
}

/// The length of the longest tag, or of what follows one that does not end.
fn longest_tag(source: &str) -> usize {
    let starts = ["{{", "{%"].into_iter().flat_map(|open| source.match_indices(open));
    let length = |(start, _)| {
        let rest: &str = &source[start..];
        ["}}", "%}"].into_iter().filter_map(|close| rest.find(close)).min().unwrap_or(rest.len())
    };
    starts.map(length).max().unwrap_or(0)
}

/// A Jinja environment with the settings and functions that chat templates use.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(MOST_STEPS));
    // Supports `text.strip()` and other methods of Python.
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => escape_formatter(out, state, &Value::from("None")),
        ValueKind::Bool => escape_formatter(out, state, &Value::from(if value.is_true() { "True" } else { "False" })),
        _ => escape_formatter(out, state, value),
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| strftime_now(&format));
    environment.add_filter("tojson", tojson);
    environment.add_filter("indent", indent);
    environment
}

/// Removes `{% generation %}` tags, which mark the assistant's text for training in Python and
/// print nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let inner = &rest[start + 2..];
        let Some(length) = inner.find("%}") else { break };
        let (tag, after) = inner.split_at(length);
        let (name, as_if) = match tag.trim_matches(['-', '+']).trim() {
            "generation" => ("generation", "if true"),
            "endgeneration" => ("endgeneration", "endif"),
            _ => ("", ""),
        };
        out.push_str(&rest[..start + 2]);
        out.push_str(&if name.is_empty() { tag.to_owned() } else { tag.replace(name, as_if) });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn one_line(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
    error.line().map_or_else(|| detail.clone(), |line| format!("line {line}: {detail}"))
}

/// Formats the local time in C's notation, like Python's `datetime.strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    let failed = || Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}) failed"));
    // The extra character tells an empty text from a buffer that is too small.
    let format = std::ffi::CString::new(format!("{format}.")).map_err(|_| failed())?;
    let mut buffer = [0u8; 1024];
    // SAFETY: localtime_r fills `time` from `now`; strftime writes at most the given length and
    // returns the length.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut time: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&raw const now, &raw mut time).is_null() {
            return Err(failed());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &raw const time)
    };
    let text = written.checked_sub(1).ok_or_else(failed)?;
    Ok(String::from_utf8_lossy(&buffer[..text]).into_owned())
}

/// Jinja's filter, for at most [`MOST_INDENT`] spaces.
fn indent(
    text: StringInput<'_>,
    width: Option<usize>,
    first_line: Option<bool>,
    blank_lines: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    if width.or(options.get("width")?) > Some(MOST_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("indent: more than {MOST_INDENT} spaces")));
    }
    minijinja::filters::indent(text, width, first_line, blank_lines, options)
}

/// Python's `json.dumps(value, ensure_ascii=False)`, with its options.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if indent > Some(MOST_INDENT) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: more than {MOST_INDENT} spaces")));
    }
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.clone(), key.clone()],
        _ => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let style = PythonJson { item, key, indent, depth: 0, is_empty: true, ensure_ascii: ensure_ascii == Some(true) };
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, style);
    if sort_keys == Some(true) {
        // Objects of serde_json are sorted.
        serde_json::to_value(value).map_err(failed)?.serialize(&mut serializer).map_err(failed)?;
    } else {
        value.serialize(&mut serializer).map_err(failed)?;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A JSON formatter that writes like Python.
struct PythonJson {
    item: String,
    key: String,
    indent: Option<usize>,
    depth: usize,
    is_empty: bool,
    ensure_ascii: bool,
}

impl PythonJson {
    fn open<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &str) -> std::io::Result<()> {
        self.depth += 1;
        self.is_empty = true;
        out.write_all(bracket.as_bytes())
    }

    fn close<W: ?Sized + std::io::Write>(&mut self, out: &mut W, bracket: &str) -> std::io::Result<()> {
        self.depth -= 1;
        if !self.is_empty {
            self.new_line(out)?;
        }
        self.is_empty = false;
        out.write_all(bracket.as_bytes())
    }

    fn before_item<W: ?Sized + std::io::Write>(&mut self, out: &mut W, is_first: bool) -> std::io::Result<()> {
        if !is_first {
            out.write_all(self.item.as_bytes())?;
        }
        self.is_empty = false;
        self.new_line(out)
    }

    fn new_line<W: ?Sized + std::io::Write>(&self, out: &mut W) -> std::io::Result<()> {
        match self.indent {
            Some(indent) => write!(out, "\n{}", " ".repeat(indent * self.depth)),
            None => Ok(()),
        }
    }
}

impl Formatter for PythonJson {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.open(out, "[")
    }

    fn end_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.close(out, "]")
    }

    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, is_first: bool) -> std::io::Result<()> {
        self.before_item(out, is_first)
    }

    fn begin_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.open(out, "{")
    }

    fn end_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.close(out, "}")
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, is_first: bool) -> std::io::Result<()> {
        self.before_item(out, is_first)
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, out: &mut W, text: &str) -> std::io::Result<()> {
        if !self.ensure_ascii {
            return out.write_all(text.as_bytes());
        }
        for unit in text.encode_utf16() {
            match u8::try_from(unit) {
                // DEL is ASCII, and Python does not escape it.
                Ok(byte) if byte.is_ascii() => out.write_all(&[byte])?,
                _ => write!(out, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> std::io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(out, escape)
    }
}
