"""The five sets: what --cap-* give, and which combinations no execve leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import capabilities
from stockade.sandbox.oci.spec import SECUREBITS, LinuxCapabilities

if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import Spec

NORMAL = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE"


def caps(*names: str) -> tuple[str, ...]:
    return capabilities.names(capabilities.mask(names))


def sets(spec: Spec) -> LinuxCapabilities:
    assert spec.process is not None
    assert spec.process.capabilities is not None
    return spec.process.capabilities


def test_root_of_normal_mode_has_eight_capabilities_and_nothing_to_inherit(built: Any) -> None:
    normal = caps(*NORMAL.split())

    assert sets(built()) == LinuxCapabilities(normal, normal, (), normal, ())


def test_a_user_of_normal_mode_has_no_capability_but_may_meet_them_in_the_bounding_set(built: Any) -> None:
    assert sets(built(user="1000")) == LinuxCapabilities(bounding=caps(*NORMAL.split()))


def test_cap_add_reaches_a_user_through_the_ambient_set(built: Any) -> None:
    found = sets(built(user="1000", cap_drop=("ALL",), cap_add=("CAP_NET_BIND_SERVICE",)))

    own = ("CAP_NET_BIND_SERVICE",)
    assert found == LinuxCapabilities(own, own, own, own, own)


def test_drop_all_leaves_root_without_any(built: Any) -> None:
    assert sets(built(cap_drop=("ALL",))) == LinuxCapabilities()


def test_drop_all_and_add_one_leaves_that_one(built: Any) -> None:
    found = sets(built(cap_drop=("ALL",), cap_add=("CAP_KILL",)))

    assert found == LinuxCapabilities(("CAP_KILL",), ("CAP_KILL",), (), ("CAP_KILL",), ())


def test_add_all_and_drop_one_gives_the_rest(built: Any) -> None:
    found = sets(built(cap_add=("ALL",), cap_drop=("CAP_SYS_ADMIN",)))

    assert "CAP_SYS_ADMIN" not in found.permitted
    assert len(found.permitted) == 40
    assert found.permitted == found.effective == found.bounding


def test_add_and_drop_of_the_same_name_is_refused(built: Any) -> None:
    with pytest.raises(UsageError, match="CAP_KILL is both added and dropped"):
        built(cap_add=("CAP_KILL",), cap_drop=("CAP_KILL",))


def test_all_means_what_the_caller_holds_where_there_is_no_user_namespace(built: Any) -> None:
    shared, own = sets(built("privileged")), sets(built("privileged", userns="auto"))

    assert "CAP_SYS_RESOURCE" not in shared.permitted
    assert "CAP_SYS_RESOURCE" in own.permitted  # over its own user namespace it begins with all of them


def test_a_capability_that_the_caller_lacks_is_refused_by_name(built: Any) -> None:
    with pytest.raises(StockadeError, match="does not hold CAP_SYS_RESOURCE"):
        built("privileged", cap_add=("CAP_SYS_RESOURCE",))


def test_an_unknown_capability_is_a_usage_error(built: Any) -> None:
    with pytest.raises(UsageError, match="CAP_FLY"):
        built(cap_add=("CAP_FLY",))


def test_a_set_given_by_name_gives_nothing_that_was_not_named(built: Any) -> None:
    found = sets(built(user="1000", cap_ambient=("CAP_NET_BIND_SERVICE",)))

    own = ("CAP_NET_BIND_SERVICE",)
    assert found == LinuxCapabilities(own, own, own, own, own)


def test_a_named_bounding_set_is_what_root_has(built: Any) -> None:
    own = ("CAP_CHOWN",)

    assert sets(built(cap_bounding=own)) == LinuxCapabilities(own, own, (), own, ())


def test_an_empty_bounding_set_is_not_the_same_as_none_given(built: Any) -> None:
    assert sets(built(cap_bounding=())) == LinuxCapabilities()


def test_root_with_less_permitted_than_bounding_needs_no_new_privileges(built: Any) -> None:
    asked = {"cap_bounding": ("CAP_CHOWN", "CAP_KILL"), "cap_permitted": ("CAP_KILL",)}

    assert sets(built(**asked)).permitted == ("CAP_KILL",)
    with pytest.raises(StockadeError, match="uid 0 has all of its bounding set after execve"):
        built(**asked, no_new_privileges=False)


def test_root_with_only_its_ambient_set_gets_the_securebit_for_it(built: Any) -> None:
    spec = built(
        cap_bounding=("CAP_CHOWN", "CAP_KILL"),
        cap_ambient=("CAP_KILL",),
        cap_permitted=("CAP_KILL",),
        no_new_privileges=False,
    )

    assert spec.annotations[SECUREBITS] == "3"
    assert sets(spec).effective == ("CAP_KILL",)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"cap_effective": ("CAP_CHOWN",), "cap_permitted": ()}, "effective set equal to the permitted one"),
        (
            {"cap_ambient": ("CAP_KILL",), "cap_inheritable": ()},
            "can't be ambient without being permitted and inheritable",
        ),
        ({"cap_inheritable": ("CAP_KILL",), "cap_bounding": ()}, "can't be inheritable outside the bounding set"),
        ({"cap_permitted": ("CAP_KILL",), "cap_ambient": (), "user": "1000"}, "keeps only its ambient set"),
    ],
)
def test_sets_that_no_execve_leads_to_are_refused_with_the_rule(built: Any, asked: Any, reason: str) -> None:
    with pytest.raises(StockadeError, match=reason) as refused:
        built(**asked)

    assert "capabilities(7)" in refused.value.hint


def test_naming_sets_and_changing_the_modes_exclude_each_other(built: Any) -> None:
    with pytest.raises(UsageError, match="--cap-add and --cap-drop change the mode's sets"):
        built(cap_add=("CAP_KILL",), cap_bounding=("CAP_CHOWN",))


def test_rootless_has_no_capability_in_any_set(built: Any, user_host: Any) -> None:
    assert sets(built("rootless", user_host)) == LinuxCapabilities()
    assert sets(built("rootless", user_host, user="7")) == LinuxCapabilities()
