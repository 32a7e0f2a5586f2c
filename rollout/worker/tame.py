"""Decides which programs may share a process: those that can only draw with CadQuery.

A tame program has no way to hold a function, a class or a module. Modules and builtin functions
stand only where they are called, methods are called where they are named, and nothing is defined.
So every value is a number, a text, a sequence of such, or an object that CadQuery has made for this
program. It reaches no inner part of a module and no file, and leaves nothing behind but its own
namespace. `state.py` checks that. Every other program runs in a process of its own.
"""

from __future__ import annotations

import ast
import builtins

NODES = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Pass,
    ast.Break, ast.Continue, ast.Import, ast.alias, ast.Call, ast.keyword, ast.Attribute, ast.Name,
    ast.Constant, ast.Tuple, ast.List, ast.Starred, ast.Subscript, ast.Slice, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.IfExp, ast.ListComp, ast.GeneratorExp, ast.comprehension,
    ast.JoinedStr, ast.FormattedValue, ast.expr_context, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop,
)

MODULES = frozenset(("cadquery", "math", "numpy"))

# The names that every program finds (program.py).
PREDEFINED = frozenset(("cq", "cadquery", "np", "numpy"))

# Builtin functions that a program may call.
FUNCTIONS = frozenset(
    "abs all any bool divmod enumerate float int len list max min pow print range reversed round "
    "set sorted str sum tuple zip".split()
)

# Every builtin name; the others are refused.
BUILTINS = frozenset(dir(builtins))

# Values of objects, and of the module math.
VALUES = frozenset("x y z Length".split())
CONSTANTS = frozenset("pi tau e".split())

# Functions of modules, and methods.
CALLED = frozenset(
    # Classes.
    "Workplane Plane Vector Sketch "
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
    "val vals size first last end faces edges vertices wires solids "
    # Vectors.
    "toTuple sub cross dot multiply normalized "
    # math and numpy.
    "sqrt sin cos tan asin acos atan atan2 radians degrees hypot floor ceil fabs pow "
    # Lists.
    "append extend".split()
)

# Updates in place that change no object which two names can share, lists apart.
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


def is_tame(tree: ast.Module) -> bool:
    nodes = list(ast.walk(tree))
    if not all(isinstance(node, NODES) for node in nodes):
        return False
    imports = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules = PREDEFINED | {alias.asname or alias.name for alias in imports}
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}

    def allows(node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return allows_name(node)
        if isinstance(node, ast.Attribute):
            return allows_attribute(node)
        if isinstance(node, ast.Call):
            return isinstance(node.func, (ast.Attribute, ast.Name))
        if isinstance(node, ast.AugAssign):
            return isinstance(node.target, ast.Name) and isinstance(node.op, ARITHMETIC)
        if isinstance(node, ast.Subscript):
            return isinstance(node.ctx, ast.Load)
        return not isinstance(node, ast.alias) or node.name in MODULES

    def allows_name(node: ast.Name) -> bool:
        is_read = isinstance(node.ctx, ast.Load)
        if node.id in modules:
            return is_read and id(node) in bases
        if node.id in FUNCTIONS:
            return is_read and id(node) in called
        # No other builtin, no other function: a call of a variable is none of ours.
        return id(node) not in called and not node.id.startswith("__") and node.id not in BUILTINS

    def allows_attribute(node: ast.Attribute) -> bool:
        if not isinstance(node.ctx, ast.Load):
            return False
        if id(node) in called:
            return node.attr in CALLED
        of_module = isinstance(node.value, ast.Name) and node.value.id in modules
        return node.attr in (CONSTANTS if of_module else VALUES)

    return all(map(allows, nodes))

