"""The order of the steps, which is what the protections rest on."""

from __future__ import annotations

import pytest

from stockade.errors import StockadeError
from stockade.sandbox import steps
from stockade.sandbox.oci import spec as oci
from stockade.sandbox.plan import Options, execute, plan

CAPABILITIES = ("CAP_CHOWN", "CAP_KILL")
KINDS = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")


def a_spec(**process: object) -> oci.Spec:
    """Give a small Spec with every kind of thing that a plan orders."""
    sets = oci.LinuxCapabilities(bounding=CAPABILITIES, permitted=CAPABILITIES, effective=CAPABILITIES)
    given = {"cwd": "/work", "args": ("prog",), "env": ("PATH=/a:/b",), "capabilities": sets, "no_new_privileges": True}
    return oci.Spec(
        process=oci.Process(**(given | process)),  # type: ignore[arg-type] # a word of its Literal
        root=oci.Root("/srv/root", readonly=True),
        hostname="box",
        mounts=(
            oci.Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
            oci.Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
            oci.Mount("/data", "bind", "/srv/data", ("rbind", "ro")),
        ),
        linux=oci.Linux(
            namespaces=tuple(oci.LinuxNamespace(kind) for kind in KINDS),
            uid_mappings=(oci.LinuxIDMapping(0, 100000, 65536),),
            gid_mappings=(oci.LinuxIDMapping(0, 100000, 65536),),
            masked_paths=("/proc/kcore",),
            readonly_paths=("/proc/sys",),
        ),
    )


FILTER = b"\x06\0\0\0\0\0\xff\x7f"


def kinds(spec: oci.Spec, options: Options) -> list[str]:
    """Give the names of the child's steps."""
    return [type(step).__name__ for step in plan(spec, options).child]


def test_descriptors_are_closed_before_any_path_is_looked_at() -> None:
    names = kinds(a_spec(), Options())

    looking = [i for i, name in enumerate(names) if name in {"Open", "Ensure", "EnsureLike", "WorkingDirectory"}]

    assert names.index("CloseOthers") < min(looking)


def test_the_filter_is_loaded_last_before_the_program() -> None:
    assert kinds(a_spec(), Options(filter_program=FILTER))[-2:] == ["Seccomp", "Execute"]


def test_privilege_falls_after_the_root_is_complete_and_in_the_order_of_capabilities_7() -> None:
    names = kinds(a_spec(), Options(filter_program=FILTER))

    order = [
        "Pivot",
        "Bounding",
        "SetIds",
        "Capabilities",
        "Ambient",
        "NoNewPrivs",
        "WorkingDirectory",
        "Ready",
        "Seccomp",
    ]
    places = [len(names) - 1 - names[::-1].index(name) for name in order]

    assert places == sorted(places)


def test_masks_cover_what_the_mounts_made_and_come_before_the_root_is_pivoted() -> None:
    names = kinds(a_spec(), Options())

    assert names.index("Attach") < names.index("ReadOnly") < names.index("Mask") < names.index("Pivot")


def test_a_read_only_root_is_read_only_with_all_below_before_anything_is_mounted_in_it() -> None:
    steps_ = plan(a_spec(), Options()).child
    deep = next(i for i, step in enumerate(steps_) if isinstance(step, steps.ReadOnlyBelow))

    assert deep < next(i for i, step in enumerate(steps_) if isinstance(step, steps.EnsureLike))


def test_sources_of_a_privileged_caller_are_copied_by_the_supervisor() -> None:
    inputs = plan(a_spec(), Options(privileged=True)).inputs

    assert [(wanted.kind, wanted.path) for wanted in inputs if wanted.kind == "tree"] == [
        ("tree", "/srv/root"),
        ("tree", "/srv/data"),
    ]


def test_without_no_new_privs_the_filter_keeps_sys_admin_until_execve_takes_it() -> None:
    spec = a_spec(no_new_privileges=False, user=oci.User(1000, 1000))

    with_filter = plan(spec, Options(filter_program=FILTER))

    sets = next(step for step in with_filter.child if isinstance(step, steps.Capabilities))
    assert sets.permitted >> 21 & 1
    assert not with_filter.expected.after.permitted >> 21 & 1


def test_init_ends_with_the_sets_of_the_program() -> None:
    spec = a_spec(no_new_privileges=False).replace(annotations={oci.INIT: "true"})

    init = next(step for step in plan(spec, Options(filter_program=FILTER)).child if isinstance(step, steps.Init))

    assert init.permitted == 0b100001
    assert init.program == FILTER


def test_a_program_is_looked_for_with_the_containers_own_path() -> None:
    assert execute(("prog",), ("PATH=/a::/b",)).places == ("/a/prog", "/b/prog")
    assert execute(("./prog",), ("PATH=/a",)).places == ("./prog",)


def test_a_spec_without_a_program_is_refused() -> None:
    with pytest.raises(StockadeError, match="no program"):
        plan(a_spec(args=()), Options())


def test_an_unknown_option_of_a_bind_mount_is_refused_by_name() -> None:
    spec = a_spec()
    mounts = (oci.Mount("/data", "bind", "/srv/data", ("bind", "size=1")),)

    with pytest.raises(StockadeError, match="/data: a bind mount has no option size"):
        plan(spec.replace(mounts=mounts), Options())


def test_the_printed_plan_numbers_every_step_and_gives_its_reason() -> None:
    made = plan(a_spec(), Options(filter_program=FILTER))

    lines = str(made).splitlines()

    assert len(lines) == 2 * len(made.steps)
    assert lines[0].startswith("  1  clone a child with new namespaces: user mount pid network ipc uts")
    assert all(line.startswith("     # ") for line in lines[1::2])
