"""What the kernel takes to load the default filter, as three compilers write it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from bench import description, processes
from bench.measure import Subject, Table, interleave
from stockade.sandbox import filters, filters_libseccomp, filters_libseccomp_worker
from stockade.sandbox.filters_libseccomp_worker import seccomp  # type: ignore[attr-defined] # the stubs leave it out
from stockade.sandbox.plan_identity import process_of


def loads(scratch: str, rounds: int) -> Table:
    """seccomp(2) alone."""
    prepared = description.prepare()
    process = process_of(prepared.spec)
    names = process.capabilities.bounding if process.capabilities else ()
    config = filters.default_profile(names)
    # On x86 libseccomp makes of socket(2) a socketcall(2) without arguments, and then refuses what contradicts it.
    syscalls = [call for call in config.syscalls if not {"socket", "socketcall"} & set(call.names)]
    config = config.replace(syscalls=tuple(syscalls))
    request = filters_libseccomp._request(config, os.uname().machine)
    programs = {
        "libseccomp, linear": _libseccomp(request, 1),
        "libseccomp, OPTIMIZE=2": _libseccomp(request, 2),
        "Stockade's ranges": filters.compile_filter(config).program,
    }
    loader = processes.compiled("seccomp_load", scratch)
    subjects, running = [], []
    for number, (name, program) in enumerate(programs.items()):
        path = os.path.join(scratch, f"filter-{number}")
        with open(path, "wb") as file:
            file.write(program)
        running.append(processes.Timed(loader, path))
        subjects.append(Subject(name, running[-1].batch, f"{len(program) // 8} instructions"))
    interleave(subjects, rounds=rounds, each=20)
    for each in running:
        each.close()
    return Table("Loading the default filter", subjects, [(2, 0, 0.0), (2, 1, 0.0)])


def _libseccomp(request: dict[str, Any], level: int) -> bytes:
    """Compile as filters_libseccomp_worker.py does, at this level of optimisation."""
    made = filters_libseccomp_worker._filter(request, "NATIVE")
    for name in request["architectures"]:
        made.merge(filters_libseccomp_worker._filter(request, name))
    made.set_attr(seccomp.Attr.CTL_OPTIMIZE, level)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()
