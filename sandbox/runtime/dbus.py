"""As much of D-Bus as it takes to ask systemd for a unit: one connection, calls that wait, signals that were matched.

D-Bus Specification 0.43, "Marshaling", "Message Protocol" and "Authentication Protocol". A library would do, and its
import costs more than the whole of `create`.

Values are Python's own: int, bool, str, bytes for `ay`, lists, tuples for structures, and (signature, value) for a
variant.
"""

from __future__ import annotations

import _socket
import os
import struct
import time

from stockade.sandbox.linux import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    #: destination, path, interface, member
    Target: TypeAlias = tuple[str, str, str, str]

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = range(1, 9)
#: code of struct, and size, which is the alignment too
_FIXED = {
    "y": ("B", 1), "b": ("I", 4), "n": ("h", 2), "q": ("H", 2), "i": ("i", 4), "u": ("I", 4),
    "x": ("q", 8), "t": ("Q", 8), "d": ("d", 8),
}  # fmt: skip
_ALIGN = {"s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "(": 8, "{": 8}
_LARGEST = 1 << 24  # bytes of a message that we take; the specification's own limit is 128 MiB


class RemoteError(Exception):
    """The other side answered with an error: `name` such as org.freedesktop.systemd1.UnitExists, and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


class Message:
    """A message that came in: `kind`, `fields` by the numbers of the specification, `body` as a tuple of values."""

    __slots__ = ("body", "fields", "kind")

    def __init__(self, kind: int, fields: dict[int, Any], body: tuple[Any, ...]) -> None:
        self.kind, self.fields, self.body = kind, fields, body

    @property
    def member(self) -> str:
        """The name of the method or signal."""
        return str(self.fields.get(_MEMBER, ""))


def addresses(text: str) -> list[str]:
    """Give the paths of the Unix sockets in a D-Bus address, as connect(2) takes them (abstract ones with a NUL)."""
    found = []
    for address in text.split(";"):
        transport, _, pairs = address.partition(":")
        if transport != "unix":
            continue
        values = dict(pair.split("=", 1) for pair in pairs.split(",") if "=" in pair)
        if "path" in values:
            found.append(_unescaped(values["path"]))
        elif "abstract" in values:
            found.append("\0" + _unescaped(values["abstract"]))
    return found


def _unescaped(text: str) -> str:
    first, *rest = text.split("%")
    return first + "".join([chr(int(piece[:2], 16)) + piece[2:] for piece in rest])


class Connection:
    """A connection to a bus, or with `peer` to systemd alone, which knows no Hello. OSError where it can't be had."""

    def __init__(self, path: str, *, timeout: float = 30.0, peer: bool = False) -> None:
        self.deadline = time.monotonic() + timeout
        self.serial = 0
        self.pending = b""
        self.signals: list[Message] = []
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            self._authenticate()
            if not peer:
                self.call((*BUS, "Hello"))
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Close the connection; twice does no harm."""
        self.socket.close()

    def _authenticate(self) -> None:
        """EXTERNAL without an identity: the other side takes the socket's credentials, right in any user namespace."""
        self.socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        while True:
            line = self._line()
            if line.startswith(b"OK"):
                return
            if line != b"DATA" and not line.startswith(b"DATA "):
                raise PermissionError(13, f"the bus refuses us: {line.decode(errors='replace')}")

    def _line(self) -> bytes:
        while b"\r\n" not in self.pending:
            if len(self.pending) > 1024:
                raise OSError(71, "what answers is no D-Bus")  # EPROTO
            self._receive()
        line, self.pending = self.pending.split(b"\r\n", 1)
        return line

    def _receive(self) -> None:
        self.socket.settimeout(max(0.001, self.deadline - time.monotonic()))
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionResetError(104, "the other side closed the connection")
        self.pending += piece

    def call(self, target: Target, signature: str = "", *values: Any) -> tuple[Any, ...]:
        """Call a method and give what it returns; RemoteError for its error, OSError where no answer comes."""
        self.serial += 1
        serial = self.serial
        self.socket.sendall(encode_call(serial, target, signature, values))
        while True:
            message = self._message()
            if message.kind == SIGNAL:
                self.signals.append(message)
            elif message.fields.get(_REPLY_SERIAL) == serial:
                if message.kind == ERROR:
                    text = message.body[0] if message.body and isinstance(message.body[0], str) else ""
                    raise RemoteError(message.fields.get(_ERROR_NAME, ""), text)
                return message.body

    def wait_for(self, wanted: Callable[[Message], bool]) -> Message:
        """Give the first signal that is wanted, of those there and those to come; OSError at the deadline."""
        while True:
            while self.signals:
                message = self.signals.pop(0)
                if wanted(message):
                    return message
            message = self._message()
            if message.kind == SIGNAL:
                self.signals.append(message)

    def _message(self) -> Message:
        while True:
            size = message_size(self.pending)
            if size and len(self.pending) >= size:
                data, self.pending = self.pending[:size], self.pending[size:]
                return decode(data)
            self._receive()


def encode_call(serial: int, target: Target, signature: str, values: tuple[Any, ...]) -> bytes:
    """Make the bytes of a method call, little-endian."""
    body = bytearray()
    marshal(signature, values, body)
    fields: list[tuple[int, tuple[str, Any]]] = [
        (_PATH, ("o", target[1])),
        (_INTERFACE, ("s", target[2])),
        (_MEMBER, ("s", target[3])),
        (_DESTINATION, ("s", target[0])),
    ]
    if signature:
        fields.append((_SIGNATURE, ("g", signature)))
    head = bytearray()
    marshal("yyyyuua(yv)", (ord("l"), CALL, 0, 1, len(body), serial, fields), head)
    return bytes(head + bytes(-len(head) % 8) + body)


def _end_of_type(signature: str, start: int) -> int:
    """Give the index behind the one complete type that begins at `start`."""
    code = signature[start]
    if code == "a":
        return _end_of_type(signature, start + 1)
    if code in "({":
        depth = 0
        for place in range(start, len(signature)):
            depth += (signature[place] in "({") - (signature[place] in ")}")
            if depth == 0:
                return place + 1
    return start + 1


def types(signature: str) -> list[str]:
    """Split a signature into its complete types."""
    found, start = [], 0
    while start < len(signature):
        end = _end_of_type(signature, start)
        found.append(signature[start:end])
        start = end
    return found


def marshal(signature: str, values: Any, out: bytearray) -> None:
    """Append values, one for each type of the signature."""
    for kind, value in zip(types(signature), values, strict=True):
        _append(kind, value, out)


def _append(kind: str, value: Any, out: bytearray) -> None:
    code = kind[0]
    if code in _FIXED:
        letter, size = _FIXED[code]
        out += bytes(-len(out) % size) + struct.pack("<" + letter, value)
        return
    out += bytes(-len(out) % _ALIGN[code])
    if code in "so":
        text = value.encode()
        out += struct.pack("<I", len(text)) + text + b"\0"
    elif code == "g":
        text = value.encode()
        out += bytes((len(text),)) + text + b"\0"
    elif code == "v":
        inner, content = value
        _append("g", inner, out)
        _append(inner, content, out)
    elif code == "a":
        _append_array(kind[1:], value, out)
    else:
        marshal(kind[1:-1], value, out)


def _append_array(kind: str, values: Any, out: bytearray) -> None:
    place = len(out)
    out += bytes(4)
    align = _FIXED[kind[0]][1] if kind[0] in _FIXED else _ALIGN[kind[0]]
    out += bytes(-len(out) % align)  # the padding before the first element doesn't count
    start = len(out)
    if kind == "y":
        out += bytes(values)
    else:
        for value in values:
            _append(kind, value, out)
    struct.pack_into("<I", out, place, len(out) - start)


def message_size(data: bytes) -> int:
    """Give the size of the message that `data` begins with, 0 where too little of it is there. OSError for nonsense."""
    if len(data) < 16:
        return 0
    order = "<" if data[:1] == b"l" else ">"
    body, _, fields = struct.unpack_from(order + "III", data, 4)
    size = 16 + int(fields) + (-int(fields) % 8) + int(body)
    if data[:1] not in {b"l", b"B"} or size > _LARGEST:
        raise OSError(71, "what answers is no D-Bus")  # EPROTO
    return size


def decode(data: bytes) -> Message:
    """Read one whole message; OSError for one that is malformed."""
    try:
        reader = _Reader(data, "<" if data[:1] == b"l" else ">")
        _, kind, _, _, _, _, pairs = reader.values("yyyyuua(yv)")
        fields = dict(pairs)
        reader.align(8)
        return Message(kind, fields, reader.values(fields.get(_SIGNATURE, "")))
    except (struct.error, IndexError, KeyError, ValueError, RecursionError) as error:
        raise OSError(71, f"a malformed D-Bus message: {error}") from error  # EPROTO


class _Reader:
    """Reads values of a message in their order."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.place = data, order, 0

    def align(self, size: int) -> None:
        self.place += -self.place % size

    def values(self, signature: str) -> tuple[Any, ...]:
        return tuple([self.value(kind) for kind in types(signature)])

    def value(self, kind: str) -> Any:
        code = kind[0]
        if code in _FIXED:
            letter, size = _FIXED[code]
            self.align(size)
            self.place += size
            (number,) = struct.unpack_from(self.order + letter, self.data, self.place - size)
            return bool(number) if code == "b" else number
        self.align(_ALIGN[code])
        if code in "sog":
            return self._text(self.value("y" if code == "g" else "u"))
        if code == "v":
            return self.value(self.value("g"))
        if code == "a":
            return self._array(kind[1:])
        return self.values(kind[1:-1])

    def _text(self, size: int) -> str:
        text = self.data[self.place : self.place + size]
        if len(text) < size:
            raise ValueError("it ends too early")
        self.place += size + 1
        return text.decode()

    def _array(self, kind: str) -> Any:
        size = self.value("u")
        self.align(_FIXED[kind[0]][1] if kind[0] in _FIXED else _ALIGN[kind[0]])
        end = self.place + size
        if end > len(self.data):
            raise ValueError("it ends too early")
        if kind == "y":
            self.place = end
            return self.data[end - size : end]
        found = []
        while self.place < end:
            found.append(self.value(kind))
        return found


def user_directory() -> str:
    """Give XDG_RUNTIME_DIR, or where it is as a rule; in a user namespace that goes by our uid outside."""
    found = os.environ.get("XDG_RUNTIME_DIR", "")
    if found.startswith("/"):
        return found
    uid = os.geteuid()
    for line in procfs.read_path("/proc/self/uid_map").splitlines():
        inside, outside, size = (int(word) for word in line.split())
        if inside <= uid < inside + size:
            return f"/run/user/{outside + uid - inside}"
    return f"/run/user/{uid}"


def session_addresses() -> list[str]:
    """Give where the bus of this user's own systemd may be."""
    return [*addresses(os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")), f"{user_directory()}/bus"]


def system_addresses() -> list[str]:
    """Give where the bus of the system may be."""
    found = addresses(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""))
    return found or ["/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"]
