"""Devices, control groups and masks of any config.json, also where root is only root of a user namespace."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from stockade import StockadeError
from stockade.sandbox.linux import cgroups, mountinfo
from tests.kernel import arena, oci_runs
from tests.kernel.oci_runs import as_namespace_root, config, run, user_namespace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

SHOW = "cat /proc/self/mountinfo"
WITHOUT_DEV = [mount for mount in oci_runs.MOUNTS if not mount["destination"].startswith("/dev")]
DEFAULTS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = "; for name in fd stdin stdout stderr ptmx core; do readlink $name; done"
LIST = "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty" + LINKS


def device(path: str, kind: str = "c", major: int = 1, minor: int = 3, **more: int) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor} | more


def expected() -> list[str]:
    nodes = [f"{name} character special file {major:x}:{minor:x} 666" for name, (major, minor) in DEFAULTS.items()]
    return [*nodes, "/proc/self/fd", *[f"/proc/self/fd/{number}" for number in range(3)], "pts/ptmx", "/proc/kcore"]


# ---- devices --------------------------------------------------------------------------------------------------------


def test_the_default_devices_are_there_in_every_kind_of_dev(rootfs: Path) -> None:
    assert run(config(rootfs, LIST)).lines == expected()
    assert run(config(rootfs, LIST, linux=user_namespace())).lines == expected()
    assert run(config(rootfs, LIST, base=WITHOUT_DEV)).lines == expected()
    again = run(config(rootfs, LIST, base=WITHOUT_DEV))  # into the nodes and links of the last run
    assert again.lines == expected()


def test_devices_of_the_spec_have_its_mode_owner_and_kind(rootfs: Path) -> None:
    devices = [
        device("/dev/fuse", major=10, minor=229, fileMode=0o640, uid=7, gid=8),
        device("/dev/deep/er/loop", "b", 7, 0, fileMode=0o600),
        device("/dev/pipe", "p", 0, 0, fileMode=0o622),
        device("/else/where/null", "u"),
        device("/dev/null", fileMode=0o600),
        device("/dev/../dev/ptmx", major=5, minor=2),
    ]
    script = """cd /dev; stat -c '%F %t:%T %a %u:%g' fuse deep/er/loop pipe /else/where/null null
        readlink ptmx"""

    done = run(config(rootfs, script, linux={"devices": devices}))

    assert done.lines == [
        "character special file a:e5 640 7:8", "block special file 7:0 600 0:0", "fifo 0:0 622 0:0",
        "character special file 1:3 666 0:0", "character special file 1:3 600 0:0", "pts/ptmx",
    ]  # fmt: skip


def test_a_bound_dev_of_the_host_is_left_alone(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    mounts = [{"destination": "/dev", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rprivate"]}]

    done = run(config(rootfs, "ls /dev", base=WITHOUT_DEV, mounts=mounts, linux={"devices": [device("/dev/x")]}))

    assert done.lines == ["mine"]
    assert os.listdir(tmp_path) == ["mine"]


def test_what_a_mount_put_in_the_place_of_a_device_stays(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "random").write_text("four\n")
    mounts = [{"destination": "/dev/random", "type": "bind", "source": f"{tmp_path}/random", "options": ["bind"]}]

    assert run(config(rootfs, "cat /dev/random", mounts=mounts)).lines == ["four"]


def test_cve_2025_31133_an_image_can_not_put_another_thing_in_a_devices_place(rootfs: Path, tmp_path: Path) -> None:
    """What is bound over a false node is the host's own, and a link is not followed."""
    (tmp_path / "target").write_text("the host's\n")
    os.mknod(rootfs / "dev/zero", stat.S_IFCHR | 0o666, os.makedev(1, 8))
    (rootfs / "dev/null").write_text("no device")

    done = run(config(rootfs, "echo x >/dev/null; stat -c %t:%T /dev/null /dev/zero", base=WITHOUT_DEV))

    assert done.lines == ["1:3", "1:5"]
    assert (rootfs / "dev/null").read_text() == "no device"

    (rootfs / "dev/null").unlink()
    (rootfs / "dev/null").symlink_to(f"../../../../../../../..{tmp_path}/target")
    with pytest.raises(StockadeError, match=r"make null in .*Too many levels of symbolic links"):
        run(config(rootfs, "true", base=WITHOUT_DEV))
    assert (tmp_path / "target").read_text() == "the host's\n"


def test_in_a_user_namespace_a_device_is_the_hosts_and_the_one_that_is_meant(rootfs: Path) -> None:
    good = user_namespace() | {"devices": [device("/dev/null2"), device("/dev/pipe", "p", 0, 0)]}
    bad = user_namespace() | {"devices": [device("/dev/kmsg", minor=3)]}

    with pytest.raises(StockadeError, match=r"bind the host's null2 .*No such file"):
        run(config(rootfs, "true", linux=good))
    with pytest.raises(StockadeError, match=r"bind the host's kmsg .*No such device"):
        run(config(rootfs, "true", linux=bad))


# ---- control groups -------------------------------------------------------------------------------------------------

