"""The root file system is hostile: links, races, FIFOs, devices, setuid programs, read-only that is not.

Each attempt is also made where nothing stands in its way, and succeeds there.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from stockade import Sandbox, StockadeError
from stockade.sandbox.mount_values import volume
from tests.kernel import probes
from tests.kernel.probes import MODES, Ways

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kernel.probes import Run

pytestmark = pytest.mark.kernel

EVERY_MODE = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def ways(stockade: Run, as_user: Run, unprivileged: pwd.struct_passwd) -> Ways:
    return Ways(stockade, as_user, unprivileged)


@pytest.fixture
def root_of(public_tmp: Path, unprivileged: pwd.struct_passwd) -> Callable[[str], Path]:
    """Make a root file system for a mode: the user's for rootless."""

    def make(mode: str) -> Path:
        owner = (unprivileged.pw_uid, unprivileged.pw_gid) if mode == "rootless" else (0, 0)
        return probes.small_root(public_tmp / "root", *owner)

    return make


@pytest.fixture
def rootfs(root_of: Callable[[str], Path]) -> Path:
    return root_of("normal")


@pytest.fixture
def outside(public_tmp: Path) -> Path:
    """Give a directory of the host that anybody may write to, with a file in it."""
    path = public_tmp / "outside"
    path.mkdir()
    path.chmod(0o777)
    (path / "passwd").write_text("hostonly:x:4711:4711::/:/bin/sh\n")
    return path


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def mounts_of_the_host() -> int:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return len(file.readlines())


def targets(outside: Path) -> dict[str, str]:
    """Give links to the directory outside: absolute, climbing, and to what isn't there."""
    climbing = "/".join([".."] * 12) + str(outside)
    far = f"/proc/self/root{outside}"
    return {"absolute": str(outside), "climbing": climbing, "dangling": f"{climbing}/new", "far": far}


KINDS = ("absolute", "climbing", "dangling", "far")


@EVERY_MODE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_cve_2019_16884_a_root_whose_proc_sys_or_dev_is_a_link_is_refused(
    *, ways: Ways, root_of: Callable[[str], Path], outside: Path, mode: str, kind: str, name: str
) -> None:
    """Also CVE-2023-27561, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 and CVE-2026-41579."""
    root = root_of(mode)
    (root / name).rmdir()
    (root / name).symlink_to(targets(outside)[kind])
    before = mounts_of_the_host(), listing(outside)

    done = ways.run(mode, ["true"], ("-t",) if name == "dev" else (), rootfs=root)

    assert done.returncode == 125
    assert f"/{name}" in done.stderr
    assert "make /proc, /sys and /dev directories" in done.stderr
    assert (mounts_of_the_host(), listing(outside)) == before


def test_a_runtime_that_follows_a_linked_dev_makes_files_on_the_host(
    stockade: Run, rootfs: Path, outside: Path, tmp_path: Path
) -> None:
    """runc 1.1.5 with a /dev of the image, as with `docker run` of images that bring one."""
    spec = json.loads(stockade("run", "--spec", "--userns", "host", "--rootfs", str(rootfs), "true").stdout)
    spec["mounts"] = [m for m in spec["mounts"] if m["type"] != "cgroup" and not m["destination"].startswith("/dev")]
    del spec["linux"]["seccomp"]
    (tmp_path / "config.json").write_text(json.dumps(spec))
    (rootfs / "dev").rmdir()
    (rootfs / "dev").symlink_to(outside)

    runc = ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), f"weak-{os.getpid()}"]
    subprocess.run(runc, capture_output=True, check=False)

    assert {"ptmx", "fd", "stdin"} <= set(listing(outside))


@EVERY_MODE
@pytest.mark.parametrize("kind", KINDS)
def test_cve_2021_30465_a_mount_target_that_is_a_link_stays_inside(
    *, ways: Ways, root_of: Callable[[str], Path], outside: Path, public_tmp: Path, mode: str, kind: str
) -> None:
    root = root_of(mode)
    if kind == "absolute":
        (root / str(outside)[1:]).mkdir(parents=True)
        (root / f"{str(outside)[1:]}-etc").mkdir()
    (root / "data").symlink_to(targets(outside)[kind])
    (root / "etc/link").symlink_to(targets(outside)[kind] + "-etc")
    data = public_tmp / "volume"
    (data / "below").mkdir(parents=True)
    (data / "mine").touch()
    before = mounts_of_the_host(), listing(outside)

    done = ways.run(
        mode, ["sh", "-c", "ls /data /data/below"],
        ("-v", f"{data}:/data", "--tmpfs", "/data/below", "--tmpfs", "/etc/link/below", "--workdir", "/etc/link/work"),
        rootfs=root,
    )  # fmt: skip

    assert (mounts_of_the_host(), listing(outside)) == before
    if kind == "absolute" and mode != "rootless":
        assert done.returncode == 0, done.stderr  # made inside, where such a link leads in the container
        assert "mine" in done.stdout


