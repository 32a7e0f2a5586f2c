//! Finds Python, and holds the worker's scripts, which are part of the binary.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The worker's scripts: file names and texts.
pub const SCRIPTS: [(&str, &str); 7] = [
    ("server.py", include_str!("../worker/server.py")),
    ("program.py", include_str!("../worker/program.py")),
    ("measure.py", include_str!("../worker/measure.py")),
    ("state.py", include_str!("../worker/state.py")),
    ("mesh.py", include_str!("../worker/mesh.py")),
    ("sandbox.py", include_str!("../worker/sandbox.py")),
    ("tame.py", include_str!("../worker/tame.py")),
];

/// The environment variable that names the interpreter.
pub const VARIABLE: &str = "CADWRIGHT_PYTHON";

/// Writes the scripts to `directory` and returns the path of the one to run.
pub fn write_scripts(directory: &Path) -> Result<PathBuf> {
    for (name, text) in SCRIPTS {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| Error::file(&path, "write", &error))?;
    }
    Ok(directory.join(SCRIPTS[0].0))
}

/// The interpreter: the one configured, else `CADWRIGHT_PYTHON`, else `.venv/bin/python` in a
/// directory above the executable or the working directory, else `python3` on the path.
pub fn find(configured: Option<&Path>) -> Result<PathBuf> {
    let named = configured.map(Path::to_owned).map(|path| (path, "the configured"));
    let from_variable = || env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(|v| (v.into(), VARIABLE));
    if let Some((path, origin)) = named.or_else(from_variable) {
        return match on_path(&path) {
            Some(found) => Ok(found),
            None => Err(Error::NoPython { tried: format!("{origin} {} does not exist", path.display()) }),
        };
    }
    let starts = [env::current_exe().ok(), env::current_dir().ok()];
    let in_venv = starts.iter().flatten().flat_map(|start| start.ancestors());
    if let Some(python) = in_venv.map(|d| d.join(".venv/bin/python")).find(|path| path.is_file()) {
        return Ok(python);
    }
    on_path(Path::new("python3")).ok_or_else(|| Error::NoPython {
        tried: "no .venv/bin/python above the executable or the working directory, and no python3 \
                on the PATH"
            .to_owned(),
    })
}

/// A path as it is, or a bare name from the PATH.
fn on_path(path: &Path) -> Option<PathBuf> {
    if path.components().count() > 1 {
        return path.is_file().then(|| std::path::absolute(path).unwrap_or(path.to_owned()));
    }
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories).map(|d| d.join(path)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_python_must_exist() {
        let error = find(Some(Path::new("/nowhere/python"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/python") && error.contains("scripts/setup"), "{error}");
    }

    #[test]
    fn a_bare_name_is_looked_up() {
        assert!(find(Some(Path::new("sh"))).unwrap().is_absolute());
    }
}
