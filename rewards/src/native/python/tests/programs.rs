//! Statements, scopes and order; each expected value was computed by CPython 3.11.

use std::cell::Cell;

use super::*;

#[test]
fn statements() {
    for (program, expected) in [
        ("a = b = []\na.append(1)\nresult = b", "[1]"),
        ("a = [1]\nb = a\nb += [2]\nresult = a", "[1, 2]"),
        ("a = (1,)\nb = a\nb += (2,)\nresult = a", "(1,)"),
        ("a, (b, *c), d = 1, (2, 3, 4), 5\nresult = (a, b, c, d)", "(1, 2, [3, 4], 5)"),
        ("x = [0, 1]\ni = 0\ni, x[i] = 1, 9\nresult = x", "[0, 9]"),
        (
            "result = []\nfor i in range(5):\n    if i == 1: continue\n    if i == 3: break\n    result.append(i)\nelse:\n    result = None",
            "[0, 2]",
        ),
        ("for i in []: pass\nelse: result = 'else'", "'else'"),
        ("n = 0\nwhile n < 3: n += 1\nelse: result = n", "3"),
        ("x = [1, 2, 3]\nresult = []\nfor i in x:\n    result.append(i)\n    if i == 1: x.append(4)", "[1, 2, 3, 4]"),
        ("try:\n    1 / 0\nexcept ArithmeticError as e:\n    result = str(e)", "'division by zero'"),
        ("try:\n    {}['k']\nexcept (TypeError, KeyError) as e:\n    result = f'{e}'", "\"'k'\""),
        ("def f():\n    try:\n        return 1\n    finally:\n        return 2\nresult = f()", "2"),
        (
            "result = []\ntry:\n    try:\n        1 / 0\n    finally:\n        result.append('f')\nexcept Exception:\n    result.append('e')",
            "['f', 'e']",
        ),
        (
            "try:\n    try:\n        1 / 0\n    except ValueError:\n        pass\nexcept ZeroDivisionError:\n    result = 'outer'",
            "'outer'",
        ),
        (
            "e = 1\ntry:\n    1 / 0\nexcept ZeroDivisionError as e:\n    pass\ntry:\n    e\nexcept NameError:\n    result = 'gone'",
            "'gone'",
        ),
        ("result = __name__", "'builtins'"),
        ("result = 1\nif __name__ == '__main__':\n    result = 2", "1"),
        ("x: float = 1\nresult = x", "1"),
        ("result = (y := 3) + y", "6"),
        ("d = {}\nd['b'] = 1\nd['a'] = 2\nd['b'] = 3\ndel d['b']\nd['b'] = 4\nresult = d", "{'a': 2, 'b': 4}"),
        ("from math import pi as p, floor\nresult = floor(p)", "3"),
        ("print('a', sep='')\nresult = None", "None"),
        ("x = [3, 1, 2]\nx.sort(key=lambda v: -v)\nresult = x", "[3, 2, 1]"),
        ("x = 5\nx //= 2\nx **= 3\nresult = x", "8"),
        ("x = 'a'\nx *= 3\nresult = x", "'aaa'"),
        ("    result = 1\n    if result:\n        result = 2\n", "2"),
        ("\n\t\n  result = '''a\n   \n  b'''", "'a\\n\\nb'"),
    ] {
        assert_eq!(result_of(program), expected, "{program}");
    }
}

#[test]
fn functions() {
    for (program, expected) in [
        (
            "def f(a, b=2, *c, d=4, **e):\n    return a, b, c, d, e\nresult = f(1, 5, 6, d=7, g=8)",
            "(1, 5, (6,), 7, {'g': 8})",
        ),
        ("def f(x=[]):\n    x.append(1)\n    return x\nf()\nresult = f()", "[1, 1]"),
        ("def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nresult = f(10)", "3628800"),
        ("x = 1\ndef f():\n    return x\nx = 2\nresult = f()", "2"),
        ("def f():\n    global x\n    x = 5\nf()\nresult = x", "5"),
        ("def f():\n    x = 1\n    def g():\n        return x\n    x = 2\n    return g()\nresult = f()", "2"),
        ("fs = [lambda: i for i in range(3)]\nresult = [f() for f in fs]", "[2, 2, 2]"),
        ("fs = [lambda i=i: i for i in range(3)]\nresult = [f() for f in fs]", "[0, 1, 2]"),
        ("x = 'g'\nresult = [x for x in range(2)] + [x]", "[0, 1, 'g']"),
        ("def f(): pass\nresult = f()", "None"),
        ("result = (lambda x, *, y=1: x + y)(1, y=2)", "3"),
        ("def f(a, b): return a - b\nresult = f(*[5], **{'b': 3})", "2"),
        ("def f():\n    return sorted([1, 2], key=lambda v: -v * k)\nk = 2\nresult = f()", "[2, 1]"),
        ("g = (1 / x for x in [1, 0])\nresult = any(g)", "True"),
        (
            "result = []\ng = (result.append(x) for x in range(3))\nresult.append('first')\nresult.append(list(g))",
            "['first', 0, 1, 2, [None, None, None]]",
        ),
        ("it = iter([1, 2, 3])\nresult = list(zip(it, it))", "[(1, 2)]"),
    ] {
        assert_eq!(result_of(program), expected, "{program}");
    }
}

#[test]
fn names_keep_the_order_in_which_they_came() {
    let globals = vec![("cq", Value::Int(1)), ("np", Value::Int(2))];
    let names = run("b = 1\ncq = 3\na = 2\nb = 4\ndel a\nc = 5\na = 6", globals, &|_| None).expect("a result");
    let order: Vec<&str> = names.iter().map(|(name, _)| name).collect();
    assert_eq!(order, ["cq", "np", "b", "c", "a"]);
}

