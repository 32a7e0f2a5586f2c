"""Notices changes to what all programs of a shared process use: a snapshot of modules and classes.

The snapshot follows the modules that draw and measure into their classes, functions, containers and
objects. It notes the identity of everything that a name, an attribute, a default value or an
element refers to. Whatever refers to something else later is a change.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Iterable, Mapping
from operator import attrgetter, is_
from types import CellType, FunctionType, ModuleType
from typing import Any

import numpy as np
from multimethod import multimethod

OWN = ("program", "measure", "mesh", "tame", "state")

# What a function refers to, its closure's cells apart.
FUNCTION_PARTS = tuple(map(attrgetter, ("__code__", "__defaults__", "__kwdefaults__", "__closure__", "__dict__")))


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
        self.names: list[tuple[Mapping[Any, Any], list[Any], list[Any]]] = []
        # Namespaces without a name, mostly the attributes of functions.
        self.empty: list[Mapping[Any, Any]] = []
        # Dictionaries that grow when they are used: only what they had counts.
        self.caches: list[tuple[Mapping[Any, Any], list[Any], list[Any]]] = []
        self.lists: list[tuple[Iterable[Any], list[Any]]] = []
        self.cells: list[tuple[CellType, Any]] = []
        # Everything that was followed. It stays alive, so that no other object gets its identity.
        self.seen: dict[int, Any] = {}
        waiting: list[Any] = list(modules)
        while waiting:
            thing = waiting.pop()
            if id(thing) not in self.seen:
                self.seen[id(thing)] = thing
                waiting += self.follow(thing)
        self.parts = [(part, list(map(part, self.functions))) for part in FUNCTION_PARTS]

    def follow(self, thing: Any) -> list[Any]:
        """Notes what an object refers to, if it can change, and returns it."""
        if isinstance(thing, ModuleType):
            return self.follow_names(vars(thing)) if thing.__name__ in self.modules else []
        if isinstance(thing, type):
            return [*self.follow_names(vars(thing)), *thing.__bases__] if self.is_ours(thing) else []
        if isinstance(thing, FunctionType):
            if not self.is_ours(thing):
                return []
            self.functions.append(thing)
            return [part(thing) for part in FUNCTION_PARTS]
        if isinstance(thing, multimethod):
            keys, values = list(thing), list(thing.values())
            self.caches.append((thing, keys, values))
            return values
        if type(thing) is dict:
            return self.follow_names(thing)
        if type(thing) in (list, set):
            self.lists.append((thing, list(thing)))
            return list(thing)
        if type(thing) in (tuple, frozenset):
            return list(thing)
        if isinstance(thing, CellType):
            self.cells.append((thing, contents(thing)))
            return [contents(thing)]
        if isinstance(thing, property):
            return [thing.fget, thing.fset, thing.fdel]
        if isinstance(thing, (staticmethod, classmethod)):
            return [thing.__func__]
        if self.is_ours(type(thing)) and hasattr(thing, "__dict__"):
            return self.follow_names(vars(thing))
        return []

    def follow_names(self, names: Mapping[Any, Any]) -> list[Any]:
        if names:
            self.names.append((names, list(names), list(names.values())))
        else:
            self.empty.append(names)
        return list(names.values())

    def is_ours(self, thing: Any) -> bool:
        return getattr(thing, "__module__", None) in self.modules

    def is_intact(self) -> bool:
        return (
            all(all(map(is_, map(part, self.functions), then)) for part, then in self.parts)
            and not any(self.empty)
            and all(
                len(names) == len(keys) and all(map(is_, names, keys)) and all(map(is_, names.values(), values))
                for names, keys, values in self.names
            )
            and all(all(map(is_, map(names.get, keys), values)) for names, keys, values in self.caches)
            and all(len(things) == len(then) and all(map(is_, things, then)) for things, then in self.lists)
            and all(contents(cell) is then for cell, then in self.cells)
        )


def contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
