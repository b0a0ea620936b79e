"""Callers without root's capabilities: what is refused, and how their id maps are written."""

from __future__ import annotations

import pytest

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities, procfs
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.runtime import rootless
from stockade.sandbox.runtime.caller import Caller

OWN = (oci.LinuxIDMapping(0, 1000, 1),)
MORE = (*OWN, oci.LinuxIDMapping(1, 100000, 65536))


def caller(*held: str) -> Caller:
    mask = capabilities.mask(held)
    return Caller(1000, 1000, capabilities.Sets(mask, mask, mask, mask, mask), nested=False, arch="x86_64")


def spec(
    uids: tuple[oci.LinuxIDMapping, ...] = OWN,
    gids: tuple[oci.LinuxIDMapping, ...] = OWN,
    *,
    path: str = "",
    groups: tuple[int, ...] = (),
) -> oci.Spec:
    linux = oci.Linux(uid_mappings=uids, gid_mappings=gids, namespaces=(oci.LinuxNamespace("user", path),))
    return oci.Spec(process=oci.Process("/", ("a",), user=oci.User(additional_gids=groups)), linux=linux)


ROOT = caller("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def test_a_container_without_a_user_namespace_is_roots() -> None:
    assert rootless.settle(oci.Spec(), ROOT) == oci.Spec()
    with pytest.raises(StockadeError, match=r"^a container without a user namespace needs root$"):
        rootless.settle(oci.Spec(), caller())


def test_who_maps_the_own_id_alone_gives_setgroups_up() -> None:
    settled = rootless.settle(spec(), caller())

    assert settled.annotations == {oci.SETGROUPS: "deny"}
    assert not rootless.external(settled, caller())


def test_groups_that_could_not_be_set_are_refused_and_not_dropped() -> None:
    with pytest.raises(StockadeError, match=r"^additional groups can't be set: setgroups\(2\) is denied"):
        rootless.settle(spec(groups=(5,)), caller())


@pytest.mark.parametrize(
    ("uids", "gids"),
    [(MORE, OWN), (OWN, MORE), ((oci.LinuxIDMapping(0, 1001, 1),), OWN), ((oci.LinuxIDMapping(0, 1000, 2),), OWN)],
)
def test_other_ids_are_mapped_by_newuidmap(
    uids: tuple[oci.LinuxIDMapping, ...], gids: tuple[oci.LinuxIDMapping, ...]
) -> None:
    wanted = spec(uids, gids, groups=(5,))

    assert rootless.settle(wanted, caller()) == wanted
    assert rootless.external(wanted, caller())


@pytest.mark.parametrize("who", [ROOT, caller("CAP_SETUID", "CAP_SETGID")])
def test_who_may_choose_ids_writes_any_map_itself(who: Caller) -> None:
    assert rootless.settle(spec(MORE, MORE), who) == spec(MORE, MORE)
    assert not rootless.external(spec(MORE, MORE), who)


def test_a_namespace_that_is_joined_has_its_map_already() -> None:
    joined = spec(MORE, MORE, path="/proc/5/ns/user")

    assert rootless.settle(joined, caller()) == joined
    assert not rootless.external(joined, caller())


def test_where_setgroups_is_denied_already_nobody_tries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a user namespace without subordinate ids, and whoever joins a container that is such a one."""
    files = {"self": b"deny\n", "5": b"deny\n", "6": b"allow\n"}
    monkeypatch.setattr(procfs, "read", lambda process, _name: files[process])

    assert rootless.settle(oci.Spec(), ROOT.replace(nested=True)).annotations == {oci.SETGROUPS: "deny"}
    assert rootless.settle(oci.Spec(), ROOT) == oci.Spec()
    assert rootless.joined(oci.Spec(), 5).annotations == {oci.SETGROUPS: "deny"}
    assert rootless.joined(oci.Spec(), 6) == oci.Spec()
    with pytest.raises(StockadeError, match=r"^additional groups"):
        rootless.joined(spec(groups=(5,)), 5)
