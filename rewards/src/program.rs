//! Extracts a program from a completion.

use std::ops::Range;

/// Markers that chat models append to a completion. The text ends at the first of them.
const END_MARKERS: [&str; 5] = ["<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>", "<|end|>"];

/// The marks around a plan, which a model may write before its program.
pub const PLAN_MARKS: [&str; 2] = ["<think>", "</think>"];

/// The bytes of a completion that are no plan: those after the last `</think>` and before the next
/// `<think>`. A completion that begins within a plan, because the prompt opened it, needs no first
/// mark. If a plan has no end, nothing follows it.
pub fn outside_of_plan(completion: &str) -> Range<usize> {
    let [open, close] = PLAN_MARKS;
    let start = completion.rfind(close).map_or(0, |at| at + close.len());
    let end = completion[start..].find(open).map_or(completion.len(), |at| start + at);
    start..end
}

/// Extracts the program from a model's completion. Training, evaluation and generation share this
/// function.
///
/// 1. Cuts the text at the first end-of-turn marker (`<|im_end|>`, `</s>`, ...), turns `\r\n` into
///    `\n` and removes a leading byte-order mark.
/// 2. Removes the plan ([`outside_of_plan`]), whatever it contains: a plan is never executed. A
///    plan without an end leaves an empty program, whose outcome is `no_solid`.
/// 3. If there is a Markdown fence, takes the content of the first closed fence. If the fence is
///    unclosed (a truncated completion), takes everything after it.
/// 4. Otherwise removes the leading lines before the first one that looks like Python (an import, a
///    comment, an assignment, a definition, a control statement, a decorator or a call), because
///    they are prose. If no line looks like Python, the text stays as it is, and the verdict judges
///    that text.
/// 5. Removes trailing white space. Trailing prose outside of a fence stays, because the boundary
///    between a program and an explanation cannot be found reliably.
///
/// The result may still be indented as a whole; [`normalise_program`] is part of the verdict.
pub fn extract_program(completion: &str) -> String {
    let text = completion.strip_prefix('\u{feff}').unwrap_or(completion).replace("\r\n", "\n");
    let end = END_MARKERS.iter().filter_map(|marker| text.find(*marker)).min().unwrap_or(text.len());
    let text = &text[..end];
    let text = &text[outside_of_plan(text)];
    if let Some(fenced) = first_fence(text) {
        return fenced.trim_end().to_owned();
    }
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if looks_like_python(line) {
            return text[offset..].trim_end().to_owned();
        }
        offset += line.len();
    }
    text.trim_end().to_owned()
}

/// Returns the text that the verdict executes: Python's `textwrap.dedent(program).strip()`. The
/// workers do the same. Rust uses it to recognise equal programs and to execute them.
pub fn normalise_program(program: &str) -> String {
    let margin_of = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    // Lines of only spaces and tabs do not count for the margin and become empty.
    let lines = || program.split('\n').map(|line| if margin_of(line) == line.len() { "" } else { line });
    let margin = lines()
        .filter(|line| !line.is_empty())
        .map(|line| &line[..margin_of(line)])
        .reduce(|a, b| &a[..a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()])
        .unwrap_or("");
    let mut text = String::with_capacity(program.len());
    for (i, line) in lines().enumerate() {
        text.push_str(if i > 0 { "\n" } else { "" });
        text.push_str(line.strip_prefix(margin).unwrap_or(line));
    }
    // Python counts four separators as white space that Unicode does not.
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f')).to_owned()
}

/// The content of the first fence, up to its closing fence or the end of the text.
fn first_fence(text: &str) -> Option<&str> {
    let open = text.find("```")?;
    // The rest of the opening line names the language.
    let body = open + text[open..].find('\n')? + 1;
    let mut offset = body;
    for line in text[body..].split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            return Some(&text[body..offset]);
        }
        offset += line.len();
    }
    Some(text[body..].strip_suffix("```").unwrap_or(&text[body..]))
}

