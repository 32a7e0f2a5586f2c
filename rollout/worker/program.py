"""Executes a program and hands over its geometry.

This is all that happens in a process that runs a program. Whatever the program changes there, the
process only says: one byte of class, then for a solid its boundary representation in OCC's binary
format, for a failure the message in UTF-8. Another process measures it (measure.py).
"""

from __future__ import annotations

import ast
import io
import textwrap
from typing import Any

import cadquery as cq
import numpy as np
from OCP.BinTools import BinTools, BinTools_FormatVersion
from OCP.Standard import Standard_OutOfMemory

import tame

SOLID, SYNTAX, EXCEPTION, NO_SOLID, EMPTY, TIMEOUT, MEMORY, CRASH = range(8)

# The names of a program's result, in order of precedence. Without them the first object counts. The
# server puts another name before these if it is told one.
RESULT_NAMES = ("solid", "result", "shape", "part", "object", "obj", "res")

MESSAGE_LIMIT = 500

# A result: the shape and its solids, or the failure.
Result = tuple[Any, list[Any], bytes]


def failure(kind: int, message: str) -> bytes:
    line = " ".join(message.split())[:MESSAGE_LIMIT]
    return bytes([kind]) + line.encode("utf-8", "replace")


def describe(error: BaseException) -> str:
    try:
        text = str(error)[:4 * MESSAGE_LIMIT]  # it may be as long as memory allows
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"


def hand_over(text: str) -> bytes:
    """What a program comes to, as the module states it. Never raises."""
    try:
        shape, _, error = build(text)
        return error if shape is None else bytes([SOLID]) + geometry(shape)
    except BaseException as error:  # includes SystemExit and KeyboardInterrupt
        return failure_of(error)


def failure_of(error: BaseException) -> bytes:
    kind = MEMORY if isinstance(error, (MemoryError, Standard_OutOfMemory)) else EXCEPTION
    return failure(kind, describe(error))


def is_tame(text: str) -> bool:
    try:
        return tame.is_tame(ast.parse(textwrap.dedent(text).strip(), "<program>"))
    except BaseException:  # a process of its own finds the error again
        return False


def geometry(shape: Any) -> bytes:
    """The shape in OCC's binary format, without triangles."""
    file = io.BytesIO()
    version = BinTools_FormatVersion.BinTools_FormatVersion_CURRENT
    BinTools.Write_s(shape.wrapped, file, False, False, version)
    return file.getvalue()


def build(text: str) -> Result:
    """The result object of a program and its solids, or the failure.

    Raises any exception that the program raises.
    """
    try:
        code = compile(textwrap.dedent(text).strip(), "<program>", "exec", dont_inherit=True)
    except MemoryError:
        raise
    except BaseException as error:
        return None, [], failure(SYNTAX, describe(error))
    names: dict[str, Any] = {"cq": cq, "cadquery": cq, "np": np, "numpy": np}
    try:
        exec(code, names)
    except (MemoryError, Standard_OutOfMemory):
        names.clear()  # makes room for the message
        raise
    return pick(names)


def pick(names: dict[str, Any]) -> Result:
    """The result object among a program's variables, and its solids, or the failure."""
    found = {
        name: value for name, value in names.items()
        if isinstance(value, (cq.Workplane, cq.Solid, cq.Compound))
    }
    if not found:
        return None, [], failure(NO_SOLID, "the program defines no Workplane, Solid or Compound")
    name = next((name for name in RESULT_NAMES if name in found), next(iter(found)))
    value = found[name]
    if isinstance(value, cq.Workplane):
        value = value.val()
    if not isinstance(value, cq.Shape):
        message = f"'{name}' holds a {type(value).__name__}, not a solid"
        return None, [], failure(NO_SOLID, message)
    solids = value.Solids()
    if not solids and isinstance(value, cq.Compound) and not value.Vertices():
        return None, [], failure(EMPTY, f"'{name}' is empty: nothing is left of it")
    if not solids:
        message = f"'{name}' holds a {type(value).__name__}, not a solid"
        return None, [], failure(NO_SOLID, message)
    return (solids[0] if len(solids) == 1 else value), solids, b""
