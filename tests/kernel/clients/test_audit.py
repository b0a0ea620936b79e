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
