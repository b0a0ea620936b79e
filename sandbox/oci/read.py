"""A strict reader of config.json: one clear refusal with its JSON path, never a container that means something else.

Types, widths of integers and required fields come from the annotations of the records in spec.py; what goes beyond is
in checks.py. Unknown fields are ignored, as the specification demands ("Extensibility").

On the path of `stockade-runtime create`: the readers of a class are made when a file first has one, a list of strings
is looked at as a whole, and paths are put together only for an error.
"""

from __future__ import annotations

from stockade.errors import UsageError
from stockade.sandbox.linux import record
from stockade.sandbox.oci import checks, container_checks, lean_json, spec
from stockade.sandbox.oci.checks import Invalid
from stockade.sandbox.oci.lean_json import MAX_BYTES, MAX_DEPTH, shown
from stockade.sandbox.oci.write import key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from stockade.sandbox.linux.record import Record
    from stockade.sandbox.oci.checks import Check
    from stockade.sandbox.oci.spec import LinuxResources, Process, Spec

    Reader: TypeAlias = Callable[[Any], object]
    # Fields as (JSON key, value of an absent one, reader), and the checks of a whole record
    Schema: TypeAlias = tuple[tuple[tuple[str, object, Reader], ...], tuple[Check, ...]]

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "bundle",
    "loads",
    "read",
    "read_process",
    "read_resources",
    "read_spec",
    "snapshot",
]

