"""Mounts as steps: what is decided before anything is mounted."""

from __future__ import annotations

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import steps
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import Options, plan
from stockade.sandbox.plan_mount_options import MS_PRIVATE, MS_SHARED, Flags, clean


def a_spec(*mounts: oci.Mount, user: bool = False, propagation: str = "") -> oci.Spec:
    """Give a small Spec with these mounts."""
    kinds = ("mount", "pid", *(("user",) if user else ()))
    maps = (oci.LinuxIDMapping(0, 100000, 65536),) if user else ()
    return oci.Spec(
        process=oci.Process("/", ("prog",)),
        root=oci.Root("/srv/root"),
        mounts=mounts,
        linux=oci.Linux(
            namespaces=tuple(oci.LinuxNamespace(kind) for kind in kinds),
            uid_mappings=maps,
            gid_mappings=maps,
            rootfs_propagation=propagation,
        ),
    )


def of(spec: oci.Spec, options: Options | None = None) -> tuple[steps.Step, ...]:
    """Give the child's steps of a runtime's plan."""
    return plan(spec, options or Options(oci=True)).child


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("/a//b/", "/a/b"), ("a/./b", "/a/b"), ("/a/../../b", "/b"), ("..", "/"), ("", "/"), ("/proc/../sys", "/sys")],
)
def test_a_destination_is_cleaned_by_its_text_alone(path: str, cleaned: str) -> None:
    assert clean(path) == cleaned


def test_a_later_option_takes_an_earlier_one_back() -> None:
    flags = Flags(("ro", "nosuid", "rw", "noatime", "strictatime"))

    assert (flags.attributes, flags.cleared & 1) == (0x20 | 2, 1)


def test_an_option_that_is_no_bit_is_the_file_systems_own() -> None:
    flags = Flags(("size=1m", "tmpcopyup", "rslave", "sync", "noswap", "ridmap"))

    assert flags.data == [("size", "1m"), ("noswap", "")]
    assert (flags.copy_up, flags.superblock, flags.idmap) == (True, ["sync"], "all")


def test_every_copy_of_a_mount_of_the_host_is_cut_off_before_it_is_attached() -> None:
    mount = oci.Mount("/data", "bind", "/srv/data", ("rbind",))
    walked = of(a_spec(mount, user=True), Options(oci=True, privileged=True))
    attached = [step.tree.name for step in walked if isinstance(step, steps.Attach)]

    cut = [s.mount.name for s in walked if isinstance(s, steps.SetAttributes) and s.propagation == MS_PRIVATE]

    assert {"tree /srv/root", "tree /srv/data"} <= set(attached)
    assert {"tree /srv/root", "tree /srv/data"} <= set(cut)


def test_what_is_shared_with_the_host_is_copied_before_the_hosts_mounts_are_cut_off() -> None:
    mount = oci.Mount("/data", "bind", "/srv/data", ("rbind", "rshared"))
    names = [type(step).__name__ for step in of(a_spec(mount, propagation="rshared"))]

    assert names.index("CloneTree") < names.index("Propagation")


def test_nothing_is_shared_with_the_host_across_a_user_namespace() -> None:
    mount = oci.Mount("/data", "bind", "/srv/data", ("rbind", "rshared"))
    walked = of(a_spec(mount, user=True, propagation="rshared"))
    names = [type(step).__name__ for step in walked]

    assert names.index("Propagation") < names.index("CloneTree")
    assert any(isinstance(step, steps.SetAttributes) and step.propagation == MS_SHARED for step in walked)


def test_a_runtime_does_not_make_device_nodes_dead_and_stockade_run_does() -> None:
    mount = oci.Mount("/data", "bind", "/srv/data", ("rbind",))

    def dead(options: Options) -> list[str]:
        walked = plan(a_spec(mount), options).child
        return [step.mount.name for step in walked if isinstance(step, steps.SetAttributes) and step.set & 4]

    assert dead(Options(oci=True)) == []
    assert dead(Options()) == ["root", "/srv/data"]


def test_more_sources_than_a_packet_carries_are_refused() -> None:
    mounts = [oci.Mount(f"/v/{number}", "bind", "/srv", ("bind",)) for number in range(300)]

    with pytest.raises(StockadeError, match="301 sources"):
        of(a_spec(*mounts, user=True), Options(oci=True, privileged=True))
    assert len(of(a_spec(*mounts))) > 900


def test_many_mounts_take_few_slots() -> None:
    """A descriptor each for the mount alone: its mount point and its source are closed again."""
    mounts = [oci.Mount(f"/v/{number}", "bind", "/srv", ("bind",)) for number in range(1500)]

    used = {step.tree.number for step in of(a_spec(*mounts)) if isinstance(step, steps.Attach)}

    assert max(used) < 2000
