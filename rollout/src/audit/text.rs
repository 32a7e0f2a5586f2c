//! Finds numbers in the text of a program.

/// A literal number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// Position of its first byte.
    pub start: usize,
    /// Position of the byte after it.
    pub end: usize,
    /// Its value, without a sign before it.
    pub value: f64,
}

/// The decimal numbers of a text, in order; digits within names do not count.
pub fn numbers(text: &str) -> Vec<Number> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && (bytes[at].is_ascii_digit() || bytes[at] == b'.') {
            at += 1;
        }
        if at < bytes.len() && bytes[at] == b'e' {
            let sign = usize::from(at + 1 < bytes.len() && b"+-".contains(&bytes[at + 1]));
            let digits = bytes[at + 1 + sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 {
                at += 1 + sign + digits;
            }
        }
        let in_name = start > 0 && is_name(bytes[start - 1]);
        let end = at;
        while at < bytes.len() && is_name(bytes[at]) {
            at += 1;
        }
        if !in_name
            && end == at
            && let Ok(value) = text[start..end].parse()
        {
            found.push(Number { start, end, value });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_and_names_are_not() {
        let text = "wp0 = f(1, -2.5, 6.1e-17)+x_3.y4*10. # 7j 0x1F é5";
        let values: Vec<f64> = numbers(text).iter().map(|number| number.value).collect();
        assert_eq!(values, [1.0, 2.5, 6.1e-17, 10.0]);
        let Number { start, end, .. } = numbers(text)[2];
        assert_eq!(&text[start..end], "6.1e-17");
    }
}
