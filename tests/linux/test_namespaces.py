from __future__ import annotations

import os
import subprocess

import pytest

from stockade.sandbox.linux import calls_constants, namespaces


def test_the_kinds_have_the_kernels_flags() -> None:
    flags = {
        kind: getattr(calls_constants, f"CLONE_NEW{'NS' if kind == 'mnt' else kind.upper()}")
        for kind in namespaces.KINDS
    }

    assert flags == namespaces.FLAGS


def test_the_kinds_have_their_names_in_the_runtime_specification() -> None:
    assert set(namespaces.FROM_OCI) == {"user", "pid", "mount", "network", "ipc", "uts", "cgroup", "time"}
    assert namespaces.FROM_OCI["network"] == "net"
    assert namespaces.TO_OCI["mnt"] == "mount"


def test_a_child_shares_its_parents_namespaces() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert namespaces.of(child.pid) == namespaces.of("self")
    finally:
        child.kill()
        child.wait()


def test_the_identity_is_the_number_that_the_link_shows() -> None:
    found = namespaces.of("self")

    assert set(found) == {kind for kind in namespaces.KINDS if os.path.exists(f"/proc/self/ns/{kind}")}
    for kind, (_, inode) in found.items():
        assert os.readlink(f"/proc/self/ns/{kind}") == f"{kind}:[{inode}]"


def test_a_descriptor_tells_its_kind() -> None:
    for kind in namespaces.of("self"):
        descriptor = namespaces.open("self", kind)
        assert namespaces.kind(descriptor) == kind
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_a_descriptor_that_is_no_namespace_has_no_kind() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match=r"."):
        namespaces.kind(file.fileno())


def test_a_process_that_has_gone_has_no_namespaces() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    for reader in (namespaces.of, lambda pid: namespaces.open(pid, "net"), lambda pid: namespaces.owner_of(pid, "net")):
        with pytest.raises(ProcessLookupError):
            reader(child.pid)


def test_a_kind_that_no_kernel_has_is_missing_and_the_process_is_not() -> None:
    with pytest.raises(FileNotFoundError):
        namespaces.inode("self", "moon")
