from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.sandbox.linux import calls, idmap, namespaces, process
from stockade.sandbox.linux.idmap import ID_LIMIT, Mapping

if TYPE_CHECKING:
    from collections.abc import Callable

    Forked = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.kernel

SEVEN = [kind for kind in namespaces.KINDS if kind not in ("pid", "time")]


@pytest.mark.parametrize("kind", SEVEN)
def test_a_namespace_that_was_left_has_another_identity(kind: str, forked: Forked) -> None:
    def child() -> dict[str, namespaces.Identity]:
        calls.unshare(namespaces.FLAGS[kind])
        return namespaces.of("self")

    before, after = namespaces.of("self"), forked(child)

    assert {name for name in before if before[name] != after[name]} == {kind}


@pytest.mark.parametrize("kind", ["pid", "time"])
def test_children_go_to_another_namespace_than_their_parent(kind: str, forked: Forked) -> None:
    def child() -> tuple[bool, bool]:
        before = namespaces.inode("self", kind)
        calls.unshare(namespaces.FLAGS[kind])
        if kind == "pid" and os.fork() == 0:  # it can be looked at once it has an init
            os._exit(0)
        return namespaces.inode("self", kind) == before, namespaces.for_children("self", kind) != before

    assert forked(child) == (True, True)


def test_the_initial_namespaces_have_the_numbers_of_the_header() -> None:
    # Kernel tests run in the initial user namespace; those of other kinds may be a container's.
    assert namespaces.inode("self", "user")[1] == namespaces.INITIAL["user"]


def test_a_namespace_made_in_a_user_namespace_is_owned_by_it(forked: Forked) -> None:
    def child() -> tuple[bool, bool, bool, int]:
        initial = namespaces.inode("self", "user")
        host_net = namespaces.open("self", "net")
        calls.unshare(calls.CLONE_NEWUSER | calls.CLONE_NEWNET)
        own = namespaces.inode("self", "user")
        mine = namespaces.owner_of("self", "net") == own
        # The host's network namespace is owned outside, and the kernel does not say by whom.
        try:
            os.close(namespaces.owner(host_net))
            hidden = False
        except PermissionError:
            hidden = True
        own_fd = namespaces.open("self", "user")
        return mine, hidden, own != initial, namespaces.owner_uid(own_fd)

    mine, hidden, differs, owner = forked(child)

    assert (mine, hidden, differs) == (True, True, True)
    assert owner in (os.getuid(), 65534)


def test_the_owner_of_another_process_namespace_is_seen_from_outside() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calls.unshare(calls.CLONE_NEWUSER | calls.CLONE_NEWUTS)
            os.write(writer, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    os.read(reader, 1)
    try:
        user = namespaces.inode(child, "user")
        assert namespaces.owner_of(child, "uts") == user
        assert namespaces.owner_of(child, "net") == namespaces.inode("self", "user")
        assert namespaces.owner_of(child, "user") == namespaces.inode("self", "user")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_a_namespace_is_joined_by_its_descriptor(forked: Forked) -> None:
    def child() -> tuple[bool, bool]:
        before = namespaces.open("self", "uts")
        first = namespaces.inode("self", "uts")
        calls.unshare(calls.CLONE_NEWUTS)
        left = namespaces.inode("self", "uts") != first
        calls.setns(before, calls.CLONE_NEWUTS)
        return left, namespaces.inode("self", "uts") == first

    assert forked(child) == (True, True)


def kernel_takes(mappings: list[Mapping]) -> bool:
    """Whether the kernel lets a new user namespace have this map."""
    to_parent, to_child = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calls.unshare(calls.CLONE_NEWUSER)
            os.write(to_parent[1], b"x")
            os.read(to_child[0], 1)
        finally:
            os._exit(0)
    os.read(to_parent[0], 1)
    try:
        descriptor = os.open(f"/proc/{child}/uid_map", os.O_WRONLY)
        try:
            os.write(descriptor, idmap.render(mappings).encode())
        finally:
            os.close(descriptor)
        taken = idmap.of(child, "uid")
    except OSError:
        return False
    else:
        # Four and more extents come back sorted.
        assert sorted(map(str, taken)) == sorted(map(str, mappings))
        return True
    finally:
        os.write(to_child[1], b"x")
        os.waitpid(child, 0)
        for descriptor in (*to_parent, *to_child):
            os.close(descriptor)


def we_take(mappings: list[Mapping]) -> bool:
    try:
        idmap.check(mappings)
    except ValueError:
        return False
    return True


edges = st.sampled_from([0, 1, 2, 5, 10, 1000, ID_LIMIT - 2, ID_LIMIT - 1])
sizes = st.sampled_from([0, 1, 2, 5, 1000, ID_LIMIT - 1000, ID_LIMIT])


@given(st.lists(st.builds(Mapping, edges, edges, sizes), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_map_is_accepted_exactly_when_the_kernel_accepts_it(mappings: list[Mapping]) -> None:
    assert we_take(mappings) == kernel_takes(mappings)


@pytest.mark.parametrize(("count", "host", "taken"), [(340, 0, True), (341, 0, False), (300, 1_000_000_000, False)])
def test_the_kernel_has_our_limits_of_extents_and_of_text(count: int, host: int, *, taken: bool) -> None:
    mappings = [Mapping(2 * place, host + 2 * place, 1) for place in range(count)]

    assert we_take(mappings) == kernel_takes(mappings) == taken


def test_pids_of_a_nested_pid_namespace_are_read() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calls.unshare(calls.CLONE_NEWPID)
            inner = os.fork()
            if inner == 0:
                time.sleep(60)
            # Its parent stayed in our namespace and knows its number there.
            os.write(writer, b"%d\n" % inner)
            os.waitpid(inner, 0)
        finally:
            os._exit(0)
    inner = int(os.read(reader, 20))
    try:
        status = process.status(inner)
    finally:
        os.close(writer)
        os.close(reader)
        os.kill(inner, 9)
        os.waitpid(child, 0)

    assert status.pids == (inner, 1)
