//! Calls of the program's functions and of all other callables.

use super::arguments::Signature;
use super::exceptions;
use super::machine::{CodeBody, Function, Scope};
use super::statements::Flow;
use super::{Arguments, Machine, Stop, Value, builtins, limits, methods};

impl Machine {
    /// `function(arguments)`
    pub fn call(&mut self, function: &Value, arguments: Arguments) -> Result<Value, Stop> {
        self.step()?;
        match function {
            Value::Object(object) => {
                let object = object.clone();
                self.guarded(|machine| object.call(machine, arguments))
            }
            Value::Function(function) => {
                let function = function.clone();
                self.guarded(|machine| machine.call_function(&function, arguments))
            }
            Value::Builtin(builtin) => {
                let builtin = *builtin;
                self.guarded(|machine| builtins::call(machine, builtin, arguments))
            }
            Value::Method(method) => {
                let method = method.clone();
                self.guarded(|machine| methods::call(machine, &method.0, method.1, arguments))
            }
            Value::Class(class) => match exceptions::class(class) {
                Some(class) if arguments.keywords.is_empty() => exceptions::instance(class, &arguments.positional),
                Some(class) => Err(Stop::decline("builtin not supported", class)),
                None => {
                    let class = *class;
                    self.guarded(|machine| builtins::construct(machine, class, arguments))
                }
            },
            _ => Err(Stop::type_error(format!("'{}' object is not callable", function.class_name()))),
        }
    }

    fn call_function(&mut self, function: &Function, arguments: Arguments) -> Result<Value, Stop> {
        if self.calls >= limits::CALLS {
            return Err(limits::too_deep("calls"));
        }
        let names = &function.code.names;
        self.allocate(names.len())?;
        let scope = Scope::new(&function.name, names, function.scope.clone());
        if let Some(parameters) = &function.code.parameters {
            let signature = Signature::of(parameters, function);
            let values = signature.bind(self, &function.name, arguments)?;
            for (name, value) in signature.names().zip(values) {
                if let Some(slot) = names.slot(name) {
                    scope.values.borrow_mut()[slot] = Some(value);
                }
            }
        } else {
            Signature::default().bind(self, &function.name, arguments)?;
        }
        self.calls += 1;
        let environment = Some(scope);
        let result = match &function.code.body {
            CodeBody::Statements(body) => self.block(body, &environment).map(|flow| match flow {
                Flow::Return(value) => value,
                _ => Value::None,
            }),
            CodeBody::Expression(expr) => self.eval(expr, &environment),
            CodeBody::Loops(..) => Err(Stop::decline("expression not supported", "comprehension as function")),
        };
        self.calls -= 1;
        result
    }
}
