"""What the auditor says of a config.json is what the kernel then has of the container that is started from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stockade.audit.documents.walk import Entry, Source, read
from stockade.audit.facts import (
    CapabilitySets,
    CgroupLimit,
    Identity,
    Mask,
    Mount,
    Namespace,
    NoNewPrivs,
    SeccompFilter,
    SeccompState,
    UserNamespace,
)
from stockade.audit.static import oci
from stockade.audit.targets import live
from stockade.audit.targets.shared import Options
from stockade.sandbox.linux import syscalls
from tests.kernel.bundles import Runtime, write

if TYPE_CHECKING:
    from pathlib import Path

    from stockade.audit.facts import Target

pytestmark = pytest.mark.kernel

_SOME = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MAPS = [{"containerID": 0, "hostID": 300000, "size": 1000}]
_SPACES = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup")]
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "root with a bounding set": (
        {"capabilities": {"bounding": _SOME, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}},
        {"namespaces": [*_SPACES]},
    ),
    "a user with permitted capabilities": (
        {
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
            "capabilities": {"bounding": _SOME, "effective": _SOME, "permitted": _SOME},
            "noNewPrivileges": True,
        },
        {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    ),
    "a user with ambient capabilities": (
        {
            "user": {"uid": 7, "gid": 8},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _SOME),
        },
        {"maskedPaths": ["/proc/kcore", "/proc/keys"], "readonlyPaths": ["/proc/sys", "/proc/irq"]},
    ),
    "mapped ids and a filter": (
        {"noNewPrivileges": True},
        {
            "namespaces": [*_SPACES, {"type": "user"}],
            "uidMappings": _MAPS,
            "gidMappings": _MAPS,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["bpf", "keyctl"], "action": "SCMP_ACT_ERRNO"}],
            },
            "resources": {"pids": {"limit": 40}, "memory": {"limit": 64 << 20}},
        },
    ),
}


@pytest.fixture(params=CONFIGS)
def both(request: pytest.FixtureRequest, public_tmp: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the target of a file, and that of the container which was started from it."""
    process, linux = CONFIGS[request.param]
    runtime = Runtime(public_tmp / "state")
    directory = write(public_tmp / "bundle", rootfs, **linux)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= process
    config["mounts"].append({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]})
    (directory / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("stockade.audit.targets.own.runtimes", lambda: [(str(public_tmp / "state"), 0, "state.json")])
    runtime.ok("create", "--bundle", directory, "alike")
    try:
        runtime.ok("start", "alike")
        (running,) = live.audit_targets(["container:alike"], Options(seccomp_filters=True)).targets
        source = read(Entry(str(directory / "config.json"), named=True))
        assert isinstance(source, Source)
        (declared,) = oci.targets(source)
        yield declared, running
    finally:
        runtime.ok("delete", "--force", "alike")


def sets(target: Target) -> list[tuple[int, ...]]:
    return [
        (each.bounding, each.effective, each.permitted, each.inheritable, each.ambient)
        for each in target.all(CapabilitySets)
    ]


def ids(target: Target) -> list[tuple[Any, ...]]:
    return [(each.uids, each.gids) for each in target.all(Identity)]


def test_a_file_says_what_the_kernel_has(both: tuple[Target, Target]) -> None:
    declared, running = both

    assert sets(declared) == sets(running)
    assert ids(declared) == ids(running)
    assert [each.value for each in declared.all(NoNewPrivs)] == [each.value for each in running.all(NoNewPrivs)]
    spaces = [{each.kind: each.host for each in target.all(Namespace)} for target in both]
    assert spaces[0] == spaces[1]
    users = [[(each.initial, each.uid_map if not each.initial else ()) for each in t.all(UserNamespace)] for t in both]
    assert users[0] == users[1]
    modes = [[each.mode for each in target.all(SeccompState)] for target in both]
    assert modes[0] == modes[1]
    _same_filter(declared.one(SeccompFilter), running.one(SeccompFilter))
    _same_files(declared, running)


def _same_filter(declared: SeccompFilter | None, running: SeccompFilter | None) -> None:
    assert (declared is None) is (running is None or not running.programs)
    if declared is not None and running is not None:
        assert declared.allowed & set(syscalls.numbers("x86_64")) == running.allowed
        assert declared.conditional == running.conditional


def _same_files(declared: Target, running: Target) -> None:
    """Compare the masks of what is there, the mounts' modes and the limits that are set."""
    real = {each.path: each.state for each in running.all(Mask)}
    told = {each.path: each.state for each in declared.all(Mask) if real.get(each.path, "absent") != "absent"}
    assert told == {path: state for path, state in real.items() if path in told}
    assert len(told) > 3
    modes = {each.destination: each.writable for each in running.all(Mount)}
    assert all(modes[each.destination] is each.writable for each in declared.all(Mount))
    limits = {each.name: each.value for each in running.all(CgroupLimit)}
    assert all(limits[each.name] == each.value for each in declared.all(CgroupLimit) if each.value is not None)
