//! The state of a running program: names, scopes and the resources used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ruff_python_ast::{Comprehension, Expr, Parameters, Stmt};
use ruff_text_size::TextRange;

use super::check::Program;
use super::iteration::Iter;
use super::names::Names;
use super::statements::Flow;
use super::{Exception, Stop, Value, builtins, limits, math};

/// Names in the order of their first binding, as in a Python `dict`.
#[derive(Debug, Default)]
pub struct Namespace {
    places: HashMap<Rc<str>, usize>,
    /// `None` for a deleted name.
    entries: Vec<Option<(Rc<str>, Value)>>,
}

impl Namespace {
    /// The value bound to a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.places.get(name).and_then(|place| self.entries[*place].as_ref()).map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().flatten().map(|(name, value)| (&**name, value))
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        if let Some(place) = self.places.get(name)
            && let Some(entry) = &mut self.entries[*place]
        {
            entry.1 = value;
            return;
        }
        let name: Rc<str> = name.into();
        self.places.insert(name.clone(), self.entries.len());
        self.entries.push(Some((name, value)));
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Value> {
        self.places.remove(name).and_then(|place| self.entries[place].take()).map(|(_, value)| value)
    }
}

/// A function object, created by `def` or `lambda`.
#[derive(Debug)]
pub struct Function {
    pub(super) code: Rc<Code>,
    /// `__qualname__`
    pub(super) name: String,
    /// Defaults of the last positional parameters.
    pub(super) defaults: Vec<Value>,
    pub(super) keyword_defaults: Vec<(String, Value)>,
    pub(super) scope: Environment,
}

/// The code of a function, shared by all functions that one definition creates.
#[derive(Debug)]
pub(super) struct Code {
    pub parameters: Option<Box<Parameters>>,
    pub body: CodeBody,
    pub names: Rc<Names>,
}

#[derive(Debug)]
pub(super) enum CodeBody {
    Statements(Vec<Stmt>),
    Expression(Expr),
    /// A comprehension: the element (for a dict: key and value) and the loops.
    Loops(Box<(Expr, Option<Expr>)>, Vec<Comprehension>),
}

/// The local names of one call.
#[derive(Debug)]
pub(super) struct Scope {
    /// `__qualname__` of the running code.
    pub name: Rc<str>,
    pub names: Rc<Names>,
    pub values: RefCell<Vec<Option<Value>>>,
    pub parent: Environment,
}

/// The innermost scope, or `None` at module level.
pub(super) type Environment = Option<Rc<Scope>>;

/// A running program.
pub struct Machine {
    pub(super) globals: Namespace,
    pub(super) modules: HashMap<String, Option<Value>>,
    pub(super) names: HashMap<TextRange, Rc<Names>>,
    pub(super) codes: HashMap<TextRange, Rc<Code>>,
    /// The exceptions whose handlers are running.
    pub(super) handled: Vec<Exception>,
    pub(super) calls: usize,
    steps: u64,
    elements: u64,
    levels: usize,
    stack: usize,
}

impl Machine {
    pub(super) fn new(program: &Program, globals: Vec<(&str, Value)>, import: &dyn Fn(&str) -> Option<Value>) -> Self {
        let mut names = Namespace::default();
        for (name, value) in globals {
            names.set(name, value);
        }
        // `exec` adds its own entry here, but only programs that are declined can observe it.
        let modules = program.modules.iter().map(|name| (name.clone(), import(name).or_else(|| math::module(name))));
        Self {
            globals: names,
            modules: modules.collect(),
            names: program.names.clone(),
            codes: HashMap::new(),
            handled: Vec::new(),
            calls: 0,
            steps: 0,
            elements: 0,
            levels: 0,
            stack: limits::stack_address(),
        }
    }

    pub(super) fn run(mut self, body: &[Stmt]) -> Result<Namespace, Stop> {
        match self.block(body, &None)? {
            Flow::Next => Ok(self.globals),
            _ => Err(Stop::decline("syntax not certain", "flow leaves the module")),
        }
    }

    /// Counts one unit of work; declines beyond the limit.
    pub fn step(&mut self) -> Result<(), Stop> {
        self.spend(1)
    }

