"""The OCI runtime command: create, start and delete of a container as an engine calls them, against crun and runc."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from bench import command, processes
from bench.measure import Subject, Table, interleave

if TYPE_CHECKING:
    from collections.abc import Iterable

RUNTIME = os.path.join(os.path.dirname(sys.executable), "stockade-runtime")
#: Docker's profile as Debian's containers-common has it; without it our own stands for it
PROFILE = "/usr/share/containers/seccomp.json"
IDENTITY = "stockade-bench"


def lives(scratch: str, rounds: int) -> Table:
    """Three whole processes for a container of /bin/true. Takes a mount namespace for this process: it comes last."""
    bundle = _bundle(scratch)
    command.leave_hybrid()
    ours = [RUNTIME, "--root", os.path.join(scratch, "state")]
    runtimes = {"stockade-runtime": ours, "crun": ["crun"], "runc": ["runc"]}
    subjects = []
    for name, argv in runtimes.items():
        if shutil.which(argv[0]):
            subjects.append(_subject(f"{name}, create + start + delete", argv, bundle, ("create", "start", "delete")))
    found = {subject.name.partition(",")[0]: number for number, subject in enumerate(subjects)}
    interleave(subjects, rounds=rounds, each=2)
    goals = [(0, found[name], limit) for name, limit in (("crun", 1.0), ("runc", 0.0)) if name in found]
    return Table("OCI runtime: a bundle with Docker's seccomp profile, as whole processes", subjects, goals)


def _subject(name: str, argv: list[str], bundle: str, steps: Iterable[str]) -> Subject:
    words = {"create": ["create", "--bundle", bundle, IDENTITY], "start": ["start", IDENTITY]}
    words["delete"] = ["delete", "--force", IDENTITY]
    calls = [[*argv, *words[step]] for step in steps]
    return Subject(name, lambda count: [sum(map(processes.command, calls)) for _ in range(count)])


def _bundle(scratch: str) -> str:
    """Give the bundle that `stockade run` is measured with, with Docker's filter instead of ours."""
    bundle = command.make_bundle(scratch)
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    spec["annotations"] = {}
    if os.path.exists(PROFILE):
        spec["linux"]["seccomp"] = _resolved(set(spec["process"]["capabilities"]["bounding"]))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(spec, file)
    return bundle


def _resolved(capabilities: set[str]) -> dict[str, Any]:
    """Resolve a profile's conditions as engines do, for x86-64 with its two other entries."""
    with open(PROFILE, encoding="utf-8") as file:
        profile = json.load(file)
    kept = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        wanted = set(includes.get("caps", ())) <= capabilities and "amd64" in includes.get("arches", ["amd64"])
        if wanted and not set(excludes.get("caps", ())) & capabilities and "amd64" not in excludes.get("arches", ()):
            kept.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return {"defaultAction": profile["defaultAction"], "architectures": architectures, "syscalls": kept}
