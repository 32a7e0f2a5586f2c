//! Limits on programs; a program that exceeds one is declined.

use super::Stop;

/// Bytes of program text.
pub(super) const TEXT: usize = 64 << 10;
/// Expressions, statements and elements evaluated or visited.
pub(super) const STEPS: u64 = 2_000_000;
/// Total elements and bytes that all containers and strings ever hold.
pub(super) const ELEMENTS: u64 = 4_000_000;
/// Nested function calls; CPython raises `RecursionError` near 1000.
pub(super) const CALLS: usize = 100;
/// Nesting of containers at construction.
pub(super) const NESTING: usize = 30;
/// Total levels that mutation and closures may add to any value. Values are dropped recursively.
pub(super) const LEVELS: usize = 1_000;
/// Bytes of stack that evaluation may use. The caller's thread may have only 2 MiB.
pub(super) const STACK: usize = 700 << 10;

/// Nested brackets.
pub(super) const BRACKETS: usize = 32;
/// Levels of indentation.
pub(super) const INDENTATION: usize = 18;
/// Operators and attributes in one logical line: the depth of its tree.
pub(super) const OPERATORS: usize = 700;
/// Nested constructs in one logical line: `not`, `**`, `lambda`, `if`, ...
pub(super) const PREFIXES: usize = 40;
/// Keyword arguments of a call, and names in `global` statements: their pairwise comparison is
/// quadratic.
pub(super) const KEYWORDS: usize = 100;
/// Elements and bytes that one step can scan.
pub(super) const PER_STEP: usize = 32;
/// Parts of one key of a dict.
pub(super) const KEY: usize = 1_000;
/// Number of `elif` in a program; CPython nests them.
pub(super) const ELIFS: usize = 200;

pub(super) fn too_long(what: &str) -> Stop {
    Stop::decline("too long", what)
}

pub(super) fn too_deep(what: &str) -> Stop {
    Stop::decline("too deep", what)
}

/// An address near the top of the stack. Differences measure the stack in use.
#[inline(always)]
pub(super) fn stack_address() -> usize {
    let here = 0_u8;
    std::hint::black_box(&here) as *const u8 as usize
}