    /// Counts several units of work; declines beyond the limit.
    pub fn spend(&mut self, steps: u64) -> Result<(), Stop> {
        self.steps += steps;
        if self.steps > limits::STEPS { Err(limits::too_long("steps")) } else { Ok(()) }
    }

    /// Counts a scan over this many elements or bytes.
    pub(super) fn work(&mut self, length: usize) -> Result<(), Stop> {
        self.steps += (length / limits::PER_STEP) as u64;
        self.step()
    }

    /// Counts elements or bytes that are about to be allocated.
    pub(super) fn allocate(&mut self, elements: usize) -> Result<(), Stop> {
        self.elements = self.elements.saturating_add(elements as u64);
        if self.elements > limits::ELEMENTS { Err(limits::too_long("elements")) } else { Ok(()) }
    }

    /// Runs code that may recurse; declines if the stack is used up.
    #[inline]
    pub(super) fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        if self.stack.abs_diff(limits::stack_address()) > limits::STACK {
            return Err(limits::too_deep("stack"));
        }
        act(self)
    }

    pub(super) fn list(&mut self, items: Vec<Value>) -> Result<Value, Stop> {
        self.held(&items)?;
        Ok(Value::list(items))
    }

    pub(super) fn tuple(&mut self, items: Vec<Value>) -> Result<Value, Stop> {
        self.held(&items)?;
        Ok(Value::tuple(items))
    }

    /// Counts the elements of a new container.
    pub(super) fn held(&mut self, items: &[Value]) -> Result<(), Stop> {
        self.allocate(items.len() + 1)?;
        for item in items {
            self.depth(item, 1)?;
        }
        Ok(())
    }

    /// Nesting depth of the containers in a value.
    fn depth(&mut self, value: &Value, level: usize) -> Result<usize, Stop> {
        if value.is_plain() {
            return Ok(0);
        }
        if level > limits::NESTING {
            return Err(limits::too_deep("containers"));
        }
        self.work(value.size())?;
        let mut deepest = 0;
        let mut visit = |machine: &mut Self, value: &Value| -> Result<(), Stop> {
            deepest = deepest.max(machine.depth(value, level + 1)?);
            Ok(())
        };
        match value {
            Value::Tuple(items) => items.iter().try_for_each(|item| visit(self, item))?,
            Value::List(items) => items.borrow().iter().try_for_each(|item| visit(self, item))?,
            Value::Dict(dict) => dict.borrow().iter().try_for_each(|(key, value)| {
                visit(self, key)?;
                visit(self, value)
            })?,
            Value::View(view) => {
                view.dict.borrow().iter().try_for_each(|(_, value)| visit(self, value))?;
            }
            Value::Method(method) => visit(self, &method.0)?,
            _ => {}
        }
        Ok(deepest + 1)
    }

    /// Whether a value contains an iterator or a function that captures a scope.
    fn has_closure(&mut self, value: &Value, level: usize) -> Result<bool, Stop> {
        if level > limits::NESTING {
            return Err(limits::too_deep("containers"));
        }
        let any = |machine: &mut Self, items: &mut dyn Iterator<Item = &Value>| {
            for item in items {
                if !item.is_plain() && machine.has_closure(item, level + 1)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.work(value.size())?;
        match value {
            Value::Function(function) => Ok(function.scope.is_some()),
            Value::Iterator(_) | Value::Slice(_) => Ok(true),
            Value::Tuple(items) => any(self, &mut items.iter()),
            Value::List(items) => any(self, &mut items.borrow().iter()),
            Value::Dict(dict) => any(self, &mut dict.borrow().iter().map(|(_, value)| value)),
            Value::View(view) => any(self, &mut view.dict.borrow().iter().map(|(_, value)| value)),
            Value::Method(method) => any(self, &mut std::iter::once(&method.0)),
            _ => Ok(false),
        }
    }

    /// Counts the levels that inserting a value into another may add. See `limits::LEVELS`.
    pub(super) fn put_into(&mut self, value: &Value) -> Result<(), Stop> {
        self.allocate(1)?;
        if value.is_plain() {
            return Ok(());
        }
        let depth = self.depth(value, 1)?;
        if depth == 1 && matches!(value, Value::Tuple(_)) { Ok(()) } else { self.levels(depth) }
    }

    pub(super) fn levels(&mut self, count: usize) -> Result<(), Stop> {
        self.levels += count;
        if self.levels > limits::LEVELS { Err(limits::too_deep("containers")) } else { Ok(()) }
    }

    /// Creates an iterator value over other values.
    pub(super) fn iterator(&mut self, iterator: Iter, sources: &[Value]) -> Result<Value, Stop> {
        for source in sources {
            let depth = self.depth(source, 1)?;
            let chains = match source {
                Value::Iterator(_) => true,
                Value::Function(function) => function.scope.is_some(),
                _ => depth > 1,
            };
            if chains {
                self.levels(depth)?;
            }
        }
        Ok(Value::Iterator(Rc::new(RefCell::new(iterator))))
    }

    /// The value of a name.
    pub(super) fn load(&mut self, name: &str, environment: &Environment) -> Result<Value, Stop> {
        let mut scope = environment.as_ref();
        let mut is_own = true;
        while let Some(current) = scope {
            if current.names.is_global(name) {
                break;
            }
            if let Some(slot) = current.names.slot(name) {
                return current.values.borrow()[slot].clone().ok_or_else(|| match is_own {
                    true => Stop::raise(
                        "UnboundLocalError",
                        format!("cannot access local variable '{name}' where it is not associated with a value"),
                    ),
                    false => Stop::raise(
                        "NameError",
                        format!(
                            "cannot access free variable '{name}' where it is not associated with a value in enclosing scope"
                        ),
                    ),
                });
            }
            is_own = false;
            scope = current.parent.as_ref();
        }
        if let Some(value) = self.globals.get(name) {
            return Ok(value.clone());
        }
        builtins::lookup(name)
    }

    /// Binds a name.
    pub(super) fn store(&mut self, name: &str, value: Value, environment: &Environment) -> Result<(), Stop> {
        if let Some(scope) = environment
            && let Some(slot) = scope.names.slot(name)
        {
            // A closure that captures this scope may come to hold a chain of other closures.
            if !value.is_plain() && self.has_closure(&value, 1)? {
                let depth = self.depth(&value, 1)?;
                self.levels(depth)?;
            }
            let old = scope.values.borrow_mut()[slot].replace(value);
            drop(old);
            return Ok(());
        }
        self.globals.set(name, value);
        Ok(())
    }

    /// Unbinds a name.
    pub(super) fn unbind(&mut self, name: &str, environment: &Environment) -> Result<(), Stop> {
        if let Some(scope) = environment
            && let Some(slot) = scope.names.slot(name)
        {
            let old = scope.values.borrow_mut()[slot].take();
            return old.map(drop).ok_or_else(|| {
                Stop::raise(
                    "UnboundLocalError",
                    format!("cannot access local variable '{name}' where it is not associated with a value"),
                )
            });
        }
        self.globals
            .remove(name)
            .map(drop)
            .ok_or_else(|| Stop::raise("NameError", format!("name '{name}' is not defined")))
    }

    pub(super) fn names_of(&self, range: TextRange) -> Result<Rc<Names>, Stop> {
        self.names.get(&range).cloned().ok_or_else(|| Stop::decline("syntax not certain", "names"))
    }

    /// The code of a definition, created on first use.
    pub(super) fn code(
        &mut self,
        range: TextRange,
        make: impl FnOnce() -> (Option<Box<Parameters>>, CodeBody),
    ) -> Result<Rc<Code>, Stop> {
        if let Some(code) = self.codes.get(&range) {
            return Ok(code.clone());
        }
        let names = self.names_of(range)?;
        let (parameters, body) = make();
        let code = Rc::new(Code { parameters, body, names });
        self.codes.insert(range, code.clone());
        Ok(code)
    }
}

impl Scope {
    pub(super) fn new(name: &str, names: &Rc<Names>, parent: Environment) -> Rc<Self> {
        let values = RefCell::new(vec![None; names.len()]);
        Rc::new(Self { name: name.into(), names: names.clone(), values, parent })
    }
}
