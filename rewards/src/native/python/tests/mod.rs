mod exceptions;
mod programs;
mod robust;
mod syntax;
mod values;

use super::*;

/// `repr` of an expression.
fn value_of(expression: &str) -> String {
    result_of(&format!("import math\nresult = {expression}"))
}

/// `repr` of the value that a program leaves in `result`.
fn result_of(program: &str) -> String {
    match run(program, Vec::new(), &|_| None) {
        Ok(names) => names.get("result").expect("a result").repr().expect("a certain text"),
        Err(stop) => format!("{stop:?}"),
    }
}

/// Class and message of the exception that a program raises.
fn exception_of(program: &str) -> (String, String) {
    match run(&format!("import math\n{program}"), Vec::new(), &|_| None) {
        Err(Stop::Raise(exception)) => (exception.class, exception.message),
        Err(Stop::Decline(decline)) => ("declined".to_owned(), decline.to_string()),
        Ok(_) => ("none".to_owned(), String::new()),
    }
}

/// The reason of a decline, or a description of the other outcome.
fn decline_of(program: &str) -> String {
    match run(program, Vec::new(), &|_| None) {
        Err(Stop::Decline(decline)) => decline.reason.into_owned(),
        Err(Stop::Raise(exception)) => format!("raised {exception:?}"),
        Ok(_) => "ran".to_owned(),
    }
}
