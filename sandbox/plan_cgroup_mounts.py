"""Mounts of type cgroup: cgroup2, or on v1 one mount a hierarchy, with what the container's namespaces can show.

With a cgroup namespace of its own each is a new mount, whose root is the container's group. Without one that would be
the host's whole tree, so the container's own group directories are bound instead, as runc does.
"""

from __future__ import annotations

from stockade.sandbox import steps as s
from stockade.sandbox.plan_mount_options import NODEV, NOEXEC, NOSUID, RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.oci import spec as oci
    from stockade.sandbox.plan_mount_options import Flags
    from stockade.sandbox.plan_mounts import Context
    from stockade.sandbox.steps import Slot, Step

O_PATH = 0o10000000


def cgroup(mount: oci.Mount, flags: Flags, context: Context, place: tuple[Slot, str]) -> Iterator[Step]:
    """Give the steps for one mount of type cgroup."""
    own = context.spec.linux.namespace("cgroup") is not None or not context.options.oci
    if context.options.v1:
        yield from _v1(mount, flags, context, place, own=own)
    else:
        yield from _v2(mount, flags, context, place, own=own)


def _v2(mount: oci.Mount, flags: Flags, context: Context, place: tuple[Slot, str], *, own: bool) -> Iterator[Step]:
    options, spec, tree = context.options, context.spec, context.slots.new("cgroup2")
    confined = options.in_user_namespace or spec.linux.namespace("user") is not None
    if confined and not own:  # a cgroup2 shows a cgroup namespace, and only who owns that may mount it
        yield from _bound(options.cgroup2, tree, flags, context)
    else:
        data = (*_source("cgroup", context), *flags.data) if options.oci else ()
        yield s.Filesystem(tree, "cgroup2", flags.all_attributes, data)
    target = context.target(mount.destination)
    yield s.EnsureLike(target, *place, tree)
    yield s.Attach(tree, target)


def _bound(path: str, tree: Slot, flags: Flags, context: Context) -> Iterator[Step]:
    source = context.source(path)
    yield s.Open(source, path, O_PATH)
    yield s.CloneTree(tree, source, recursive=False)
    yield s.SetAttributes(tree, flags.all_attributes | NOSUID | NODEV | NOEXEC, 0, 0, recursive=False)


def _v1(mount: oci.Mount, flags: Flags, context: Context, place: tuple[Slot, str], *, own: bool) -> Iterator[Step]:
    slots, options = context.slots, context.options
    target, holder = context.target(mount.destination), slots.new("cgroup tmpfs")
    tmpfs = flags.all_attributes | (NOSUID | NODEV | NOEXEC if options.oci else 0)
    yield s.Filesystem(holder, "tmpfs", tmpfs & ~RDONLY, (("mode", "0755"), *_source("tmpfs", context)))
    yield s.EnsureLike(target, *place, holder)
    yield s.Attach(holder, target)
    tree, below = slots.new("cgroup"), slots.new("cgroup directory")
    names = {name for name, _ in options.v1}
    for number, (name, controllers) in enumerate(options.v1):
        tree, below = s.Slot(tree.number, f"cgroup {name}"), s.Slot(below.number, f"{mount.destination}/{name} in root")
        words = controllers.split(",")
        if own:
            named = words[0].startswith("name=")
            data = (("none", ""), ("name", words[0][5:])) if named else tuple([(word, "") for word in words])
            yield s.Filesystem(tree, "cgroup", flags.all_attributes, (*data, *_source("cgroup", context)))
        else:
            yield from _bound(options.v1_paths[number], tree, flags, context)
        yield s.Ensure(below, holder, name, directory=True, mode=0o755)
        yield s.Attach(tree, below)
        for word in words if options.oci else ():
            if word not in names and not word.startswith("name="):  # /sys/fs/cgroup/cpu of cpu,cpuacct
                yield s.MakeLink(holder, word, name)
    if flags.all_attributes & RDONLY:
        yield s.SetAttributes(holder, RDONLY, 0, 0, recursive=False)


def _source(name: str, context: Context) -> tuple[tuple[str, str], ...]:
    """Name what mountinfo shows as the source, as programs in the containers of engines are used to."""
    return (("source", name),) if context.options.oci else ()