@pytest.mark.parametrize("kind", ["absolute", "climbing"])
def test_a_mount_through_a_path_leaves_the_root(rootfs: Path, outside: Path, kind: str) -> None:
    (rootfs / "data").symlink_to(targets(outside)[kind])
    script = f"mount -t tmpfs x {rootfs}/data && touch {rootfs}/data/made && ls {outside}"

    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "made\n"


RENAMER = """
import ctypes, sys
libc = ctypes.CDLL(None)
names = [name.encode() for name in sys.argv[1:]]
pairs = list(zip(names[::2], names[1::2]))
print(flush=True)
while True:
    for a, b in pairs:
        libc.renameat2(-100, a, -100, b, 2)
"""


def exchange(directory: Path, *names: str) -> subprocess.Popen[bytes]:
    """Exchange the first and the second name, the third and the fourth, as fast as can be, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", RENAMER, *names], cwd=directory, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def renaming(rootfs: Path, outside: Path) -> Iterator[Callable[..., None]]:
    """Exchange directories of the root with links to the outside, as fast as can be, until the test ends."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*names: str) -> None:
        for name in names:
            (rootfs / name).mkdir(parents=True, exist_ok=True)
            (rootfs / f"{name}.link").symlink_to(targets(outside)["climbing"])
        running.append(exchange(rootfs, *[word for name in names for word in (name, f"{name}.link")]))

    yield start
    for process in running:
        process.kill()
        process.communicate()


#: in any directory of the root that is a procfs now: what must be read-only or masked is not. It is entered first,
#: since the name may stand for another directory a moment later
UNPROTECTED = """
for d in /proc /proc.link /data /data.link /*; do
    (
        cd $d && [ -e self/status ] || exit
        (: >>sys/kernel/core_pattern) && echo "sysctl in $d"
        [ -c timer_list ] || echo "not masked in $d"
        echo proc
    )
done 2>/dev/null
true"""


def test_cve_2021_30465_links_swapped_while_containers_start(
    rootfs: Path, outside: Path, renaming: Callable[..., None]
) -> None:
    """Several hundred starts. Root of the host inside, so that an unprotected /proc would be one to write to."""
    before = mounts_of_the_host(), listing(outside)
    renaming("proc", "data")
    mounts = (volume(f"{outside}:/data/below"), volume(f"{rootfs.parent}:/data.link/v:ro"))
    started = refused = seen = 0

    options: dict[str, Any] = {"mode": "normal", "userns": "host", "rootfs": str(rootfs), "mounts": mounts}
    with Sandbox(workdir="/data/w", ahead=0, **options) as sandbox:
        deadline = time.monotonic() + 30
        while (started < 100 or refused < 100) and time.monotonic() < deadline:
            try:
                result = sandbox.run(["/bin/busybox", "sh", "-c", UNPROTECTED])
            except StockadeError:
                refused += 1
                continue
            started += 1
            lines = result.stdout.decode().split("\n")
            seen += "proc" in lines
            assert [line for line in lines if line not in {"", "proc"}] == []

    assert (mounts_of_the_host(), listing(outside)) == before
    assert min(started, refused) >= 100
    assert seen >= 20


def test_who_looks_first_and_then_uses_the_path_loses_that_race(
    rootfs: Path, outside: Path, renaming: Callable[..., None]
) -> None:
    renaming("data")
    place = rootfs / "data"
    deadline = time.monotonic() + 20

    while "made" not in listing(outside) and time.monotonic() < deadline:
        if not place.is_symlink():
            with contextlib.suppress(FileExistsError):
                (place / "made").mkdir(exist_ok=True)

    assert "made" in listing(outside)


def test_masks_are_not_led_elsewhere_when_proc_is_renamed_meanwhile(rootfs: Path) -> None:
    """Two directories change places: procfs is mounted on the one, and the masks were looked for in the other."""
    (rootfs / "other/sys/kernel").mkdir(parents=True)
    found: set[str] = set()
    swapper = exchange(rootfs, "proc", "other")
    with swapper, Sandbox(mode="normal", userns="host", rootfs=str(rootfs), ahead=0) as sandbox:
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            try:
                result = sandbox.run(["/bin/busybox", "sh", "-c", UNPROTECTED])
            except StockadeError:
                continue
            found |= set(result.stdout.decode().split("\n"))
        swapper.kill()

    assert found <= {"", "proc"}
    assert "proc" in found


