"""What steps are made of: slots, encoding, the base class, and words for bits."""

from __future__ import annotations

from _struct import Struct

from stockade.sandbox.linux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

word = Struct("<Q").pack
head = Struct("<II").pack


class Slot(Record):
    """A place for a descriptor in the launcher; `name` says to a reader what the descriptor is."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"[{self.name}]"


def encode_text(data: bytes) -> bytes:
    """Give length, bytes and padding; at least one zero ends them."""
    return word(len(data)) + data + b"\0" * (8 - len(data) % 8)


def encode_value(value: object) -> bytes:
    """Give the bytes of one field."""
    if isinstance(value, int):
        return word(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, str):
        return encode_text(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bytes):
        return encode_text(value)
    if isinstance(value, Slot):
        return word(value.number)
    if isinstance(value, tuple):
        return word(len(value)) + b"".join([encode_item(item) for item in value])
    raise TypeError(f"a step can't hold {value!r}")


def encode_item(item: object) -> bytes:
    """Give the bytes of one item of a tuple; a pair is its two values."""
    if isinstance(item, tuple):
        return b"".join([encode_value(value) for value in item])
    return encode_value(item)


#: a slot that no descriptor is ever in (native/plan.h SLOTS): what it stands for stays as it is
NONE = Slot(2048, "as it is")


class Step(Record):
    """Base of all steps. `why` is the reason that `--plan` prints; `remedies` maps an errno to what helps."""

    op: ClassVar[int] = -1
    why: ClassVar[str] = ""

    def encode(self) -> bytes:
        """Give operation, length and fields."""
        payload = b"".join([encode_value(getattr(self, name)) for name in self._fields])
        return head(self.op, len(payload)) + payload


#: mount_setattr(2)
ATTRIBUTES = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
PROPAGATIONS = {1 << 17: "unbindable", 1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}


def attribute_names(attributes: int) -> str:
    """Give the words of fstab for MOUNT_ATTR_ bits."""
    return " ".join([word for word, bit in ATTRIBUTES.items() if attributes & bit])


def set_names(mask: int) -> str:
    """Give a capability set as words: none, all, or the names."""
    from stockade.sandbox.linux import capabilities

    return " ".join(capabilities.names(mask)) or "none"
