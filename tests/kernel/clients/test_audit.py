"""The auditor, on the host, tells who made a container that an engine runs by the runtime under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade.audit import facts
from stockade.audit.targets import live

if TYPE_CHECKING:
    from tests.kernel.clients.engines import Podman

pytestmark = pytest.mark.kernel


def test_a_container_of_podman_has_podmans_name_and_id(podman: Podman) -> None:
    identity = podman.background("audited")

    (target,) = live.audit_targets([f"container:{identity[:12]}"]).targets

    runtime = target.one(facts.Runtime)
    assert runtime is not None
    assert (target.name, runtime.engine) == ("audited", "podman")


def test_a_users_own_container_has_its_name_and_the_users_namespace(rootless: Podman) -> None:
    identity = rootless.background("mine")

    (target,) = live.audit_targets([f"container:{identity[:12]}"]).targets

    space, runtime = target.one(facts.UserNamespace), target.one(facts.Runtime)
    assert space is not None
    assert runtime is not None
    assert (target.name, runtime.engine) == ("mine", "podman")
    assert rootless.user is not None
    assert (space.initial, space.owner_uid) == (False, rootless.user.pw_uid)
