"""Mounts, devices, masks, and each request for them that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stockade.errors import StockadeError, UsageError
from stockade.sandbox.oci.spec import ROOT_DIRECTORIES, ROOT_FILE, ROOT_LINKS
from stockade.sandbox.request import DeviceRequest, MountRequest

if TYPE_CHECKING:
    from stockade.sandbox.oci.spec import Mount, Spec


def mount(spec: Spec, destination: str) -> Mount:
    (found,) = [each for each in spec.mounts if each.destination == destination]
    return found


def volume(destination: str = "/mnt", source: str = "/data", **asked: Any) -> dict[str, Any]:
    return {"mounts": (MountRequest("bind", source, destination, **asked),)}


def test_a_volume_is_private_and_its_devices_and_setuid_programs_are_dead(built: Any) -> None:
    assert mount(built(**volume()), "/mnt").options == ("rbind", "rprivate", "rnosuid", "rnodev")


def test_a_read_only_volume_is_read_only_with_all_below(built: Any) -> None:
    assert "rro" in mount(built(**volume(read_only=True)), "/mnt").options


def test_a_volume_without_submounts_has_options_without_recursion(built: Any) -> None:
    spec = built(**volume(read_only=True, recursive=False, propagation="slave", options=("noexec",)))

    assert mount(spec, "/mnt").options == ("bind", "slave", "nosuid", "nodev", "noexec", "ro")


def test_an_option_takes_back_its_default(built: Any) -> None:
    assert mount(built(**volume(options=("suid", "dev"))), "/mnt").options == ("rbind", "rprivate", "rsuid", "rdev")


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("/proc", "nothing is mounted over /proc"),
        ("/proc/self/x", "nothing is mounted over /proc"),
        ("//proc//sys", "nothing is mounted over /proc"),
        ("/mnt/../etc", r"climbs with \.\."),
        ("/", "the root itself"),
        ("//", "the root itself"),
        ("mnt", "not an absolute path"),
        ("/dev", "the container's /dev is its own"),
        ("/mnt\0", "not an absolute path"),
    ],
)
def test_a_destination_that_would_harm_is_refused(built: Any, destination: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        built(**volume(destination))


@pytest.mark.parametrize(
    ("source", "reason"),
    [("/gone", "no such file or directory"), ("data", "not an absolute path")],
)
def test_a_source_that_is_not_there_is_refused(built: Any, source: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        built(**volume(source=source))


def test_two_mounts_on_one_place_are_refused(built: Any) -> None:
    with pytest.raises(UsageError, match="/mnt: given twice"):
        built(**volume(), tmpfs=(MountRequest("tmpfs", "tmpfs", "/mnt/"),))


def test_an_option_that_a_bind_mount_lacks_is_refused(built: Any) -> None:
    with pytest.raises(UsageError, match="a bind mount has no option 'size=5'"):
        built(**volume(options=("size=5",)))


def test_a_tmpfs_is_sealed_off_as_dockers_is(built: Any) -> None:
    spec = built(tmpfs=(MountRequest("tmpfs", "tmpfs", "/scratch", options=("size=1024", "exec")),))

    assert mount(spec, "/scratch").options == ("nosuid", "nodev", "size=1024", "exec", "mode=1777", "nr_inodes=1024")


def test_an_option_that_tmpfs_lacks_is_refused(built: Any) -> None:
    with pytest.raises(UsageError, match="no option 'fast'"):
        built(tmpfs=(MountRequest("tmpfs", "tmpfs", "/scratch", options=("fast",)),))


def test_outer_mounts_come_before_those_inside_them(built: Any) -> None:
    spec = built(mounts=(MountRequest("bind", "/data", "/a/b"), MountRequest("bind", "/data", "/a")))

    assert [each.destination for each in spec.mounts][-2:] == ["/a", "/a/b"]


def test_a_mount_of_ones_own_takes_the_place_of_the_modes(built: Any) -> None:
    spec = built(tmpfs=(MountRequest("tmpfs", "tmpfs", "/dev/shm", options=("size=1",)),))

    assert "size=1" in mount(spec, "/dev/shm").options


def test_shm_size_is_the_size_of_dev_shm(built: Any) -> None:
    assert "size=4096" in mount(built(shm_size=4096), "/dev/shm").options
    with pytest.raises(UsageError, match="would change the host's /dev/shm"):
        built(shm_size=4096, ipc="host")


def test_devpts_has_no_group_where_gid_5_is_not_mapped(built: Any, lone_host: Any) -> None:
    assert "gid=5" in mount(built(), "/dev/pts").options
    assert "gid=5" not in mount(built("rootless", lone_host), "/dev/pts").options


@pytest.mark.parametrize(("shared", "place"), [("network", "/sys"), ("pid", "/proc"), ("ipc", "/dev/mqueue")])
def test_what_shows_a_shared_namespace_is_bound_inside_a_user_namespace_and_mounted_without(
    built: Any, shared: str, place: str
) -> None:
    inside, without = built(**{shared: "host"}), built(**{shared: "host", "userns": "host"})

    assert mount(inside, place).type == "bind"
    assert mount(without, place).type != "bind"


def test_sys_of_the_host_is_read_only_and_hides_its_cgroups(built: Any) -> None:
    spec = built(network="host")

    assert "rro" in mount(spec, "/sys").options
    assert "/sys/fs/cgroup" in spec.linux.masked_paths


def test_cgroups_are_shown_where_the_container_has_one(built: Any) -> None:
    assert mount(built(pids_limit=10), "/sys/fs/cgroup").options[-1] == "ro"
    assert all(each.destination != "/sys/fs/cgroup" for each in built().mounts)


def test_systempaths_unconfined_takes_masks_and_read_only_paths_away(built: Any) -> None:
    linux = built(systempaths="unconfined").linux

    assert (linux.masked_paths, linux.readonly_paths) == ((), ())


def test_the_embedded_root_shows_programs_read_only_and_nothing_else_of_the_host(built: Any) -> None:
    spec = built()

    binds = [each for each in spec.mounts if each.type == "bind"]
    assert {each.source for each in binds} == {"/usr", "/etc/alternatives", "/etc/ssl", "/etc/ld.so.cache"}
    assert all({"rro", "rnosuid", "rnodev"} <= set(each.options) for each in binds)
    assert "bin=usr/bin" in spec.annotations[ROOT_LINKS]
    assert ROOT_FILE + "etc/resolv.conf" not in spec.annotations
    assert "nameserver" in built(network="host").annotations[ROOT_FILE + "etc/resolv.conf"]


def test_a_lib_that_is_a_directory_is_bound(built: Any, root_host: Any) -> None:
    spec = built(host=root_host.replace(root_entries=(("lib", ""), ("bin", "usr/bin"))))

    assert mount(spec, "/lib").source == "/lib"
    assert "lib=" not in spec.annotations[ROOT_LINKS]


def test_the_embedded_root_knows_its_own_users_and_no_others(built: Any, user_host: Any) -> None:
    passwd = built("rootless", user_host, user="5:7").annotations[ROOT_FILE + "etc/passwd"]

    assert [line.split(":")[:4] for line in passwd.splitlines()] == [
        ["root", "x", "0", "0"],
        ["nobody", "x", "65534", "65534"],
        ["user", "x", "5", "7"],
    ]


def test_the_home_of_the_embedded_root_is_the_users(built: Any) -> None:
    spec = built(user="5:7")

    assert "home/user:0700:5:7" in spec.annotations[ROOT_DIRECTORIES].split()
    assert "HOME=/home/user" in spec.process.env


def test_tmp_stays_writable_in_a_read_only_embedded_root(built: Any) -> None:
    spec = built(read_only=True)

    assert spec.root.readonly
    assert "mode=1777" in mount(spec, "/tmp").options


def test_a_device_is_made_outside_and_bound_inside_a_user_namespace_when_renamed(built: Any) -> None:
    asked = {"devices": (DeviceRequest("/dev/fuse", "/dev/tap"),)}

    (node,) = built(**asked, userns="host").linux.devices
    assert (node.path, node.type, node.major, node.minor) == ("/dev/tap", "c", 10, 229)
    assert mount(built(**asked), "/dev/tap").source == "/dev/fuse"
    assert built(**asked).linux.devices == ()


@pytest.mark.parametrize(
    ("source", "destination", "reason"),
    [
        ("/data", "/dev/data", "not a device node"),
        ("/gone", "/dev/gone", "not a device node"),
        ("/dev/fuse", "/etc/fuse", "devices are made below /dev"),
        ("/dev/fuse", "/dev/../etc/fuse", "devices are made below /dev"),
    ],
)
def test_a_device_that_is_none_is_refused(built: Any, source: str, destination: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        built(devices=(DeviceRequest(source, destination),))


def test_the_device_controller_is_asked_only_where_nothing_else_enforces_it(built: Any) -> None:
    reading = (DeviceRequest("/dev/sda", "/dev/sda", "r"),)
    whole = (DeviceRequest("/dev/sda", "/dev/sda", "rwm"),)

    rules = built(devices=reading).linux.resources.devices
    assert (rules[0].allow, rules[-1].access, rules[-1].major) == (False, "r", 8)
    assert built(devices=whole).linux.resources is None
    assert built(devices=whole, userns="host", cap_add=("CAP_MKNOD",)).linux.resources.devices[0].allow is False


def test_privileged_has_all_nodes_of_the_host(built: Any, user_host: Any) -> None:
    assert [node.path for node in built("privileged").linux.devices] == ["/dev/fuse", "/dev/sda"]
    assert [node.path for node in built("privileged", user_host).linux.devices] == ["/dev/fuse", "/dev/sda"]


def test_a_mode_with_a_device_that_the_host_lacks_is_refused(built: Any, tmp_path: Any) -> None:
    from stockade.profiles import read

    own = tmp_path / "own.toml"
    own.write_text(read("mode", "normal").decode().replace("devices = []", 'devices = ["/dev/kvm"]'))

    with pytest.raises(StockadeError, match="device /dev/kvm is not on this host"):
        built(str(own))
