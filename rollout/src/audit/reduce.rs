//! Reduces a program to a smaller one that still shows the same disagreement.

use super::draw::{plain, rounded};
use super::text::numbers;
use crate::error::Result;

/// Asks whether a text still shows the disagreement, a bounded number of times.
struct Judge<'a> {
    shows: &'a mut dyn FnMut(&str) -> Result<bool>,
    left: usize,
}

impl Judge<'_> {
    /// Whether `candidate` still shows the disagreement; false once the questions are used up.
    fn accepts(&mut self, candidate: &str) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        (self.shows)(candidate)
    }
}

/// Drops lines, calls and digits of `text` as long as `shows` returns true for the rest.
///
/// Calls `shows` at most `budget` times. `text` itself must show the disagreement.
///
/// # Errors
/// Those of `shows`.
pub fn reduce(text: &str, budget: usize, shows: &mut dyn FnMut(&str) -> Result<bool>) -> Result<String> {
    let mut judge = Judge { shows, left: budget };
    let mut best = text.to_owned();
    loop {
        let before = best.clone();
        best = without_lines(best, &mut judge)?;
        best = without_calls(best, &mut judge)?;
        best = with_round_numbers(best, &mut judge)?;
        if best == before || judge.left == 0 {
            return Ok(best);
        }
    }
}

/// Removes runs of lines: halves first, single lines last, from the end of the program.
fn without_lines(mut text: String, judge: &mut Judge) -> Result<String> {
    let mut size = text.lines().count().div_ceil(2);
    while size > 0 {
        let mut end = text.lines().count();
        while end > 0 {
            let lines: Vec<&str> = text.lines().collect();
            let start = end.saturating_sub(size);
            if lines.len() > end - start {
                let kept: String = lines[..start].iter().chain(&lines[end..]).map(|line| format!("{line}\n")).collect();
                if judge.accepts(&kept)? {
                    text = kept;
                }
            }
            end = start;
        }
        size /= 2;
    }
    Ok(text)
}

/// Removes method calls, from the end of the program.
fn without_calls(mut text: String, judge: &mut Judge) -> Result<String> {
    let mut before = text.len();
    while let Some((start, end)) = last_call(&text, before) {
        let shorter = format!("{}{}", &text[..start], &text[end..]);
        if judge.accepts(&shorter)? {
            text = shorter;
        }
        before = start;
    }
    Ok(text)
}

/// Start and end, in bytes, of the last `.name(...)` that starts before the byte `before`.
fn last_call(text: &str, before: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    (0..before).rev().filter(|&at| bytes[at] == b'.').find_map(|dot| {
        let name = bytes[dot + 1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let open = dot + 1 + name;
        if name == 0 || bytes[dot + 1].is_ascii_digit() || bytes.get(open) != Some(&b'(') {
            return None;
        }
        let mut depth = 0;
        for (at, byte) in bytes.iter().enumerate().skip(open) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some((dot, at + 1));
            }
        }
        None
    })
}

/// Rounds numbers to at most three decimals, as few as possible.
fn with_round_numbers(mut text: String, judge: &mut Judge) -> Result<String> {
    let mut index = 0;
    while let Some(&number) = numbers(&text).get(index) {
        let written = &text[number.start..number.end];
        let rounds = [0, 1, 2, 3].map(|decimals| plain(rounded(number.value, decimals)));
        for shorter in rounds.iter().filter(|round| round.len() < written.len()) {
            let candidate = format!("{}{shorter}{}", &text[..number.start], &text[number.end..]);
            if judge.accepts(&candidate)? {
                text = candidate;
                break;
            }
        }
        index += 1;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANTED: &str = "import cadquery as cq\n\
        wide = 12.25\n\
        # a plate\n\
        plate = cq.Workplane(\"XY\").box(wide, 20, 3).edges(\"|Z\").fillet(2)\n\
        pin = cq.Workplane(\"XY\").circle(3.14159).extrude(10)\n\
        result = plate.cut(pin).translate((1, 2, 3)).union(plate)\n\
        result = result.rotate((0, 0, 0), (0, 0, 1), 30)\n";

    #[test]
    fn a_planted_disagreement_is_found_in_what_is_left() {
        // Pretends that the engines disagree about a cut by a round pin.
        let mut shows = |text: &str| Ok(text.contains("circle(3") && text.contains(".cut("));
        let reduced = reduce(PLANTED, 500, &mut shows).unwrap();
        assert_eq!(reduced, "pin = cq.circle(3)\nresult = plate.cut(pin)\n");
    }

    #[test]
    fn questions_are_bounded_and_the_result_always_shows_it() {
        for budget in [0, 1, 5, 20] {
            let mut asked = 0;
            let mut shows = |text: &str| {
                asked += 1;
                Ok(text.contains("fillet"))
            };
            let reduced = reduce(PLANTED, budget, &mut shows).unwrap();
            assert!(reduced.contains("fillet") && asked <= budget, "{asked} of {budget}");
        }
        assert_eq!(reduce(PLANTED, 50, &mut |_| Ok(false)).unwrap(), PLANTED);
    }

    #[test]
    fn calls_are_found_with_all_their_brackets() {
        let text = "a.b(c.d(1, [2]), (3)).e(0.5)";
        assert_eq!(last_call(text, text.len()).map(|(start, end)| &text[start..end]), Some(".e(0.5)"));
        assert_eq!(last_call(text, 20).map(|(start, end)| &text[start..end]), Some(".d(1, [2])"));
        assert_eq!(last_call(text, 3).map(|(start, end)| &text[start..end]), Some(".b(c.d(1, [2]), (3))"));
        assert_eq!(last_call("a.b(1", 5), None);
    }
}
