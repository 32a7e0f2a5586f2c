"""Decides which programs may share a process: those that can only draw with CadQuery.

A tame program reaches no inner part of a module, no file, and only the attributes that are named
here. It assigns to plain names only, and updates in place by arithmetic only. It uses classes only
to call them, because their methods may be objects that the whole process shares and that `|=`
changes. So it leaves nothing behind but its own namespace. Every other program runs in a process
of its own.
"""

from __future__ import annotations

import ast
import builtins

NODES = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Pass,
    ast.Break, ast.Continue, ast.FunctionDef, ast.Return, ast.arguments, ast.arg, ast.Lambda,
    ast.Import, ast.alias, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant, ast.Tuple,
    ast.List, ast.Dict, ast.Set, ast.Starred, ast.Subscript, ast.Slice, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.IfExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
    ast.comprehension, ast.JoinedStr, ast.FormattedValue,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)

MODULES = ("cadquery", "math", "numpy")

SAFE_BUILTINS = frozenset(
    "abs all any bool dict divmod enumerate False filter float int len list map max min None pow "
    "print range reversed round set sorted str sum True tuple zip".split()
)
FORBIDDEN_NAMES = frozenset(dir(builtins)) - SAFE_BUILTINS

# Attributes of cadquery, its classes and objects, of math, and of collections.
CLASSES = frozenset("Workplane Plane Vector Sketch".split())
ATTRIBUTES = CLASSES | frozenset(
    # Drawing.
    "moveTo move lineTo line hLine vLine hLineTo vLineTo polarLine polarLineTo polyline close wire "
    "threePointArc sagittaArc radiusArc tangentArcPoint circle ellipse rect slot2D polygon spline "
    "center pushPoints rarray polarArray transformed workplane segment arc assemble finalize push "
    "face reset clean sketch regularPolygon trapezoid slot "
    # Bodies.
    "add extrude cutBlind cutThruAll hole cboreHole cskHole box cylinder sphere union cut "
    "intersect combine revolve translate rotate rotateAboutCenter mirror mirrorX mirrorY fillet "
    "chamfer shell loft "
    # The stack.
    "val vals size first last end faces edges vertices wires solids named "
    # Vectors.
    "x y z Length toTuple sub cross dot multiply normalized "
    # math.
    "pi tau e sqrt sin cos tan asin acos atan atan2 radians degrees hypot floor ceil fabs pow "
    # Collections.
    "append extend items keys values".split()
)

# Updates in place that no shared object supports.
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


def is_tame(tree: ast.Module) -> bool:
    nodes = list(ast.walk(tree))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    return all(is_tame_node(node) and (id(node) in called or not is_class(node)) for node in nodes)


def is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in CLASSES


def is_tame_node(node: ast.AST) -> bool:
    if not isinstance(node, NODES):
        return False
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Name) and isinstance(node.op, ARITHMETIC)
    if isinstance(node, ast.Attribute):
        return node.attr in ATTRIBUTES and isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Subscript):
        return isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Name):
        return node.id not in FORBIDDEN_NAMES and not node.id.startswith("__")
    if isinstance(node, ast.Import):
        return all(alias.name in MODULES for alias in node.names)
    if isinstance(node, ast.FunctionDef):
        return not node.decorator_list
    return True
