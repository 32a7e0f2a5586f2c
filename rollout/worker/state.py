"""Notices changes to what all programs of a shared process use: a snapshot of modules and classes.

The snapshot follows the modules that draw and measure into their classes, functions, containers and
objects. It notes the identity of everything that a name, an attribute, a default value or an
element refers to. Whatever refers to something else later is a change.
"""

from __future__ import annotations

import builtins
import ctypes
import math
import sys
from collections.abc import Collection, Mapping
from itertools import islice
from operator import attrgetter
from types import CellType, FunctionType, ModuleType
from typing import Any

import numpy as np
from multimethod import multimethod

OWN = ("program", "measure", "mesh", "tame", "state")

# What a function refers to, its closure's cells apart.
FUNCTION_PARTS = tuple(map(attrgetter, ("__code__", "__defaults__", "__kwdefaults__", "__closure__", "__dict__")))

# Py_TPFLAGS_HEAPTYPE. Without it a class is static in C code, and Python cannot set its attributes.
MUTABLE_TYPE = 1 << 9


def watched_modules() -> list[ModuleType]:
    drawing = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == "cadquery"]
    own = [sys.modules[name] for name in OWN if name in sys.modules]
    return [*drawing, *own, builtins, math, np]


class Snapshot:
    """What the watched modules looked like."""

    def __init__(self) -> None:
        modules = watched_modules()
        self.modules = {module.__name__ for module in modules}
        self.functions: list[FunctionType] = []
        # What names refer to, in modules, classes, objects and dictionaries.
        self.names: list[Mapping[Any, Any]] = []
        # Dictionaries that grow when they are used, and their sizes: only what they had counts.
        self.caches: list[tuple[Mapping[Any, Any], int]] = []
        self.lists: list[Collection[Any]] = []
        self.cells: list[CellType] = []
        # Everything that was followed. It stays alive, so that no other object gets its identity.
        self.seen: dict[int, Any] = {}
        waiting: list[Any] = list(modules)
        while waiting:
            thing = waiting.pop()
            if id(thing) not in self.seen:
                self.seen[id(thing)] = thing
                waiting += self.follow(thing)
        self.sizes = self.sizes_now()
        # They stay alive, too: the keys are not in `seen`.
        self.references = self.references_now()
        self.identities = identities(self.references)

    def follow(self, thing: Any) -> list[Any]:
        """Notes what an object refers to, if it can change, and returns it."""
        if isinstance(thing, ModuleType):
            return self.follow_names(vars(thing)) if thing.__name__ in self.modules else []
        if isinstance(thing, type):
            can_change = thing.__flags__ & MUTABLE_TYPE and self.is_ours(thing)
            return [*self.follow_names(vars(thing)), *thing.__bases__] if can_change else []
        if isinstance(thing, FunctionType):
            if not self.is_ours(thing):
                return []
            self.functions.append(thing)
            return [part(thing) for part in FUNCTION_PARTS]
        if isinstance(thing, multimethod):
            self.caches.append((thing, len(thing)))
            return list(thing.values())
        if type(thing) is dict:
            return self.follow_names(thing)
        if type(thing) in (list, set):
            self.lists.append(thing)
            return list(thing)
        if type(thing) in (tuple, frozenset):
            return list(thing)
        if isinstance(thing, CellType):
            self.cells.append(thing)
            return [contents(thing)]
        if isinstance(thing, property):
            return [thing.fget, thing.fset, thing.fdel]
        if isinstance(thing, (staticmethod, classmethod)):
            return [thing.__func__]
        if self.is_ours(type(thing)) and hasattr(thing, "__dict__"):
            return self.follow_names(vars(thing))
        return []

    def follow_names(self, names: Mapping[Any, Any]) -> list[Any]:
        self.names.append(names)
        return list(names.values())

    def is_ours(self, thing: Any) -> bool:
        return getattr(thing, "__module__", None) in self.modules

    def is_intact(self) -> bool:
        return self.sizes_now() == self.sizes and identities(self.references_now()) == self.identities

    def sizes_now(self) -> list[int]:
        return [*map(len, self.names), *map(len, self.lists)]

    def references_now(self) -> tuple[Any, ...]:
        """Everything that is referred to, in order. Sizes tell whose each reference is."""
        references: list[Any] = []
        for part in FUNCTION_PARTS:
            references += map(part, self.functions)
        for names in filter(None, self.names):
            references += names
            references += names.values()
        for names, size in self.caches:
            references += islice(names, size)
            references += islice(names.values(), size)
        for things in self.lists:
            references += things
        references += map(contents, self.cells)
        return tuple(references)


def identities(references: tuple[Any, ...]) -> bytes:
    """The addresses of objects, which CPython keeps one after another behind the head of a tuple.

    To compare them touches no object and asks none whether it is equal.
    """
    return ctypes.string_at(id(references) + tuple.__basicsize__, len(references) * tuple.__itemsize__)


def contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
