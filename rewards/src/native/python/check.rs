//! Parses a program and refuses what CPython's compiler refuses beyond the grammar. Constructs that
//! this interpreter does not support are declined at once, wherever they occur.

use std::collections::HashMap;
use std::rc::Rc;

use ruff_python_ast::{
    Alias, Arguments, Comprehension, ElifElseClause, ExceptHandler, Expr, FStringPart, InterpolatedStringElement,
    Number, Parameters, PythonVersion, Stmt,
};
use ruff_python_parser::{LexicalErrorType, Mode, ParseError, ParseErrorType, ParseOptions};
use ruff_text_size::TextRange;

use super::names::Names;
use super::scan::{Broken, not_certain, syntax_error};
use super::{Stop, limits};

/// A program that compiles.
pub(super) struct Program {
    pub body: Vec<Stmt>,
    /// The names of every function, lambda and comprehension, keyed by its position in the text.
    pub names: HashMap<TextRange, Rc<Names>>,
    /// The modules that it imports.
    pub modules: Vec<String>,
}

/// Parses a text that `scan` accepted.
pub(super) fn parse(text: &str) -> Result<Program, Stop> {
    let options = ParseOptions::from(Mode::Module).with_target_version(PythonVersion::PY311);
    let parsed = ruff_python_parser::parse_unchecked(text, options);
    if let Some(error) = parsed.errors().first() {
        return Err(match indentation_error(parsed.errors()) {
            Some(error) => error,
            // If the syntax is wrong, CPython also looks for broken tokens in the rest of the text.
            None if parsed.errors().iter().any(|error| is_unindented(&error.error)) => not_certain("indentation"),
            None => syntax_error(&error.error.to_string()),
        });
    }
    if let Some(error) = parsed.unsupported_syntax_errors().first() {
        return Err(not_certain(&error.to_string()));
    }
    let Some(module) = parsed.try_into_module() else {
        return Err(not_certain("no module"));
    };
    let body = module.into_suite();
    let mut checker = Checker {
        text,
        scopes: Vec::new(),
        names: HashMap::new(),
        modules: Vec::new(),
        loops: 0,
        globals: 0,
        iterables: 0,
    };
    checker.block(&body)?;
    Ok(Program { body, names: checker.names, modules: checker.modules })
}

/// The answer of `scan`, unless the indentation of the lines before the broken token is wrong.
pub(super) fn broken(text: &str, Broken { stop, at }: Broken) -> Stop {
    if !matches!(stop, Stop::Raise(_)) {
        return stop;
    }
    let line = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let margin = text[line..].len() - text[line..].trim_start_matches([' ', '\t']).len();
    // The line of the broken token counts up to its indentation.
    let before = format!("{}0\n", &text[..line + margin]);
    let options = ParseOptions::from(Mode::Module).with_target_version(PythonVersion::PY311);
    let parsed = ruff_python_parser::parse_unchecked(&before, options);
    let errors = parsed.errors();
    match indentation_error(errors) {
        Some(error) if matches!(errors[0].error, ParseErrorType::UnexpectedIndentation) => error,
        // How far CPython has read determines which of the two errors it reports.
        Some(_) => not_certain("indentation before a broken token"),
        None if errors.iter().any(|error| is_unindented(&error.error)) => not_certain("indentation"),
        None => stop,
    }
}

fn is_unindented(error: &ParseErrorType) -> bool {
    matches!(error, ParseErrorType::Lexical(LexicalErrorType::IndentationError))
}

/// The `IndentationError` that CPython raises if the first error is an indentation error.
fn indentation_error(errors: &[ParseError]) -> Option<Stop> {
    let message = match &errors.first()?.error {
        ParseErrorType::UnexpectedIndentation => "unexpected indent".to_owned(),
        ParseErrorType::OtherError(message) if message.starts_with("Expected an indented block") => {
            message.replacen('E', "e", 1)
        }
        error if is_unindented(error) => "unindent does not match any outer indentation level".to_owned(),
        _ => return None,
    };
    Some(Stop::raise("IndentationError", message))
}

struct CheckedScope {
    names: Names,
    /// Start of the function in the text.
    start: usize,
    is_comprehension: bool,
}

