"""Changes in a process that `state.py` must notice, one after another. Each is undone again.

The argument is the directory of the worker's scripts; standard input is a JSON list of programs that
only draw, which must count as no change.
"""

import builtins
import contextlib
import json
import math
import sys

sys.path.insert(0, sys.argv[1])
import cadquery as cq
import measure
import mesh
import numpy as np
import program
import state

measure.warm_up()
snapshot = state.Snapshot()


class Agreeable:
    """It says that it is equal to everything."""

    def __eq__(self, other):
        return True

    __hash__ = None


def stub(*arguments, **keywords):
    return None


@contextlib.contextmanager
def attribute(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


@contextlib.contextmanager
def new_attribute(owner, name):
    setattr(owner, name, stub)
    yield
    delattr(owner, name)


@contextlib.contextmanager
def entry(container, key):
    before = container[key]
    container[key] = stub
    yield
    container[key] = before


@contextlib.contextmanager
def implementation(multimethod):
    signature = next(iter(multimethod))
    before = dict.__getitem__(multimethod, signature)
    dict.__setitem__(multimethod, signature, stub)
    yield
    dict.__setitem__(multimethod, signature, before)


@contextlib.contextmanager
def element(add, remove):
    add(stub)
    yield
    remove(stub)


@contextlib.contextmanager
def exchanged(owner, one, other):
    with attribute(owner, one, vars(owner)[other]), attribute(owner, other, vars(owner)[one]):
        yield


extrude, shapes = cq.Workplane.extrude, sys.modules["cadquery.occ_impl.shapes"]
names = next(function.__kwdefaults__ for function in snapshot.functions if function.__kwdefaults__)
cell = next(function.__closure__[0] for function in snapshot.functions if function.__closure__)
some_list = next(things for things in snapshot.lists if isinstance(things, list) and things)
some_set = next(things for things in snapshot.lists if isinstance(things, set))

CHANGES = {
    "a method": attribute(cq.Workplane, "val", stub),
    "a method of a base class": attribute(cq.Shape, "isValid", stub),
    "a new method": new_attribute(cq.Workplane, "other"),
    "two methods that are exchanged": exchanged(cq.Workplane, "union", "cut"),
    "a name of a module": attribute(measure, "pack", stub),
    "a name of CadQuery's module": attribute(shapes, "BRepGProp", stub),
    "a new name of a module": new_attribute(program, "other"),
    "a builtin": attribute(builtins, "len", stub),
    "a function of math": attribute(math, "sqrt", stub),
    "a function of numpy": attribute(np, "sqrt", stub),
    "an equal number": attribute(measure, "STL_ANGLE", float("0.1")),
    "an equal tuple": attribute(program, "RESULT_NAMES", tuple(list(program.RESULT_NAMES))),
    "a value that says that it is equal": attribute(mesh, "Mesh", Agreeable()),
    "the code of a function": attribute(measure.pack, "__code__", stub.__code__),
    "an attribute of a function": new_attribute(measure.pack, "other"),
    "defaults": attribute(extrude, "__defaults__", tuple(stub for _ in extrude.__defaults__)),
    "a default of a keyword": entry(names, next(iter(names))),
    "a closure": attribute(cell, "cell_contents", stub),
    "an implementation of a multimethod": implementation(vars(cq.Sketch)["segment"]),
    "an element of a list": entry(some_list, 0),
    "a new element of a list": element(some_list.append, some_list.remove),
    "a new element of a set": element(some_set.add, some_set.remove),
}

assert snapshot.is_intact(), "nothing has changed"
for text in json.load(sys.stdin):
    with contextlib.suppress(Exception):  # some fail on purpose
        shape, solids, _ = program.build(text)
        measure.pack(shape, solids, measure.MESH)
    assert snapshot.is_intact(), f"counts as a change: {text}"
for what, change in CHANGES.items():
    with change:
        is_noticed = not snapshot.is_intact()
    assert is_noticed, f"not noticed: {what}"
    assert snapshot.is_intact(), f"not undone: {what}"
