"""The mounts of a process as the kernel lists them, /proc/PID/mountinfo in proc(5)."""

from __future__ import annotations

from stockade.sandbox.linux import procfs
from stockade.sandbox.linux.record import Record


class Mount(Record):
    """One mount, one line of mountinfo, names unescaped.

    `root` is the directory of the file system that is mounted, `mount_point` its place below the root of the process
    that was asked ("/x//deleted" for a removed one). `options` belong to the mount, `super_options` to the file system:
    a mount is writable only when neither says "ro". `optional` holds "shared:N", "master:N", "propagate_from:N",
    "unbindable"; none of them is a private mount.
    """

    id: int
    parent: int
    major: int
    minor: int
    root: str
    mount_point: str
    options: tuple[str, ...]
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether writing through this mount gives EROFS."""
        return "ro" in self.options or "ro" in self.super_options

    @property
    def shared(self) -> int | None:
        """The peer group to which mounts below this one propagate, or None."""
        return self._group("shared:")

    @property
    def master(self) -> int | None:
        """The peer group from which this mount receives mounts, or None."""
        return self._group("master:")

    def _group(self, tag: str) -> int | None:
        for field in self.optional:
            if field.startswith(tag):
                return int(field[len(tag) :])
        return None


def parse(text: str) -> tuple[Mount, ...]:
    """Read the text of mountinfo, in its order: a mount comes after the one it covers. Raises ValueError."""
    return tuple([_mount(line) for line in text.split("\n") if line])


def _mount(line: str) -> Mount:
    # A blank in a name is written \040, so only separators are blanks; an empty source leaves two in a row.
    before, dash, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ", 2)
    if not dash or len(left) < 6 or len(right) != 3:
        raise ValueError(f"not a line of mountinfo: {line!r}")
    number, parent, device, root, mount_point, options, *optional = left
    major, _, minor = device.partition(":")
    fstype, source, super_options = right
    return Mount(
        int(number),
        int(parent),
        int(major),
        int(minor),
        unescape(root),
        unescape(mount_point),
        tuple(options.split(",")),
        tuple(optional),
        unescape(fstype),
        unescape(source),
        tuple([unescape(option) for option in super_options.split(",")]),
    )


def unescape(name: str) -> str:
    r"""Undo mangle_path of the kernel: blank, tab, newline, backslash and # are written as \040 and so on."""
    if "\\" not in name:
        return name
    first, *rest = name.split("\\")
    parts = [first]
    for piece in rest:
        digits = piece[:3]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits) and int(digits, 8) < 0x80:
            parts.append(chr(int(digits, 8)) + piece[3:])
        else:
            parts.append("\\" + piece)
    return "".join(parts)


def of(pid: int | str) -> tuple[Mount, ...]:
    """Read the mounts of a process. Raises ProcessLookupError; a zombie has none and gives an error of EINVAL."""
    return parse(procfs.read_text(pid, "mountinfo"))


def covering(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """Give the mount on which the absolute, normal `path` lies: the last of the longest mount points above it."""
    best = None
    for mount in mounts:
        point = mount.mount_point
        inside = point in ("/", path) or path.startswith(point + "/")
        if inside and (best is None or len(point) >= len(best.mount_point)):
            best = mount
    return best
