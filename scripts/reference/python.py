"""Compares the interpreter of `rewards/src/native/python` with CPython 3.11, which must run this script.

    cargo build --release -p cadwright-rewards --example python
    python3.11 scripts/reference/python.py target/release/examples/python syntax|run [count] [seed] [programs.jsonl]

`syntax` mutates the programs below and those in the field `code` of programs.jsonl, and compares
whether each compiles. `run` generates programs, and compares the values of their names, or the
exception that they raise. The script prints every difference and exits with 1 if there is one.
Programs that the interpreter declines are counted, and are no difference.
"""

import builtins
import json
import math
import random
import subprocess
import sys
import textwrap
import warnings

assert sys.version_info[:2] == (3, 11), sys.version
warnings.simplefilter("ignore")

SEEDS = [
    """import cadquery as cq
import math

width, height = 20.0, 1_0.5
n = 6
points = [(math.cos(2 * math.pi * i / n) * 3, math.sin(2 * math.pi * i / n) * 3) for i in range(n)]
result = (
    cq.Workplane("XY")
    .box(width, height, 5)
    .faces(">Z").workplane()
    .pushPoints(points)
    .hole(0.5e0)
)
if result is not None and n >= 6:
    result = result.edges("|Z").fillet(1.0)
else:
    print("no", n)
""",
    """def gear(n=3, *rest, r: float = 1.0, **more) -> float:
    '''Text "quoted".'''
    total = 0
    for i, (a, b) in enumerate(zip(range(n), [1, 2, 3])):
        if i % 2 == 0: continue
        elif a > b and not (a != 2): break
        else:
            total += a * b ** 2 - ~a // 3
    else:
        total = -total
    while total > 10:
        total -= 1
    try:
        x = {'a': 1, "b": [1, 2][0]}
    except (KeyError, ValueError) as e:
        raise
    finally:
        pass
    return lambda k, z=2: k if k else z

f = gear(4, r=2.0)
s = f"{f(1):.2f} and {s1!r:>5}" 'tail' r"\\d"
t = x[1:2, ::3], *f(2)
a = b = c = 0x1F + 0b11 + 0o17 + 1e-3 + .5 + 5.
assert a == b, "message"
del a, b[0]
global q
""",
    "r=cq.Workplane('XY').moveTo(0,0).lineTo(1,0).lineTo(1,1).close().extrude(-1)\nsolid=r.union(cq.Workplane(cq.Plane(cq.Vector(0.0, 0.0, -0.07), cq.Vector(1.0, 0, 0))).circle(2))\n",
    "a = b \\\n    .c(1)\\\n    .d(2) \\\n  + 3\nif a and \\\n   b:\n  c = 'x\\\ny'\n",
    "# comment\nx = 1; y = 2\nif x: y = 3\nfor i in range(3): print(i, end='')\n\n\n@decorator\nclass A(B, c=1):\n\tdef m(self):\n\t\treturn self.x\n",
]
TOKENS = """( ) [ ] { } , : ; . = == != < > <= >= + - * ** / // % @ -> := | & ^ ~ ' " ''' \\ \n \n\n \t # f" f' r' b' u' 0 1 01 01.0
1_0 1__0 1e 0x 0b2 1.5. 1j x y None True not and or is in if else elif for while def lambda return break continue pass
import from as global nonlocal del try except finally raise assert with class yield await async match case type print
exec *a **k *args, a=1 f(a=1,a=2) \u2212 \u00d7 \u201c \u00e9 \ufeff \x00 \x0c \x0b \r \r\n $ ? ! ` __debug__ ... 1if 0or \\N{DASH} \\x4
{x} {x!r} {x:{y}} {{ }} x=1 (x:=1) [x:=1] *x = 1 = x() = 1 x+1=2 def f(a,a): return 1 lambda a,a:1 for x in y:""".split(" ")
TOKENS += ["    ", "  ", " ", "\n    ", "\n  ", "\n\t", " if 1 else 2", " for i in x", "return 1\n", "break\n", "\\\n", "\n\\\n"]


