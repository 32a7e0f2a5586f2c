//! The recipes in `configs/` load and have their header.

use std::path::PathBuf;

use cadwright::config::Config;

use crate::harness::{repository, text};

fn recipes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("configs")).expect("configs/ is there");
    let paths = entries.map(|entry| entry.expect("configs/ can be read").path());
    let mut recipes: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    recipes.sort();
    assert!(recipes.len() >= 5, "{recipes:?}");
    recipes
}

/// The rest of the header's line that begins with `start`.
fn header(recipe: &PathBuf, start: &str) -> String {
    let text = text(recipe);
    let mut comments = text.lines().take_while(|line| line.starts_with('#'));
    let found = comments.find_map(|line| line.strip_prefix(&format!("# {start}: ")).map(str::to_owned));
    found.unwrap_or_else(|| panic!("{}: the header has no line `# {start}: ..`", recipe.display()))
}

#[test]
fn every_config_loads() {
    for recipe in recipes() {
        assert_eq!(recipe.extension().and_then(|e| e.to_str()), Some("toml"), "{}", recipe.display());
        Config::load(Some(&recipe), &[]).unwrap_or_else(|error| panic!("{}: {error}", recipe.display()));
    }
}

#[test]
fn every_config_opens_with_what_it_is_hardware_prerequisites_launch_and_override() {
    for recipe in recipes() {
        let text = text(&recipe);
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("# ") && first.ends_with('.'), "{}: what is it? {first}", recipe.display());
        for item in ["Hardware tested", "Prerequisites", "Launch", "Override"] {
            header(&recipe, item);
        }
        let own_name = format!("configs/{}", recipe.file_name().unwrap_or_default().to_string_lossy());
        let launch = header(&recipe, "Launch");
        assert!(launch.contains(&own_name) || own_name == "configs/quickstart.toml", "{own_name}: Launch: {launch}");
        assert!(header(&recipe, "Override").contains(&own_name), "{own_name}: the override example is of another");
    }
}

#[test]
fn every_override_example_is_accepted() {
    for recipe in recipes() {
        let example = header(&recipe, "Override");
        let overrides: Vec<String> =
            example.split_whitespace().filter(|w| w.contains('=')).map(str::to_owned).collect();
        assert!(!overrides.is_empty(), "{}: {example}", recipe.display());
        Config::load(Some(&recipe), &overrides).unwrap_or_else(|error| panic!("{}: {error}", recipe.display()));
    }
}
