//! The exception classes of `builtins`, and their instances.

use std::rc::Rc;

use super::{Exception, Stop, Value};

/// An instance of an exception.
#[derive(Debug)]
pub struct Raised {
    /// Its class.
    pub class: String,
    /// `str(exception)`
    pub message: String,
    /// See [`Exception::is_verbatim`].
    pub is_verbatim: bool,
}

impl Raised {
    pub(super) fn stop(&self) -> Stop {
        let Self { class, message, is_verbatim } = self;
        let stop = Stop::raise(class, message.clone());
        if *is_verbatim { stop } else { stop.paraphrased() }
    }
}

impl From<&Exception> for Raised {
    fn from(exception: &Exception) -> Self {
        let Exception { class, message, is_verbatim } = exception.clone();
        Self { class, message, is_verbatim }
    }
}

/// Classes and their bases; each base comes before its subclasses.
const CLASSES: [(&str, &str); 50] = [
    ("BaseException", ""),
    ("Exception", "BaseException"),
    ("GeneratorExit", "BaseException"),
    ("KeyboardInterrupt", "BaseException"),
    ("SystemExit", "BaseException"),
    ("ArithmeticError", "Exception"),
    ("FloatingPointError", "ArithmeticError"),
    ("OverflowError", "ArithmeticError"),
    ("ZeroDivisionError", "ArithmeticError"),
    ("AssertionError", "Exception"),
    ("AttributeError", "Exception"),
    ("BufferError", "Exception"),
    ("EOFError", "Exception"),
    ("ImportError", "Exception"),
    ("ModuleNotFoundError", "ImportError"),
    ("LookupError", "Exception"),
    ("IndexError", "LookupError"),
    ("KeyError", "LookupError"),
    ("MemoryError", "Exception"),
    ("NameError", "Exception"),
    ("UnboundLocalError", "NameError"),
    ("OSError", "Exception"),
    ("BlockingIOError", "OSError"),
    ("ConnectionError", "OSError"),
    ("FileExistsError", "OSError"),
    ("FileNotFoundError", "OSError"),
    ("InterruptedError", "OSError"),
    ("IsADirectoryError", "OSError"),
    ("NotADirectoryError", "OSError"),
    ("PermissionError", "OSError"),
    ("TimeoutError", "OSError"),
    ("ReferenceError", "Exception"),
    ("RuntimeError", "Exception"),
    ("NotImplementedError", "RuntimeError"),
    ("RecursionError", "RuntimeError"),
    ("StopIteration", "Exception"),
    ("StopAsyncIteration", "Exception"),
    ("SyntaxError", "Exception"),
    ("IndentationError", "SyntaxError"),
    ("TabError", "IndentationError"),
    ("SystemError", "Exception"),
    ("TypeError", "Exception"),
    ("ValueError", "Exception"),
    ("UnicodeError", "ValueError"),
    ("Warning", "Exception"),
    ("DeprecationWarning", "Warning"),
    ("FutureWarning", "Warning"),
    ("RuntimeWarning", "Warning"),
    ("SyntaxWarning", "Warning"),
    ("UserWarning", "Warning"),
];

/// The class with this name, if it is an exception of `builtins`.
pub(super) fn class(name: &str) -> Option<&'static str> {
    // `IOError` and `EnvironmentError` are aliases of `OSError`.
    let name = if matches!(name, "IOError" | "EnvironmentError") { "OSError" } else { name };
    CLASSES.iter().find(|(class, _)| *class == name).map(|(class, _)| *class)
}

/// `issubclass(class, base)`; `None` if the answer is not certain.
pub(super) fn is_subclass(class: &str, base: &str) -> Option<bool> {
    if class == base || base == "BaseException" {
        return Some(true);
    }
    if !CLASSES.iter().any(|(known, _)| *known == class) {
        // Exceptions of libraries derive from `Exception`; their other bases are unknown here.
        return (base == "Exception").then_some(true);
    }
    let mut class = class;
    while let Some((_, parent)) = CLASSES.iter().find(|(known, _)| *known == class) {
        if *parent == base {
            return Some(true);
        }
        class = parent;
    }
    Some(false)
}

/// `class(*arguments)`
pub(super) fn instance(class: &'static str, arguments: &[Value]) -> Result<Value, Stop> {
    let special = is_subclass(class, "OSError") == Some(true)
        || is_subclass(class, "SyntaxError") == Some(true)
        || is_subclass(class, "UnicodeError") == Some(true);
    if special && arguments.len() > 1 {
        return Err(Stop::decline("builtin not supported", class));
    }
    let message = match arguments {
        [] => String::new(),
        [key] if class == "KeyError" => key.repr()?,
        [message] => message.str()?,
        _ => Value::tuple(arguments.to_vec()).repr()?,
    };
    Ok(Value::Exception(Rc::new(Raised { class: class.to_owned(), message, is_verbatim: true })))
}
