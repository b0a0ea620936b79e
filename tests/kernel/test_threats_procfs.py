"""/proc, /sys and control groups: what a container may not write, and can't uncover.

Each attempt is also made where nothing stands in its way, and succeeds there.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.kernel import probes
from tests.kernel.probes import CONFINED, INSIDE, MODES, Ways

if TYPE_CHECKING:
    import pwd

    from tests.kernel.probes import Run

pytestmark = pytest.mark.kernel

UNCONFINED = ("--security-opt", "seccomp=unconfined")
#: uid 0 of the host, which owns these files, with and without capabilities
HOST_ROOTS = [("--cap-drop", "ALL", "--userns", "host"), ("--userns", "host"), ("--userns", "host", "--cap-add", "ALL")]
NO_CAPABILITIES = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
CONTROLS = [
    *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom"),
    *("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/sys/fs/binfmt_misc/register"),
]


@pytest.fixture
def ways(stockade: Run, as_user: Run, unprivileged: pwd.struct_passwd) -> Ways:
    return Ways(stockade, as_user, unprivileged)


@pytest.mark.parametrize("options", HOST_ROOTS, ids=["none", "mode's", "all"])
def test_uid_0_of_the_host_can_not_write_what_capabilities_do_not_guard(ways: Ways, options: tuple[str, ...]) -> None:
    found = ways.probe("normal", "open", *CONTROLS, options=options)

    for path in CONTROLS:
        assert found[f"write {path}"] in {"EROFS", "ENOENT"}
    assert found["write /proc/sys/kernel/core_pattern"] == "EROFS"
    assert found["write /proc/irq/default_smp_affinity"] == "EROFS"


def test_uid_0_without_any_capability_opens_core_pattern_for_writing() -> None:
    found = probes.outside(["unshare", "-mpf", "--mount-proc", *NO_CAPABILITIES, probes.probe(), "open", *CONTROLS])

    assert found["write /proc/sys/kernel/core_pattern"] == "ok"
    assert found["write /proc/irq/default_smp_affinity"] == "ok"


@pytest.mark.parametrize("mode", CONFINED)
def test_no_sysctl_of_the_host_opens_in_a_mapped_container(ways: Ways, mode: str) -> None:
    found = ways.probe(mode, "open", *CONTROLS)

    assert {found[f"write {path}"] for path in CONTROLS} <= {"EROFS", "EACCES", "ENOENT"}


#: files of /proc and /sys that their own mode lets be written, and that open so; nothing is written
WRITABLE = """
import os, stat
for top in ("/proc", "/sys"):
    for place, directories, files in os.walk(top):
        if place == "/proc":
            directories[:] = [name for name in directories if not name.isdigit() and "self" not in name]
        for name in files:
            path = f"{place}/{name}"
            try:
                found = os.lstat(path).st_mode
                if stat.S_ISREG(found) and found & 0o222:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    print(path)
            except OSError:
                pass
"""


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("normal", ()),
        ("rootless", ()),
        ("normal", ("--userns", "host")),
        ("normal", ("--pid", "host")),
        ("normal", ("--network", "host")),
        ("rootless", ("--network", "host")),
        ("normal", ("--userns", "host", "--network", "host")),
    ],
)
def test_nothing_in_proc_and_sys_opens_for_writing(ways: Ways, mode: str, options: tuple[str, ...]) -> None:
    done = ways.run(mode, ["python3", "-c", WRITABLE], options)

    assert done.returncode == 0, done.stderr
    # A pressure file is written to ask for notice of one's own group's stalls.
    assert [path for path in done.stdout.split() if not path.startswith("/proc/pressure/")] == []


def test_in_a_privileged_container_hundreds_do(ways: Ways) -> None:
    assert len(ways.run("privileged", ["python3", "-c", WRITABLE]).stdout.split()) > 300


@pytest.fixture(scope="module")
def covered(stockade: Run) -> list[str]:
    """Give the masked paths of normal mode that this kernel has."""
    linux = json.loads(stockade("run", "--spec", "--host", "--", "true").stdout)["linux"]
    found = [path for path in linux["maskedPaths"] if os.path.exists(path)]
    assert len(found) >= 3
    return found


SHOW = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(path, len(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64)))
    except OSError:
        print(path, 0)
"""


@pytest.mark.parametrize(("mode", "options"), [("normal", ()), ("normal", ("--userns", "host")), ("rootless", ())])
def test_masked_paths_are_empty(ways: Ways, covered: list[str], mode: str, options: tuple[str, ...]) -> None:
    done = ways.run(mode, ["python3", "-c", SHOW, *covered], options)
    shown = ways.run(mode, ["python3", "-c", SHOW, *covered], (*options, "--security-opt", "systempaths=unconfined"))

    assert [line.split()[1] for line in done.stdout.splitlines()] == ["0"] * len(covered)
    assert {line.split()[1] for line in shown.stdout.splitlines()} != {"0"}


