"""The command path: `stockade run` as a whole process against other runtimes, all with the same filter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from bench import processes
from bench.measure import Subject, Table, interleave
from stockade.sandbox.linux import calls

STOCKADE = os.path.join(os.path.dirname(sys.executable), "stockade")
CGROUPS = "/sys/fs/cgroup"


def commands(scratch: str, rounds: int) -> Table:
    """Start to end of a whole command. Takes a mount namespace for this process, so it has to come last."""
    bundle = make_bundle(scratch)
    rootfs = os.path.join(bundle, "rootfs")
    leave_hybrid()
    ours = [STOCKADE, "run", "--rm", "--rootfs", rootfs, "--", "/bin/true"]
    candidates = [
        ("stockade run", ours),
        ("runc run", ["runc", "run", "--bundle", bundle, "stockade-bench"]),
        ("crun run", ["crun", "run", "--bundle", bundle, "stockade-bench"]),
        ("crun run, no filter", ["crun", "run", "--bundle", _without_filter(bundle), "stockade-bench"]),
        ("python3 -c pass", [sys.executable, "-c", "pass"]),
    ]
    subjects = [_subject(name, argv) for name, argv in candidates if shutil.which(argv[0])]
    interleave(subjects, rounds=rounds, each=3)
    places = {subject.name: number for number, subject in enumerate(subjects)}
    goals = [(0, places["runc run"], 1.0)] if "runc run" in places else []
    goals += [(0, number, 0.0) for name, number in places.items() if name not in {"stockade run", "runc run"}]
    return Table("Command: a whole process, a root file system with /bin/true", subjects, goals)


def _subject(name: str, argv: list[str]) -> Subject:
    subject = Subject(name, lambda count: [processes.command(argv, cpu=subject.cpu) for _ in range(count)])
    return subject


def make_bundle(scratch: str) -> str:
    """Make a bundle: /bin/true with its libraries, and what `stockade run --spec` says of it."""
    bundle = os.path.join(scratch, "bundle")
    rootfs = os.path.join(bundle, "rootfs")
    for directory in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        os.makedirs(os.path.join(rootfs, directory))
    shutil.copy2("/bin/true", os.path.join(rootfs, "bin"))
    listed = subprocess.run(["ldd", "/bin/true"], capture_output=True, text=True, check=True).stdout
    for library in [word for word in listed.split() if word.startswith("/")]:
        os.makedirs(rootfs + os.path.dirname(library), exist_ok=True)
        shutil.copy2(library, rootfs + library)
    asked = [STOCKADE, "run", "--spec", "--rootfs", rootfs, "--", "/bin/true"]
    spec = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    spec["ociVersion"] = "1.0.2"  # crun 1.8 knows no later one
    filtered = spec["linux"]["seccomp"]
    # libseccomp turns socket(2) on x86 into socketcall(2) rules without arguments, which then contradict each other.
    filtered["syscalls"] = [
        rule
        for rule in filtered["syscalls"]
        if rule["names"] != ["socketcall"] and not (rule["names"] == ["socket"] and "errnoRet" in rule)
    ]
    _write(bundle, spec)
    return bundle


def _without_filter(bundle: str) -> str:
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
        spec = json.load(file)
    del spec["linux"]["seccomp"]
    spec["root"]["path"] = os.path.join(bundle, "rootfs")
    other = bundle + "-unfiltered"
    os.mkdir(other)
    _write(other, spec)
    return other


def _write(bundle: str, spec: dict[str, object]) -> None:
    with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump(spec, file)


def leave_hybrid() -> None:
    """Hide the unified hierarchy of a hybrid machine in a mount namespace of our own: crun refuses to run beside it."""
    if not os.path.isdir(f"{CGROUPS}/unified"):
        return
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)
    trees = {
        name: calls.open_tree(calls.AT_FDCWD, f"{CGROUPS}/{name}", calls.OPEN_TREE_CLONE)
        for name in os.listdir(CGROUPS)
        if name != "unified" and os.path.isdir(f"{CGROUPS}/{name}") and not os.path.islink(f"{CGROUPS}/{name}")
    }
    tmpfs = calls.new_mount("tmpfs", {"mode": "755"}, 0)
    calls.move_mount(tmpfs, "", calls.AT_FDCWD, CGROUPS, calls.MOVE_MOUNT_F_EMPTY_PATH)
    for name, tree in trees.items():
        os.mkdir(f"{CGROUPS}/{name}")
        calls.move_mount(tree, "", calls.AT_FDCWD, f"{CGROUPS}/{name}", calls.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)
    os.close(tmpfs)