CGROUP = {
    "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}  # fmt: skip


def v1() -> list[tuple[cgroups.Hierarchy, str]]:
    own = cgroups.membership()
    return [
        (hierarchy, hierarchy.path(own[hierarchy.controllers[0]]) or "")
        for hierarchy in cgroups.layout().hierarchies
        if hierarchy.version == 1
    ]


def shown(found: list[tuple[cgroups.Hierarchy, str]]) -> dict[str, Any]:
    names = [(os.path.basename(hierarchy.directory), ",".join(hierarchy.controllers)) for hierarchy, _ in found]
    return {"v1": tuple(names), "v1_paths": tuple(path for _, path in found)}


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("user", [True, False])
def test_on_v1_each_hierarchy_is_shown_from_the_containers_group_on(rootfs: Path, *, own: bool, user: bool) -> None:
    def tried() -> tuple[list[str], list[str], list[str], list[str]]:
        found = v1()
        for _, path in found:
            os.mkdir(f"{path}/of-the-container")
        linux = user_namespace() if user else config(rootfs, "")["linux"]
        linux = linux | {"namespaces": linux["namespaces"] + ([{"type": "cgroup"}] if own else [])}
        script = (
            "ls /sys/fs/cgroup; for d in /sys/fs/cgroup/*; do test -d $d/of-the-container && echo $d >&2; done; true"
        )
        done = run(config(rootfs, script, mounts=[CGROUP], linux=linux), **shown(found))
        mounts = run(config(rootfs, SHOW, mounts=[CGROUP], linux=linux), **shown(found))
        below = [m for m in mountinfo.parse(mounts.out) if m.fstype == "cgroup"]
        for _, path in found:
            os.rmdir(f"{path}/of-the-container")
        names = [os.path.basename(hierarchy.directory) for hierarchy, _ in found]
        return done.lines, done.err.split(), names, [option for m in below for option in m.options]

    seen, own_groups, names, options = arena.run(tried)

    assert set(names) <= set(seen)
    assert len(own_groups) >= len(names)
    assert options.count("ro") == len(names)
    assert "rw" not in options


def test_names_of_controllers_that_share_a_hierarchy_are_links(rootfs: Path) -> None:
    """As on most machines, where /sys/fs/cgroup/cpu leads to cpu,cpuacct."""
    found = v1()
    path = next(path for hierarchy, path in found if hierarchy.controllers[0] == "cpu")
    options: dict[str, Any] = {"v1": (("cpu,cpuacct", "cpu,cpuacct"),), "v1_paths": (path,)}

    done = run(config(rootfs, "cd /sys/fs/cgroup; ls; readlink cpu; readlink cpuacct", mounts=[CGROUP]), **options)

    assert done.lines == ["cpu", "cpu,cpuacct", "cpuacct", "cpu,cpuacct", "cpu,cpuacct"]


def test_cgroup2_is_mounted_or_bound_where_only_the_hosts_root_may_mount_it(rootfs: Path) -> None:
    host = cgroups.layout().v2
    assert host is not None
    for linux in ({}, user_namespace(), user_namespace("cgroup")):
        found = {
            m.mount_point: m
            for m in mountinfo.parse(run(config(rootfs, SHOW, mounts=[CGROUP], linux=linux), cgroup2=host).out)
        }

        assert (found["/sys/fs/cgroup"].fstype, "ro" in found["/sys/fs/cgroup"].options) == ("cgroup2", True)


# ---- root of a user namespace, as below rootless podman -------------------------------------------------------------

LINUX = {
    "maskedPaths": ["/proc/keys", "/proc/acpi", "/sys/firmware"],
    "readonlyPaths": ["/proc/sys", "/proc/bus"],
}


def test_root_of_a_user_namespace_gets_devices_masks_and_a_read_only_root(rootfs: Path) -> None:
    script = f"{LIST}; touch /x 2>/dev/null; echo $?; wc -c </proc/keys; ls /sys/firmware | wc -l"
    document = config(rootfs, script, linux=LINUX, root={"readonly": True})

    done = as_namespace_root(lambda: run(document, in_user_namespace=True))

    assert done.lines == [*expected(), "1", "0", "0"]


def test_flags_that_the_outer_namespace_has_locked_stay(rootfs: Path, public_tmp: Path) -> None:
    """Taking them back is refused by the kernel; the container gets less than it asked for, and starts."""
    (public_tmp / "volume").mkdir()

    def tried() -> list[str]:
        arena.mount("tmpfs", f"{public_tmp}/volume", "tmpfs", 1 | 2 | 4 | 1024)  # ro, nosuid, nodev, noatime
        bind = {"destination": "/tmp", "type": "bind", "source": f"{public_tmp}/volume"}
        mounts = [bind | {"options": ["rbind", "rw", "suid", "exec", "relatime"]}]
        done = as_namespace_root(lambda: run(config(rootfs, SHOW, mounts=mounts), in_user_namespace=True))
        return list({m.mount_point: m for m in mountinfo.parse(done.out)}["/tmp"].options)

    assert {"ro", "nosuid", "nodev", "noatime"} <= set(arena.run(tried))


def test_root_of_a_user_namespace_keeps_what_the_spec_sets_on_a_locked_mount(rootfs: Path, public_tmp: Path) -> None:
    (public_tmp / "volume").mkdir()

    def tried() -> list[str]:
        arena.mount("tmpfs", f"{public_tmp}/volume", "tmpfs", 2)
        bind = {"destination": "/tmp", "type": "bind", "source": f"{public_tmp}/volume"}
        mounts = [bind | {"options": ["rbind", "ro", "noexec"]}]
        done = as_namespace_root(lambda: run(config(rootfs, SHOW, mounts=mounts), in_user_namespace=True))
        return list({m.mount_point: m for m in mountinfo.parse(done.out)}["/tmp"].options)

    assert {"ro", "nosuid", "noexec"} <= set(arena.run(tried))
