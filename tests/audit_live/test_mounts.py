"""What is mounted where, from recorded mountinfo."""

from __future__ import annotations

import pytest

from stockade.audit.targets import host as hosts
from stockade.audit.targets import mounts
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import mountinfo, namespaces

HOST = """\
1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
2 1 0:5 / /dev rw shared:2 - devtmpfs udev rw
3 1 0:20 / /run rw,nosuid shared:3 - tmpfs tmpfs rw
4 1 0:21 / /proc rw - proc proc rw
5 1 8:2 /@home /home rw - btrfs /dev/sda2 rw
6 1 8:2 / /mnt/pool rw - btrfs /dev/sda2 rw
7 1 8:1 /etc /srv/copy rw - ext4 /dev/sda1 rw
8 1 0:22 / /sys rw - sysfs sysfs rw
"""


def view(text: str) -> mounts.View:
    return mounts.view(mountinfo.parse(text), "/proc/7/mountinfo")


@pytest.fixture
def host() -> HostView:
    return HostView({**namespaces.INITIAL}, {**namespaces.INITIAL}, mountinfo.parse(HOST))


def test_a_file_system_whose_server_may_not_answer_is_not_asked(
    host: HostView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(path: str) -> int:
        asked.append(path)
        return 0o40755

    monkeypatch.setattr(hosts, "mode_of", answer)
    more = mountinfo.parse("9 5 0:70 / /home/eve/mnt rw - fuse.sshfs eve rw\n10 1 0:71 / /nfs rw - nfs4 server:/ rw\n")
    view = HostView({}, {}, (*host.mounts, *more))

    assert [view.is_directory(path) for path in ("/etc", "/home/eve/mnt/x", "/nfs", "/home/eve")] == [
        True,
        None,
        None,
        True,
    ]
    assert asked == ["/etc", "/home/eve"]


@pytest.mark.parametrize(
    ("device", "root", "path"),
    [
        ((8, 1), "/", "/"),
        ((8, 1), "/etc", "/etc"),
        ((8, 1), "/etc/shadow", "/etc/shadow"),
        ((8, 2), "/@home/ada", "/home/ada"),
        ((8, 2), "/@homes", "/mnt/pool/@homes"),
        ((0, 20), "/docker.sock", "/run/docker.sock"),
        ((0, 99), "/", None),
    ],
)
def test_a_mounts_root_is_found_on_the_host_by_its_shortest_name(
    host: HostView, device: tuple[int, int], root: str, path: str | None
) -> None:
    assert host.path_of(device, root) == path


def test_what_later_mounts_cover_is_not_visible() -> None:
    text = """\
10 1 8:1 /old / rw - ext4 /dev/sda1 rw
11 10 0:90 / / rw - overlay overlay rw
12 10 0:91 / /proc rw - proc proc rw
13 11 0:92 / /proc rw - proc proc rw
14 13 0:92 /sys /proc/sys ro - proc proc rw
15 11 8:1 /etc /data/etc rw - ext4 /dev/sda1 rw
16 11 0:93 / /data rw - tmpfs tmpfs rw
17 16 8:1 /srv /data/srv rw - ext4 /dev/sda1 rw
18 17 0:94 / /data/srv rw - tmpfs tmpfs rw
"""
    assert [mount.id for mount in view(text).visible] == [11, 13, 14, 16, 18]


def test_each_fact_says_the_line_it_was_read_from(host: HostView) -> None:
    text = "10 1 0:90 / / rw - overlay overlay rw\n11 10 8:1 /etc /etc ro - ext4 /dev/sda1 rw\n"

    found = {each.destination: each for each in mounts.facts_of(view(text), host)}

    assert str(found["/etc"].where) == "/proc/7/mountinfo:2"
    assert (found["/etc"].host_path, found["/etc"].writable) == ("/etc", False)
    assert found["/"].host_path is None


def test_propagation_is_shared_only_when_it_reaches_the_host(host: HostView) -> None:
    text = """\
10 1 0:90 / / rw shared:500 - overlay overlay rw
11 10 8:1 /a /a rw shared:1 - ext4 /dev/sda1 rw
12 10 8:1 /b /b rw master:1 - ext4 /dev/sda1 rw
13 10 8:1 /c /c rw unbindable - ext4 /dev/sda1 rw
"""
    found = {each.destination: each.propagation for each in mounts.facts_of(view(text), host)}

    assert found == {"/": "private", "/a": "shared", "/b": "slave", "/c": "unbindable"}


def test_an_engines_own_copy_of_hosts_is_told_from_the_hosts_file(host: HostView) -> None:
    text = """\
10 1 0:90 / / rw - overlay overlay rw
11 10 8:1 /var/lib/docker/containers/3f/hosts /etc/hosts rw - ext4 /dev/sda1 rw
12 10 8:1 /etc/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw
13 10 0:5 /null /proc/kcore rw - devtmpfs udev rw
14 10 0:5 /sda /dev/sda rw - devtmpfs udev rw
"""
    made = {each.destination: each.engine_made for each in mounts.facts_of(view(text), host)}

    assert made == {"/": False, "/etc/hosts": True, "/etc/resolv.conf": False, "/proc/kcore": True, "/dev/sda": False}


def test_masks_are_judged_by_the_topmost_mount(host: HostView) -> None:
    text = """\
10 1 0:90 / / rw - overlay overlay rw
11 10 0:92 / /proc rw - proc proc rw
12 11 0:92 /sys /proc/sys ro - proc proc rw
13 11 0:5 /null /proc/keys rw - devtmpfs udev rw
14 11 0:95 / /proc/acpi ro - tmpfs tmpfs ro
"""
    host.__dict__["_exists"] = dict.fromkeys(mounts.PROTECTED, True) | {"/proc/kcore": False}

    states = {mask.path: mask.state for mask in mounts.masks(view(text), host)}

    assert (states["/proc/sys"], states["/proc/keys"], states["/proc/acpi"]) == ("read-only", "masked", "masked")
    assert (states["/proc/bus"], states["/proc/kcore"]) == ("open", "absent")
    assert states["/sys/firmware"] == "absent"  # no sysfs is mounted


def test_a_procfs_of_processes_only_has_no_control_files(host: HostView) -> None:
    text = "10 1 0:90 / / rw - overlay overlay rw\n11 10 0:92 / /proc rw - proc proc rw,subset=pid\n"
    host.__dict__["_exists"] = dict.fromkeys(mounts.PROTECTED, True)

    assert {mask.state for mask in mounts.masks(view(text), host)} == {"absent"}
