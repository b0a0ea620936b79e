"""The root of any config.json: what a tmpfs begins with, layers, shifted ids, propagation, and roots without mounts."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from stockade import StockadeError
from stockade.sandbox.linux import mountinfo
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


# ---- tmpfs ----------------------------------------------------------------------------------------------------------


def test_a_tmpfs_is_as_open_as_what_it_covers(rootfs: Path) -> None:
    (rootfs / "private").mkdir(mode=0o700)
    mounts = [tmpfs("/tmp"), tmpfs("/private"), tmpfs("/new"), tmpfs("/var", "mode=750")]

    done = run(config(rootfs, "stat -c %a /tmp /private /new /var", mounts=mounts))

    assert done.lines == ["1777", "700", "1777", "750"]


def fill(place: Path) -> None:
    """Make everything that a directory of an image can hold."""
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/file").write_text("content")
    os.chown(place / "deep/file", 7, 8)
    (place / "deep/file").chmod(0o4755)
    os.utime(place / "deep/file", (1000, 2000))
    os.link(place / "deep/file", place / "deep/er/same")
    (place / "link").symlink_to("/etc/shadow")
    os.mkfifo(place / "fifo", 0o640)
    os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (place / "null").chmod(0o666)
    os.setxattr(place / "deep/file", "user.mine", b"value")
    (place / "deep").chmod(0o2711)
    place.chmod(0o711)
    os.chown(place, 5, 6)


def test_tmpcopyup_begins_with_what_was_there(rootfs: Path) -> None:
    fill(rootfs / "data")
    script = """cd /data; stat -c '%n %a %u %g %h %Y' deep/file; stat -c '%n %a %u %g' . deep link fifo null
        readlink link; cat deep/er/same; echo; test deep/file -ef deep/er/same; echo $?; touch new; stat -f -c %T ."""

    done = run(config(rootfs, script, mounts=[tmpfs("/data", "tmpcopyup")]))

    assert done.lines == [
        "deep/file 4755 7 8 2 2000", ". 711 5 6", "deep 2711 0 0", "link 777 0 0", "fifo 640 0 0", "null 666 0 0",
        "/etc/shadow", "content", "0", "tmpfs",
    ]  # fmt: skip
    assert not (rootfs / "data/new").exists()


def test_tmpcopyup_of_a_place_that_is_a_link_out_of_the_root_copies_nothing_of_the_host(
    rootfs: Path, public_tmp: Path
) -> None:
    outside = public_tmp / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (rootfs / "data").rmdir()
    (rootfs / "data").symlink_to("/".join([".."] * 12) + str(outside))

    done = run(config(rootfs, "find / -xdev -name secret", mounts=[tmpfs("/data", "tmpcopyup")]))

    assert done.out == ""
    assert (done.code, os.listdir(outside)) == (0, ["secret"])


# ---- overlay and other file systems ---------------------------------------------------------------------------------


def test_an_overlay_of_more_layers_than_an_option_of_fsconfig_can_name(rootfs: Path, public_tmp: Path) -> None:
    layers = []
    for number in range(8):
        layer = public_tmp / f"layer-with-a-long-name-{number:040}"
        layer.mkdir()
        (layer / f"file{number}").touch()
        layers.append(str(layer))
    for name in ("upper", "work"):
        (public_tmp / name).mkdir()
    options = [f"lowerdir={':'.join(layers)}", f"upperdir={public_tmp}/upper", f"workdir={public_tmp}/work", "nosuid"]
    mount = {"destination": "/data", "type": "overlay", "source": "overlay", "options": options}

    done = run(config(rootfs, f"touch /data/new; ls /data | wc -l >&2; {SHOW}", mounts=[mount]))

    assert (done.err, (public_tmp / "upper/new").exists()) == ("9\n", True)
    assert "nosuid" in inside(done)["/data"].options
    assert not [mount for mount in inside(done).values() if mount.fstype == "tmpfs" and mount.mount_point == "/"]


def test_a_short_overlay_mqueue_and_a_second_devpts_are_mounted(rootfs: Path, public_tmp: Path) -> None:
    for name in ("lower", "upper", "work"):
        (public_tmp / name).mkdir()
    options = [f"lowerdir={public_tmp}/lower", f"upperdir={public_tmp}/upper", f"workdir={public_tmp}/work"]
    mounts = [
        {"destination": "/data", "type": "overlay", "source": "overlay", "options": options},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    ]

    found = inside(run(config(rootfs, SHOW, mounts=mounts)))

    assert (found["/data"].fstype, found["/dev/mqueue"].fstype, found["/dev/pts"].fstype) == (
        "overlay", "mqueue", "devpts",
    )  # fmt: skip


# ---- the root -------------------------------------------------------------------------------------------------------


def test_a_read_only_root_has_its_mount_points_made_and_stays_read_only(rootfs: Path) -> None:
    changes: dict[str, Any] = {"root": {"readonly": True}, "mounts": [tmpfs("/made/here")]}

    done = run(config(rootfs, "touch /made/here/x; touch /x; echo $?", **changes))

    assert done.lines == ["1"]


def test_a_root_that_the_host_has_read_only_is_not_written_for_a_mount_point(rootfs: Path) -> None:
    def tried() -> str:
        arena.mount(str(rootfs), str(rootfs), "", 4096)
        arena.mount("none", str(rootfs), "", 4096 | 32 | 1)
        changes: dict[str, Any] = {"root": {"readonly": True}, "mounts": [tmpfs("/made/here")]}
        return refusal(config(rootfs, "true", **changes))

    assert "Read-only file system" in in_arena(tried)
    assert not (rootfs / "made").exists()


def test_a_root_whose_devices_are_its_own_may_use_them(rootfs: Path) -> None:
    """`stockade run` makes every device node of an image dead; what a config.json says is done."""
    os.mknod(rootfs / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))

    done = run(config(rootfs, "head -c 3 /zero | wc -c"))

    assert done.lines == ["3"]


def test_without_a_pivot_the_root_is_changed_all_the_same(rootfs: Path) -> None:
    def tried() -> tuple[list[str], list[str], bool]:
        before = mountinfo.of("self")
        done = run(config(rootfs, f"ls / >&2; {SHOW}", root={"readonly": True}), no_pivot=True)
        points = [mount.mount_point for mount in mountinfo.parse(done.out)]
        return sorted(done.err.split()), points, mountinfo.of("self") == before

    names, points, unchanged = in_arena(tried)

    assert names == sorted(os.listdir(rootfs))
    assert points == ["/", "/proc", "/dev", "/dev/pts", "/sys"]
    assert unchanged


# ---- without a mount namespace --------------------------------------------------------------------------------------


def test_without_a_mount_namespace_the_root_is_changed_and_nothing_is_mounted(rootfs: Path) -> None:
    linux: dict[str, Any] = {"namespaces": [{"type": "pid"}]}

    done = run(config(rootfs, "ls /", base=(), linux=linux))

    assert sorted(done.lines) == sorted(os.listdir(rootfs))


def test_without_a_mount_namespace_mounts_are_refused(rootfs: Path) -> None:
    linux: dict[str, Any] = {"namespaces": [{"type": "pid"}]}

    with pytest.raises(StockadeError, match="/proc: without a mount namespace"):
        run(config(rootfs, "true", linux=linux))
    with pytest.raises(StockadeError, match=r"root\.readonly: without a mount namespace"):
        run(config(rootfs, "true", base=(), linux=linux, root={"readonly": True}))


def test_masked_and_read_only_paths_hold_also_without_a_user_namespace(rootfs: Path) -> None:
    linux = {"maskedPaths": ["/proc/keys", "/proc/../etc/group", "/none"], "readonlyPaths": ["/proc/sys", "/usr"]}
    (rootfs / "usr/prog").symlink_to("/bin/busybox")
    script = (
        """wc -c </proc/keys; cat /etc/group; touch /usr/x; echo 1 2>/dev/null >/proc/sys/kernel/panic; echo $?
        """
        + SHOW
    )

    done = run(config(rootfs, script, linux=linux))

    assert done.lines[:2] == ["0", "1"]
    found = inside(oci_runs.Done(0, "\n".join(done.lines[2:]), ""))
    assert "ro" in found["/usr"].options
    assert not {"noexec", "nosuid"} & set(found["/usr"].options)


# ---- ids ------------------------------------------------------------------------------------------------------------


def owned(directory: Path) -> Path:
    """Make a directory with a file of 0 and one of 1000."""
    directory.mkdir()
    for name, uid in (("zero", 0), ("thousand", 1000)):
        (directory / name).touch()
        os.chown(directory / name, uid, uid)
    return directory


def test_a_mounts_own_id_map_holds_without_a_user_namespace(rootfs: Path, public_tmp: Path) -> None:
    maps = [{"containerID": 0, "hostID": 5000, "size": 2000}]
    mount = bind(owned(public_tmp / "v"), "/data", "bind", "idmap") | {"uidMappings": maps, "gidMappings": maps}
    implied = mount | {"destination": "/too", "options": ["bind"]}

    done = run(config(rootfs, "cd /data; stat -c '%u %g' zero thousand; stat -c %u /too/zero", mounts=[mount, implied]))

    assert done.lines == ["5000 5000", "6000 6000", "5000"]


def test_a_mount_is_shifted_by_the_containers_map_where_it_has_none(rootfs: Path, public_tmp: Path) -> None:
    mount = bind(owned(public_tmp / "v"), "/data", "bind", "idmap")

    done = run(config(rootfs, "stat -c '%u %g' /data/zero /data/thousand", mounts=[mount], linux=user_namespace()))

    assert done.lines == ["0 0", "1000 1000"]


@pytest.mark.parametrize(("option", "below"), [("idmap", "0"), ("ridmap", "5000")])
def test_ids_below_are_shifted_where_the_option_is_recursive(
    rootfs: Path, public_tmp: Path, option: str, below: str
) -> None:
    maps = [{"containerID": 0, "hostID": 5000, "size": 2000}]
    volume = owned(public_tmp / "v")
    (volume / "below").mkdir()

    def tried() -> list[str]:
        arena.mount("tmpfs", str(volume / "below"), "tmpfs")
        mount = bind(volume, "/data", "rbind", option) | {"uidMappings": maps, "gidMappings": maps}
        return run(config(rootfs, "stat -c %u /data/zero /data/below", mounts=[mount])).lines

    assert in_arena(tried) == ["5000", below]


def test_ids_are_not_shifted_without_a_map_or_of_a_new_file_system(rootfs: Path, public_tmp: Path) -> None:
    with pytest.raises(StockadeError, match="by a map"):
        run(config(rootfs, "true", mounts=[bind(public_tmp, "/data", "bind", "idmap")]))
    with pytest.raises(StockadeError, match="for a bind mount"):
        run(config(rootfs, "true", mounts=[tmpfs("/data", "idmap")], linux=user_namespace()))


# ---- propagation ----------------------------------------------------------------------------------------------------

WAIT = "echo ready >/data/ready; until test -e /data/go; do usleep 1000; done; "


def shared_volume(volume: Path) -> None:
    """Make the volume a mount that is shared, as all mounts of a host with systemd are."""
    volume.mkdir()
    arena.mount("tmpfs", str(volume), "tmpfs")
    arena.mount("none", str(volume), "", arena.MS_REC | 1 << 20)
    (volume / "below").mkdir()


@pytest.mark.parametrize(
    ("option", "propagation", "user", "seen"),
    [
        ("rshared", "rshared", False, True),
        ("rshared", "", False, False),
        ("rshared", "rshared", True, False),
        ("rslave", "rslave", False, False),
        ("rprivate", "", False, False),
        ("private", "", True, False),
        (None, "", False, False),
        (None, "", True, False),
    ],
)
def test_what_is_mounted_inside_is_seen_outside_only_where_that_was_asked_for(
    rootfs: Path, public_tmp: Path, option: str | None, propagation: str, *, user: bool, seen: bool
) -> None:
    """A copy of a shared mount is its peer: without care everything mounted in the container would reach the host."""
    volume = public_tmp / "volume"

    def tried() -> bool:
        shared_volume(volume)
        linux = (user_namespace() if user else {}) | ({"rootfsPropagation": propagation} if propagation else {})
        mounts = [bind(volume, "/data", "rbind", *([option] if option else []))]
        done = run(
            config(rootfs, "mount -t tmpfs inner /data/below && touch /data/below/x", mounts=mounts, linux=linux)
        )
        assert done.code == 0, done.err
        return any(mount.source == "inner" for mount in mountinfo.of("self")) or (volume / "below/x").exists()

    assert in_arena(tried) is seen


def test_a_root_on_a_shared_mount_keeps_its_mounts_to_itself(rootfs: Path) -> None:
    def tried(linux: dict[str, Any]) -> list[str]:
        arena.mount(str(rootfs), str(rootfs), "", 4096)
        arena.mount("none", str(rootfs), "", arena.MS_REC | 1 << 20)
        before = len(mountinfo.of("self"))
        done = run(
            config(
                rootfs, "mount -t tmpfs inner /mnt 2>/dev/null; mkdir -p /mnt; mount -t tmpfs inner /mnt", linux=linux
            )
        )
        assert done.code == 0, done.err
        return [mount.mount_point for mount in mountinfo.of("self")[before:]]

    assert in_arena(lambda: tried({})) == []
    assert in_arena(lambda: tried(user_namespace())) == []
    assert in_arena(lambda: tried({"rootfsPropagation": "rshared"})) == []


@pytest.mark.parametrize(
    ("propagation", "tag"),
    [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_propagation_of_the_root_is_what_the_spec_says(rootfs: Path, propagation: str, tag: str) -> None:
    linux = {"rootfsPropagation": propagation} if propagation else {}

    found = inside(run(config(rootfs, SHOW, linux=linux)))["/"].optional

    assert [field.startswith(tag) for field in found] == ([True] if tag else [])


def test_a_source_is_opened_by_root_where_the_container_can_not_reach_it(rootfs: Path, tmp_path: Path) -> None:
    """tmp_path is 0700 and root's, and another user is root in the container."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mine").touch()

    done = run(config(rootfs, "ls /data", mounts=[bind(tmp_path / "volume", "/data", "bind")], linux=user_namespace()))

    assert done.lines == ["mine"]
