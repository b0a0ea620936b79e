"""What few plans about a root have in them: shifted ids, remounts, the root of `run --host`, a root without mounts."""

from __future__ import annotations

from stockade.errors import StockadeError
from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan_identity import map_text, process_of, root_of
from stockade.sandbox.plan_mount_options import ATIME_MASK, NODEV, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.plan import Slots
    from stockade.sandbox.plan_mount_options import Flags
    from stockade.sandbox.plan_mounts import Context
    from stockade.sandbox.steps import Slot, Step

O_PATH = 0o10000000
O_DIRECTORY = 0o200000
S_IFDIR = 0o040000


def shift(mount: oci.Mount, tree: Slot | None, *, recursive: bool, mapped: bool) -> Step:
    """Give the step that shifts the ids of a copied source; `mapped`: the container has a map. Raises StockadeError."""
    own = bool(mount.uid_mappings or mount.gid_mappings)
    if tree is None or not (own or mapped):
        raise StockadeError(
            f"mount {mount.destination}: ids are shifted by root alone, for a bind mount, and by a map: that of "
            "the mount or of the container's user namespace",
            hint="leave out idmap, or give the mount uidMappings and gidMappings",
        )
    if own and not (mount.uid_mappings and mount.gid_mappings):
        raise StockadeError(
            f"mount {mount.destination}: uidMappings and gidMappings are given together or not at all",
            hint="give both, or leave both out for the container's own",
        )
    return s.Idmap(tree, map_text(mount.uid_mappings), map_text(mount.gid_mappings), recursive=recursive)


def without_mounts(spec: oci.Spec, slots: Slots) -> Iterator[Step]:
    """Give the steps into a root that nothing is mounted in.

    Without a mount namespace of its own a container can have another root, and no mounts: they would be others'.
    Raises StockadeError.
    """
    linux, made = spec.linux, [mount.destination for mount in spec.mounts]
    made += [*linux.masked_paths, *linux.readonly_paths]
    made += ["root.readonly"] if root_of(spec).readonly else []
    made += ["linux.rootfsPropagation"] if linux.rootfs_propagation else []
    made += ["process.terminal"] if process_of(spec).terminal else []
    if made:
        raise StockadeError(
            f"{made[0]}: without a mount namespace of its own a container can't have mounts of its own",
            hint='add {"type": "mount"} without a path to linux.namespaces, or leave out all that is mounted',
        )
    top = slots.new("root")
    yield s.Open(top, root_of(spec).path, O_PATH | O_DIRECTORY)
    yield s.Chroot(top)


def embedded(spec: oci.Spec, top: Slot) -> Iterator[Step]:
    """Give the steps that make the root of `run --host`: a tmpfs, with what annotations say is in it."""
    size = spec.annotations.get(oci.ROOT_SIZE, "")
    options = (("mode", "0755"), *((("size", size),) if size else ()))
    if size.isdecimal():  # one file a page at most, as the kernel's own limit for all of memory
        options += (("nr_inodes", str(max(int(size) // 4096, 1024))),)
    yield s.Filesystem(top, "tmpfs", NODEV, options)
    for directory in spec.annotations.get(oci.ROOT_DIRECTORIES, "").split():
        name, mode, uid, gid = directory.rsplit(":", 3)
        yield s.MakeNode(top, name, S_IFDIR | int(mode, 8), 0, 0, int(uid), int(gid))
    for link in spec.annotations.get(oci.ROOT_LINKS, "").split():
        name, _, target = link.partition("=")
        yield s.MakeLink(top, name, target)
    for key, content in spec.annotations.items():
        if key.startswith(oci.ROOT_FILE):
            yield s.WriteFile(top, key.removeprefix(oci.ROOT_FILE), 0o644, content.encode())


def remount(mount: oci.Mount, flags: Flags, context: Context) -> Iterator[Step]:
    """Change what is mounted there already: the mount's own attributes, and options of its file system."""
    target = context.known.get(mount.destination) or context.target(mount.destination)
    if mount.destination not in context.known:
        yield s.OpenInside(target, *context.locate(mount.destination))
    if flags.data and not is_bind(mount):
        yield s.Reconfigure(target, tuple(flags.data))
    if flags.all_attributes & ~ATIME_MASK:
        yield s.SetAttributes(target, flags.attributes & ~ATIME_MASK, 0, 0, recursive=False)
    if flags.deep:
        yield s.SetAttributes(target, flags.deep & ~ATIME_MASK, 0, 0, recursive=True)
    if flags.cleared:
        yield s.Relax(target, flags.attributes & ATIME_MASK, flags.cleared, recursive=False)
    for propagation, recursive in flags.propagation:
        yield s.SetAttributes(target, 0, 0, propagation, recursive)
