"""Engines, each started once a session, in a world that ends with it; `pytest tests/kernel/clients` drives them all.

A test gets `podman`, `rootless`, `docker`, … and asserts what is seen inside the container. At its end the fixture
asserts that the runtime under test made a container meanwhile: its directory of states has changed.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel.clients import engines
from tests.kernel.clients.cri import Cri
from tests.kernel.clients.docker import Ctr, Docker
from tests.kernel.clients.slurm import Slurm
from tests.kernel.clients.swarm import Swarm
from tests.kernel.clients.under_test import RUNTIME
from tests.kernel.clients.world import World

if TYPE_CHECKING:
    import pwd
    from collections.abc import Generator, Iterator
    from pathlib import Path


def _changed(states: Path) -> int:
    """Say when an entry was last made in or taken from a directory, in ns; 0 when there is none yet."""
    return states.stat().st_mtime_ns if states.exists() else 0


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tar file with the image of all containers."""
    return engines.image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def _reachable(unprivileged: pwd.struct_passwd) -> pwd.struct_passwd:
    """Give the unprivileged user, who can start the runtime under test."""
    assert os.access(RUNTIME, os.X_OK), f"there is no {RUNTIME}: run ./dev setup"
    return unprivileged


@pytest.fixture(scope="session")
def _podman_world() -> Iterator[World]:
    world = World("podman", {}, engines.LEAVE_OUT)
    try:
        yield world
    finally:
        world.end()


@pytest.fixture(scope="session")
def _podman(_podman_world: World, archive: Path) -> engines.Podman:
    return engines.Podman(_podman_world, archive)


@pytest.fixture(scope="session")
def _rootless(_podman: engines.Podman, archive: Path, _reachable: pwd.struct_passwd) -> engines.Podman:
    return engines.Podman(_podman.world, archive, _reachable)


@contextlib.contextmanager
def _used(engine: engines.Podman | Docker | Ctr | Cri) -> Generator[None]:
    before = _changed(engine.state(""))
    try:
        yield
    finally:
        engine.clean()
    assert _changed(engine.state("")) > before, f"no container of {RUNTIME} came or went"


@pytest.fixture
def podman(_podman: engines.Podman) -> Iterator[engines.Podman]:
    """Give Podman as root; its containers end with the test."""
    with _used(_podman):
        yield _podman


@pytest.fixture
def rootless(_rootless: engines.Podman) -> Iterator[engines.Podman]:
    """Give Podman as the unprivileged user; its containers end with the test."""
    with _used(_rootless):
        yield _rootless


@pytest.fixture(scope="session")
def _docker(archive: Path) -> Iterator[Docker]:
    world = World("docker", {}, engines.LEAVE_OUT)
    try:
        docker = Docker(world)
        docker.load(archive)
        yield docker
    finally:
        world.end()


@pytest.fixture
def docker(_docker: Docker) -> Iterator[Docker]:
    """Give Docker, whose containers end with the test."""
    with _used(_docker):
        yield _docker


@pytest.fixture(scope="session")
def _remapped(archive: Path, unprivileged: pwd.struct_passwd) -> Iterator[Docker]:
    world = World("remapped", {}, engines.LEAVE_OUT)
    try:
        docker = Docker(world, settings={"userns-remap": unprivileged.pw_name, "live-restore": True})
        docker.load(archive)
        yield docker
    finally:
        world.end()


@pytest.fixture
def remapped(_remapped: Docker) -> Iterator[Docker]:
    """Give another Docker, whose containers have user namespaces, and outlive their daemon."""
    with _used(_remapped):
        yield _remapped


@pytest.fixture(scope="session")
def _ctr(_docker: Docker) -> Ctr:
    return Ctr(_docker)


@pytest.fixture
def ctr(_ctr: Ctr) -> Iterator[Ctr]:
    """Give containerd's own client, whose containers end with the test."""
    with _used(_ctr):
        yield _ctr


@pytest.fixture(scope="session")
def _cri(_docker: Docker) -> Cri:
    return Cri(_docker)


@pytest.fixture
def cri(_cri: Cri) -> Iterator[Cri]:
    """Give containerd's CRI service, whose pods end with the test."""
    with _used(_cri):
        yield _cri


@pytest.fixture(scope="session")
def swarm(archive: Path) -> Iterator[Swarm]:
    """Give a swarm of three hosts."""
    swarm = Swarm(archive)
    try:
        yield swarm
    finally:
        swarm.end()


@pytest.fixture(scope="session")
def slurm(archive: Path, _reachable: pwd.struct_passwd) -> Iterator[Slurm]:
    """Give a Slurm cluster of three hosts."""
    slurm = Slurm(archive, _reachable)
    try:
        yield slurm
    finally:
        slurm.end()
