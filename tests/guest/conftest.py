"""Fixtures of the tests that run in a guest, which `./dev guest` boots: root, cgroup v2 alone, systemd, AppArmor."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.guest import boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_runtest_setup() -> None:
    if os.environ.get("STOCKADE_GUEST") != "1":
        pytest.fail("needs a guest of its own: run ./dev guest", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _log_for_all() -> None:  # pyright: ignore[reportUnusedFunction]
    """Let everyone read /dev/kmsg, so that device rules alone stand in the way."""
    Path("/proc/sys/kernel/dmesg_restrict").write_text("0")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., boxes.Box]]:
    """Make a container: make(args=None, resources=None, path=…, systemd=False, start=True, **changes) -> Box."""
    made: list[boxes.Box] = []

    def create(
        args: list[str] | None = None, resources: dict[str, Any] | None = None, *,
        path: str | None = None, systemd: bool = False, start: bool = True, **changes: Any,
    ) -> boxes.Box:  # fmt: skip
        box = boxes.Box(tmp_path, *(["--systemd-cgroup"] if systemd else []))
        made.append(box)
        place = path if path is not None else f"system.slice:stockade:{box.id}" if systemd else f"/guest/{box.id}"
        box.write_bundle(args or boxes.WAITS, dict(resources or {}), place, **changes)
        box.create()
        if start:
            box.start()
        return box

    yield create
    for box in made:
        box.delete()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Give what `create` says when it refuses: refused(resources=None, **changes) -> text; nothing is left then."""

    def create(resources: dict[str, Any] | None = None, **changes: Any) -> str:
        box = boxes.Box(tmp_path)
        box.write_bundle(boxes.WAITS, dict(resources or {}), f"/guest/{box.id}", **changes)
        done = box.runtime("create", "--bundle", str(box.bundle), box.id)
        assert done.returncode != 0, done
        assert box.id not in box.said("list", "--quiet").splitlines()
        assert not (boxes.CGROUPS / "guest" / box.id).exists()
        return done.stderr

    return create


@pytest.fixture
def ended() -> Callable[[boxes.Box], None]:
    """Wait until a container's program has ended, 30 seconds at most."""

    def wait(box: boxes.Box) -> None:
        try:
            process = os.pidfd_open(box.pid)
        except ProcessLookupError:
            return
        try:
            assert select.select([process], [], [], 30)[0], f"{box.id} still runs"
        finally:
            os.close(process)

    return wait