def mutated(rng: random.Random, seeds: list[str]) -> str:
    text = rng.choice(seeds)
    if len(text) > 400 and rng.random() < 0.7:
        lines = text.splitlines(keepends=True)
        start = rng.randrange(len(lines))
        text = "".join(lines[start:start + rng.randint(1, 8)])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randint(0, len(text))
        kind = rng.randrange(9)
        if kind == 0:
            text = text[:at] + text[at + rng.randint(1, 4):]
        elif kind in (1, 2):
            text = text[:at] + rng.choice(TOKENS) + text[at:]
        elif kind == 3:
            text = text[:at] + rng.choice(TOKENS) + text[at + 1:]
        elif kind == 4:
            text = text[:at]
        elif kind == 5:
            lines = text.split("\n")
            i = rng.randrange(len(lines))
            lines[i:i + 2] = ["".join(lines[i:i + 2])]
            text = "\n".join(lines)
        elif kind == 6:
            lines = text.split("\n")
            i = rng.randrange(len(lines))
            lines[i] = rng.choice((" ", "  ", "\t", "        ")) + lines[i]
            text = "\n".join(lines)
        elif kind == 7:
            lines = text.split("\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines.insert(i, lines[j])
            text = "\n".join(lines)
        else:
            end = min(len(text), at + rng.randint(1, 12))
            text = text[:at] + text[at:end] * 2 + text[end:]
    return text


class Programs:
    """Small programs, most of them without errors."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = ["a", "b", "c", "d", "k"]

    def number(self) -> str:
        rng = self.rng
        return rng.choice((
            str(rng.randint(0, 9)), str(rng.randint(0, 3)), str(rng.randint(-20, 1000)), repr(rng.uniform(-10, 10)),
            repr(rng.uniform(-1, 1) * 10.0 ** rng.randint(-20, 20)), "0.5", "2.5", "1e3", "-0.0", "True", "0.1", "1e16",
            repr(rng.randint(-64, 64) / 8), repr(round(rng.uniform(-5, 5), 2)), "math.pi", "1e308", "math.inf",
        ))

    def text(self) -> str:
        return self.rng.choice(("'a'", "'XY'", "''", "'Hello, World'", "'1.5'", "' 12 '", "\"it's\"", "'a,b,c'", "'x\\n'"))

    def items(self, depth: int) -> str:
        rng = self.rng
        inner = [self.expression(depth - 1) for _ in range(rng.randint(0, 4))]
        return rng.choice((
            f"[{', '.join(inner)}]", f"({', '.join(inner)}{',' if inner else ''})",
            f"range({rng.randint(0, 6)})", f"range({rng.randint(-5, 6)}, {rng.randint(-5, 9)}, {rng.choice((1, 2, -1, 3))})",
            f"[{self.expression(depth - 1, ['i'])} for i in range({rng.randint(0, 5)})]",
            f"[{self.expression(depth - 1, ['i'])} for i in range({rng.randint(0, 5)}) if i % 2]",
            f"sorted([{', '.join(inner)}])", f"list(zip(range(4), [{', '.join(inner)}]))", f"list(reversed([{', '.join(inner)}]))",
            f"list(map(lambda x: {self.expression(depth - 1, ['x'])}, [{', '.join(inner)}]))",
            f"tuple({self.expression(depth - 1, ['i', 'j'])} for i in range(3) for j in range(i))",
            f"[(i, j) for i, j in enumerate([{', '.join(inner)}], {rng.randint(0, 3)})]",
        ))

    def expression(self, depth: int = 3, extra: list[str] = []) -> str:
        rng = self.rng
        if depth <= 0 or rng.random() < 0.12:
            kind = rng.random()
            if kind < 0.45:
                return rng.choice(self.names + extra * 2)
            return self.number() if kind < 0.92 else rng.choice((self.text(), "None"))
        one, two, three = (lambda: self.expression(depth - 1, extra),) * 3
        kind = rng.randrange(24)
        if kind < 7:
            operator = rng.choice(("+", "-", "*", "/", "//", "%", "+", "-", "*", "/", "**", "<<", "&", "|", "^", ">>"))
            return f"({one()} {operator} {two()})"
        if kind == 7:
            return f"({rng.choice('-+~')}{one()})"
        if kind == 8:
            operators = ("<", "<=", "==", "!=", ">", ">=")
            return f"({one()} {rng.choice(operators)} {two()}" + (f" {rng.choice(operators)} {three()})" if rng.random() < 0.3 else ")")
        if kind == 9:
            return f"({one()} {rng.choice(('and', 'or'))} {two()})"
        if kind == 10:
            return f"({one()} if {two()} else {three()})"
        if kind == 11:
            return self.items(depth)
        if kind == 12:
            return f"({self.items(depth)})[{rng.choice((one(), '0', '-1', '1:', '::2', '::-1', ':-1', '1:3', '-3:', '5:1:-2'))}]"
        if kind == 13:
            function = rng.choice(("len", "sum", "min", "max", "any", "all", "sorted", "list", "tuple", "str", "repr"))
            return f"{function}({self.items(depth)})"
        if kind == 14:
            function = rng.choice(("abs", "int", "float", "str", "bool", "round", "repr", "type", "len"))
            value = f"{function}({one()})"
            return f"str({value})" if function == "type" else value
        if kind == 15:
            return f"round({one()}, {rng.randint(0, 6)})"
        if kind in (16, 17):
            function = rng.choice("sin cos tan asin acos atan sqrt exp log log2 log10 radians degrees floor ceil trunc fabs sinh cosh tanh isnan factorial".split())
            return f"math.{function}({one()})"
        if kind == 18:
            function = rng.choice("atan2 hypot pow fmod copysign isclose gcd log dist".split())
            return f"math.{function}({one()}, {two()})"
        if kind == 19:
            function = rng.choice(("divmod", "pow", "min", "max", "isinstance"))
            return f"isinstance({one()}, {rng.choice(('int', 'float', '(int, float)', 'str', 'list'))})" if function == "isinstance" else f"{function}({one()}, {two()})"
        if kind == 20:
            spec = rng.choice(("", ".2f", ".3g", "5", "<6", ">8.1f", "05d", "e", "+.1f", ",", "g", ".3", "^9", "d", "%", ",.2f", "s"))
            return f"'{{:{spec}}}'.format({one()})"
        if kind == 21:
            spec = rng.choice(("%d", "%s", "%.2f", "%5.1f", "%r", "%g", "%i", "%e", "%-6s|", "%05d", "%+d"))
            return f"('{spec}' % ({one()},))"
        if kind == 22:
            method = rng.choice((".upper()", ".split(',')", ".strip()", ".replace('a', 'b')", ".find('l')", ".startswith('H')", ".join(['x', 'y'])", ".zfill(4)", ".count('a')", "[0]", "[1:]", ".foo", " * 2"))
            return f"({self.text()}){method}"
        name = rng.choice(extra + self.names)
        return f"f'{{{name}}} {{{name}:.{rng.randint(0, 4)}f}}'" if rng.random() < 0.5 else f"(lambda x, y={one()}: {self.expression(depth - 1, ['x', 'y'])})({two()})"

    def block(self, depth: int, inside: bool, indent: str) -> list[str]:
        lines = []
        for _ in range(self.rng.randint(1, 3)):
            lines += self.statement(depth, inside, indent)
        return lines

    def statement(self, depth: int, inside: bool, indent: str = "") -> list[str]:
        rng = self.rng
        e, name = self.expression, rng.choice(self.names)
        kind = rng.randrange(22)
        deeper = indent + "    "
        if depth <= 0 or kind < 7:
            return [f"{indent}{name} = {e()}"]
        if kind == 7:
            return [f"{indent}{name} {rng.choice(('+', '-', '*', '/', '//', '%', '**'))}= {e(2)}"]
        if kind == 8:
            return [f"{indent}{name}, {rng.choice(self.names)} = {rng.choice((f'{e(2)}, {e(2)}', self.items(2)))}"]
        if kind == 9:
            return [f"{indent}{name}, *{rng.choice(self.names)} = {self.items(2)}"]
        if kind in (10, 11):
            lines = [f"{indent}if {e(2)}:", *self.block(depth - 1, inside, deeper)]
            if rng.random() < 0.4:
                lines += [f"{indent}elif {e(2)}:", *self.block(depth - 1, inside, deeper)]
            return lines + ([f"{indent}else:", *self.block(depth - 1, inside, deeper)] if rng.random() < 0.5 else [])
        if kind in (12, 13):
            lines = [f"{indent}for {name} in {self.items(2)}:", *self.block(depth - 1, inside, deeper)]
            if rng.random() < 0.4:
                lines += [f"{deeper}if {e(1)}: {rng.choice(('break', 'continue'))}"]
            return lines + ([f"{indent}else:", *self.block(depth - 1, inside, deeper)] if rng.random() < 0.3 else [])
        if kind == 14:
            return [f"{indent}n = 0", f"{indent}while n < {rng.randint(0, 4)}:", f"{deeper}n += 1", *self.block(depth - 1, inside, deeper)]
        if kind in (15, 16):
            function = rng.choice(("f", "g", "h"))
            parameters = rng.choice(("", "x", "x, y=2", "*args", "x, *args, k=1", "x, **kw", "x=1, y=2"))
            call = rng.choice((f"{function}()", f"{function}({e(1)})", f"{function}({e(1)}, {e(1)})", f"{function}({e(1)}, k=3)", f"{function}(x={e(1)})", f"{function}(*{self.items(1)})", f"{function}(1, 2, 3)"))
            body = self.block(depth - 1, True, deeper)
            head = [f"{deeper}global {name}"] if rng.random() < 0.2 else []
            return [f"{indent}def {function}({parameters}):", *head, *body, f"{deeper}return {e(2, ['x', 'args'])}", f"{indent}{name} = {call}"]
        if kind == 17:
            handler = rng.choice(("except Exception as e:", "except:", "except ZeroDivisionError:", "except (TypeError, ValueError) as e:", "except ArithmeticError:", "except NameError:", "except LookupError:"))
            note = f"{deeper}{name} = str(e)" if "as e" in handler else f"{deeper}{name} = 'caught'"
            lines = [f"{indent}try:", *self.block(depth - 1, inside, deeper), f"{indent}{handler}", note]
            return lines + ([f"{indent}finally:", *self.block(0, inside, deeper)] if rng.random() < 0.3 else [])
        if kind == 18:
            return [f"{indent}{name} = [{e(1)}, {e(1)}]", f"{indent}{name}{rng.choice(('.append', '.extend', '.remove', '.index', '.count', '.pop', '.insert', '.foo'))}({e(1)})"]
        if kind == 19:
            return [f"{indent}{name} = {{'p': {e(1)}, 'q': {e(1)}, {e(1)}: 3}}", f"{indent}{name}[{e(1)}] = {e(1)}", f"{indent}{rng.choice(self.names)} = {name}{rng.choice(('.get(1)', '[0]', '.items()', '.keys()', '.pop(1)', '.values()'))}"]
        if kind == 20:
            return [f"{indent}{rng.choice((f'del {name}', f'assert {e(1)}, {e(1)}', f'raise ValueError({e(1)})', f'print({e(2)})', f'{name}: float = {e(1)}', f'import math', f'{name}[0] = {e(1)}'))}"]
        return [f"{indent}if ({name} := {e(2)}):", f"{deeper}{rng.choice(self.names)} = {name}"]

    def program(self) -> str:
        self.names = ["a", "b", "c", "d", "k"]
        lines = ["import math"]
        lines += [f"{name} = {self.number() if self.rng.random() < 0.8 else self.items(1)}" for name in self.names]
        # Exceptions end a program early, so most programs catch them and continue.
        goes_on = self.rng.random() < 0.7
        for i in range(self.rng.randint(1, 6)):
            if goes_on:
                lines += ["try:", *self.statement(2, False, "    "), "except Exception as error:", f"    e{i} = str(error)"]
            else:
                lines += self.statement(2, False)
        return "\n".join(lines)


def answers(binary: str, programs: list[str], arguments: list[str]) -> list[dict]:
    lines = "\n".join(map(json.dumps, programs)) + "\n"
    done = subprocess.run([binary, *arguments], input=lines, capture_output=True, text=True, check=True)
    return list(map(json.loads, done.stdout.splitlines()))


def compare_syntax(binary: str, rng: random.Random, count: int, seeds: list[str]) -> bool:
    programs = [mutated(rng, seeds) for _ in range(count)]
    counts: dict[str, int] = {}
    for program, ours in zip(programs, answers(binary, programs, ["--compile"]), strict=True):
        try:
            compile(textwrap.dedent(program).strip(), "<program>", "exec", dont_inherit=True)
            theirs = "compiles"
        except SyntaxError as error:
            theirs = "SyntaxError"
            message = str(error)
        except Exception as error:
            theirs = type(error).__name__
        if "decline" in ours:
            key = f"declined, {theirs}: {ours['decline']}" + (f", {ours['detail']}" if ours["decline"].startswith("syntax") else "")
        else:
            verdict = ours.get("class", "compiles")
            key = f"agree: {theirs}" if verdict == theirs else f"DIFFER: {verdict}, CPython {theirs}"
            if verdict != theirs:
                print(repr(program), ours, message if theirs == "SyntaxError" else "", sep="\n  ")
        counts[key] = counts.get(key, 0) + 1
    return report(counts)


def compare_runs(binary: str, rng: random.Random, count: int) -> bool:
    programs = [Programs(rng).program() for _ in range(count)]
    counts: dict[str, int] = {}
    for program, ours in zip(programs, answers(binary, programs, []), strict=True):
        if "decline" in ours:
            key = f"declined: {ours['decline']}"
            counts[key] = counts.get(key, 0) + 1
            continue
        names: dict = {}
        theirs: dict = {}
        text = textwrap.dedent(program).strip()
        saved = sys.stdout
        try:
            sys.stdout = open("/dev/null", "w")
            exec(compile(text, "<program>", "exec", dont_inherit=True), names)
            theirs = {"names": [[name, repr(value)] for name, value in names.items() if not name.startswith("__")]}
        except BaseException as error:
            theirs = {"class": type(error).__name__, "message": str(error)}
        finally:
            sys.stdout = saved
        same = ours.get("class") == theirs.get("class")
        if same and "names" in theirs:
            for ours_too in (ours["names"], theirs["names"]):
                # The texts of messages may differ; that there is one may not.
                ours_too[:] = [[k, "text"] if len(k) == 2 and k[0] == "e" else [k, v] for k, v in ours_too]
            pairs = list(zip(ours["names"], theirs["names"]))
            same = len(ours["names"]) == len(theirs["names"]) and all(
                a == b or a[0] == b[0] and a[1] == "?" for a, b in pairs
            )
        key = f"agree: {theirs.get('class', 'value')}" if same else "DIFFER"
        if not same:
            print(program, "\n  ours", ours, "\n  theirs", theirs)
        elif "message" in theirs and ours["message"] != theirs["message"]:
            key += ", other message"
            if counts.get(key, 0) < 2:
                print("message:", ours["message"], "| CPython:", theirs["message"])
        counts[key] = counts.get(key, 0) + 1
    return report(counts)


def report(counts: dict[str, int]) -> bool:
    for key, number in sorted(counts.items()):
        print(f"{number:8}  {key}")
    return not any(key.startswith("DIFFER") for key in counts)


def main() -> None:
    binary, mode, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 1000
    rng = random.Random(int(rest[1]) if len(rest) > 1 else 0)
    seeds = list(SEEDS)
    if len(rest) > 2:
        with open(rest[2]) as file:
            seeds += [json.loads(line)["code"] for line in file]
    fine = compare_syntax(binary, rng, count, seeds) if mode == "syntax" else compare_runs(binary, rng, count)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
