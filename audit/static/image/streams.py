"""Bytes of files, of parts of them and of what is compressed, each read forwards and never more than is allowed."""

import bz2
import hashlib
import lzma
import os
import zlib
from importlib import import_module
from typing import Any, Protocol

CHUNK = 1 << 18
#: decompressed bytes of one layer or archive
LARGEST = 64 << 30
#: how many times larger than it is compressed something may be, once it is larger than `_SMALL`; zeros reach 1000
RATIO = 200
_SMALL = 256 << 20
#: memory that xz may ask for
_DICTIONARY = 128 << 20


class Refused(Exception):
    """What is read is broken, cut off or built to hurt. The message is for the report."""


class Unsupported(Exception):
    """What is read is fine, as far as is known, but can't be read here."""


class Stream(Protocol):
    """Something that is read forwards."""

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes, fewer only at the end. Raises Refused."""
        ...

    def skip(self, size: int) -> None:
        """Go on by `size` bytes, or to the end."""


class File:
    """A file from an offset on. The descriptor stays the caller's; its own position isn't used."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.size = os.fstat(descriptor).st_size

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self.descriptor, min(size, CHUNK), self.offset)
            except OSError as error:
                raise Refused(f"it can't be read: {(error.strerror or str(error)).lower()}") from None
            if not part:
                break
            parts.append(part)
            self.offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Go on without reading."""
        self.offset += size
        if self.offset > self.size:
            raise Refused("it is cut off")


class Part:
    """The next `left` bytes of another stream."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.stream = stream
        self.left = size

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; a stream that ends within its part is Refused."""
        wanted = min(size, self.left)
        data = self.stream.read(wanted)
        self.left -= len(data)
        if len(data) < wanted:
            raise Refused("it is cut off")
        return data

    def skip(self, size: int) -> None:
        """Go on within the part."""
        if size > self.left:
            raise Refused("it is cut off")
        self.stream.skip(size)
        self.left -= size


class Hashed:
    """Another stream, of which the SHA-256 of all that was read is kept."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.sum = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes."""
        data = self.stream.read(size)
        self.sum.update(data)
        return data

    def skip(self, size: int) -> None:
        """Read over `size` bytes."""
        skipped(self, size)

    def digest(self) -> str:
        """Read to the end and give the sum as an image names it."""
        while self.read(CHUNK):
            pass
        return f"sha256:{self.sum.hexdigest()}"


def skipped(stream: Stream, size: int) -> None:
    """Read over bytes of a stream that can't do without."""
    while size > 0:
        part = stream.read(min(size, CHUNK))
        if not part:
            raise Refused("it is cut off")
        size -= len(part)


class Inflated:
    """What another stream holds compressed. Members after one another count as one, as gzip(1) has it."""

    def __init__(self, stream: Stream, head: bytes, kind: str) -> None:
        self.stream = stream
        self.kind = kind
        self.waiting = head
        self.taken = len(head)
        self.given = 0
        self.buffer = b""
        self.decoder: Any = _decoder(kind)
        self.errors = _errors(kind)
        self.full = False

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes."""
        parts = []
        while size > 0:
            if not self.buffer and not self._more():
                break
            part, self.buffer = self.buffer[:size], self.buffer[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Read over `size` bytes."""
        skipped(self, size)

    def _more(self) -> bool:
        """Decompress the next bytes into the buffer; False at the end."""
        while not self.buffer:
            if self._done() and not self._next():
                return False
            if not self.waiting and not self.full and self._hungry():
                self.waiting = self.stream.read(CHUNK)
                self.taken += len(self.waiting)
                if not self.waiting:
                    raise Refused("it is cut off: its compressed data ends too early")
            self.buffer = self._decode()
            # zlib may hold back more when it was stopped: it is asked again before it is given more
            self.full = len(self.buffer) >= CHUNK
            self.given += len(self.buffer)
            if self.given > LARGEST:
                raise Refused(f"it holds more than {LARGEST >> 30} GiB")
            if self.given > _SMALL and self.given > RATIO * self.taken:
                raise Refused(f"it is more than {RATIO} times larger than it is compressed, as a bomb is")
        return True

    def _decode(self) -> bytes:
        data, self.waiting = self.waiting, b""
        try:
            found = self.decoder.decompress(data, CHUNK)
            if self.kind == "gzip":
                self.waiting = self.decoder.unconsumed_tail
        except self.errors as error:
            raise Refused(f"its {self.kind} data is broken: {str(error)[:80]}") from None
        return bytes(found)

    def _hungry(self) -> bool:
        """Say whether the decoder can give nothing more without being given something."""
        return bool(getattr(self.decoder, "needs_input", True))

    def _done(self) -> bool:
        return bool(self.decoder.eof)

    def _next(self) -> bool:
        """Go on with the next member, if there is one; zeros at the end are padding."""
        rest = self.decoder.unused_data
        if not rest:
            rest = self.stream.read(CHUNK)
            self.taken += len(rest)
        if not rest.strip(b"\0"):
            return False
        self.decoder = _decoder(self.kind)
        self.waiting = rest
        return True


_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"))


def _decoder(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(wbits=31)
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=_DICTIONARY)
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    return _zstd().ZstdDecompressor()


def _zstd() -> Any:
    try:
        return import_module("compression.zstd")  # since Python 3.14
    except ImportError:
        raise Unsupported("it is compressed with zstd, which this Python can't read") from None


def _errors(kind: str) -> tuple[type[Exception], ...]:
    usual = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
    return (*usual, _zstd().ZstdError) if kind == "zstd" else usual


def opened(stream: Stream) -> Stream:
    """Give a stream's content, decompressed where it is compressed. Raises Unsupported."""
    head = stream.read(6)
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    return Inflated(stream, head, kind) if kind else Begun(head, stream)


class Begun:
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self.head = head
        self.stream = stream

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes."""
        first, self.head = self.head[:size], self.head[size:]
        return first + self.stream.read(size - len(first)) if len(first) < size else first

    def skip(self, size: int) -> None:
        """Go on by `size` bytes."""
        first = min(size, len(self.head))
        self.head = self.head[first:]
        self.stream.skip(size - first)
