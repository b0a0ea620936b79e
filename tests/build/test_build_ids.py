"""Id maps: each --userns, for root, for a user with subordinate ids, and for one without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux.idmap import Mapping, Range
from stockade.sandbox.oci.spec import ROOT_IDMAP, SETGROUPS

if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import Spec


def uids(spec: Spec) -> list[tuple[int, int, int]]:
    return [(m.container_id, m.host_id, m.size) for m in spec.linux.uid_mappings]


def gids(spec: Spec) -> list[tuple[int, int, int]]:
    return [(m.container_id, m.host_id, m.size) for m in spec.linux.gid_mappings]


def test_root_is_mapped_to_a_range_and_not_to_host_0(built: Any) -> None:
    assert uids(built()) == [(0, 0x70000000, 65536)]


def test_userns_host_as_root_makes_no_user_namespace(built: Any) -> None:
    spec = built(userns="host")

    assert spec.linux.namespace("user") is None
    assert uids(spec) == []


def test_userns_host_is_refused_for_a_user(built: Any, user_host: Any) -> None:
    with pytest.raises(StockadeError, match="lacks CAP_SYS_ADMIN") as refused:
        built("rootless", user_host, userns="host")

    assert "--userns auto" in refused.value.hint


def test_a_user_is_root_inside_and_has_its_subordinate_ids_above(built: Any, user_host: Any) -> None:
    spec = built("rootless", user_host)

    assert uids(spec) == [(0, 1000, 1), (1, 100000, 65536)]
    assert gids(spec) == [(0, 100, 1), (1, 200000, 65536)]
    assert SETGROUPS not in spec.annotations


def test_a_user_without_subordinate_ids_is_mapped_alone(built: Any, lone_host: Any) -> None:
    spec = built("rootless", lone_host)

    assert (uids(spec), gids(spec)) == ([(0, 1000, 1)], [(0, 100, 1)])
    assert spec.annotations[SETGROUPS] == "deny"


def test_the_one_id_of_a_user_alone_is_the_one_that_was_asked_for(built: Any, lone_host: Any) -> None:
    spec = built("rootless", lone_host, user="33:44")

    assert (uids(spec), gids(spec)) == ([(33, 1000, 1)], [(44, 100, 1)])


def test_keep_id_keeps_the_id_and_fills_the_rest(built: Any, user_host: Any) -> None:
    spec = built("rootless", user_host, userns="keep-id")

    assert uids(spec) == [(0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536)]
    assert (spec.process.user.uid, spec.process.user.gid) == (1000, 100)
    assert "HOME=/home/alice" in spec.process.env


def test_keep_id_across_several_ranges_loses_no_id_and_maps_none_twice(built: Any, user_host: Any) -> None:
    host = user_host.replace(subuid=(Range(100000, 600), Range(300000, 400), Range(500000, 10)))

    maps = uids(built("rootless", host, userns="keep-id"))

    assert maps == [(0, 100000, 600), (600, 300000, 400), (1000, 1000, 1), (1001, 500000, 10)]


def test_keep_id_without_subordinate_ids_maps_the_own_id_alone(built: Any, lone_host: Any) -> None:
    assert uids(built("rootless", lone_host, userns="keep-id")) == [(1000, 1000, 1)]


def test_keep_id_is_refused_for_root(built: Any) -> None:
    with pytest.raises(StockadeError, match="the caller is root, host 0"):
        built(userns="keep-id")


def test_nomap_leaves_the_caller_out(built: Any, user_host: Any) -> None:
    assert uids(built("rootless", user_host, userns="nomap")) == [(0, 100000, 65536)]


def test_nomap_without_newuidmap_says_how_to_get_it(built: Any, lone_host: Any) -> None:
    with pytest.raises(StockadeError, match="newuidmap is not installed") as refused:
        built("rootless", lone_host, userns="nomap")

    assert "apt install uidmap" in refused.value.hint


def test_nomap_without_a_range_says_how_to_get_one(built: Any, user_host: Any) -> None:
    with pytest.raises(StockadeError, match="have no range for alice") as refused:
        built("rootless", user_host.replace(subuid=(), subgid=()), userns="nomap")

    assert "usermod --add-subuids" in refused.value.hint


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("user namespaces are switched off (user.max_user_namespaces is 0)", "user.max_user_namespaces=15000"),
        (
            "user namespaces are for root only here (kernel.unprivileged_userns_clone is 0)",
            "unprivileged_userns_clone=1",
        ),
    ],
)
def test_forbidden_user_namespaces_are_named_with_the_sysctl(
    built: Any, user_host: Any, reason: str, remedy: str
) -> None:
    with pytest.raises(StockadeError) as refused:
        built("rootless", user_host.replace(no_userns=reason))

    assert reason in refused.value.message
    assert remedy in refused.value.hint


def test_a_map_of_ones_own_is_taken_as_it_is(built: Any) -> None:
    spec = built(uidmap=(Mapping(0, 5000, 10), Mapping(10, 7000, 5)))

    assert uids(spec) == gids(spec) == [(0, 5000, 10), (10, 7000, 5)]


def test_a_map_with_foreign_ids_is_refused_for_a_user(built: Any, user_host: Any) -> None:
    with pytest.raises(StockadeError, match="uid map 0:0:1: alice may map 1000 and its subordinate ids"):
        built("rootless", user_host, uidmap=(Mapping(0, 0, 1),))


def test_a_map_of_the_own_id_needs_no_helper(built: Any, lone_host: Any) -> None:
    spec = built("rootless", lone_host, uidmap=(Mapping(0, 1000, 1),), gidmap=(Mapping(0, 100, 1),))

    assert spec.annotations[SETGROUPS] == "deny"


@pytest.mark.parametrize(
    ("maps", "reason"),
    [
        ((Mapping(0, 5000, 10), Mapping(5, 9000, 10)), "overlap"),
        ((Mapping(0, 5000, 10), Mapping(20, 5005, 10)), "overlap"),
        ((Mapping(0, 4294967290, 100),), "beyond the last id"),
    ],
)
def test_a_malformed_map_is_refused_before_the_kernel_does(built: Any, maps: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        built(uidmap=maps)


def test_a_map_beyond_the_callers_own_user_namespace_is_refused(built: Any, root_host: Any) -> None:
    nested = root_host.replace(uidmap=(Mapping(0, 100000, 65536),), gidmap=(Mapping(0, 100000, 65536),))

    with pytest.raises(StockadeError, match="does not have all ids from 65000 to 65999"):
        built(host=nested, uidmap=(Mapping(0, 65000, 1000),))


def test_userns_and_uidmap_exclude_each_other(built: Any) -> None:
    with pytest.raises(UsageError, match="both decide the id mapping"):
        built(userns="auto", uidmap=(Mapping(0, 5000, 10),))


def test_a_user_who_is_not_mapped_is_refused(built: Any) -> None:
    with pytest.raises(StockadeError, match=r"uid 70000 is not mapped .* 0-65535"):
        built(user="70000")


def test_groups_that_are_not_mapped_are_left_out(built: Any) -> None:
    assert built(rootfs="/img", user="app").process.user.additional_gids == (2000,)
    assert built(rootfs="/img", user="app", userns="host").process.user.additional_gids == (2000, 70000)


def test_a_rootfs_of_unmapped_ids_is_mounted_with_the_id_map_by_root_only(
    built: Any, root_host: Any, user_host: Any
) -> None:
    shifted = root_host.replace(files={**root_host.files, "/img": root_host.files["/img"].replace(uid=0x70000000)})

    assert built(rootfs="/img").annotations[ROOT_IDMAP] == "true"
    assert ROOT_IDMAP not in built(rootfs="/img", userns="host").annotations
    assert ROOT_IDMAP not in built(rootfs="/img", host=shifted).annotations
    assert ROOT_IDMAP not in built("rootless", user_host, rootfs="/img").annotations
