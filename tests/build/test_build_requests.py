"""The rest of a request: root, user, environment, namespaces, limits, and what of them is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.build import build
from stockade.sandbox.modes import load
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.request import Request, UlimitRequest


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"argv": ()}, "no program to run"),
        ({"rootfs": "/img", "host_root": True}, "one root file system"),
        ({"host_root": False}, "one root file system"),
        ({"rootfs": "/gone"}, "rootfs /gone: no such directory"),
        ({"rootfs": "/img.tar"}, "is not a directory"),
        ({"rootfs": "/"}, "the host's own root"),
        ({"rootfs": "img"}, "not an absolute path"),
        ({"workdir": "tmp"}, "not absolute"),
        ({"argv": ("a\0b",)}, "NUL byte"),
        ({"env": (("A", "x\0y"),)}, "NUL byte"),
        ({"env": (("", "x"),)}, "not a name of a variable"),
        ({"env": (("A=B", "x"),)}, "not a name of a variable"),
        ({"annotations": (("org.stockade.root", "x"),)}, "what Stockade itself says"),
        ({"hostname": "a" * 65}, "up to 64 letters"),
        ({"hostname": "a b"}, "up to 64 letters"),
        ({"hostname": "a", "uts": "host"}, "would rename the host"),
        ({"pid": "container:x"}, "pid namespace: 'container:x' is not known"),
        ({"memory_swap": 1 << 30}, "needs --memory"),
        ({"memory_swap": 1 << 20, "memory": 1 << 30}, "less than --memory"),
        ({"cpus": 0.001}, "no less than 0.01"),
        ({"ulimits": (UlimitRequest("nofiles", 1, 1),)}, "ulimit nofiles: unknown"),
        ({"ulimits": (UlimitRequest("nofile", 10, 5),)}, "above the hard limit"),
        ({"ulimits": (UlimitRequest("nofile", -1, 5),)}, "above the hard limit"),
        ({"user": "bob"}, "user 'bob' is not in the container's /etc/passwd"),
        ({"user": "0:staff"}, "group 'staff' is not in"),
    ],
)
def test_a_request_that_can_not_be_met_is_refused_with_a_remedy(built: Any, asked: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        built(**asked)

    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_a_limit_above_the_callers_own_is_refused_where_it_can_not_be_raised(built: Any, root_host: Any) -> None:
    asked = {"ulimits": (UlimitRequest("nofile", 8192, 8192),)}

    with pytest.raises(StockadeError, match="above the caller's hard limit 4096, and CAP_SYS_RESOURCE is missing"):
        built(**asked)
    caps = root_host.caps.replace(effective=root_host.caps.effective | 1 << 24)
    assert built(host=root_host.replace(caps=caps), **asked).process.rlimits[0].hard == 8192


def test_minus_one_is_no_limit(built: Any) -> None:
    (limit,) = built(ulimits=(UlimitRequest("core", 0, -1),)).process.rlimits

    assert limit == oci.POSIXRlimit("RLIMIT_CORE", 2**64 - 1, 0)


def test_nothing_of_the_callers_environment_gets_in(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")

    environment = built(tty=True, env=(("A", "1"), ("PATH", "/p"), ("A", "2"))).process.env

    assert environment == ("PATH=/p", "HOME=/root", "HOSTNAME=stockade", "TERM=xterm", "A=2")


def test_a_user_of_the_rootfs_brings_its_groups_and_home(built: Any) -> None:
    process = built(rootfs="/img", user="app").process

    assert process.user == oci.User(1000, 1000, additional_gids=(2000,))
    assert "HOME=/srv/app" in process.env


def test_limits_become_what_cgroups_enforce(built: Any) -> None:
    found = built(memory=1 << 26, memory_swap=-1, cpus=1.5, cpu_shares=512, cpuset_cpus="0-1", pids_limit=64)

    assert found.linux.resources == oci.LinuxResources(
        memory=oci.LinuxMemory(limit=1 << 26, swap=-1),
        cpu=oci.LinuxCPU(shares=512, quota=150000, period=100000, cpus="0-1"),
        pids=oci.LinuxPids(64),
    )


def test_no_limit_is_no_cgroup(built: Any) -> None:
    assert built(pids_limit=-1).linux.resources is None


def test_every_namespace_is_private_but_time(built: Any) -> None:
    kinds = [namespace.type for namespace in built().linux.namespaces]

    assert kinds == ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"]


def test_sysctls_of_a_shared_network_are_the_hosts_and_left_alone(built: Any, user_host: Any) -> None:
    assert built("rootless", user_host).linux.sysctl
    assert built("rootless", user_host, network="host").linux.sysctl == {}


def test_build_reads_nothing(monkeypatch: pytest.MonkeyPatch, root_host: Any) -> None:
    import builtins
    import os

    mode = load("normal")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("build looked at the machine")

    for module, names in ((os, ("open", "stat", "lstat", "readlink", "listdir", "scandir")), (builtins, ("open",))):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    build(Request(("/bin/true",), rootfs="/img", user="app"), mode, root_host)


def test_what_the_request_says_beats_the_mode(built: Any) -> None:
    spec = built(no_new_privileges=False, seccomp="unconfined")

    assert not spec.process.no_new_privileges
    assert spec.annotations[oci.SECCOMP] == "unconfined"


def test_the_supervisors_part_is_in_the_annotations(built: Any) -> None:
    found = built(init=True, interactive=True, stop_signal=10, timeout=1.5, labels=(("a", "b"),), best_effort=True)

    assert {name.removeprefix("org.stockade."): value for name, value in found.annotations.items()}.items() >= {
        "init": "true",
        "keep-stdin": "true",
        "stop-signal": "10",
        "timeout": "1.5",
        "label.a": "b",
        "best-effort": "true",
        "mode": "normal",
        "seccomp": "default",
    }.items()
