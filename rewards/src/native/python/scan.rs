//! Checks a text before it is parsed. The text must not nest deeper than the parser and the tree
//! can bear, and its tokens must be those of CPython 3.11, whose strings differ from those of later
//! versions.

use super::{Stop, limits};
use crate::program::normalise_program;

/// The text that CPython compiles: dedented, stripped, and with every line ending replaced by `\n`.
pub(super) fn normalise(program: &str) -> Result<String, Stop> {
    if program.len() > limits::TEXT {
        return Err(limits::too_long("program text"));
    }
    Ok(normalise_program(program).replace("\r\n", "\n").replace('\r', "\n"))
}

pub(super) fn syntax_error(message: &str) -> Stop {
    Stop::raise("SyntaxError", message)
}

pub(super) fn not_certain(detail: &str) -> Stop {
    Stop::decline("syntax not certain", detail)
}

/// The reason why a text has no valid tokens, and the start of the broken token.
pub(super) struct Broken {
    pub stop: Stop,
    pub at: usize,
}

/// Accepts a text for parsing. If this returns `SyntaxError`, so does CPython, unless the
/// indentation of the lines before is wrong: the tokens are broken, and any other error before them
/// is a `SyntaxError` too.
pub(super) fn scan(text: &str) -> Result<(), Broken> {
    if text.contains('\0') {
        return Err(Broken { stop: syntax_error("source code string cannot contain null bytes"), at: 0 });
    }
    let bytes = text.as_bytes();
    let mut scanner = Scanner { text, bytes, at: 0, brackets: Vec::new(), levels: vec![Level::default()], elifs: 0 };
    scanner.scan().map_err(|stop| {
        // CPython first reports a bracket that is still open; otherwise the last token.
        let at = scanner.brackets.first().map_or(scanner.at.saturating_sub(1), |(_, at)| *at);
        Broken { stop, at }
    })
}