#[derive(Debug)]
struct Point(f64, Cell<u32>);

#[derive(Debug)]
struct Moved(Rc<dyn Object>);

impl Object for Point {
    fn class_name(&self) -> String {
        "Point".to_owned()
    }

    fn attribute(&self, this: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        match name {
            "x" => Ok(Value::Float(self.0)),
            "moved" => Ok(Value::Object(Rc::new(Moved(this.clone())))),
            _ => Err(Stop::raise("AttributeError", name)),
        }
    }

    fn binary(&self, operator: BinaryOperator, other: &Value, reflected: bool) -> Result<Option<Value>, Stop> {
        self.1.set(self.1.get() + 1);
        Ok(match (operator, other.as_float()) {
            (BinaryOperator::Multiply, Some(x)) if !reflected => Some(Value::Float(self.0 * x)),
            (BinaryOperator::Subtract, Some(x)) if reflected => Some(Value::Float(x - self.0)),
            _ => None,
        })
    }
}

impl Object for Moved {
    fn class_name(&self) -> String {
        "method".to_owned()
    }

    fn attribute(&self, _: &Rc<dyn Object>, name: &str) -> Result<Value, Stop> {
        Err(Stop::raise("AttributeError", name))
    }

    fn call(&self, machine: &mut Machine, arguments: Arguments) -> Result<Value, Stop> {
        let parameters = [Parameter { name: "by", required: true }, Parameter { name: "function", required: false }];
        let values = arguments.bind("Point.moved", &parameters)?;
        let by = values[0].as_ref().and_then(Value::as_float).unwrap_or(0.0);
        let x = Value::Object(self.0.clone()).object::<Point>().map_or(0.0, |point| point.0) + by;
        match &values[1] {
            Some(function) => machine.call(function, Arguments::from(vec![Value::Float(x)])),
            None => Ok(Value::Object(Rc::new(Point(x, Cell::new(0))))),
        }
    }
}

fn with_point(program: &str) -> Result<Namespace, Stop> {
    let point = Value::Object(Rc::new(Point(1.5, Cell::new(0))));
    run(program, vec![("p", point)], &|module| (module == "points").then(math))
}

#[test]
fn objects_answer_for_themselves() {
    for (expression, expected) in [
        ("p.moved(1).moved(by=2).x", "4.5"),
        ("p.moved(1, lambda x: x * 2)", "5.0"),
        ("p * 2", "3.0"),
        ("2 - p", "0.5"),
        ("p == p, p != 1, p is p, p in [p]", "(True, True, True, True)"),
        ("bool(p)", "True"),
        ("hasattr(p, 'x'), hasattr(p, 'y')", "(True, False)"),
    ] {
        let names = with_point(&format!("import points\nresult = {expression}")).expect(expression);
        assert_eq!(names.get("result").expect("a result").repr().expect("a text"), expected, "{expression}");
    }
    for (expression, message) in [
        ("p + 1", "unsupported operand type(s) for +: 'Point' and 'int'"),
        ("2 / p", "unsupported operand type(s) for /: 'int' and 'Point'"),
        ("'a' + p", "can only concatenate str (not \"Point\") to str"),
        ("p()", "'Point' object is not callable"),
        ("p.moved()", "Point.moved() missing 1 required positional argument: 'by'"),
        ("p.moved(1, 2, 3)", "Point.moved() takes from 2 to 3 positional arguments but 4 were given"),
        ("p.moved(1, by=2)", "Point.moved() got multiple values for argument 'by'"),
        ("p.moved(1, bye=2)", "Point.moved() got an unexpected keyword argument 'bye'"),
    ] {
        match with_point(expression) {
            Err(Stop::Raise(e)) => assert_eq!((e.class.as_str(), e.message.as_str()), ("TypeError", message)),
            other => panic!("{expression}: {other:?}"),
        }
    }
    for program in ["p[0]", "for x in p: pass", "-p", "p.y = 1", "str(p)", "p < 1", "import other"] {
        assert!(matches!(with_point(program), Err(Stop::Decline(_))), "{program}");
    }
}

#[test]
fn what_is_not_supported_is_declined_before_anything_runs() {
    for (program, reason) in [
        ("1 / 0\nclass A: pass", "statement not supported"),
        ("1 / 0\nwith a: pass", "statement not supported"),
        ("1 / 0\n@d\ndef f(): pass", "statement not supported"),
        ("1 / 0\nx = {1, 2}", "expression not supported"),
        ("1 / 0\nx = 1j", "expression not supported"),
        ("1 / 0\ndef f():\n    yield 1", "expression not supported"),
        ("1 / 0\nx = 99999999999999999999", "integer too large"),
    ] {
        assert_eq!(decline_of(program), reason, "{program}");
    }
}

#[test]
fn what_is_not_certain_is_declined() {
    for (program, reason) in [
        ("import os", "import not supported"),
        ("open('x')", "builtin not supported"),
        ("x = 1 is 1", "identity not certain"),
        ("x = 2 ** 64", "integer too large"),
        ("x = 9223372036854775807 + 1", "integer too large"),
        ("x = (-8) ** 0.5", "complex number"),
        ("x = {float('nan'): 1}", "identity not certain"),
        ("sorted([float('nan'), 1])", "order not certain"),
        ("sorted([1, 'a'])", "order not certain"),
        ("str(print)", "text not certain"),
        ("x = [1, 2]\nx[0:1] = []", "statement not supported"),
        ("import numpy as np\nnp.sin(1)", "builtin not supported"),
        ("'a'.title()", "method not supported"),
    ] {
        assert_eq!(decline_of(program), reason, "{program}");
    }
}
