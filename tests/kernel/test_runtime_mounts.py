"""Mounts of any config.json: what each option does, seen from inside, with runc's meaning where the spec has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stockade import StockadeError
from tests.kernel import arena, oci_runs
from tests.kernel.oci_runs import SHOW, bind, config, in_arena, inside, refusal, run, tmpfs, user_namespace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel


@pytest.fixture
def rootfs(rootfs: Path) -> Path:
    """Give one with the usual mount points: the root of a user namespace could not make them in what is the host's."""
    for name in ("data", "mnt"):
        (rootfs / name).mkdir()
    return rootfs


# ---- what each option does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (("ro",), {"ro"}, {"nosuid", "nodev", "noexec"}),
        (("rw", "suid", "dev", "exec"), {"rw"}, {"nosuid"}),
        (("nosuid", "nodev", "noexec"), {"nosuid", "nodev", "noexec", "rw"}, set()),
        (("noatime",), {"noatime"}, {"relatime"}),
        (("noatime", "nodiratime"), {"noatime", "nodiratime"}, set()),
        (("strictatime",), set(), {"relatime", "noatime"}),
        (("nosymfollow",), {"nosymfollow"}, set()),
        (("noatime", "relatime"), {"relatime"}, {"noatime"}),
        (("rnosuid", "rro", "rnoatime"), {"nosuid", "ro", "noatime"}, set()),
        (("nosuid", "suid"), {"rw"}, {"nosuid"}),
        (("defaults", "silent", "loud", "noiversion", "async", "nolazytime", "norelatime"), {"rw"}, {"nosuid"}),
    ],
)
def test_an_option_of_a_bind_mount_does_what_it_says(
    rootfs: Path, tmp_path: Path, options: tuple[str, ...], there: set[str], absent: set[str]
) -> None:
    found = inside(run(config(rootfs, SHOW, mounts=[bind(tmp_path, "/data", "bind", *options)])))["/data"]

    assert there <= set(found.options)
    assert not absent & set(found.options)


@pytest.mark.parametrize(
    ("options", "there", "super_options"),
    [
        (("noexec", "sync"), {"noexec"}, {"sync"}),
        (("dirsync", "size=1m"), {"rw"}, {"dirsync", "size=1024k"}),
        (("lazytime", "nr_inodes=77"), {"rw"}, {"lazytime", "nr_inodes=77"}),
        (("ro", "mode=700", "uid=12", "gid=13"), {"ro"}, {"mode=700", "uid=12", "gid=13"}),
        (("noatime", "nosuid", "rnodev"), {"noatime", "nosuid", "nodev"}, set()),
        (("iversion", "nosuid", "noatime", "mode=711"), {"nosuid", "noatime"}, {"mode=711"}),
    ],
)
def test_an_option_of_a_new_file_system_is_its_mounts_or_its_own(
    rootfs: Path, options: tuple[str, ...], there: set[str], super_options: set[str]
) -> None:
    found = inside(run(config(rootfs, SHOW, mounts=[tmpfs("/data", *options)])))["/data"]

    assert there <= set(found.options)
    assert super_options <= set(found.super_options)
    assert found.source == "tmpfs"


def test_what_a_file_system_does_not_know_is_refused_in_the_kernels_words(rootfs: Path) -> None:
    with pytest.raises(StockadeError, match=r"make a tmpfs .*Invalid argument.*tmpfs: Unknown parameter 'colour'"):
        run(config(rootfs, "true", mounts=[tmpfs("/data", "colour=red")]))


def test_an_unknown_type_is_refused_by_name(rootfs: Path) -> None:
    with pytest.raises(StockadeError, match=r"make a nofs .*No such device"):
        run(config(rootfs, "true", mounts=[{"destination": "/data", "type": "nofs", "source": "x"}]))


def test_a_flag_of_the_source_stays_unless_it_is_taken_back(rootfs: Path, tmp_path: Path) -> None:
    def try_both() -> list[list[str]]:
        arena.mount("tmpfs", str(tmp_path), "tmpfs", 2 | 4 | 1)  # nosuid, nodev, read-only
        kept = inside(run(config(rootfs, SHOW, mounts=[bind(tmp_path, "/data", "bind", "noexec")])))["/data"]
        back = inside(run(config(rootfs, SHOW, mounts=[bind(tmp_path, "/data", "bind", "rw", "suid", "dev")])))["/data"]
        return [list(kept.options), list(back.options)]

    kept, back = in_arena(try_both)

    assert {"ro", "nosuid", "nodev", "noexec"} <= set(kept)
    assert {"rw"} <= set(back)
    assert not {"nosuid", "nodev"} & set(back)