@pytest.mark.parametrize("filtered", [(), UNCONFINED], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize(("mode", "options"), [("normal", ()), ("normal", ("--userns", "host")), ("rootless", ())])
def test_covers_can_not_be_taken_off_made_writable_or_mounted_over(
    *, ways: Ways, covered: list[str], mode: str, options: tuple[str, ...], filtered: tuple[str, ...]
) -> None:
    for path in ("/proc/sys", "/", *covered[:2]):
        found = ways.probe(mode, "mounts", path, options=(*options, *filtered))
        assert found.pop("chroot") in {"EPERM", "ENOTDIR"}
        assert set(found.values()) == {"EPERM"}, path


def test_with_the_capability_for_mounts_they_come_off(ways: Ways, covered: list[str]) -> None:
    options = (*UNCONFINED, "--cap-add", "SYS_ADMIN")

    for path in ("/proc/sys", covered[0]):
        found = ways.probe("normal", "mounts", path, options=options)
        assert (found["remount"], found["umount"]) == ("ok", "ok")


@pytest.mark.parametrize("mode", CONFINED)
def test_nested_user_namespaces_are_closed(ways: Ways, mode: str) -> None:
    assert ways.probe(mode, "nested")["userns"] == "EPERM"


@pytest.mark.parametrize(("mode", "options"), [("normal", ()), ("normal", ("--userns", "host")), ("rootless", ())])
def test_a_nested_user_namespace_uncovers_nothing_where_the_filter_is_lifted(
    *, ways: Ways, covered: list[str], mode: str, options: tuple[str, ...]
) -> None:
    """It brings every capability over a copy of the mounts; the kernel keeps those together that came together."""
    found = ways.probe(mode, "nested", "/proc/sys", *covered, options=(*options, *UNCONFINED))

    assert found.pop("userns") == "ok"
    assert found.pop("new cgroup") in {"ok", "EPERM", "EBUSY", "EINVAL"}  # what it would show is not for it to write:
    assert found.pop("release_agent") in {"EACCES", "ENOENT", "EROFS"}
    assert {found.pop(f"copy {path}") for path in ("/proc/sys", *covered)} <= {
        "ok",
        "EINVAL",
        "ENOTDIR",
    }  # of the cover
    assert set(found.values()) <= {"EPERM", "EINVAL", "EBUSY"}, found


def test_where_nothing_is_covered_a_nested_user_namespace_mounts_proc_anew(ways: Ways) -> None:
    found = ways.probe("privileged", "nested")

    assert (found["copy /proc"], found["new proc"], found["new sysfs"]) == ("ok", "ok", "ok")


def test_cve_2022_0492_the_release_agent_is_out_of_reach(ways: Ways) -> None:
    script = """
        ls /sys/fs/cgroup/*
        for d in /sys/fs/cgroup/*/; do mkdir $d/x; done
        for f in /sys/fs/cgroup/*/*; do sh -c ": >>$f"; done
        cat /proc/mounts"""
    limits = ("--memory", "64m", "--pids-limit", "50")

    done = ways.run("normal", ["sh", "-c", script], (*limits, "--userns", "host", "--cap-add", "SYS_ADMIN"))

    assert "cgroup" in done.stdout
    assert "release_agent" not in done.stdout
    assert done.stderr.count("ead-only file system") > 10
    assert {line.rsplit(": ", 1)[1] for line in done.stderr.splitlines()} <= {
        "Read-only file system",
        "Permission denied",
    }
    assert [line for line in done.stdout.splitlines() if " cgroup" in line and " ro," not in line] == []


def test_on_the_host_the_release_agent_opens_for_writing() -> None:
    tops = [f"/sys/fs/cgroup/{name}/release_agent" for name in ("memory", "pids", "freezer")]
    if not os.path.exists(tops[0]):  # a host with cgroup2 alone has none: mount(2) of v1 is what the exploit does
        assert probes.on_host("nested")["new cgroup"] in {"ok", "EBUSY", "EPERM"}
        return

    assert "ok" in {probes.on_host("open", path)[f"write {path}"] for path in tops}


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("normal", ("--memory", "64m")),
        ("normal", ()),
        ("rootless", ()),
        ("rootless", ("--network", "host")),
        ("normal", ("--network", "host")),
    ],
)
def test_control_groups_of_others_are_not_seen(ways: Ways, mode: str, options: tuple[str, ...]) -> None:
    done = ways.run(mode, ["sh", "-c", "find /sys/fs/cgroup -mindepth 1 -type d; cat /proc/self/cgroup"], options)

    directories = [line for line in done.stdout.splitlines() if line.startswith("/sys")]
    assert all(line.count("/") == 4 for line in directories), directories  # a mount for a hierarchy, and nothing in it
    assert {line.split(":")[2] for line in done.stdout.splitlines() if not line.startswith("/sys")} == {"/"}
    assert len(os.listdir("/sys/fs/cgroup")) > len(directories)


@pytest.mark.parametrize("mode", MODES)
def test_process_1_leads_nowhere_else(ways: Ways, mode: str) -> None:
    done = ways.run(mode, ["sh", "-c", f"ls /proc/1/root/ /proc/1/cwd/ {INSIDE}; ls /proc | grep -c '^[0-9]'"])

    assert os.path.basename(os.path.dirname(__file__)) not in done.stdout
    assert int(done.stdout.splitlines()[-1]) <= 4  # the shell, ls and grep
