//! Execution of statements.

use ruff_python_ast::{ExceptHandler, Expr, Stmt, StmtTry};

use super::check::{annotations, elements};
use super::exceptions::{self, Raised};
use super::machine::{CodeBody, Environment};
use super::{Exception, Machine, Stop, Value, operators, strings};

/// The way in which a statement ends.
#[derive(Debug)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
    Return(Value),
}

impl Machine {
    pub(super) fn block(&mut self, body: &[Stmt], environment: &Environment) -> Result<Flow, Stop> {
        for stmt in body {
            match self.statement(stmt, environment)? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &Stmt, environment: &Environment) -> Result<Flow, Stop> {
        self.step()?;
        match stmt {
            Stmt::Expr(stmt) => {
                self.eval(&stmt.value, environment)?;
            }
            Stmt::Assign(stmt) => {
                let value = self.eval(&stmt.value, environment)?;
                for target in &stmt.targets {
                    self.assign(target, value.clone(), environment)?;
                }
            }
            Stmt::AugAssign(stmt) => self.augment(&stmt.target, stmt.op.into(), &stmt.value, environment)?,
            Stmt::AnnAssign(stmt) => {
                if let Some(value) = &stmt.value {
                    let value = self.eval(value, environment)?;
                    self.assign(&stmt.target, value, environment)?;
                }
                // CPython does not evaluate annotations of a function's local variables.
                if environment.is_none() {
                    self.eval(&stmt.annotation, environment)?;
                }
            }
            Stmt::FunctionDef(def) => {
                let make = || (Some(def.parameters.clone()), CodeBody::Statements(def.body.clone()));
                let function = self.function(&def.name, def.range, Some(&def.parameters), make, environment)?;
                for annotation in annotations(&def.parameters).chain(def.returns.as_deref()) {
                    self.eval(annotation, environment)?;
                }
                self.store(&def.name, function, environment)?;
            }
            Stmt::Return(stmt) => {
                return Ok(Flow::Return(match &stmt.value {
                    Some(value) => self.eval(value, environment)?,
                    None => Value::None,
                }));
            }
            Stmt::If(stmt) => {
                if self.eval(&stmt.test, environment)?.truth()? {
                    return self.inner(&stmt.body, environment);
                }
                for clause in &stmt.elif_else_clauses {
                    let holds = match &clause.test {
                        Some(test) => self.eval(test, environment)?.truth()?,
                        None => true,
                    };
                    if holds {
                        return self.inner(&clause.body, environment);
                    }
                }
            }
            Stmt::For(stmt) => {
                let iterable = self.eval(&stmt.iter, environment)?;
                let mut iterator = self.iterate(&iterable)?;
                drop(iterable);
                while let Some(item) = iterator.next(self)? {
                    self.assign(&stmt.target, item, environment)?;
                    match self.inner(&stmt.body, environment)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => return Ok(Flow::Next),
                        flow => return Ok(flow),
                    }
                }
                return self.inner(&stmt.orelse, environment);
            }
            Stmt::While(stmt) => {
                while self.eval(&stmt.test, environment)?.truth()? {
                    match self.inner(&stmt.body, environment)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => return Ok(Flow::Next),
                        flow => return Ok(flow),
                    }
                }
                return self.inner(&stmt.orelse, environment);
            }
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::Delete(stmt) => stmt.targets.iter().try_for_each(|target| self.delete(target, environment))?,
            Stmt::Raise(stmt) => return Err(self.raised(stmt.exc.as_deref(), environment)?),
            Stmt::Try(stmt) => return self.guarded(|machine| machine.attempt(stmt, environment)),
            Stmt::Assert(stmt) => {
                if !self.eval(&stmt.test, environment)?.truth()? {
                    let message = match &stmt.msg {
                        Some(message) => self.eval(message, environment)?.str()?,
                        None => String::new(),
                    };
                    return Err(Stop::raise("AssertionError", message));
                }
            }
            Stmt::Import(stmt) => {
                for alias in &stmt.names {
                    let module = self.module(&alias.name)?;
                    self.store(alias.asname.as_ref().unwrap_or(&alias.name), module, environment)?;
                }
            }
            Stmt::ImportFrom(stmt) => {
                let module = self.module(stmt.module.as_deref().unwrap_or_default())?;
                for alias in &stmt.names {
                    let value = self.attribute(&module, &alias.name).map_err(|stop| match stop {
                        Stop::Raise(_) => Stop::decline("import not supported", alias.name.as_str()),
                        decline => decline,
                    })?;
                    self.store(alias.asname.as_ref().unwrap_or(&alias.name), value, environment)?;
                }
            }
            Stmt::Pass(_) | Stmt::Global(_) => {}
            _ => return Err(Stop::decline("statement not supported", "")),
        }
        Ok(Flow::Next)
    }

    fn inner(&mut self, body: &[Stmt], environment: &Environment) -> Result<Flow, Stop> {
        self.guarded(|machine| machine.block(body, environment))
    }

    fn module(&mut self, name: &str) -> Result<Value, Stop> {
        let module = self.modules.get(name).cloned().flatten();
        module.ok_or_else(|| Stop::decline("import not supported", name))
    }

    /// `target = value`
    pub(super) fn assign(&mut self, target: &Expr, value: Value, environment: &Environment) -> Result<(), Stop> {
        match target {
            Expr::Name(name) => self.store(&name.id, value, environment),
            Expr::Attribute(attribute) => {
                let object = self.eval(&attribute.value, environment)?;
                set_attribute(&object, &attribute.attr, value)
            }
            Expr::Subscript(subscript) => {
                let container = self.eval(&subscript.value, environment)?;
                let key = self.eval(&subscript.slice, environment)?;
                self.set_item(&container, key, value)
            }
            Expr::Tuple(_) | Expr::List(_) => {
                self.guarded(|machine| machine.unpack(elements(target), &value, environment))
            }
            _ => Err(Stop::decline("statement not supported", "target")),
        }
    }

    fn unpack(&mut self, targets: &[Expr], value: &Value, environment: &Environment) -> Result<(), Stop> {
        let mut iterator = self.iterate(value).map_err(|stop| match stop {
            Stop::Raise(_) => Stop::type_error(format!("cannot unpack non-iterable {} object", value.class_name())),
            decline => decline,
        })?;
        let star = targets.iter().position(Expr::is_starred_expr);
        let before = star.unwrap_or(targets.len());
        let mut items = Vec::new();
        while items.len() < before {
            let Some(item) = iterator.next(self)? else {
                let (got, least) = (items.len(), if star.is_some() { "at least " } else { "" });
                let expected = targets.len() - usize::from(star.is_some());
                let message = format!("not enough values to unpack (expected {least}{expected}, got {got})");
                return Err(Stop::raise("ValueError", message));
            };
            items.push(item);
        }
        match star {
            None => {
                if iterator.next(self)?.is_some() {
                    let message = format!("too many values to unpack (expected {})", targets.len());
                    return Err(Stop::raise("ValueError", message));
                }
            }
            Some(star) => {
                let after = targets.len() - star - 1;
                while let Some(item) = iterator.next(self)? {
                    self.allocate(1)?;
                    items.push(item);
                }
                if items.len() < before + after {
                    let (expected, got) = (before + after, items.len());
                    let message = format!("not enough values to unpack (expected at least {expected}, got {got})");
                    return Err(Stop::raise("ValueError", message));
                }
                let rest = items.drain(before..items.len() - after).collect();
                let rest = self.list(rest)?;
                items.insert(before, rest);
            }
        }
        for (target, item) in targets.iter().zip(items) {
            let target = if let Expr::Starred(starred) = target { &starred.value } else { target };
            self.assign(target, item, environment)?;
        }
        Ok(())
    }

    fn set_item(&mut self, container: &Value, key: Value, value: Value) -> Result<(), Stop> {
        match (container, &key) {
            (Value::List(_), Value::Slice(_)) | (Value::Object(_), _) => {
                Err(Stop::decline("statement not supported", "item assignment"))
            }
            (Value::List(items), _) => {
                let place = strings::place(&key, items.borrow().len(), "list assignment")?;
                self.put_into(&value)?;
                let old = std::mem::replace(&mut items.borrow_mut()[place], value);
                drop(old);
                Ok(())
            }
            (Value::Dict(dict), _) => {
                super::dict::Key::new(&key)?;
                self.put_into(&key)?;
                self.put_into(&value)?;
                dict.borrow_mut().insert(key, value)
            }
            _ => {
                let class = container.class_name();
                Err(Stop::type_error(format!("'{class}' object does not support item assignment")))
            }
        }
    }

    fn delete(&mut self, target: &Expr, environment: &Environment) -> Result<(), Stop> {
        match target {
            Expr::Name(name) => self.unbind(&name.id, environment),
            Expr::Subscript(subscript) => {
                let container = self.eval(&subscript.value, environment)?;
                let key = self.eval(&subscript.slice, environment)?;
                match (&container, &key) {
                    (Value::List(_), Value::Slice(_)) | (Value::Object(_), _) => {
                        Err(Stop::decline("statement not supported", "del"))
                    }
                    (Value::List(items), _) => {
                        let place = strings::place(&key, items.borrow().len(), "list assignment")?;
                        self.work(items.borrow().len())?;
                        let old = items.borrow_mut().remove(place);
                        drop(old);
                        Ok(())
                    }
                    (Value::Dict(dict), _) => {
                        let old = dict.borrow_mut().remove(&key)?;
                        match old {
                            Some(_) => Ok(()),
                            None => Err(Stop::raise("KeyError", key.repr()?)),
                        }
                    }
                    _ => {
                        let class = container.class_name();
                        Err(Stop::type_error(format!("'{class}' object doesn't support item deletion")))
                    }
                }
            }
            _ => Err(Stop::decline("statement not supported", "del")),
        }
    }

    fn augment(
        &mut self,
        target: &Expr,
        operator: super::BinaryOperator,
        value: &Expr,
        environment: &Environment,
    ) -> Result<(), Stop> {
        match target {
            Expr::Name(name) => {
                let old = self.load(&name.id, environment)?;
                let value = self.eval(value, environment)?;
                let new = operators::binary(self, operator, &old, &value, true)?;
                self.store(&name.id, new, environment)
            }
            Expr::Subscript(subscript) => {
                let container = self.eval(&subscript.value, environment)?;
                let key = self.eval(&subscript.slice, environment)?;
                let old = self.index(&container, &key)?;
                let value = self.eval(value, environment)?;
                let new = operators::binary(self, operator, &old, &value, true)?;
                self.set_item(&container, key, new)
            }
            Expr::Attribute(attribute) => {
                let object = self.eval(&attribute.value, environment)?;
                let old = self.attribute(&object, &attribute.attr)?;
                let value = self.eval(value, environment)?;
                let new = operators::binary(self, operator, &old, &value, true)?;
                set_attribute(&object, &attribute.attr, new)
            }
            _ => Err(Stop::decline("statement not supported", "target")),
        }
    }

    /// The exception that `raise exception` raises.
    fn raised(&mut self, exception: Option<&Expr>, environment: &Environment) -> Result<Stop, Stop> {
        let Some(exception) = exception else {
            return Ok(match self.handled.last() {
                Some(exception) => Stop::Raise(exception.clone()),
                None => Stop::raise("RuntimeError", "No active exception to reraise"),
            });
        };
        let value = self.eval(exception, environment)?;
        Ok(match &value {
            Value::Exception(raised) => raised.stop(),
            Value::Class(class) if exceptions::class(class).is_some() => Stop::raise(class, ""),
            Value::Object(_) => Stop::decline("statement not supported", "raise of an object"),
            _ => Stop::type_error("exceptions must derive from BaseException"),
        })
    }

    fn attempt(&mut self, stmt: &StmtTry, environment: &Environment) -> Result<Flow, Stop> {
        let result = match self.inner(&stmt.body, environment) {
            Err(Stop::Raise(exception)) => self.handle(stmt, exception, environment),
            Ok(Flow::Next) => self.inner(&stmt.orelse, environment),
            other => other,
        };
        if stmt.finalbody.is_empty() || matches!(result, Err(Stop::Decline(_))) {
            return result;
        }
        let is_raising = match &result {
            Err(Stop::Raise(exception)) => {
                self.handled.push(exception.clone());
                true
            }
            _ => false,
        };
        let last = self.inner(&stmt.finalbody, environment);
        if is_raising {
            self.handled.pop();
        }
        match last? {
            Flow::Next => result,
            flow => Ok(flow),
        }
    }

    fn handle(&mut self, stmt: &StmtTry, exception: Exception, environment: &Environment) -> Result<Flow, Stop> {
        self.handled.push(exception);
        let result = self.handler(stmt, environment);
        self.handled.pop();
        result
    }

    fn handler(&mut self, stmt: &StmtTry, environment: &Environment) -> Result<Flow, Stop> {
        let Some(exception) = self.handled.last().cloned() else { return Ok(Flow::Next) };
        for ExceptHandler::ExceptHandler(handler) in &stmt.handlers {
            let matches = match &handler.type_ {
                None => true,
                Some(class) => {
                    let class = self.eval(class, environment)?;
                    handles(&class, &exception.class)?
                }
            };
            if !matches {
                continue;
            }
            let Some(name) = &handler.name else { return self.inner(&handler.body, environment) };
            let value = Value::Exception(Raised::from(&exception).into());
            self.store(name, value, environment)?;
            let result = self.inner(&handler.body, environment);
            // `except .. as name` unbinds the name. It is no error if the name is already unbound.
            match self.unbind(name, environment) {
                Err(Stop::Decline(decline)) => return Err(decline.into()),
                _ => return result,
            }
        }
        Err(Stop::Raise(exception))
    }
}

