//! Prompt strategies: what a request says and shows besides the configured text.

use std::path::Path;

use cadwright_rewards::native::reference;
use serde::Deserialize;

use super::error::ModelError;

/// The strategies with a name. Each is a file in `configs/prompts/`.
const NAMED: [(&str, &str); 5] = [
    ("plain", include_str!("../../configs/prompts/plain.toml")),
    ("reference", include_str!("../../configs/prompts/reference.toml")),
    ("plan", include_str!("../../configs/prompts/plan.toml")),
    ("planned", include_str!("../../configs/prompts/planned.toml")),
    ("examples", include_str!("../../configs/prompts/examples.toml")),
];

/// A form of the prompt, as a file in `configs/prompts/` writes it. In its texts, `{system}` and
/// `{request}` stand for `prompt.system` and `prompt.user`, and `{reference}` for the reference of
/// CadQuery.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// The system message.
    system: String,
    /// The user's request. `{examples}` stands for the examples.
    user: String,
    /// Whether the answer begins with a plan.
    #[serde(default)]
    pub plan: bool,
    /// The number of examples.
    #[serde(default)]
    pub examples: usize,
    /// The text of an example: `<image>` and `{program}` stand for its picture and program.
    #[serde(default)]
    example: String,
}

/// The most examples of a prompt. Each shows a picture, which costs hundreds of tokens.
const MOST_EXAMPLES: usize = 100;

impl Strategy {
    /// The strategy with this name, or the one in a file: any name that ends in `.toml`.
    ///
    /// # Errors
    /// There is no strategy with this name, or the file cannot be read or has other keys.
    pub fn named(name: &str) -> Result<Self, ModelError> {
        let failed = |reason: String| ModelError::Prompt { origin: format!("prompt strategy {name:?}"), reason };
        let text = match NAMED.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => (*text).to_owned(),
            None if Path::new(name).extension().is_some_and(|extension| extension == "toml") => {
                std::fs::read_to_string(name).map_err(|error| failed(error.to_string()))?
            }
            None => {
                let names = NAMED.map(|(known, _)| known).join(", ");
                return Err(failed(format!("unknown; use {names}, or a TOML file of your own")));
            }
        };
        let strategy: Self = toml::from_str(&text).map_err(|error| failed(error.message().to_owned()))?;
        match strategy.problem() {
            None => Ok(strategy),
            Some(problem) => Err(failed(problem)),
        }
    }

    /// Why the texts do not fit the number of examples, if they do not.
    fn problem(&self) -> Option<String> {
        let shown = self.user.matches("{examples}").count();
        let (pictures, programs) = (self.example.matches("<image>").count(), self.example.matches("{program}").count());
        match (self.examples, shown) {
            (examples, _) if examples > MOST_EXAMPLES => {
                Some(format!("examples = {examples}: expected at most {MOST_EXAMPLES}"))
            }
            (0, 0) => None,
            (0, _) => Some("user has {examples}, but examples is 0 or missing".into()),
            (_, 1) if (pictures, programs) == (1, 1) => None,
            (_, 1) => Some("example must have <image> and {program} once each".into()),
            _ => Some("user must have {examples} once".into()),
        }
    }

    /// The name of the strategy in tables and files: `name` itself, or the stem of a file.
    pub fn short_name(name: &str) -> String {
        Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
    }

    /// The system message and the request, in which each example has [`Self::PROGRAM`] for its
    /// program.
    pub(crate) fn texts(&self, system: &str, request: &str) -> [String; 2] {
        let example = self.example.replace("{program}", Self::PROGRAM);
        let examples = vec![example.trim(); self.examples].join("\n\n");
        [&self.system, &self.user].map(|text| {
            // A configured text may contain braces: it is put in last.
            let text = text.replace("{reference}", reference().trim_end()).replace("{examples}", &examples);
            let text = text.replace("{system}", system).replace("{request}", request);
            // An empty request leaves a line break at its end of the text.
            if request.is_empty() { text.trim().to_owned() } else { text }
        })
    }

    /// Stands for the program of an example in a rendered prompt.
    pub(crate) const PROGRAM: &str = "<program>";
}

#[cfg(test)]
mod tests {
    use cadwright_rewards::extract_program;

    use super::*;

    #[test]
    fn every_named_strategy_is_a_file_of_that_name_and_parses() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/prompts");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| Strategy::short_name(&entry.unwrap().path().display().to_string()))
            .collect();
        files.sort_unstable();
        let mut names = NAMED.map(|(name, _)| name);
        names.sort_unstable();
        assert_eq!(files, names);
        for name in names {
            let strategy = Strategy::named(name).unwrap();
            let texts = strategy.texts("S {examples}", "R {reference}");
            assert!(texts[0].contains("S {examples}") && texts[1].contains("R {reference}"), "{name}: {texts:?}");
            assert_eq!(strategy.plan, name.starts_with("plan"), "{name}");
        }
    }

    #[test]
    fn the_plain_strategy_is_the_configured_text() {
        let plain = Strategy::named("plain").unwrap();
        for [system, request] in [["", ""], ["S", ""], ["", "a <image> b"], ["S", "R\n"]] {
            assert_eq!(plain.texts(system, request), [system, request]);
        }
    }

    #[test]
    fn each_strategy_adds_what_its_name_says() {
        let request = |name: &str| Strategy::named(name).unwrap().texts("", "R")[1].clone();
        assert!(request("reference").contains(reference().trim_end()));
        assert!(request("plan").starts_with("R\n") && request("plan").contains("<think>\n2 bodies\n"));
        assert_eq!(request("planned"), "R");
        let examples = request("examples");
        assert_eq!((examples.matches("<image>").count(), examples.matches(Strategy::PROGRAM).count()), (4, 3));
        assert!(examples.ends_with("<image>\nR"), "{examples}");
        // Without a request, nothing but line breaks goes.
        let without = Strategy::named("examples").unwrap().texts("", "")[1].clone();
        assert!(without.starts_with("<image>\n") && without.ends_with("<image>"), "{without}");
    }

    #[test]
    fn the_example_of_a_plan_is_a_plan() {
        let request = Strategy::named("plan").unwrap().texts("", "")[1].clone();
        let (from, to) = (request.rfind("<think>\n").unwrap(), request.rfind("</think>").unwrap());
        // Its last mark ends the plan, so that a model that repeats it writes no program.
        assert_eq!(extract_program(&request[from..to + "</think>".len()]), "");
    }

    #[test]
    fn a_file_of_ones_own_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.toml");
        let name = path.display().to_string();
        assert_eq!(Strategy::short_name(&name), "mine");
        for (text, says) in [
            ("system = \"\"\nuser = \"\"\nplans = true", "plans"),
            ("system = \"\"", "user"),
            ("system = \"\"\nuser = \"{examples}\"", "examples is 0"),
            ("system = \"\"\nuser = \"\"\nexamples = 2", "{examples} once"),
            ("system = \"\"\nuser = \"{examples}\"\nexamples = 2\nexample = \"{program}\"", "<image> and {program}"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Strategy::named(&name).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(&name), "{error}");
        }
        std::fs::write(&path, "system = \"\"\nuser = \"Q: {request}\"").unwrap();
        assert_eq!(Strategy::named(&name).unwrap().texts("S", "R"), ["", "Q: R"]);
        let error = Strategy::named("plam").unwrap_err().to_string();
        assert!(error.contains("plam") && error.contains("planned"), "{error}");
        let error = Strategy::named("/nowhere/mine.toml").unwrap_err().to_string();
        assert!(error.contains("/nowhere/mine.toml"), "{error}");
    }
}