/// Whether a line can begin a program. English sentences must not pass: "Here is a part." has
/// spaces between words at a place where a statement has `=`, `(` or a leading keyword.
fn looks_like_python(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with(['#', '@']) {
        return true;
    }
    let name_length = line.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(line.len());
    let (first, rest) = line.split_at(name_length);
    let is_name = first.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let rest = rest.trim_start();
    match first {
        "import" => !rest.is_empty() && !rest.ends_with('.'),
        "from" => rest.contains(" import "),
        "def" | "class" | "for" | "while" | "if" | "with" | "try" => line.ends_with(':'),
        _ => {
            is_name
                && (rest.starts_with('(') && line[name_length..].starts_with('(')
                    || rest.starts_with('=') && !rest.starts_with("==")
                    || rest.starts_with(',') && rest.contains('=') && !rest.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "import cadquery as cq\nsolid = cq.Workplane().box(1, 2, 3)";

    #[test]
    fn a_bare_program_is_kept() {
        assert_eq!(extract_program(PROGRAM), PROGRAM);
    }

    #[test]
    fn wrappings_come_off() {
        for completion in [
            format!("```python\n{PROGRAM}\n```"),
            format!("```\n{PROGRAM}\n```\n"),
            format!("Here is the program:\n\n```py\n{PROGRAM}\n```\nIt makes a box.<|im_end|>"),
            format!("```python\n{PROGRAM}"),
            format!("```python\n{PROGRAM}```"),
            format!("{PROGRAM}<|im_end|>\n<|endoftext|>"),
            format!("{PROGRAM}\n</s>"),
            format!("Sure, here is the code.\nIt follows the picture:\n{PROGRAM}\n\n"),
            format!("\u{feff}{}", PROGRAM.replace('\n', "\r\n")),
        ] {
            assert_eq!(extract_program(&completion), PROGRAM, "{completion:?}");
        }
    }

    #[test]
    fn the_first_of_two_fences_counts() {
        let completion = format!("```python\n{PROGRAM}\n```\nor\n```python\nx = 1\n```");
        assert_eq!(extract_program(&completion), PROGRAM);
    }

    #[test]
    fn a_plan_is_not_part_of_the_program() {
        let plan = "2 bodies\nx = cq.Workplane().box(9, 9, 9)\n```python\nsolid = x\n```";
        for completion in [
            format!("<think>\n{plan}\n</think>\n{PROGRAM}"),
            format!("<think>{plan}</think>{PROGRAM}<|im_end|>"),
            format!("Let me see.\n<think>{plan}</think>\n\nHere it is:\n```python\n{PROGRAM}\n```"),
            // The prompt opened the plan; two plans; a plan that mentions its own mark.
            format!("{plan}\n</think>\n{PROGRAM}"),
            format!("<think>{plan}</think>\n<think>{plan}</think>\n{PROGRAM}"),
            format!("<think>{plan} </think> {plan}\n</think>\n{PROGRAM}"),
            format!("<think>{plan}</think>\n{PROGRAM}\n<think>\n{plan}"),
            format!("{PROGRAM}\n<think>{plan}"),
        ] {
            assert_eq!(extract_program(&completion), PROGRAM, "{completion:?}");
        }
    }

    #[test]
    fn a_plan_without_an_end_gives_no_program() {
        for completion in
            ["<think>", "<think>\nx = 1\nsolid = cq.Workplane().box(1, 2, 3)", "\n<think> a <|im_end|> </think>"]
        {
            assert_eq!(extract_program(completion), "", "{completion:?}");
        }
        assert_eq!(extract_program("<think>\nx = 1\n</think>\n"), "");
        assert_eq!(outside_of_plan("<think>a"), 0..0);
        assert_eq!(outside_of_plan("<think>a</think>bc"), 16..18);
        assert_eq!(outside_of_plan("bc"), 0..2);
    }

    #[test]
    fn text_without_a_program_stays() {
        assert_eq!(extract_program("I cannot see a picture.\n"), "I cannot see a picture.");
        assert_eq!(extract_program(""), "");
        assert_eq!(extract_program("```"), "```");
    }

    #[test]
    fn indentation_survives_extraction_and_goes_with_normalisation() {
        let indented = format!("  {}", PROGRAM.replace('\n', "\n  "));
        assert_eq!(extract_program(&format!("```\n{indented}\n```")), indented);
        assert_eq!(normalise_program(&indented), PROGRAM);
    }

    #[test]
    fn normalising_dedents_only_what_all_lines_share() {
        assert_eq!(normalise_program("\n    a = 1\n\n      b = 2\n"), "a = 1\n\n  b = 2");
        assert_eq!(normalise_program("a = 1\n  b = 2"), "a = 1\n  b = 2");
        assert_eq!(normalise_program(" \ta = 1\n  b = 2"), "\ta = 1\n b = 2".trim());
        assert_eq!(normalise_program("   \n"), "");
        // Expected values of `textwrap.dedent` and `str.strip` in CPython 3.11.
        assert_eq!(normalise_program("  a\n   \n  b"), "a\n\nb");
        assert_eq!(normalise_program("a = '''\n    \n'''"), "a = '''\n\n'''");
        assert_eq!(normalise_program("  a\n \r\n  b"), "a\n\r\n b");
        assert_eq!(normalise_program("\x1c\u{2003}a\u{85}\x1f"), "a");
    }
}
