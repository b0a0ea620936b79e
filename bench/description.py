"""The default sandbox as bench/baseline.c reads it and as a bubblewrap command line, both from one Spec and plan."""

from __future__ import annotations

import os

from stockade.sandbox import container, plan_mounts, steps
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import plan
from stockade.sandbox.plan_identity import map_text, process_of, wanted_sets
from stockade.sandbox.request import Request

MS_FLAGS = {1: 1, 2: 2, 4: 4, 8: 8, 0x20: 1 << 24}  # MOUNT_ATTR_ → MS_, mount(2)


def prepare() -> container.Prepared:
    """Give what `stockade run --host -- /bin/true` decides."""
    return container.prepare(Request(argv=("/bin/true",), host_root=True))


def describe(prepared: container.Prepared, root: str) -> str:
    """Give the lines for baseline.c: in the order of the plan, with mount(2)'s names and numbers."""
    spec = prepared.spec
    process = process_of(spec)
    lines: list[tuple[str, ...]] = [("root", root)]
    lines += [
        ("uidmap", map_text(spec.linux.uid_mappings).rstrip("\n")),
        ("gidmap", map_text(spec.linux.gid_mappings).rstrip("\n")),
    ]
    lines += [("env", variable) for variable in process.env]
    lines.append(("tmpfs-root", f"mode=0755,size={spec.annotations.get(oci.ROOT_SIZE, '1g')}"))
    walked = plan(spec, container.options(prepared, None, 0)).child
    attached = next(index for index, step in enumerate(walked) if isinstance(step, steps.Attach))
    lines += [line for step in walked[:attached] for line in _small(step)]
    lines += [_mount(mount) for mount in spec.mounts]
    lines += [line for step in walked[attached:] for line in _small(step)]
    lines.append(("hostname", spec.hostname))
    lines.append(("capabilities", str(wanted_sets(process).permitted)))
    return "".join("\t".join(field.replace("\n", "\\n") for field in line) + "\n" for line in lines)


def _small(step: steps.Step) -> list[tuple[str, ...]]:
    if isinstance(step, steps.MakeNode):
        return [("dir", step.name, f"{step.mode & 0o7777:o}")]
    if isinstance(step, steps.MakeLink):
        return [("link", f"dev/{step.name}" if step.directory.name == "new tmpfs" else step.name, step.target)]
    if isinstance(step, steps.WriteFile):
        return [("file", step.name, step.data.decode())]
    if isinstance(step, steps.BindNode):
        return [("node", step.source, f"dev/{step.name}")]
    if isinstance(step, steps.ReadOnly):
        return [("read-only", step.path)]
    if isinstance(step, steps.Mask):
        return [("mask", step.path)]
    if isinstance(step, steps.Pivot):
        return [("pivot",)]
    return []


def _mount(mount: oci.Mount) -> tuple[str, ...]:
    if plan_mounts.is_bind(mount):
        return ("bind", mount.source, mount.destination)
    flags = plan_mounts.Flags(mount.options)
    bits = sum(ms for attribute, ms in MS_FLAGS.items() if flags.attributes & attribute)
    data = ",".join(f"{key}={value}" if value else key for key, value in flags.data)
    return ("mount", mount.type, mount.destination, str(bits), data)


def bubblewrap(prepared: container.Prepared, filter_fd: int, files: dict[str, int]) -> list[str]:
    """Give the bwrap command for the same sandbox; `files` are descriptors of memfds with the files' content.

    Not the same: bwrap maps one id, shows the host's /sys bound read-only instead of one of the network namespace, and
    bounds capabilities by its own order of steps.
    """
    spec = prepared.spec
    process = process_of(spec)
    command = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--hostname", spec.hostname]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for name in process.capabilities.bounding if process.capabilities else ():
        command += ["--cap-add", name]
    for variable in process.env:
        command += ["--setenv", *variable.split("=", 1)]
    walked = plan(spec, container.options(prepared, None, 0)).child
    for step in walked:
        if isinstance(step, steps.MakeNode):
            command += ["--perms", f"{step.mode & 0o7777:04o}", "--dir", f"/{step.name}"]
        elif isinstance(step, steps.MakeLink) and step.directory.name != "new tmpfs":
            command += ["--symlink", step.target, f"/{step.name}"]
        elif isinstance(step, steps.WriteFile):
            command += ["--perms", f"{step.mode & 0o7777:04o}", "--file", str(files[step.name]), f"/{step.name}"]
    for mount in spec.mounts:
        command += _bubblewrap_mount(mount)
    for path in spec.linux.masked_paths:
        if os.path.isdir(path):
            command += ["--perms", "0555", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
        elif os.path.exists(path):
            command += ["--ro-bind", "/dev/null", path]
    return [*command, "--seccomp", str(filter_fd), "--", *process.args]


def _bubblewrap_mount(mount: oci.Mount) -> list[str]:
    if plan_mounts.is_bind(mount) or mount.type == "sysfs":
        return ["--ro-bind", "/sys" if mount.type == "sysfs" else mount.source, mount.destination]
    words = {"/proc": ["--proc", "/proc"], "/dev": ["--dev", "/dev"], "/dev/mqueue": ["--mqueue", "/dev/mqueue"]}
    words["/dev/shm"] = ["--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/dev/shm"]
    return words.get(mount.destination, [])
