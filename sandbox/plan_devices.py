"""The part of a plan about /dev: device nodes, the links beside them, the console."""

from __future__ import annotations

from stockade.sandbox import steps as s
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan_identity import process_of
from stockade.sandbox.plan_mount_options import clean, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.plan_mounts import Context
    from stockade.sandbox.steps import Slot, Step

S_IFCHR, S_IFBLK, S_IFIFO = 0o020000, 0o060000, 0o010000
#: the step Terminal puts the slave here; above all slots that a plan hands out in order
TERMINAL_SLOT = 2000

#: the devices that every container has, runtime-spec config-linux.md "Default Devices"
DEFAULT_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)


def devices(spec: oci.Spec, context: Context) -> Iterator[Step]:
    """Give the steps that make the devices and links of `spec`, where it does not show the host's own /dev."""
    mounts = [(clean(mount.destination), mount) for mount in spec.mounts]
    if context.options.oci:
        if not any(place == "/dev" and is_bind(mount) for place, mount in mounts):
            yield from _literal(spec, context, {place for place, _ in mounts})
        return
    own = any(place == "/dev" and mount.type == "tmpfs" for place, mount in mounts)
    dev = context.known.get("/dev")
    user_namespace = spec.linux.namespace("user") is not None
    given = {device.path for device in spec.linux.devices}
    if own and dev is not None:
        for device in _defaults(given):
            yield _device(device, dev, device.path[5:], user_namespace=user_namespace)
        for name, target in DEFAULT_LINKS:
            yield s.MakeLink(dev, name, target)
    for device in spec.linux.devices:
        directory, _, name = device.path.rpartition("/")
        yield from context.directory(directory)
        yield _device(device, context.directories[directory], name, user_namespace=user_namespace)


def _defaults(given: set[str]) -> list[oci.LinuxDevice]:
    return [
        oci.LinuxDevice(f"/dev/{name}", "c", major, minor, 0o666, 0, 0)
        for name, major, minor in DEFAULT_DEVICES
        if f"/dev/{name}" not in given
    ]


def _device(device: oci.LinuxDevice, directory: Slot, name: str, *, user_namespace: bool) -> Step:
    kind = _kind(device)
    if user_namespace and kind != S_IFIFO:
        return s.BindNode(directory, name, device.path, kind, device.major, device.minor)
    return s.MakeNode(directory, name, _mode(device), device.major, device.minor, device.uid or 0, device.gid or 0)


def _kind(device: oci.LinuxDevice) -> int:
    return {"c": S_IFCHR, "u": S_IFCHR, "b": S_IFBLK, "p": S_IFIFO}[device.type]


def _mode(device: oci.LinuxDevice) -> int:
    return _kind(device) | (device.file_mode if device.file_mode is not None else 0o666) & 0o7777


def _literal(spec: oci.Spec, context: Context, mounted: set[str]) -> Iterator[Step]:
    """As runc: also in a /dev that the image brings, and what is there already stays.

    What something was mounted on stays in any case. /dev/ptmx is a link, whatever the Spec says of it.
    """
    bind = context.options.in_user_namespace or spec.linux.namespace("user") is not None
    wanted = [(clean(device.path), device) for device in spec.linux.devices]
    wanted[:0] = [(device.path, device) for device in _defaults({path for path, _ in wanted} | mounted)]
    for path, device in wanted:
        if path in mounted or path in {"/", "/dev/ptmx"}:
            continue
        directory, _, name = path.rpartition("/")
        yield from context.directory(directory)
        yield s.Device(
            context.directories[directory], name, path, _mode(device), device.major, device.minor,
            device.uid or 0, device.gid or 0, bind,
        )  # fmt: skip
    yield from context.directory("/dev")
    for name, target in DEFAULT_LINKS:
        if f"/dev/{name}" not in mounted:
            yield s.Link(context.directories["/dev"], name, target, name == "ptmx")


def terminal(spec: oci.Spec, context: Context) -> Iterator[Step]:
    """Give the steps that make the terminal of the program, if it has one, and mount it on /dev/console."""
    process = process_of(spec)
    if process.terminal:
        size = process.console_size or oci.Box(0, 0)
        yield from context.directory("/dev")
        yield s.Terminal(
            context.directories["/dev"], s.Slot(TERMINAL_SLOT, "terminal"), process.user.uid, size.height, size.width
        )