/// Whether `except class` handles an exception.
fn handles(class: &Value, exception: &str) -> Result<bool, Stop> {
    let one = |class: &Value| match class {
        Value::Class(name) if exceptions::class(name).is_some() => exceptions::is_subclass(exception, name)
            .ok_or_else(|| Stop::decline("statement not supported", format!("whether {exception} is a {name}"))),
        Value::Object(_) => Err(Stop::decline("statement not supported", "except of an object")),
        _ => Err(Stop::type_error("catching classes that do not inherit from BaseException is not allowed")),
    };
    match class {
        Value::Tuple(classes) => {
            // CPython checks all classes before it compares any.
            for class in classes.iter() {
                if !matches!(class, Value::Class(_)) {
                    one(class)?;
                }
            }
            for class in classes.iter() {
                if one(class)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        class => one(class),
    }
}

fn set_attribute(object: &Value, name: &str, value: Value) -> Result<(), Stop> {
    match object {
        Value::Object(object) => object.set_attribute(name, value),
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Tuple(_)
        | Value::List(_)
        | Value::Dict(_) => {
            let class = object.class_name();
            Err(Stop::raise("AttributeError", format!("'{class}' object has no attribute '{name}'")))
        }
        _ => Err(Stop::decline("statement not supported", "attribute assignment")),
    }
}
