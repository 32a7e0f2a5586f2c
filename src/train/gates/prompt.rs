//! The gate `prompt`: training must use the prompt that evaluation will use.

use anyhow::Result;

use super::Finding;
use crate::config::Gate;
use crate::model::Prompt;
use crate::train::Stage;

/// The prompt of training must be that of the configuration, and what is loaded with a policy that
/// this stage saves.
pub fn prompt(stage: &Stage) -> Result<Finding> {
    let saved = tempfile::tempdir()?;
    stage.prompt.save(saved.path())?;
    let loaded = Prompt::of(saved.path())?;
    let plan = |prompt: &Prompt| if prompt.expects_plan() { " (answered with a plan)" } else { "" };
    let text = |prompt: &Prompt| prompt.text(&[1]) + plan(prompt);
    let evaluation = loaded.as_ref().map(text).unwrap_or_default();
    Ok(finding(&text(&stage.prompt), &evaluation, &text(&stage.configured_prompt)))
}

/// The finding for a picture of one token.
fn finding(training: &str, evaluation: &str, configured: &str) -> Finding {
    let other = [("evaluation", evaluation), ("the configuration", configured)].into_iter();
    match other.filter(|(_, text)| *text != training).map(|(whose, text)| difference(training, text, whose)).next() {
        Some(difference) => Finding::new(Gate::Prompt, false, difference),
        None => Finding::new(Gate::Prompt, true, "training, evaluation and configuration have one prompt"),
    }
}

/// Where two prompts part.
fn difference(training: &str, other: &str, whose: &str) -> String {
    let common = training.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| text.chars().skip(common.saturating_sub(10)).take(40).collect::<String>();
    format!("training has {:?} where {whose} has {:?}", from(training), from(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_of_another_text_is_shown() {
        let same = "<img>write the program";
        assert!(finding(same, same, same).is_open);
        for (evaluation, configured, whose) in
            [("<img>write the part", same, "evaluation"), (same, "<img>write a part", "the configuration")]
        {
            let found = finding(same, evaluation, configured);
            assert!(!found.is_open && found.found.contains(whose), "{}", found.found);
            assert!(found.found.contains("part") && found.found.contains("program"), "{}", found.found);
        }
    }
}