def test_a_procfs_that_is_not_covered_is_told_from_one_that_is(stockade: Run, rootfs: Path) -> None:
    """The script of the races finds what it looks for where there is something to find."""
    words = ("run", "--rm", "--userns", "host", "--security-opt", "systempaths=unconfined", "--rootfs", str(rootfs))

    done = stockade(*words, "--", "sh", "-c", UNPROTECTED)

    assert {"sysctl in /proc", "not masked in /proc"} <= set(done.stdout.split("\n"))


@EVERY_MODE
@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("kind", ["fifo", "gigabyte", "directory", "device", "endless"])
def test_a_passwd_that_never_ends_neither_hangs_nor_eats_memory(
    ways: Ways, root_of: Callable[[str], Path], mode: str, name: str, kind: str
) -> None:
    root = root_of(mode)
    path = root / "etc" / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "gigabyte":
            path.touch()
            os.truncate(path, 1 << 30)
        case "directory":
            path.mkdir()
        case "device":
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(5, 0))  # what it would give is what somebody types
        case _:
            path.symlink_to("/proc/self/root/dev/zero")

    started = time.monotonic()
    done = ways.run(
        mode, ["true"], ("--user", "app:extra"), rootfs=root, timeout=10,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20)),
    )  # fmt: skip

    assert time.monotonic() - started < 5
    assert done.returncode in {0, 125}
    if done.returncode:
        assert f"/etc/{name}" in done.stderr or "app" in done.stderr


