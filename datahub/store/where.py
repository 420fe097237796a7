"""``where="label in (1, 2) and width >= 256"``: a filter as text, checked and turned into a pyarrow expression.

The text is parsed as Python and never evaluated: comparisons of a column with literals or another column, chained or
not; ``in``, ``not in``, ``is None``, ``is not None``; ``and``, ``or``, ``not``; numbers, strings and parentheses. A
class may be called by its name: ``label == "cat"``. As in SQL, a row where the column is empty meets no comparison.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datahub.core.errors import BadArgument
from datahub.registry.nearest import nearest

LONGEST = 1 << 16
"""Characters of a filter."""
DEEPEST = 100
"""Levels of parentheses and ``not``."""

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_HINT = 'write for example "label in (1, 2) and width >= 256"'
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Where:
    """A checked filter: ``text`` in its one written form, the same for all spacings, quotes and parentheses."""

    text: str
    expression: pc.Expression
    columns: tuple[str, ...]


def canonical(text: object) -> str:
    """The one written form of a filter. Raises `BadArgument` for what is no filter, whatever the columns."""
    return ast.unparse(_parsed(text))


def parse(text: object, schema: pa.Schema, classes: Sequence[str] = (), words: Sequence[str] = ()) -> Where:
    """The filter over columns of ``schema``. Raises `BadArgument` naming what is wrong.

    ``classes`` and ``words`` name the labels, ``words`` where only one class is called so.
    """
    tree = _parsed(text)
    named = {word: label for label, word in enumerate(words) if words.count(word) == 1}
    named |= {name: label for label, name in enumerate(classes)}
    reader = _Reader(ast.unparse(tree), schema, named)
    expression = reader.condition(tree)
    return Where(reader.text, expression, tuple(sorted(reader.columns)))


def _parsed(text: object) -> ast.expr:
    if not isinstance(text, str):
        raise BadArgument("where", text, "is not text", _HINT)
    if len(text) > LONGEST:
        raise BadArgument("where", _short(text), f"is longer than {LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        single = "==" not in text and "=" in text.replace("<=", "").replace(">=", "").replace("!=", "")
        hint = "write == to compare" if single else _HINT
        raise BadArgument("where", _short(text), f"is no expression: {error.msg}", hint) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadArgument("where", _short(text), f"is no expression: {error or 'too deep'}", _HINT) from None
    if _depth(tree) > DEEPEST:
        raise BadArgument("where", _short(text), f"is nested deeper than {DEEPEST} levels", _HINT)
    return tree


def _depth(tree: ast.AST) -> int:
    """Levels of the tree, walked without recursion: the text may come from anywhere."""
    level, depth = [tree], 0
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


class _Reader:
    def __init__(self, text: str, schema: pa.Schema, classes: Mapping[str, int]) -> None:
        self.text, self.columns = text, set[str]()
        self._schema, self._classes = schema, classes

    def condition(self, node: ast.expr) -> pc.Expression:
        """A node that is true or false of a row."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(each) for each in node.values]
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            return _joined(join, parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            links = zip(sides, node.ops, sides[1:], strict=False)
            return _joined(operator.and_, [self._link(*each) for each in links])
        if isinstance(node, ast.Name):
            self._column(node)
            raise self._wrong(f"{node.id} stands alone", f"compare it: {node.id} == ...")
        raise self._wrong(f"{ast.unparse(node)!r} is no comparison", _HINT)

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._in(left, right)
            return ~found if isinstance(op, ast.NotIn) else found
        if isinstance(op, ast.Is | ast.IsNot):
            return self._is_none(left, right, isinstance(op, ast.IsNot))
        if not isinstance(left, ast.Name):
            if not isinstance(right, ast.Name):
                raise self._wrong(f"{ast.unparse(left)} {_sign(op)} {ast.unparse(right)} names no column", _HINT)
            kind = self._column(right)
            return _COMPARE[type(op)](pc.scalar(self._value(left, right.id, kind, op)), pc.field(right.id))
        kind = self._column(left)
        if not isinstance(right, ast.Name):
            return _COMPARE[type(op)](pc.field(left.id), pc.scalar(self._value(right, left.id, kind, op)))
        if (other := self._column(right)) != kind and "text" in (kind, other):
            raise self._wrong(f"{left.id} holds {kind}, {right.id} holds {other}")
        return _COMPARE[type(op)](pc.field(left.id), pc.field(right.id))

    def _in(self, left: ast.expr, right: ast.expr) -> pc.Expression:
        if not isinstance(left, ast.Name) or not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise self._wrong("in needs a column and a list", 'write "label in (1, 2)"')
        kind = self._column(left)
        values = [self._value(each, left.id, kind, ast.Eq()) for each in right.elts]
        column = pc.field(left.id)
        if any(isinstance(each, float) for each in values):
            column = column.cast(pa.float64())
        listed = pa.array(values, _TYPES["float" if any(isinstance(v, float) for v in values) else kind])
        return pc.if_else(column.is_valid(), column.isin(listed), pa.scalar(None, pa.bool_()))

    def _is_none(self, left: ast.expr, right: ast.expr, negated: bool) -> pc.Expression:
        if not isinstance(left, ast.Name) or not (isinstance(right, ast.Constant) and right.value is None):
            raise self._wrong("is takes None only", 'write "source is None", and == to compare')
        self._column(left)
        return pc.field(left.id).is_valid() if negated else pc.field(left.id).is_null()

    def _column(self, node: ast.Name) -> str:
        """Whether a column holds ``text``, ``int`` or ``float``; it is one of those that are read."""
        if node.id not in self._schema.names:
            near = nearest(node.id, self._schema.names, 1)
            known = f"the columns are {', '.join(self._schema.names)}"
            raise self._wrong(f"there is no column {node.id}", f"did you mean {near[0]}? {known}" if near else known)
        self.columns.add(node.id)
        kind = self._schema.field(node.id).type
        if pa.types.is_nested(kind):
            raise self._wrong(
                f"{node.id} holds a list a sample, which is not compared", "name a column of single values"
            )
        if pa.types.is_integer(kind):
            return "int"
        return "float" if pa.types.is_floating(kind) else "text"

    def _value(self, node: ast.expr, column: str, kind: str, op: ast.cmpop) -> int | float | str:
        value = self._literal(node, column)
        if column == "label" and isinstance(value, str):
            if not isinstance(op, ast.Eq | ast.NotEq):
                raise self._wrong(f"classes have no order: label {_sign(op)} {value!r}", "use == or in")
            return self._class(value)
        if isinstance(value, str) != (kind == "text"):
            hint = f"write {column} {_sign(op)} {str(value)!r}" if kind == "text" else ""
            raise self._wrong(f"{column} holds {'text' if kind == 'text' else 'numbers'}, {value!r} is not", hint)
        return value

    def _literal(self, node: ast.expr, column: str) -> int | float | str:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._literal(node.operand, column)
            if not isinstance(value, str):
                return self._fitting(-value if isinstance(node.op, ast.USub) else value)
        elif isinstance(node, ast.Constant):
            if node.value is None:
                raise self._wrong(f"{column} is compared with None", f"write {column} is None")
            if type(node.value) in (int, float, str):
                return self._fitting(node.value)  # type: ignore[arg-type]
        raise self._wrong(f"{ast.unparse(node)} is no number, text or column", _HINT)

    def _fitting(self, value: float | str) -> int | float | str:
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise self._wrong(f"{_short(str(value))} is larger than any number in the index")
        if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            raise self._wrong(f"{value!a} is no text: it holds half of a surrogate pair")
        return value

    def _class(self, name: str) -> int:
        if name in self._classes:
            return self._classes[name]
        near = nearest(name, self._classes, 1)
        hint = f"did you mean {near[0]!r}?" if near else "see `datahub info`"
        raise self._wrong(f"there is no class {name!r}", hint if self._classes else "the dataset names no classes")

    def _wrong(self, reason: str, hint: str = "") -> BadArgument:
        return BadArgument("where", _short(self.text), reason, hint)


_TYPES = {"int": pa.int64(), "float": pa.float64(), "text": pa.string()}


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:100] + "..."


def _sign(op: ast.cmpop) -> str:
    """An operator as it is written."""
    return ast.unparse(ast.Compare(ast.Name("a"), [op], [ast.Name("b")]))[2:-2]


def _joined(join: Callable[[Any, Any], Any], parts: list[pc.Expression]) -> pc.Expression:
    """All parts under one operator, as a balanced tree: pyarrow walks expressions recursively."""
    while len(parts) > 1:
        pairs = [join(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]
