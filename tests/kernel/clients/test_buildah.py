"""buildah: each RUN of a Containerfile is a container of the runtime under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients.engines import IMAGE, LIMITS
from tests.kernel.clients.under_test import RUNTIME

if TYPE_CHECKING:
    import subprocess

    from tests.kernel.clients.engines import Podman

pytestmark = pytest.mark.kernel
ULIMITS = tuple(word for limit in LIMITS for word in ("--ulimit", limit))
GOOD = f"""
FROM {IMAGE}
RUN grep -E '^(Seccomp|CapEff):' /proc/self/status >/status; ls /sys/class/net >/links
ENV A=b
WORKDIR /made
USER app
RUN id -u >/tmp/id; echo $A >/tmp/a; pwd >/tmp/pwd
RUN test "$(cat /tmp/id)" = 1000
"""
BAD = f"""
FROM {IMAGE}
RUN exit 7
"""


def build(podman: Podman, text: str, isolation: str) -> subprocess.CompletedProcess[str]:
    (podman.world.root / "tmp/Containerfile").write_text(text)
    options = ("--runtime", str(RUNTIME), "--isolation", isolation, "--network", "none", *ULIMITS)
    return podman.world.run(
        "buildah", "bud", *options, "--tag", "localhost/built", "-f", "/tmp/Containerfile", "/run", user=podman.user
    )


def assert_built(podman: Podman) -> None:
    said = podman.said(
        "run", "--rm", "--network", "none", "localhost/built", "sh", "-c", "cat /tmp/id /tmp/a /tmp/pwd /status /links"
    )

    assert said.split()[:3] == ["1000", "b", "/made"]
    assert "Seccomp:\t2" in said
    assert said.endswith("lo")
    podman("rmi", "localhost/built", check=True)


def test_a_file_with_run_steps_is_built_as_root(podman: Podman) -> None:
    done = build(podman, GOOD, "oci")

    assert done.returncode == 0, done.stderr
    assert_built(podman)


def test_a_step_that_fails_fails_the_build(podman: Podman) -> None:
    done = build(podman, BAD, "oci")

    assert done.returncode == 7
    assert "exit status 7" in done.stderr


def test_a_file_with_run_steps_is_built_by_a_user(rootless: Podman) -> None:
    done = build(rootless, GOOD, "rootless")

    assert done.returncode == 0, done.stderr
    assert_built(rootless)
