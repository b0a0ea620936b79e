"""Which processes make up which container, from recorded process lists."""

from __future__ import annotations

import pytest

from stockade.audit.targets import engines
from stockade.audit.targets.discovery import Finder
from stockade.audit.targets.host import HostView
from stockade.audit.targets.own import State
from stockade.audit.targets.snapshot import Entry, Snapshot
from stockade.errors import StockadeError, UsageError
from stockade.sandbox.linux import namespaces

HOST: dict[str, int] = {**namespaces.INITIAL}
ID = "3f" * 32
OTHER = "a7" * 32


def entry(number: int, /, cgroup: str = "/user.slice", *, ppid: int = 2000, **inodes: int) -> Entry:
    return Entry(
        number,
        ppid,
        number,
        {kind: inode for kind, inode in (HOST | inodes).items() if kind != "time"},
        f"0::{cgroup}\n",
    )


def finder(*entries: Entry, pivoted: tuple[int, ...] = (), states: tuple[State, ...] = ()) -> Finder:
    """Give a finder over these processes; `pivoted` are mount namespaces with another root than the host's."""
    host = HostView({**HOST}, HOST, ())
    roots = {each.inodes["mnt"]: each.inodes["mnt"] in pivoted for each in entries if each.inodes}
    return Finder(host, Snapshot({each.pid: each for each in entries}, ()), states, roots)


def groups(found: Finder) -> dict[str, tuple[int, ...]]:
    return {group.id: tuple(each.pid for each in group.entries) for group in found.containers()}


@pytest.mark.parametrize(
    ("cgroup", "engine", "identity"),
    [
        (f"0::/system.slice/docker-{ID}.scope", "docker", ID),
        (f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}", "docker", ID),
        (f"0::/machine.slice/libpod-{ID}.scope/container", "podman", ID),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "podman", ID),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", "containerd", ID),
        (f"11:pids:/kubepods/besteffort/pod123/{ID}", "kubernetes", ID),
        (f"0::/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", "cri-o", ID),
        ("0::/lxc.payload.web/system.slice", "lxc", "web"),
        ("0::/machine.slice/machine-deb.scope/payload", "systemd-nspawn", "deb"),
        ("0::/stockade/feedc0ffee001122", "stockade", "feedc0ffee001122"),
        (f"0::/docker/{ID}/docker/{OTHER}", "docker", OTHER),
    ],
)
def test_an_engine_is_known_by_its_cgroups_and_the_innermost_container_wins(
    cgroup: str, engine: str, identity: str
) -> None:
    assert engines.of_cgroup(cgroup) == (engine, identity)


@pytest.mark.parametrize(
    "cgroup",
    [
        "0::/",
        "0::/user.slice/user-0.slice/session-1.scope",
        f"0::/machine.slice/libpod-conmon-{ID}.scope",
        f"0::/kubepods.slice/crio-conmon-{ID}.scope",
        "0::/system.slice/docker.service",
    ],
)
def test_what_belongs_to_an_engine_but_is_no_container_is_not_taken_for_one(cgroup: str) -> None:
    assert engines.of_cgroup(cgroup) is None


def test_processes_of_a_pid_namespace_are_one_container_whose_oldest_stands_for_it() -> None:
    found = finder(entry(10), entry(30, pid=1, mnt=2), entry(20, pid=1, mnt=2), entry(40, pid=1, mnt=9))

    assert groups(found) == {"pid:20": (20, 30, 40)}


def test_an_exec_from_outside_joins_the_container_though_its_cgroup_is_another() -> None:
    inside = entry(20, f"/system.slice/docker-{ID}.scope", pid=1, mnt=2)
    entered = entry(30, "/user.slice", pid=1, mnt=2)

    assert groups(finder(inside, entered)) == {f"container:{ID[:12]}": (20, 30)}


def test_containers_with_the_hosts_pid_namespace_are_told_apart_by_their_cgroups() -> None:
    first = entry(20, f"/system.slice/docker-{ID}.scope", mnt=2)
    second = entry(30, f"/system.slice/docker-{OTHER}.scope", mnt=3)

    assert len(groups(finder(first, second, pivoted=(2, 3)))) == 2


def test_an_engines_helper_in_the_containers_cgroup_is_not_part_of_it() -> None:
    inside = entry(20, f"/system.slice/docker-{ID}.scope", pid=1, mnt=2)
    helper = entry(30, f"/system.slice/docker-{ID}.scope")

    assert groups(finder(inside, helper)) == {f"container:{ID[:12]}": (20,)}


@pytest.mark.parametrize(
    "service",
    [
        entry(20, "/system.slice/colord.service", ppid=1, mnt=2),
        entry(20, "/system.slice/systemd-resolved.service", ppid=1, mnt=2, user=5),
        entry(20, "/system.slice/private.service", ppid=1, mnt=2, pid=5),
        entry(20, "/user.slice/user-1000.slice/snap.firefox.firefox-1.scope", mnt=2),
    ],
    ids=["PrivateTmp", "PrivateUsers", "PrivatePIDs", "snap"],
)
def test_a_confined_service_on_the_hosts_root_is_no_container_and_still_has_a_target(service: Entry) -> None:
    found = finder(service)

    assert groups(found) == {}
    assert found.process(20).kind == "process"


def test_a_service_with_a_root_of_its_own_is_a_container() -> None:
    assert groups(finder(entry(20, "/system.slice/portable.service", ppid=1, mnt=2), pivoted=(2,))) == {"pid:20": (20,)}


def test_whoever_started_a_rootless_container_from_its_user_namespace_is_not_a_container() -> None:
    starter, inside = entry(20, user=7, mnt=8), entry(30, user=7, pid=9, mnt=10)

    assert groups(finder(starter, inside)) == {"pid:30": (30,)}
    assert groups(finder(starter)) == {"pid:20": (20,)}


def test_a_record_on_disk_names_the_container_and_its_first_process() -> None:
    state = State("feedc0ffee00", "web", 30, "/run/stockade/feedc0ffee00/state.json", {})
    found = finder(entry(20, pid=1, mnt=2), entry(30, pid=1, mnt=2), states=(state,))

    assert groups(found) == {"container:web": (30, 20)}
    assert found.container("web").first.pid == found.container("feedc0ffee00").first.pid == 30


def test_an_id_may_be_shortened_while_it_means_one_container() -> None:
    first = entry(20, f"/system.slice/docker-{ID}.scope", pid=1, mnt=2)
    second = entry(30, f"/system.slice/docker-3f3f{OTHER[4:]}.scope", pid=2, mnt=3)
    found = finder(first, second)

    assert found.container("3f3f3f").first.pid == 20
    with pytest.raises(UsageError, match="means 2 containers"):
        found.container("3f3")
    with pytest.raises(StockadeError, match="no running container") as none:
        found.container("elsewhere")
    assert none.value.exit_code == 3


def test_a_guests_first_program_tells_the_sandbox_kernel() -> None:
    assert engines.guest_of("exe", ("runsc-sandbox", "boot"), "docker") == "gvisor"
    assert engines.guest_of("qemu-system-x86", ("/usr/bin/qemu-system-x86_64",), "containerd") == "kata"
    assert engines.guest_of("qemu-system-x86", ("/usr/bin/qemu-system-x86_64",), None) is None
    assert engines.guest_of("nginx", ("nginx",), "docker") is None