/// Contributions to the tree's depth since the last comma at one level of brackets.
#[derive(Default, Clone, Copy)]
struct Level {
    operators: usize,
    prefixes: usize,
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Open brackets and their positions.
    brackets: Vec<(u8, usize)>,
    levels: Vec<Level>,
    elifs: usize,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), Stop> {
        let mut indents: Vec<usize> = Vec::new();
        let (mut tabs, mut spaces) = (false, false);
        let mut line_start = true;
        // Whether an operand has just ended, so that `-` is binary and `(` is a call.
        let mut after_operand = false;
        while self.at < self.bytes.len() {
            if line_start && self.brackets.is_empty() {
                line_start = false;
                after_operand = false;
                let length = self.bytes[self.at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                let margin = &self.bytes[self.at..self.at + length];
                match self.bytes.get(self.at + length) {
                    None | Some(b'\n' | b'#') => {}
                    Some(_) => {
                        tabs |= margin.contains(&b'\t');
                        spaces |= margin.contains(&b' ');
                        if tabs && spaces {
                            return Err(not_certain("tabs and spaces"));
                        }
                        while indents.last().is_some_and(|last| *last > length) {
                            indents.pop();
                        }
                        if indents.last().is_none_or(|last| *last < length) {
                            indents.push(length);
                        }
                        if indents.len() > limits::INDENTATION {
                            return Err(limits::too_deep("indentation"));
                        }
                    }
                }
                self.at += length;
                continue;
            }
            let byte = self.bytes[self.at];
            self.at += 1;
            match byte {
                b'\n' => {
                    line_start = true;
                    if self.brackets.is_empty() {
                        self.levels = vec![Level::default()];
                    }
                }
                b' ' | b'\t' => {}
                b'#' => self.at = self.text[self.at..].find('\n').map_or(self.text.len(), |length| self.at + length),
                b'\'' | b'"' => {
                    self.string(byte, "")?;
                    after_operand = true;
                }
                b'(' | b'[' | b'{' => {
                    if after_operand {
                        self.operator()?;
                    }
                    self.brackets.push((byte, self.at - 1));
                    self.levels.push(Level::default());
                    if self.brackets.len() > limits::BRACKETS {
                        return Err(limits::too_deep("brackets"));
                    }
                    after_operand = false;
                }
                b')' | b']' | b'}' => {
                    let opening = match byte {
                        b')' => b'(',
                        b']' => b'[',
                        _ => b'{',
                    };
                    if self.brackets.pop().map(|(bracket, _)| bracket) != Some(opening) {
                        return Err(syntax_error("unmatched bracket"));
                    }
                    // The chain continues after the bracket. The depth of its deepest item is
                    // unknown but bounded.
                    self.levels.pop();
                    after_operand = true;
                }
                b',' | b';' => {
                    if let Some(level) = self.levels.last_mut() {
                        *level = Level::default();
                    }
                    after_operand = false;
                }
                b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'0'..=b'9' => after_operand = self.word()?,
                b'\\' => {
                    if self.bytes.get(self.at) != Some(&b'\n') {
                        return Err(syntax_error("unexpected character after line continuation character"));
                    }
                    let rest = &self.text[self.at + 1..];
                    let next = rest.trim_start_matches([' ', '\t']);
                    let line = self.text[..self.at - 1].rsplit('\n').next().unwrap_or_default();
                    if next.is_empty() || next.starts_with(['\n', '#', '\\']) || line.trim_start().is_empty() {
                        return Err(not_certain("line continuation"));
                    }
                    self.at += 1;
                }
                b'.' => {
                    if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
                        self.operator()?;
                    }
                    after_operand = false;
                }
                b'*' if self.bytes.get(self.at) == Some(&b'*') => {
                    self.at += 1;
                    self.prefix()?;
                    after_operand = false;
                }
                b'+' | b'-' | b'~' | b'*' if !after_operand => self.prefix()?,
                b'+' | b'-' | b'*' | b'/' | b'%' | b'@' | b'&' | b'|' | b'^' | b'<' | b'>' | b'~' | b'=' | b':' => {
                    self.operator()?;
                    after_operand = false;
                }
                b'!' if self.bytes.get(self.at) == Some(&b'=') => {
                    self.at += 1;
                    self.operator()?;
                    after_operand = false;
                }
                b'\x0c' => return Err(not_certain("form feed")),
                0..=0x7f => return Err(syntax_error("invalid character")),
                _ => {
                    let character = self.text[self.at - 1..].chars().next().unwrap_or(' ');
                    return Err(if is_no_letter(character) {
                        syntax_error(&format!("invalid character '{character}' (U+{:04X})", character as u32))
                    } else {
                        not_certain("letters beyond ASCII")
                    });
                }
            }
        }
        if self.brackets.is_empty() { Ok(()) } else { Err(syntax_error("bracket was never closed")) }
    }

    fn operator(&mut self) -> Result<(), Stop> {
        if let Some(level) = self.levels.last_mut() {
            level.operators += 1;
        }
        match self.levels.iter().map(|level| level.operators).sum::<usize>() > limits::OPERATORS {
            true => Err(limits::too_deep("operators")),
            false => Ok(()),
        }
    }

    fn prefix(&mut self) -> Result<(), Stop> {
        if let Some(level) = self.levels.last_mut() {
            level.prefixes += 1;
        }
        match self.levels.iter().map(|level| level.prefixes).sum::<usize>() > limits::PREFIXES {
            true => Err(limits::too_deep("operators")),
            false => Ok(()),
        }
    }

    /// Reads a name, a keyword, a number, or a string with its prefix. Returns whether it is an
    /// operand.
    fn word(&mut self) -> Result<bool, Stop> {
        let start = self.at - 1;
        while self.bytes.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            self.at += 1;
        }
        let word = &self.text[start..self.at];
        if word.as_bytes()[0].is_ascii_digit() {
            number(word)?;
            return Ok(true);
        }
        if let Some(quote @ (b'\'' | b'"')) = self.bytes.get(self.at) {
            let prefix = word.to_ascii_lowercase();
            if matches!(prefix.as_str(), "r" | "u" | "b" | "f" | "br" | "rb" | "fr" | "rf") {
                self.at += 1;
                self.string(*quote, &prefix)?;
                return Ok(true);
            }
            if prefix.contains('t') {
                return Err(not_certain("string prefix"));
            }
        }
        match word {
            "not" | "lambda" | "if" | "else" | "await" | "yield" | "async" | "for" => self.prefix()?,
            "and" | "or" | "in" | "is" => self.operator()?,
            "elif" => {
                self.elifs += 1;
                if self.elifs > limits::ELIFS {
                    return Err(limits::too_deep("elif"));
                }
            }
            "__debug__" => return Err(not_certain("__debug__")),
            "return" | "assert" | "del" | "raise" | "from" | "import" | "while" | "with" | "except" | "try"
            | "pass" => {}
            _ => return Ok(true),
        }
        Ok(false)
    }

    /// Reads a string after its opening quote.
    fn string(&mut self, quote: u8, prefix: &str) -> Result<(), Stop> {
        let unterminated = || syntax_error("unterminated string literal");
        let triple = self.bytes[self.at..].starts_with(&[quote, quote]);
        if triple {
            self.at += 2;
        }
        let start = self.at;
        let end = loop {
            match self.bytes.get(self.at) {
                None => return Err(unterminated()),
                Some(b'\\') => {
                    if self.at + 1 >= self.bytes.len() {
                        return Err(unterminated());
                    }
                    self.at += 2;
                }
                Some(b'\n') if !triple => return Err(unterminated()),
                Some(byte) if *byte == quote => {
                    if !triple {
                        self.at += 1;
                        break self.at - 1;
                    }
                    if self.bytes[self.at..].starts_with(&[quote; 3]) {
                        self.at += 3;
                        break self.at - 3;
                    }
                    self.at += 1;
                }
                Some(_) => self.at += 1,
            }
        };
        let content = &self.bytes[start..end];
        if !prefix.contains(['r', 'b']) && has_uncertain_escape(content) {
            return Err(not_certain("escape in a string"));
        }
        if prefix.contains('f') { fields_are_simple(content) } else { Ok(()) }
    }
}