def test_recursive_options_reach_below_and_others_do_not_but_read_only_does(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()

    def tried(*options: str) -> set[str]:
        arena.mount("tmpfs", str(tmp_path / "below"), "tmpfs")
        found = inside(run(config(rootfs, SHOW, mounts=[bind(tmp_path, "/data", "rbind", *options)])))
        return set(found["/data/below"].options)

    assert not {"nosuid", "ro"} & in_arena(lambda: tried("nosuid"))
    assert {"nosuid", "noexec"} <= in_arena(lambda: tried("rnosuid", "rnoexec"))
    assert "ro" in in_arena(lambda: tried("ro"))
    assert "ro" in in_arena(lambda: tried("rro"))


def test_bind_alone_leaves_out_what_is_mounted_below(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()

    def tried() -> list[str]:
        arena.mount("tmpfs", str(tmp_path / "below"), "tmpfs")
        found = inside(run(config(rootfs, SHOW, mounts=[bind(tmp_path, "/a", "bind"), bind(tmp_path, "/b", "rbind")])))
        return [point for point in found if point.startswith(("/a", "/b"))]

    assert in_arena(tried) == ["/a", "/b", "/b/below"]


def test_an_option_of_a_file_system_is_refused_of_a_bind_mount(rootfs: Path, tmp_path: Path) -> None:
    with pytest.raises(StockadeError, match="a bind mount has no option size"):
        run(config(rootfs, "true", mounts=[bind(tmp_path, "/data", "bind", "size=1")]))


def test_remount_changes_what_is_mounted_there(rootfs: Path) -> None:
    again = {"destination": "/data", "type": "tmpfs", "source": "x", "options": ["remount", "size=2m", "nosuid", "ro"]}

    found = inside(run(config(rootfs, SHOW, mounts=[tmpfs("/data", "size=1m"), again])))["/data"]

    assert {"nosuid", "ro"} <= set(found.options)
    assert "size=2048k" in found.super_options


def test_read_only_of_a_tmpfs_leaves_room_for_mounts_in_it(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mounts = [tmpfs("/data", "ro"), bind(tmp_path, "/data/a/b", "bind"), bind(tmp_path / "file", "/data/c", "bind")]

    done = run(config(rootfs, "test -d /data/a/b && test -f /data/c && ! touch /data/x", mounts=mounts))

    assert done.code == 0


# ---- where things are mounted ---------------------------------------------------------------------------------------


def test_destinations_are_read_as_paths_of_the_root(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    (rootfs / "link").symlink_to("/usr/../var")
    (rootfs / "dangling").symlink_to("/var/new")
    mounts = [
        bind(tmp_path, "relative/x", "bind"),
        bind(tmp_path, "/link/y", "bind"),
        bind(tmp_path, "/a/../b/./c", "bind"),
        bind(tmp_path / "file", "/etc/hosts", "bind"),
        bind(tmp_path, "/dangling/z", "bind"),
    ]

    done = run(config(rootfs, f"cat /etc/hosts >&2; {SHOW}", mounts=mounts))

    assert {"/relative/x", "/var/y", "/b/c", "/etc/hosts", "/var/new/z"} <= set(inside(done))
    assert done.err == "content"


def test_a_later_mount_covers_an_earlier_one_on_the_same_place(rootfs: Path, tmp_path: Path) -> None:
    mounts = [bind(tmp_path, "/data", "bind", "ro"), tmpfs("/data", "size=1m")]

    for linux in ({}, user_namespace()):
        done = run(config(rootfs, "touch /data/x && stat -f -c %T /data", mounts=mounts, linux=linux))

        assert (done.code, done.out) == (0, "tmpfs\n")


def test_a_mount_on_the_root_is_refused(rootfs: Path, tmp_path: Path) -> None:
    for place in ("/", "/a/.."):
        with pytest.raises(StockadeError, match="would hide the root file system"):
            run(config(rootfs, "true", mounts=[bind(tmp_path, place, "bind")]))


def test_a_directory_is_not_mounted_on_a_file_nor_the_other_way_round(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for source, place in ((tmp_path, "/etc/passwd"), (tmp_path / "file", "/etc")):
        said = refusal(config(rootfs, "true", mounts=[bind(source, place, "bind")]))
        assert "must both be directories or both be files" in said


def test_mounts_inside_proc_are_those_of_lxcfs_only(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("made up\n")
    good = [
        bind(tmp_path / "file", f"/proc/{name}", "bind") for name in ("cpuinfo", "uptime", "sys/kernel/ns_last_pid")
    ]

    done = run(config(rootfs, "cat /proc/cpuinfo /proc/uptime /proc/sys/kernel/ns_last_pid", mounts=good))
    assert done.lines == ["made up"] * 3

    for place in ("/proc/self", "/proc/sys", "/proc/1/attr", "/proc/../proc/version"):
        with pytest.raises(StockadeError, match="nothing is mounted inside /proc"):
            run(config(rootfs, "true", mounts=[bind(tmp_path, place, "bind")]))


def test_cve_2019_16884_a_link_of_the_image_into_proc_is_no_way_around_that(rootfs: Path, tmp_path: Path) -> None:
    (rootfs / "link").symlink_to("/proc/self")

    said = refusal(config(rootfs, "true", mounts=[bind(tmp_path, "/link/attr", "bind")]))

    assert "leads through /proc: that is refused" in said


def test_only_a_procfs_is_bound_over_proc(rootfs: Path, tmp_path: Path) -> None:
    base = [mount for mount in oci_runs.MOUNTS if mount["destination"] != "/proc"]

    good = run(config(rootfs, "test -e /proc/self/status", base=base, mounts=[bind("/proc", "/proc", "rbind")]))
    assert good.code == 0
    for source in (tmp_path, "/proc/self"):
        with pytest.raises(StockadeError, match="if it is not the root of a procfs"):
            run(config(rootfs, "true", base=base, mounts=[bind(source, "/proc", "bind")]))
    with pytest.raises(StockadeError, match="mount /proc: type tmpfs is not proc"):
        run(config(rootfs, "true", base=base, mounts=[tmpfs("/proc")]))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_cve_2023_27561_a_linked_proc_sys_or_dev_is_refused(rootfs: Path, tmp_path: Path, name: str) -> None:
    (rootfs / name).rmdir()
    (rootfs / name).symlink_to(tmp_path)

    assert "make /proc, /sys and /dev directories" in refusal(config(rootfs, "true"))
    assert list(tmp_path.iterdir()) == []