def test_opening_a_fifo_as_one_opens_files_hangs(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")

    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", str(rootfs / "etc/passwd")], timeout=0.3, check=False)


@EVERY_MODE
@pytest.mark.parametrize("kind", ["absolute", "climbing", "far"])
@pytest.mark.parametrize("what", ["etc", "etc/passwd"])
def test_users_of_the_host_are_not_found_through_a_linked_passwd(
    *, ways: Ways, root_of: Callable[[str], Path], outside: Path, mode: str, kind: str, what: str
) -> None:
    root = root_of(mode)
    if what == "etc":
        for path in (root / "etc").iterdir():
            path.unlink()
        (root / "etc").rmdir()
    else:
        (root / what).unlink()
    (root / what).symlink_to(targets(outside)[kind] + ("" if what == "etc" else "/passwd"))
    if kind != "far":  # as one opens files, it is the host's
        assert "hostonly" in (outside / "passwd").read_text()
        with open(root / "etc/passwd" if kind == "climbing" else outside / "passwd", encoding="utf-8") as file:
            assert "hostonly" in file.read()

    done = ways.run(mode, ["id"], ("--user", "hostonly"), rootfs=root)

    assert done.returncode == 125
    assert "hostonly" in done.stderr


@EVERY_MODE
@pytest.mark.parametrize(
    "destination",
    ["/proc", "/proc/", "/proc/sys", "//proc/x", "/./proc/x", "/a/../proc", "/../x", "/a/../../x", "/", "/dev"],
)
def test_a_volume_under_proc_or_climbing_out_is_refused(
    ways: Ways, root_of: Callable[[str], Path], outside: Path, mode: str, destination: str
) -> None:
    options = ("-v", f"{outside}:{destination}") if mode != "normal" else ("--tmpfs", destination)

    done = ways.run(mode, ["true"], options, rootfs=root_of(mode))

    assert done.returncode == 125
    assert "-v" in done.stderr or "mount on" in done.stderr or "--tmpfs" in done.stderr


@EVERY_MODE
@pytest.mark.parametrize("link", ["/proc", "/proc/sys", "/proc/self/attr", "/proc/1", "proc", "../../proc/sys/kernel"])
def test_cve_2023_27561_a_volume_led_into_proc_by_a_link_of_the_image_is_refused(
    ways: Ways, root_of: Callable[[str], Path], outside: Path, mode: str, link: str
) -> None:
    root = root_of(mode)
    (root / "data").symlink_to(link)

    for destination in ("/data", "/data/fs"):
        done = ways.run(mode, ["true"], ("-v", f"{outside}:{destination}"), rootfs=root)
        assert done.returncode == 125, destination


@EVERY_MODE
def test_a_link_into_proc_covers_it_where_it_is_followed(
    ways: Ways, root_of: Callable[[str], Path], outside: Path, mode: str
) -> None:
    """The proof for the two above: bubblewrap mounts a volume over /proc. Ours shows the true one."""
    root = root_of(mode)
    bwrap = ["bwrap", "--bind", str(root), "/", "--proc", "/proc", "--bind", str(outside), "/proc/", "ls", "/proc"]

    covered = subprocess.run(bwrap, capture_output=True, text=True, check=True)

    assert covered.stdout == "passwd\n"
    assert "self" in ways.run(mode, ["ls", "/proc"], rootfs=root).stdout.split()


@EVERY_MODE
def test_device_nodes_of_the_root_or_a_volume_are_dead(
    ways: Ways, root_of: Callable[[str], Path], public_tmp: Path, mode: str
) -> None:
    root, data = root_of(mode), public_tmp / "data"
    data.mkdir()
    nodes = []
    for place in (root, data):
        os.mknod(place / "null", stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(place / "disk", stat.S_IFBLK, os.lstat(_disk()).st_rdev)
        for node in (place / "null", place / "disk"):
            node.chmod(0o666)
            nodes.append(str(node))
    inside = ["/null", "/disk", "/data/null", "/data/disk", "/dev/null"]
    options = ("-v", f"{data}:/data", "--tmpfs", "/scratch")

    found = ways.probe(mode, "open", *inside, options=options, rootfs=root)

    for path in inside[:-1]:
        assert (found[f"read {path}"], found[f"write {path}"]) == ("EACCES", "EACCES")
    assert found["read /dev/null"] == "ok"
    alive = probes.on_host("open", *nodes)
    assert {alive[f"read {node}"] for node in nodes} == {"ok"}


def _disk() -> str:
    names = sorted(os.listdir("/sys/block"), key=lambda name: name.startswith(("loop", "ram")))
    return f"/dev/{names[0]}"


@EVERY_MODE
def test_setuid_programs_are_dead_unless_that_is_lifted(
    ways: Ways, root_of: Callable[[str], Path], public_tmp: Path, mode: str
) -> None:
    root, data = root_of(mode), public_tmp / "data"
    data.mkdir()
    program = probes.directory() / "probe"
    for place in (root, data):
        copy = place / "setuid"
        copy.write_bytes(program.read_bytes())
        owner = root.stat()
        os.chown(copy, owner.st_uid, owner.st_gid)
        copy.chmod(0o6755)
    lifted = ("--security-opt", "no-new-privileges=false")
    held = ("--security-opt", "no-new-privileges=true")

    def effective(path: str, *options: str) -> str:
        words = ["--user", "1000", "-v", f"{data}:/data", *options]
        done = ways.run(mode, [path, "ids"], words, rootfs=root)
        assert done.returncode == 0, done.stderr
        return probes.answers(done.stdout)["uids"].split()[1]

    assert effective("/setuid", *(held if mode == "privileged" else ())) == "1000"
    assert effective("/setuid", *lifted) == "0"
    assert effective("/data/setuid", *lifted) == "1000"  # a volume is nosuid, whatever the process may gain


@EVERY_MODE
def test_read_only_means_the_whole_tree(
    ways: Ways, root_of: Callable[[str], Path], public_tmp: Path, mode: str
) -> None:
    root, outer = root_of(mode), public_tmp / "outer"
    places = [outer / "below", root / "var/below"]
    for place in places:
        place.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "x", str(place)], check=True)
    script = (
        "for d in /v /v/below /var /var/below / /etc; do touch $d/x && echo wrote $d; done; touch /dev/shm/x && echo z"
    )
    try:
        done = ways.run(mode, ["sh", "-c", script], ("--read-only", "-v", f"{outer}:/v:ro"), rootfs=root)
        weak = subprocess.run(
            ["unshare", "-m", "sh", "-c",
             f"mount --rbind {outer} {outer}; mount -o remount,bind,ro {outer}; touch {outer}/x; touch {places[0]}/x"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        for place in places:
            subprocess.run(["umount", str(place)], check=True)

    assert done.stdout == "z\n"
    assert done.stderr.count("Read-only file system") == 6
    assert weak.returncode == 0  # the classic remount leaves submounts writable
    assert weak.stderr.count("Read-only file system") == 1


@pytest.mark.parametrize("place", ["/", "/data"])
def test_read_only_can_not_be_undone_from_inside(ways: Ways, rootfs: Path, outside: Path, place: str) -> None:
    options = ("--read-only", "-v", f"{outside}:/data:ro", "--security-opt", "seccomp=unconfined")

    found = ways.probe("normal", "mounts", place, options=options, rootfs=rootfs)

    assert found.pop("chroot") == "EPERM"
    assert set(found.values()) == {"EPERM"}
    free = ways.probe("privileged", "mounts", place, options=options[:3], rootfs=rootfs)
    assert free["remount"] == "ok"


def test_what_a_container_makes_in_its_root_stays_with_the_ids_of_the_root(ways: Ways, rootfs: Path) -> None:
    """A root that belongs to the host's root is shifted by an id-mapped mount: 0 inside is 0 on disk."""
    done = ways.run("normal", ["sh", "-c", "touch /made /own; chown 1000 /made"], rootfs=rootfs)

    assert done.returncode == 0, done.stderr
    assert ((rootfs / "made").stat().st_uid, (rootfs / "own").stat().st_uid) == (1000, 0)