struct Checker<'a> {
    text: &'a str,
    scopes: Vec<CheckedScope>,
    /// Number of iterables of comprehensions around the current node.
    iterables: usize,
    names: HashMap<TextRange, Rc<Names>>,
    modules: Vec<String>,
    loops: usize,
    globals: usize,
}

fn statement(detail: &str) -> Stop {
    Stop::decline("statement not supported", detail)
}

fn expression(detail: &str) -> Stop {
    Stop::decline("expression not supported", detail)
}

impl Checker<'_> {
    fn block(&mut self, body: &[Stmt]) -> Result<(), Stop> {
        body.iter().try_for_each(|stmt| self.statement(stmt))
    }

    fn statement(&mut self, stmt: &Stmt) -> Result<(), Stop> {
        match stmt {
            Stmt::FunctionDef(def) => {
                if def.is_async || !def.decorator_list.is_empty() || def.type_params.is_some() {
                    return Err(statement("async or decorated function"));
                }
                self.bind(&def.name)?;
                self.defaults(&def.parameters)?;
                for annotation in annotations(&def.parameters).chain(def.returns.as_deref()) {
                    self.annotation(annotation)?;
                }
                let loops = std::mem::take(&mut self.loops);
                self.open(def.range, false);
                self.parameters(&def.parameters)?;
                self.block(&def.body)?;
                self.close(def.range);
                self.loops = loops;
                Ok(())
            }
            Stmt::Return(stmt) => {
                if self.scopes.is_empty() {
                    return Err(syntax_error("'return' outside function"));
                }
                stmt.value.as_deref().map_or(Ok(()), |value| self.items_or_one(value))
            }
            Stmt::Delete(stmt) => stmt.targets.iter().try_for_each(|target| self.deletion(target)),
            Stmt::Assign(stmt) => {
                self.items_or_one(&stmt.value)?;
                stmt.targets.iter().try_for_each(|target| self.target(target))
            }
            Stmt::AugAssign(stmt) => {
                self.items_or_one(&stmt.value)?;
                self.target(&stmt.target)
            }
            Stmt::AnnAssign(stmt) => {
                let Expr::Name(name) = &*stmt.target else { return Err(statement("annotation")) };
                if self.scopes.last().is_some_and(|scope| scope.names.is_global(&name.id)) || !stmt.simple {
                    return Err(not_certain("annotation"));
                }
                if let Some(value) = &stmt.value {
                    self.items_or_one(value)?;
                }
                self.bind(&name.id)?;
                self.annotation(&stmt.annotation)
            }
            Stmt::For(stmt) => {
                if stmt.is_async {
                    return Err(statement("async for"));
                }
                self.items_or_one(&stmt.iter)?;
                self.target(&stmt.target)?;
                self.repeated(&stmt.body)?;
                self.block(&stmt.orelse)
            }
            Stmt::While(stmt) => {
                self.expression(&stmt.test)?;
                self.repeated(&stmt.body)?;
                self.block(&stmt.orelse)
            }
            Stmt::If(stmt) => {
                self.expression(&stmt.test)?;
                self.block(&stmt.body)?;
                for ElifElseClause { test, body, .. } in &stmt.elif_else_clauses {
                    test.as_ref().map_or(Ok(()), |test| self.expression(test))?;
                    self.block(body)?;
                }
                Ok(())
            }
            Stmt::Raise(stmt) => {
                if stmt.cause.is_some() {
                    return Err(statement("raise from"));
                }
                stmt.exc.as_deref().map_or(Ok(()), |exception| self.expression(exception))
            }
            Stmt::Try(stmt) => {
                if stmt.is_star {
                    return Err(statement("except*"));
                }
                self.block(&stmt.body)?;
                for (i, ExceptHandler::ExceptHandler(handler)) in stmt.handlers.iter().enumerate() {
                    match &handler.type_ {
                        Some(class) => self.expression(class)?,
                        None if i + 1 < stmt.handlers.len() => {
                            return Err(syntax_error("default 'except:' must be last"));
                        }
                        None => {}
                    }
                    handler.name.as_ref().map_or(Ok(()), |name| self.bind(name))?;
                    self.block(&handler.body)?;
                }
                self.block(&stmt.orelse)?;
                self.block(&stmt.finalbody)
            }
            Stmt::Assert(stmt) => {
                self.expression(&stmt.test)?;
                stmt.msg.as_deref().map_or(Ok(()), |message| self.expression(message))
            }
            Stmt::Import(stmt) => stmt.names.iter().try_for_each(|Alias { name, asname, .. }| {
                if name.contains('.') {
                    return Err(Stop::decline("import not supported", name.as_str()));
                }
                self.modules.push(name.to_string());
                self.bind(asname.as_ref().unwrap_or(name))
            }),
            Stmt::ImportFrom(stmt) => {
                let module = stmt.module.as_ref().filter(|_| stmt.level == 0).map(|module| module.as_str());
                let Some(module) = module.filter(|module| *module != "__future__") else {
                    return Err(Stop::decline("import not supported", "relative or __future__"));
                };
                self.modules.push(module.to_owned());
                stmt.names.iter().try_for_each(|Alias { name, asname, .. }| {
                    if name == "*" {
                        return Err(Stop::decline("import not supported", "*"));
                    }
                    self.bind(asname.as_ref().unwrap_or(name))
                })
            }
            Stmt::Global(stmt) => {
                let start = self.scopes.last().map_or(0, |scope| scope.start);
                let before = &self.text[start..stmt.range.start().to_usize()];
                self.globals += stmt.names.len();
                if self.globals > limits::KEYWORDS {
                    return Err(limits::too_long("global"));
                }
                for name in &stmt.names {
                    // A use before the declaration is an error, unless it was in a string, another
                    // function, ...
                    if before.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name.as_str()) {
                        return Err(not_certain("global after use"));
                    }
                    if let Some(scope) = self.scopes.last_mut() {
                        scope.names.declare_global(name);
                    }
                }
                Ok(())
            }
            Stmt::Expr(stmt) => self.items_or_one(&stmt.value),
            Stmt::Break(_) | Stmt::Continue(_) if self.loops == 0 => Err(syntax_error("outside loop")),
            Stmt::Pass(_) | Stmt::Break(_) | Stmt::Continue(_) => Ok(()),
            Stmt::ClassDef(_) => Err(statement("class")),
            Stmt::With(_) => Err(statement("with")),
            Stmt::Match(_) => Err(statement("match")),
            Stmt::Nonlocal(_) => Err(statement("nonlocal")),
            Stmt::TypeAlias(_) | Stmt::IpyEscapeCommand(_) => Err(not_certain("statement of another Python")),
        }
    }

    fn repeated(&mut self, body: &[Stmt]) -> Result<(), Stop> {
        self.loops += 1;
        self.block(body)?;
        self.loops -= 1;
        Ok(())
    }

    fn open(&mut self, range: TextRange, is_comprehension: bool) {
        self.scopes.push(CheckedScope { names: Names::default(), start: range.start().to_usize(), is_comprehension });
    }

    fn close(&mut self, range: TextRange) {
        if let Some(mut scope) = self.scopes.pop() {
            scope.names.finish();
            self.names.insert(range, Rc::new(scope.names));
        }
    }

    fn bind(&mut self, name: &str) -> Result<(), Stop> {
        if name.starts_with("__") {
            return Err(Stop::decline("name not supported", name));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.bind(name);
        }
        Ok(())
    }

    /// Binds the parameters in order; each name may occur once.
    fn parameters(&mut self, parameters: &Parameters) -> Result<(), Stop> {
        for parameter in parameters {
            let name = parameter.name();
            if self.scopes.last().is_some_and(|scope| scope.names.contains(name)) {
                return Err(syntax_error(&format!("duplicate argument '{name}' in function definition")));
            }
            self.bind(name)?;
        }
        Ok(())
    }

    fn defaults(&mut self, parameters: &Parameters) -> Result<(), Stop> {
        parameters.iter_non_variadic_params().filter_map(|p| p.default()).try_for_each(|value| self.expression(value))
    }

    /// The evaluated value of an annotation is certain only for names and attributes.
    fn annotation(&mut self, annotation: &Expr) -> Result<(), Stop> {
        match annotation {
            Expr::Name(_) | Expr::NoneLiteral(_) | Expr::StringLiteral(_) | Expr::Attribute(_) => {
                self.expression(annotation)
            }
            _ => Err(expression("annotation")),
        }
    }

    fn target(&mut self, target: &Expr) -> Result<(), Stop> {
        match target {
            Expr::Name(name) => {
                if self.scopes.iter().any(|scope| scope.is_comprehension)
                    && !self.scopes.last().is_some_and(|scope| scope.is_comprehension)
                {
                    return Err(not_certain("binding in a comprehension"));
                }
                self.bind(&name.id)
            }
            Expr::Tuple(_) | Expr::List(_) => {
                let items = elements(target);
                if items.iter().filter(|item| item.is_starred_expr()).count() > 1 {
                    return Err(syntax_error("multiple starred expressions in assignment"));
                }
                if items.len() > 250 {
                    return Err(not_certain("many targets"));
                }
                items.iter().try_for_each(|item| match item {
                    Expr::Starred(starred) => self.target(&starred.value),
                    item => self.target(item),
                })
            }
            Expr::Attribute(attribute) => self.expression(&attribute.value),
            Expr::Subscript(subscript) => {
                self.expression(&subscript.value)?;
                self.expression(&subscript.slice)
            }
            Expr::Starred(_) => Err(syntax_error("starred assignment target must be in a list or tuple")),
            _ => Err(not_certain("target")),
        }
    }

    fn deletion(&mut self, target: &Expr) -> Result<(), Stop> {
        match target {
            Expr::Name(name) => self.bind(&name.id),
            Expr::Subscript(_) => self.target(target),
            _ => Err(statement("del")),
        }
    }

    /// Checks an expression that may be a tuple with `*items`, without brackets, but not `*items`
    /// alone.
    fn items_or_one(&mut self, expr: &Expr) -> Result<(), Stop> {
        match expr {
            Expr::Starred(_) => Err(not_certain("starred expression")),
            _ => self.expression(expr),
        }
    }

    fn items(&mut self, items: &[Expr]) -> Result<(), Stop> {
        items.iter().try_for_each(|item| match item {
            Expr::Starred(starred) => self.expression(&starred.value),
            item => self.expression(item),
        })
    }

    fn arguments(&mut self, arguments: &Arguments) -> Result<(), Stop> {
        self.items(&arguments.args)?;
        if arguments.keywords.len() > limits::KEYWORDS {
            return Err(limits::too_long("keywords"));
        }
        for (i, keyword) in arguments.keywords.iter().enumerate() {
            if let Some(name) = &keyword.arg {
                let same = |other: &ruff_python_ast::Keyword| other.arg.as_ref().is_some_and(|arg| arg.id == name.id);
                if arguments.keywords[..i].iter().any(same) {
                    return Err(syntax_error(&format!("keyword argument repeated: {name}")));
                }
            }
            self.expression(&keyword.value)?;
        }
        Ok(())
    }

    /// Walks down the left side of chains in a loop, because they may be long.
    fn expression(&mut self, expr: &Expr) -> Result<(), Stop> {
        let mut expr = expr;
        loop {
            expr = match expr {
                Expr::Attribute(attribute) => &attribute.value,
                Expr::Call(call) => {
                    self.arguments(&call.arguments)?;
                    &call.func
                }
                Expr::BinOp(operation) => {
                    self.expression(&operation.right)?;
                    &operation.left
                }
                Expr::Subscript(subscript) => {
                    self.expression(&subscript.slice)?;
                    &subscript.value
                }
                Expr::UnaryOp(operation) => &operation.operand,
                _ => break,
            };
        }
        match expr {
            Expr::Name(name) if name.id.starts_with("__") && name.id != "__name__" => {
                Err(Stop::decline("name not supported", name.id.as_str()))
            }
            Expr::Name(_) | Expr::StringLiteral(_) | Expr::BooleanLiteral(_) | Expr::NoneLiteral(_) => Ok(()),
            Expr::NumberLiteral(number) => match &number.value {
                Number::Int(value) if value.as_i64().is_none() => Err(Stop::decline("integer too large", "literal")),
                Number::Complex { .. } => Err(expression("complex number")),
                _ => Ok(()),
            },
            Expr::BoolOp(operation) => operation.values.iter().try_for_each(|value| self.expression(value)),
            Expr::Compare(comparison) => {
                self.expression(&comparison.left)?;
                comparison.comparators.iter().try_for_each(|value| self.expression(value))
            }
            Expr::If(conditional) => {
                self.expression(&conditional.test)?;
                self.expression(&conditional.body)?;
                self.expression(&conditional.orelse)
            }
            Expr::Tuple(_) | Expr::List(_) => self.items(elements(expr)),
            Expr::Dict(dict) => dict.items.iter().try_for_each(|item| {
                item.key.as_ref().map_or(Ok(()), |key| self.expression(key))?;
                self.expression(&item.value)
            }),
            Expr::Slice(slice) => [&slice.lower, &slice.upper, &slice.step]
                .into_iter()
                .flatten()
                .try_for_each(|bound| self.expression(bound)),
            Expr::Named(named) => {
                if self.iterables > 0 || self.scopes.iter().any(|scope| scope.is_comprehension) {
                    return Err(not_certain("binding in a comprehension"));
                }
                self.expression(&named.value)?;
                self.target(&named.target)
            }
            Expr::Lambda(lambda) => {
                if let Some(parameters) = &lambda.parameters {
                    self.defaults(parameters)?;
                }
                self.open(lambda.range, false);
                if let Some(parameters) = &lambda.parameters {
                    self.parameters(parameters)?;
                }
                self.expression(&lambda.body)?;
                self.close(lambda.range);
                Ok(())
            }
            Expr::ListComp(comprehension) => {
                self.comprehension(comprehension.range, &comprehension.generators, &[&comprehension.elt])
            }
            Expr::Generator(comprehension) => {
                self.comprehension(comprehension.range, &comprehension.generators, &[&comprehension.elt])
            }
            Expr::DictComp(comprehension) => self.comprehension(
                comprehension.range,
                &comprehension.generators,
                &[&comprehension.key, &comprehension.value],
            ),
            Expr::FString(string) => string.value.iter().try_for_each(|part| match part {
                FStringPart::Literal(_) => Ok(()),
                FStringPart::FString(part) => part.elements.iter().try_for_each(|element| match element {
                    InterpolatedStringElement::Literal(_) => Ok(()),
                    InterpolatedStringElement::Interpolation(field) => {
                        if field.expression.is_starred_expr() {
                            return Err(not_certain("f-string"));
                        }
                        self.expression(&field.expression)
                    }
                }),
            }),
            Expr::Starred(_) => Err(not_certain("starred expression")),
            Expr::Set(_) | Expr::SetComp(_) => Err(expression("set")),
            Expr::Await(_) | Expr::Yield(_) | Expr::YieldFrom(_) => Err(expression("await or yield")),
            _ => Err(expression("bytes, ellipsis, ...")),
        }
    }

    fn comprehension(
        &mut self,
        range: TextRange,
        generators: &[Comprehension],
        elements: &[&Expr],
    ) -> Result<(), Stop> {
        if generators.len() > 8 {
            return Err(not_certain("many loops in a comprehension"));
        }
        for (i, generator) in generators.iter().enumerate() {
            if generator.is_async {
                return Err(expression("async comprehension"));
            }
            if generator.iter.is_starred_expr() {
                return Err(not_certain("starred expression"));
            }
            // The first iterable is evaluated in the enclosing scope. No iterable may bind a name.
            self.iterables += 1;
            self.expression(&generator.iter)?;
            self.iterables -= 1;
            if i == 0 {
                self.open(range, true);
            }
            self.target(&generator.target)?;
            generator.ifs.iter().try_for_each(|condition| self.expression(condition))?;
        }
        elements.iter().try_for_each(|element| self.expression(element))?;
        self.close(range);
        Ok(())
    }
}

/// The elements of a tuple or a list.
pub(super) fn elements(expr: &Expr) -> &[Expr] {
    match expr {
        Expr::Tuple(tuple) => &tuple.elts,
        Expr::List(list) => &list.elts,
        _ => &[],
    }
}

/// The annotations of parameters, in the order in which `def` evaluates them.
pub(super) fn annotations(parameters: &Parameters) -> impl Iterator<Item = &Expr> {
    let plain = parameters.args.iter().chain(&parameters.posonlyargs).map(|p| &p.parameter);
    let only = parameters.kwonlyargs.iter().map(|p| &p.parameter);
    plain
        .chain(parameters.vararg.as_deref())
        .chain(only)
        .chain(parameters.kwarg.as_deref())
        .filter_map(|parameter| parameter.annotation.as_deref())
}