/// Checks a word in the place of a number, without signs and points.
fn number(word: &str) -> Result<(), Stop> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
    let lower = word.to_ascii_lowercase();
    if lower.starts_with("0x") || lower.starts_with("0o") || lower.starts_with("0b") {
        let is_plain = lower[2..].bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'_');
        return if is_plain { Ok(()) } else { Err(not_certain("number")) };
    }
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
    let exponent = rest.strip_prefix(['e', 'E']).unwrap_or("-");
    if matches!(rest, "" | "j" | "J") || exponent.bytes().all(is_digit) {
        return Ok(());
    }
    // CPython reads `1if x else 2` as `1 if x else 2`, with a warning.
    let keywords = ["and", "else", "for", "if", "in", "is", "or", "not"];
    let after_imaginary = rest.strip_prefix(['j', 'J']).unwrap_or(rest);
    if keywords.iter().any(|keyword| after_imaginary.starts_with(keyword))
        || exponent.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(not_certain("keyword after number"));
    }
    Err(syntax_error("invalid decimal literal"))
}

/// Whether the content has an escape by name or number. Some of these are errors, and some give no
/// valid character. All other escapes are certain: they have fixed meanings or keep the backslash.
fn has_uncertain_escape(content: &[u8]) -> bool {
    let mut bytes = content.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'\\' && matches!(bytes.next(), Some(b'N' | b'u' | b'U' | b'x' | b'0'..=b'7')) {
            return true;
        }
    }
    false
}

/// Checks the replacement fields of an f-string. Accepts only fields that the tokenisers of 3.11
/// and of later versions read alike.
fn fields_are_simple(content: &[u8]) -> Result<(), Stop> {
    let complicated = || not_certain("f-string");
    let mut at = 0;
    while at < content.len() {
        let byte = content[at];
        at += 1;
        match byte {
            b'\\' => {
                if matches!(content.get(at), Some(b'{' | b'}' | b'N')) {
                    return Err(complicated());
                }
                at += 1;
            }
            b'{' | b'}' if content.get(at) == Some(&byte) => at += 1,
            b'}' => return Err(complicated()),
            b'{' => {
                let length = content[at..].iter().position(|byte| *byte == b'}').ok_or_else(complicated)?;
                let field = &content[at..at + length];
                let colon = field.iter().position(|byte| *byte == b':').unwrap_or(field.len());
                let (expression, spec) = field.split_at(colon);
                let expression = match expression {
                    [expression @ .., b'!', b'r' | b's'] => expression,
                    _ => expression,
                };
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_ .,()[]+-*/%".contains(byte);
                let spec_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":._ ,+-%<>^#".contains(byte);
                let count = |set: &[u8]| expression.iter().filter(|byte| set.contains(byte)).count();
                let balanced = count(b"(") == count(b")") && count(b"[") == count(b"]");
                let words_fine = std::str::from_utf8(expression).is_ok_and(|text| {
                    !text.split(|c: char| !c.is_alphanumeric()).any(|word| matches!(word, "lambda" | "yield" | "await"))
                });
                if !expression.iter().all(plain)
                    || !spec.iter().all(spec_plain)
                    || !balanced
                    || !words_fine
                    || expression.len() > 120
                    || count(b"([") > 12
                    || count(b"+-*") > 20
                    || expression.trim_ascii().is_empty()
                {
                    return Err(complicated());
                }
                at += length + 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a non-ASCII character is certainly not part of a name in any version of Unicode.
fn is_no_letter(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{a9}' | '\u{ab}'..='\u{b4}' | '\u{b6}' | '\u{b8}' | '\u{b9}' | '\u{bb}'..='\u{bf}' | '×' | '÷'
        | '\u{2000}'..='\u{203e}' | '\u{2041}'..='\u{2053}' | '\u{2055}'..='\u{2064}' | '\u{20a0}'..='\u{20bf}' | '\u{2190}'..='\u{23ff}'
        | '\u{2500}'..='\u{27bf}' | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '（' | '）' | '，' | '：' | '；'
        | '＝' | '\u{feff}' | '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{1f300}'..='\u{1f64f}' | '\u{1f680}'..='\u{1f6c5}')
}
