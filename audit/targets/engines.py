"""Which engine made a container, told from the names that engines give to cgroups and to their programs."""

import re
from typing import NamedTuple


class Engine(NamedTuple):
    """An engine's name and its id of the container."""

    name: str
    id: str


# Each engine's name for a container's cgroup, with the systemd and the cgroupfs driver; conmon's scopes are not meant.
_CGROUPS = (
    ("docker", re.compile(r"/docker[/-](?P<id>[0-9a-f]{64})(?:\.scope)?")),
    ("podman", re.compile(r"/libpod-(?P<id>[0-9a-f]{64})(?:\.scope)?")),
    ("cri-o", re.compile(r"/crio-(?P<id>[0-9a-f]{64})(?:\.scope)?")),
    ("containerd", re.compile(r"/(?:cri-containerd|nerdctl)-(?P<id>[0-9a-f]{64})(?:\.scope)?")),
    ("kubernetes", re.compile(r"/kubepods[^\n]*/(?P<id>[0-9a-f]{64})")),
    ("containerd", re.compile(r"/(?:k8s\.io|moby|default)/(?P<id>[0-9a-f]{64})")),
    ("lxc", re.compile(r"/lxc(?:\.payload\.|/)(?P<id>[^/\n]+)")),
    ("systemd-nspawn", re.compile(r"/machine\.slice/(?:machine-|systemd-nspawn@)(?P<id>[^/\n]+?)\.(?:scope|service)")),
    ("stockade", re.compile(r"/stockade[/-](?P<id>[0-9a-f]{8,64})(?:\.scope)?(?=/|$)", re.MULTILINE)),
)
# "libpod-payload" and the like below a scope belong to it; the innermost container wins (one engine inside another's).
_known: dict[str, Engine | None] = {}

#: first program of a sandbox that brings its own kernel → which
_GUESTS = {
    "runsc-sandbox": "gvisor",
    "runsc-gofer": "gvisor",
    "firecracker": "kata",
    "cloud-hypervisor": "kata",
}


def of_cgroup(text: str) -> Engine | None:
    """Find the innermost container that the text of /proc/PID/cgroup names."""
    if text not in _known:
        _known[text] = _search(text)
    return _known[text]


def _search(text: str) -> Engine | None:
    best: tuple[int, Engine] | None = None
    for line in text.split("\n"):
        for name, pattern in _CGROUPS:
            for found in pattern.finditer(line):
                if best is None or found.end() > best[0]:
                    best = found.end(), Engine(name, found["id"])
    return best[1] if best else None


def guest_of(name: str, arguments: tuple[str, ...], engine: str | None) -> str | None:
    """Say which sandbox kernel a process belongs to by its name and arguments, or None for the host's own kernel."""
    if arguments and arguments[0].rpartition("/")[2] in _GUESTS:
        return _GUESTS[arguments[0].rpartition("/")[2]]
    if name.startswith("qemu-system") and engine is not None:
        return "kata"
    return _GUESTS.get(name) if engine is not None or name.startswith("runsc") else None
