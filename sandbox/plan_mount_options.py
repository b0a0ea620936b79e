"""The options of a mount, runtime-spec config.md "Mounts": bits of mount_setattr(2), words for fsconfig(2), the rest.

What an option says is done to the mount itself; its recursive form (`rro` for `ro`) also to all mounts below.
"""

from __future__ import annotations

from stockade.errors import StockadeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.oci import spec as oci

MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 1 << 14, 1 << 18, 1 << 19, 1 << 20, 1 << 17
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
ATIME_MASK = 0x70

#: option of fstab → bits of mount_setattr(2) set and cleared
_ATTRIBUTES = {
    "ro": (RDONLY, 0), "rw": (0, RDONLY), "nosuid": (NOSUID, 0), "suid": (0, NOSUID), "nodev": (NODEV, 0),
    "dev": (0, NODEV), "noexec": (NOEXEC, 0), "exec": (0, NOEXEC), "noatime": (0x10, ATIME_MASK),
    "atime": (0, ATIME_MASK), "relatime": (0, ATIME_MASK), "norelatime": (0, 0), "strictatime": (0x20, ATIME_MASK),
    "nostrictatime": (0, ATIME_MASK), "nodiratime": (0x80, 0), "diratime": (0, 0x80), "nosymfollow": (0x200000, 0),
    "symfollow": (0, 0x200000), "defaults": (0, 0),
}  # fmt: skip
_RECURSIVE = {f"r{name}": bits for name, bits in _ATTRIBUTES.items() if name != "defaults"}
ATTRIBUTES = _ATTRIBUTES | _RECURSIVE
PROPAGATION = {
    "private": (MS_PRIVATE, False), "rprivate": (MS_PRIVATE, True), "slave": (MS_SLAVE, False),
    "rslave": (MS_SLAVE, True), "shared": (MS_SHARED, False), "rshared": (MS_SHARED, True),
    "unbindable": (MS_UNBINDABLE, False), "runbindable": (MS_UNBINDABLE, True),
}  # fmt: skip
#: what fsconfig(2) takes for any file system, and mount(2) as a bit; for a bind mount the kernel ignores it
_SUPERBLOCK = frozenset({
    "sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "iversion",
})  # fmt: skip
#: bits of mount(2) that say nothing since there are file system contexts: how loud it is, what ext4 does anyway
_IDLE = frozenset({"silent", "loud", "noiversion", "acl", "noacl"})


class Flags:
    """The options of one mount, sorted.

    `attributes` are to be set and `cleared` were taken back in so many words; `deep` and `deep_cleared` are those of
    the recursive forms. `superblock` are words for fsconfig(2). `idmap` is "", "top" or "all". `data` is what only the
    file system itself knows.
    """

    def __init__(self, options: tuple[str, ...]) -> None:
        self.attributes = self.cleared = self.deep = self.deep_cleared = 0
        self.propagation: list[tuple[int, bool]] = []
        self.recursive = self.remount = self.copy_up = False
        self.idmap = ""
        self.superblock: list[str] = []
        self.data: list[tuple[str, str]] = []
        for option in options:
            if option in _ATTRIBUTES:
                bits, cleared = _ATTRIBUTES[option]
                self.attributes = self.attributes & ~cleared | bits
                self.cleared = self.cleared & ~bits | cleared
            elif option in _RECURSIVE:
                bits, cleared = _RECURSIVE[option]
                self.deep = self.deep & ~cleared | bits
                self.deep_cleared = self.deep_cleared & ~bits | cleared
            elif option in PROPAGATION:
                self.propagation.append(PROPAGATION[option])
            elif not self._word(option):
                key, _, value = option.partition("=")
                self.data.append((key, value))

    def _word(self, option: str) -> bool:
        """Take an option that is no bit; tell whether it is known."""
        if option in {"bind", "rbind"}:
            self.recursive |= option == "rbind"
        elif option in {"idmap", "ridmap"}:
            self.idmap = "all" if option == "ridmap" else self.idmap or "top"
        elif option == "remount":
            self.remount = True
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in _SUPERBLOCK:
            self.superblock.append(option)
        else:
            return option in _IDLE
        return True

    @property
    def all_attributes(self) -> int:
        """What a mount without others below it gets: the recursive forms mean the same there."""
        return self.attributes | self.deep

    def wants(self, propagation: int) -> bool:
        """Tell whether this propagation was asked for."""
        return any(how == propagation for how, _ in self.propagation)


_sorted: dict[tuple[str, ...], Flags] = {}


def flags_of(options: tuple[str, ...]) -> Flags:
    """Give the options sorted; the same object for the same options, which nobody changes."""
    found = _sorted.get(options)
    if found is None:
        if len(_sorted) > 256:
            _sorted.clear()
        found = _sorted[options] = Flags(options)
    return found


def is_bind(mount: oci.Mount) -> bool:
    """Tell whether the mount shows a path of the host."""
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def idmap_of(mount: oci.Mount, flags: Flags) -> str:
    """Tell how ids are shifted: "" for not at all, "top" for this mount, "all" for those below as well."""
    return flags.idmap or ("top" if mount.uid_mappings or mount.gid_mappings else "")


def clean(path: str) -> str:
    """Give the absolute path without "." and "..", by its text alone, as engines and runc read a destination."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def refuse_data(mount: oci.Mount, flags: Flags) -> None:
    """Refuse an option of a file system where there is none of its own: the kernel would ignore it in silence."""
    if flags.data:
        raise StockadeError(
            f"mount {mount.destination}: a bind mount has no option {flags.data[0][0]}",
            hint=f"options: {' '.join(ATTRIBUTES)} {' '.join(PROPAGATION)}",
        )
