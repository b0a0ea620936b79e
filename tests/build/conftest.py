"""Hosts that never change, and a builder: the machine that runs these tests has no say in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stockade.sandbox import modes
from stockade.sandbox.build import build
from stockade.sandbox.host import RESERVED, Host, Inode
from stockade.sandbox.linux.capabilities import ALL, Sets
from stockade.sandbox.linux.idmap import Mapping, Range
from stockade.sandbox.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from stockade.sandbox.oci.spec import Spec

    Build = Callable[..., Spec]

WHOLE = (Mapping(0, 0, 4294967295),)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = b"root:x:0:\nextra:x:2000:app\nhuge:x:70000:app\n"
FILES: dict[str, Inode | int] = {
    "/img": Inode(0o040755, 0, 0),
    "/data": Inode(0o040755, 0, 0),
    "/img.tar": Inode(0o100644, 0, 0),
    "/": Inode(0o040755, 0, 0),
    "/dev/fuse": Inode(0o020666, 0, 0, 10 << 8 | 229),
    "/dev/sda": Inode(0o060660, 0, 6, 8 << 8),
    "/gone": 2,
    "/dev/mqueue": Inode(0o041777, 0, 0),
}


@pytest.fixture(scope="session")
def root_host() -> Host:
    """Root on a Debian host without a range in /etc/subuid; it lacks CAP_SYS_RESOURCE."""
    held = ALL & ~(1 << 24)
    return Host(
        uid=0,
        gid=0,
        user="root",
        caps=Sets(held, held, 0, held, 0),
        kernel=(6, 18),
        arch="x86_64",
        last_cap=40,
        no_new_privs=False,
        seccomp=False,
        uidmap=WHOLE,
        gidmap=WHOLE,
        subuid=(RESERVED,),
        subgid=(RESERVED,),
        root_entries=(("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")),
        etc=("alternatives", "ssl", "ld.so.cache"),
        localtime="/usr/share/zoneinfo/Etc/UTC",
        nsswitch="passwd: files\n",
        resolv="nameserver 192.0.2.1\n",
        files=FILES,
        passwd=PASSWD,
        group=GROUP,
        nodes=("/dev/fuse", "/dev/sda"),
        rlimits={"nofile": (1024, 4096), "core": (0, -1)},
    )


@pytest.fixture(scope="session")
def user_host(root_host: Host) -> Host:
    """User alice, 1000, with subordinate ids and newuidmap."""
    return root_host.replace(
        uid=1000,
        gid=100,
        user="alice",
        caps=Sets(ALL, 0, 0, 0, 0),
        subuid=(Range(100000, 65536),),
        subgid=(Range(200000, 65536),),
        newuidmap="/usr/bin/newuidmap",
        newgidmap="/usr/bin/newgidmap",
    )


@pytest.fixture(scope="session")
def lone_host(user_host: Host) -> Host:
    """User alice on a machine without subordinate ids and newuidmap."""
    return user_host.replace(subuid=(), subgid=(), newuidmap="", newgidmap="", no_helper="newuidmap is not installed")


@pytest.fixture(scope="session")
def built(root_host: Host) -> Build:
    """Build a Spec: built(mode="normal", host=root_host, **fields of the Request)."""

    def run(mode: str = "normal", host: Host | None = None, **asked: Any) -> Spec:
        if "rootfs" not in asked:
            asked.setdefault("host_root", True)
        request = Request(asked.pop("argv", ("/bin/true",)), **asked)
        return build(request, modes.load(mode), host or root_host)

    return run
