"""All modules of a command in one file: its start reads one file instead of sixty.

Finding, opening and checking a module costs the interpreter twice what running it does, and a command like `create` is
little else. The file lies in __pycache__ beside this module, is made of the .pyc files there by the first command that
may write there, and is trusted as they are. A module counts only while its source has the size and the time of last
change that the .pyc had (PEP 552's check by time stamp); what is not in it, or not any more, is imported as usual.
"""

from __future__ import annotations

import os
import sys
from marshal import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from importlib.util import MAGIC_NUMBER
    from types import ModuleType
else:
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import MAGIC_NUMBER

_PACKAGE = "stockade."
_MAGIC = b"stockade modules 1\n"
_LENGTH = 8  # of the number that says how long the table is
_HEADER = 16  # of a .pyc, PEP 552: magic, flags, time, size
#: name → (source, whether it is a package, header of its .pyc, place and length of its code in the file)
_found: dict[str, tuple[str, bool, bytes, int, int]] = {}
#: modules that came from the file, or before it
_served: set[str] = set()
_descriptor = [-1]


def path() -> str:
    """Give the place of the file for this interpreter, which has one for each level of optimisation."""
    optimised = f".opt-{sys.flags.optimize}" if sys.flags.optimize else ""
    return f"{os.path.dirname(__file__)}/__pycache__/modules.{sys.implementation.cache_tag}{optimised}"


def install() -> None:
    """Import from the file from now on, where there is one."""
    _served.update(sys.modules)
    try:
        _descriptor[0] = os.open(path(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        head = os.read(_descriptor[0], len(_MAGIC) + _LENGTH)
        size = int.from_bytes(head[len(_MAGIC) :], "little")
        if head[: len(_MAGIC)] != _MAGIC or not 0 < size < 1 << 20:
            return
        _found.update(loads(os.read(_descriptor[0], size)))  # noqa: S302 - who may write there may write any .pyc
        if max(place + length for *_, place, length in _found.values()) != os.fstat(_descriptor[0]).st_size:
            _found.clear()  # cut off
            return
    except (OSError, EOFError, ValueError, TypeError):
        _found.clear()
        return
    sys.meta_path.insert(0, Modules)


class Modules:
    """A finder and loader for what the file holds, importlib.abc.MetaPathFinder and Loader."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: object = None) -> ModuleSpec | None:
        """Give the spec of a module whose source is unchanged."""
        entry = _found.get(name)
        if entry is None:
            return None
        source, package, header, _, _ = entry
        try:
            now = os.stat(source)
        except OSError:
            return None
        if header[:4] != MAGIC_NUMBER or header[8:] != _stamp(now):
            return None
        spec = ModuleSpec(name, Modules, origin=source, is_package=package)  # type: ignore[arg-type] # the class serves
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [source.rpartition("/")[0]]
        return spec

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Run the module's code."""
        name = module.__name__
        code = loads(_code(name))  # noqa: S302 - see above
        _served.add(name)
        exec(code, module.__dict__)  # noqa: S102 - as the import system does


def _stamp(source: os.stat_result) -> bytes:
    """Give time and size as a .pyc has them."""
    return (int(source.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (source.st_size & 0xFFFFFFFF).to_bytes(
        4, "little"
    )


def _code(name: str) -> bytes:
    """Read the code of a module. Raises ImportError where the file is not what it was."""
    _, _, _, place, length = _found[name]
    data = os.pread(_descriptor[0], length, place)
    if len(data) != length:
        raise ImportError(f"{path()} is damaged: remove it")
    return data


def update() -> None:
    """Write the file again where modules were loaded that it does not have; without a right to write, do nothing."""
    loaded = [name for name in sys.modules if name.startswith(_PACKAGE) and name not in _served]
    if not loaded or not os.access(os.path.dirname(path()), os.W_OK):
        return
    fresh = {name: entry for name in loaded if (entry := _compiled(name)) is not None}
    if fresh:
        kept = {name: (*entry[:3], _code(name)) for name, entry in _found.items() if name not in fresh}
        _write(kept | fresh)


def _write(entries: dict[str, tuple[str, bool, bytes, bytes]]) -> None:
    """Write whole or not at all: a temporary and rename."""
    sizes = {name: (*entry[:3], 1 << 30, len(entry[3])) for name, entry in entries.items()}
    place = len(_MAGIC) + _LENGTH + len(dumps(sizes))  # marshal writes all numbers below 2**31 in as many bytes
    table = {}
    for name, entry in entries.items():
        table[name] = (*entry[:3], place, len(entry[3]))
        place += len(entry[3])
    packed = dumps(table)
    data = memoryview(
        b"".join((_MAGIC, len(packed).to_bytes(_LENGTH, "little"), packed, *[e[3] for e in entries.values()]))
    )
    temporary = f"{path()}.{os.getpid()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError:
        return
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.rename(temporary, path())
    except OSError:
        os.unlink(temporary)
    finally:
        os.close(descriptor)


def _compiled(name: str) -> tuple[str, bool, bytes, bytes] | None:
    """Give the entry of a module from its .pyc, which the import system has just checked or written."""
    module = sys.modules[name]
    spec = module.__spec__
    if spec is None or spec.origin is None or spec.cached is None:
        return None
    try:
        descriptor = os.open(spec.cached, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)
    # flags 0: checked by time stamp; others are checked by hash or not at all, and stay with the import system
    if len(data) <= _HEADER or data[4:8] != b"\0\0\0\0":
        return None
    return spec.origin, spec.submodule_search_locations is not None, data[:_HEADER], data[_HEADER:]