_WIDTHS = {
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
_REQUIRED = record._MISSING  # noqa: SLF001 - the mark of a field without a default

_schemata: dict[type[Record], Schema] = {}
_readers: dict[str, Reader] = {}


def loads(data: bytes, name: str = "config.json", warnings: list[str] | None = None) -> Spec:
    """Read the bytes of a config.json. Raises UsageError that begins with `name`."""
    return read_spec(data, name, warnings)


def bundle(data: object, name: str, warnings: list[str]) -> Spec:
    """Read a config.json, bytes or decoded, to make a container of: what can't be done is refused, too.

    What the specification has runtimes tolerate is mended and told in `warnings`, one line each. Raises UsageError.
    """
    found = snapshot(data, name, warnings)
    container_checks.check(found, name)
    return found


def snapshot(data: object, name: str, warnings: list[str] | None = None) -> Spec:
    """Read the config.json of a container that was made of a bundle: all that `bundle` gives, without its refusals."""
    told = [] if warnings is None else warnings
    return container_checks.foreign(read_spec(data, name, told), told)


def read_spec(data: object, name: str, warnings: list[str] | None = None) -> Spec:
    """Give the Spec of a config.json, bytes or decoded, or raise UsageError that names the place."""
    found: Spec = read(spec.Spec, data, name)
    return container_checks.mend(found, [] if warnings is None else warnings)


def read_process(data: object, name: str, warnings: list[str] | None = None) -> Process:
    """Give the Process of `exec --process FILE`, bytes or decoded, or raise UsageError that names the place."""
    found: Process = read(spec.Process, data, name)
    return container_checks.mend_process(found, [] if warnings is None else warnings)


def read_resources(data: object, name: str) -> LinuxResources:
    """Give the LinuxResources of `update --resources FILE`, bytes or decoded. Raises UsageError, as others."""
    found: LinuxResources = read(spec.LinuxResources, data, name)
    return found


def read(kind: type[Any], data: object, name: str, at: str = "$") -> Any:
    """Give a record of class `kind` of decoded JSON, or of its bytes. Raises UsageError.

    `at` is where in the file called `name` the data stands.
    """
    if isinstance(data, bytes):
        data = lean_json.loads(data, name)
    try:
        return _record(kind, data)
    except Invalid as error:
        raise UsageError(f"{name}: {at}{error.path}: {error.message}") from None


def _record(kind: type[Record], data: object) -> Record:
    if type(data) is not dict:
        raise Invalid("", f"expected an object, not {shown(data)}")
    fields, rules = _schemata.get(kind) or _schema(kind)
    get = data.get
    values = []
    name = ""
    try:
        for name, default, reader in fields:
            value = get(name)
            if value is not None:
                values.append(reader(value))
            elif default is _REQUIRED:
                raise Invalid("", "missing")
            else:
                values.append(default)
    except Invalid as error:
        error.path = f".{name}{error.path}"
        raise
    found = kind(*values)
    for check in rules:
        check(found)
    return found


def _schema(kind: type[Record]) -> Schema:
    """Derive how to read a class from its annotations. Go's decoder takes null for an absent field, so do we."""
    fields = []
    for field, annotation in kind.__annotations__.items():
        # The records have a default for the version that we write ourselves; who writes for us must say it.
        default = _REQUIRED if field == "oci_version" else kind._fields[field]
        fields.append((key(field), default, _reader(annotation)))
    made = _schemata[kind] = (tuple(fields), checks.CHECKS.get(kind.__name__, ()))
    return made


def _reader(annotation: str) -> Reader:
    found = _readers.get(annotation)
    if found is None:
        found = _readers[annotation] = _made(annotation.removesuffix(" | None"))
    return found


def _made(annotation: str) -> Reader:
    """Make the reader for an annotation of spec.py: a name, `tuple[X, ...]` or `Mapping[str, X]`."""
    if annotation == "str":
        return _string
    if annotation == "tuple[str, ...]":
        return _strings
    if annotation == "bool":
        return _boolean
    if annotation in _WIDTHS:
        low, high = _WIDTHS[annotation]
        return lambda data: _integer(low, high, data)
    if annotation.startswith("tuple["):
        item = _reader(annotation[len("tuple[") : -len(", ...]")])
        return lambda data: _list(item, data)
    if annotation.startswith("Mapping["):
        item = _reader(annotation[len("Mapping[str, ") : -1])
        return lambda data: _mapping(item, data)
    kind = getattr(spec, annotation)
    return lambda data: _record(kind, data)


def _list(item: Reader, data: object) -> tuple[object, ...]:
    if type(data) is not list:
        raise Invalid("", f"expected an array, not {shown(data)}")
    values: list[object] = []
    try:
        for each in data:
            values.append(item(each))  # noqa: PERF401 - its length tells where an error is
    except Invalid as error:
        error.path = f"[{len(values)}]{error.path}"
        raise
    return tuple(values)


def _mapping(item: Reader, data: object) -> dict[str, object]:
    if type(data) is not dict:
        raise Invalid("", f"expected an object, not {shown(data)}")
    values: dict[str, object] = {}
    name = ""
    try:
        for name, each in data.items():
            values[_string(name)] = item(each)
    except Invalid as error:
        error.path = f"[{shown(name)}]{error.path}"
        raise
    return values


def _integer(low: int, high: int, data: object) -> int:
    # A JSON number such as 1.0 or 1e3 is a float here, and Go refuses it, too
    if type(data) is not int:
        raise Invalid("", f"expected a whole number, not {shown(data)}")
    if not low <= data <= high:
        raise Invalid("", f"expected a whole number from {low} to {high}, not {shown(data)}")
    return data


def _boolean(data: object) -> bool:
    if type(data) is not bool:
        raise Invalid("", f"expected true or false, not {shown(data)}")
    return data


def _string(data: object) -> str:
    if type(data) is not str:
        raise Invalid("", f"expected a string, not {shown(data)}")
    if "\0" in data:
        raise Invalid("", "a NUL byte in a string")
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError:
            raise Invalid("", "half a surrogate pair in a string") from None
    return data


def _strings(data: object) -> tuple[str, ...]:
    """Read a list of strings: at once where nothing can be wrong, else one by one."""
    if type(data) is list:
        try:
            text = "".join(data)
        except TypeError:
            text = "\0"
        if text.isascii() and "\0" not in text:
            return tuple(data)
    return _list(_string, data)  # type: ignore[return-value] # a list of strings
