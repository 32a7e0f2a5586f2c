//! What the interpreter makes of programs: one JSON string a line in, one JSON object a line out. `scripts/reference/`
//! has the other side, which compares with CPython.

use std::io::{BufRead, Write};

use cadwright_rewards::native::python::{Namespace, Stop, compiles, run};

fn main() {
    let only_compile = std::env::args().any(|argument| argument == "--compile");
    let mut out = std::io::BufWriter::new(std::io::stdout());
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(program) = serde_json::from_str::<String>(&line) else { continue };
        let result = match only_compile {
            true => compiles(&program).map(|()| serde_json::json!({})),
            false => run(&program, Vec::new(), &|_| None).map(|names| shown(&names)),
        };
        let answer = match result {
            Ok(names) => serde_json::json!({ "names": names }),
            Err(Stop::Raise(e)) => serde_json::json!({ "class": e.class, "message": e.message }),
            Err(Stop::Decline(d)) => serde_json::json!({ "decline": d.reason, "detail": d.detail }),
        };
        if writeln!(out, "{answer}").is_err() {
            return;
        }
    }
}

/// Names with the text of their values, where that is certain.
fn shown(names: &Namespace) -> serde_json::Value {
    let shown = |value: &cadwright_rewards::native::python::Value| value.repr().unwrap_or_else(|_| "?".to_owned());
    names.iter().map(|(name, value)| serde_json::json!([name, shown(value)])).collect()
}
