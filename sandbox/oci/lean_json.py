"""JSON by the C scanner and encoder behind the `json` package, whose own import costs 3 ms of `stockade-runtime`.

The scanner is the one of `json.loads`, so what it takes is the same. Stricter than `json.loads`, as befits a file that
decides what a container may do: UTF-8 only, no byte order mark, no NaN and no Infinity, no name twice in an object (Go
and Python silently take the last one, others the first: a file that says two things is refused), and a limit on size
and depth. Names are matched exactly, while Go's decoder ignores their case.

Only what can't be read pays for `json`, which then says where the error is. Where an interpreter lacks the C parts
(PyPy), `json` is used throughout.
"""

from __future__ import annotations

from stockade.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Scanner: TypeAlias = Callable[[str, int], tuple[object, int]]

try:
    _c: Any = __import__("_json")
except ImportError:  # pragma: no cover - no such interpreter in the tests
    _c = None

#: bytes of a document; a config.json of an engine has some kilobytes
MAX_BYTES = 1 << 24
#: nested arrays and objects; the specification's own deepest field is 8 down
MAX_DEPTH = 64

_SPACE = " \t\n\r"  # RFC 8259; str.strip() alone would take more
_scanner: list[Scanner] = []


class _Refused(ValueError):
    """What JSON allows, or the scanner takes, and we don't."""


class _Context:
    """What `make_scanner` reads of its caller, Modules/_json.c."""

    strict = True  # no control characters in strings
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, object]]) -> dict[str, object]:
        """Make the dictionary of an object."""
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _Refused(f"{shown(twice)} is there twice in one object")
        return found

    @staticmethod
    def parse_constant(text: str) -> object:
        """Refuse NaN, Infinity and -Infinity."""
        raise _Refused(f"{text} is not JSON")


def loads(data: bytes, name: str) -> Any:
    """Decode one JSON document. Raises UsageError that begins with `name` and says where."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name}: {len(data)} bytes, the limit is {MAX_BYTES}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 at byte {error.start}") from None
    try:
        found, end = _scan(text)
        if text[end:].strip(_SPACE):
            raise _Refused("more after the end of the document")
    except RecursionError:
        raise UsageError(f"{name}: nested too deep; the limit is {MAX_DEPTH}") from None
    except (ValueError, StopIteration, SystemError):
        # The C scanner takes the class of its error out of sys.modules: without `json` there it raises SystemError.
        raise UsageError(f"{name}: {_reason(text)}") from None
    if _deeper(found, MAX_DEPTH):
        raise UsageError(f"{name}: nested too deep; the limit is {MAX_DEPTH}")
    return found


def dumps(value: object, indent: int = 0) -> str:
    """Encode what `loads` gives (and tuples) in ASCII: on one line, or with `indent` spaces for each level.

    Raises ValueError for NaN and Infinity, TypeError for anything that isn't JSON's.
    """
    if indent:
        return _indented(value, " " * indent, "\n")
    if _c is None:  # pragma: no cover - as above
        import json

        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    # markers (no check for cycles), default, encoder of strings, indent, separators, sort_keys, skipkeys, allow_nan
    encode = _c.make_encoder(None, _refuse, _c.encode_basestring_ascii, None, ":", ",", False, False, False)
    return "".join(encode(value, 0))


def shown(value: object) -> str:
    """Give a value as it may stand in an error: JSON on one line, without control characters, cut off."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    text = str(value) if isinstance(value, float) else dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _scan(text: str) -> tuple[object, int]:
    """Give the first value of a text and where it ends."""
    if not _scanner:
        if _c is not None:
            _scanner.append(_c.make_scanner(_Context))
        else:  # pragma: no cover - as above
            _scanner.append(_plain_scanner())
    return _scanner[0](text, len(text) - len(text.lstrip(_SPACE)))


def _plain_scanner() -> Scanner:
    import json

    return json.JSONDecoder(
        object_pairs_hook=_Context.object_pairs_hook, parse_constant=_Context.parse_constant
    ).raw_decode


def _reason(text: str) -> str:
    """Say why a text can't be read, with `json`, which knows the line and the column."""
    import json

    try:
        json.loads(text, object_pairs_hook=_Context.object_pairs_hook, parse_constant=_Context.parse_constant)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except ValueError as error:
        return str(error)
    return "not JSON"  # pragma: no cover - both are one scanner


def _deeper(value: object, depth: int) -> bool:
    """Tell whether containers are nested in more than `depth` levels, level by level and not by recursion."""
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    for _ in range(depth):
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _indented(value: object, step: str, line: str) -> str:
    """Encode as Go's MarshalIndent lays it out: one item on a line, empty containers closed up."""
    if not value or not isinstance(value, (dict, list, tuple)):
        return dumps(value)
    inner = line + step
    if isinstance(value, dict):
        items = [f"{dumps(name)}: {_indented(item, step, inner)}" for name, item in value.items()]
        return "{" + inner + ("," + inner).join(items) + line + "}"
    return "[" + inner + ("," + inner).join([_indented(item, step, inner) for item in value]) + line + "]"
