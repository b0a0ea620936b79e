"""A strict reader of config.json: one clear refusal with its JSON path, never a container that means something else.

Types, widths of integers and required fields come from the annotations of the records in spec.py; what goes beyond is
in checks.py. Unknown fields are ignored, as the specification demands ("Extensibility"). Not on the path of `run`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from stockade.errors import UsageError
from stockade.sandbox.linux import record
from stockade.sandbox.oci import checks, spec
from stockade.sandbox.oci.checks import Invalid
from stockade.sandbox.oci.spec import Spec
from stockade.sandbox.oci.write import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from stockade.sandbox.linux.record import Record

    Reader: TypeAlias = Callable[[object, str], object]

#: bytes of a config.json; runc's own limit of the protocol is 4 MiB, real files are some kilobytes
MAX_BYTES = 1 << 24
#: nested arrays and objects; the specification's own deepest field is 8 down
MAX_DEPTH = 64

_WIDTHS = {
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
_REQUIRED = record._MISSING  # noqa: SLF001 - the mark of a field without a default


def loads(data: bytes, name: str = "config.json") -> Spec:
    """Read the bytes of a config.json. Raises UsageError that begins with `name`."""
    return read_spec(decode(data, name), name)


def decode(data: bytes, name: str) -> object:
    """Decode JSON strictly: UTF-8, no NaN, a limit on size and depth. Raises UsageError."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{name}: {len(data)} bytes, the limit is {MAX_BYTES}")
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{name}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise UsageError(f"{name}: nested too deep; the limit is {MAX_DEPTH}") from None
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if _deeper(found, MAX_DEPTH):
        raise UsageError(f"{name}: nested too deep; the limit is {MAX_DEPTH}")
    return found


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _deeper(value: object, depth: int) -> bool:
    """Tell whether containers are nested in more than `depth` levels, level by level and not by recursion."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            item
            for each in level
            if isinstance(each, (dict, list))
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def read_spec(data: object, name: str) -> Spec:
    """Give the Spec of a decoded config.json, or raise UsageError that names the place."""
    found: Spec = read(Spec, data, name)
    return found


def read(kind: type[Any], data: object, name: str) -> Any:
    """Give a record of class `kind` (Spec, Process, LinuxResources …) of decoded JSON. Raises UsageError."""
    try:
        return _record(kind, data, "$")
    except Invalid as error:
        raise UsageError(f"{name}: {error.path}: {error.message}") from None


def _record(kind: type[Record], data: object, path: str) -> Record:
    if not isinstance(data, dict):
        raise Invalid(path, f"expected an object, not {shown(data)}")
    values = {}
    for field, annotation in kind.__annotations__.items():
        name, default = key(field), kind._fields[field]
        # Go's decoder takes null for an absent field
        if data.get(name) is None:
            if default is _REQUIRED or name == "ociVersion":  # ours has a default for what we write ourselves
                raise Invalid(f"{path}.{name}", "missing")
            continue
        values[field] = _reader(annotation)(data[name], f"{path}.{name}")
    found = kind(**values)
    for check in checks.CHECKS.get(kind.__name__, ()):
        check(found, path)
    return found


@cache
def _reader(annotation: str) -> Reader:
    """Give the reader for an annotation of spec.py: a name, `X | None`, `tuple[X, ...]` or `Mapping[str, X]`."""
    annotation = annotation.removesuffix(" | None")
    if annotation.startswith("tuple["):
        item = _reader(annotation[len("tuple[") : -len(", ...]")])
        return lambda data, path: _list(item, data, path)
    if annotation.startswith("Mapping["):
        item = _reader(annotation[len("Mapping[str, ") : -1])
        return lambda data, path: _mapping(item, data, path)
    if annotation in _WIDTHS:
        low, high = _WIDTHS[annotation]
        return lambda data, path: _integer(low, high, data, path)
    if annotation == "bool":
        return _boolean
    if annotation == "str":
        return _string
    kind = getattr(spec, annotation)
    return lambda data, path: _record(kind, data, path)


def _list(item: Reader, data: object, path: str) -> tuple[object, ...]:
    if not isinstance(data, list):
        raise Invalid(path, f"expected an array, not {shown(data)}")
    return tuple([item(each, f"{path}[{index}]") for index, each in enumerate(data)])


def _mapping(item: Reader, data: object, path: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise Invalid(path, f"expected an object, not {shown(data)}")
    return {_string(name, path): item(each, f"{path}[{shown(name)}]") for name, each in data.items()}


def _integer(low: int, high: int, data: object, path: str) -> int:
    # A JSON number such as 1.0 or 1e3 is a float here, and Go refuses it, too
    if not isinstance(data, int) or isinstance(data, bool):
        raise Invalid(path, f"expected a whole number, not {shown(data)}")
    if not low <= data <= high:
        raise Invalid(path, f"expected a whole number from {low} to {high}, not {shown(data)}")
    return data


def _boolean(data: object, path: str) -> bool:
    if not isinstance(data, bool):
        raise Invalid(path, f"expected true or false, not {shown(data)}")
    return data


def _string(data: object, path: str) -> str:
    if not isinstance(data, str):
        raise Invalid(path, f"expected a string, not {shown(data)}")
    if "\0" in data:
        raise Invalid(path, "a NUL byte in a string")
    try:
        data.encode()
    except UnicodeEncodeError:
        raise Invalid(path, "half a surrogate pair in a string") from None
    return data


def shown(data: object) -> str:
    """Give a value as it may stand in an error: JSON on one line, without control characters, cut off."""
    if isinstance(data, (dict, list)):
        return "an object" if isinstance(data, dict) else "an array"
    text = json.dumps(data)
    return text if len(text) <= 60 else text[:57] + "…"
