"""`stockade info`: what this host lets this user do, found out by doing it, and causes and remedies of the rest."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from stockade import profiles
from stockade.errors import StockadeError, coloured, printable
from stockade.help import Command
from stockade.sandbox import cgroups
from stockade.sandbox.explain import explain
from stockade.sandbox.host import probe
from stockade.sandbox.linux import capabilities
from stockade.sandbox.linux import cgroups as cgroupfs
from stockade.sandbox.linux.namespaces import KINDS
from stockade.sandbox.oci import spec as oci

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockade.sandbox.cgroups import Cgroup
    from stockade.sandbox.host import Host
    from stockade.sandbox.linux.cgroups import Layout


class Fact(NamedTuple):
    """One answer. `ok` is None for what is neither good nor bad; `remedy` is empty where nothing needs one."""

    group: str
    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def facts() -> Iterator[Fact]:
    """Give the answers in the order in which they are told. Starts a program in each mode and makes empty groups."""
    host = probe()
    yield from _caller(host)
    yield from _modes()
    yield from _identities(host)
    yield from _kernel(host)
    yield from _limits(host)


def _caller(host: Host) -> Iterator[Fact]:
    yield Fact("caller", "user", None, f"{host.user or 'no name'}, uid {host.uid}")
    missing = capabilities.names(host.supported & ~host.caps.effective)
    if host.uid == 0 and missing:
        detail = f"all but {', '.join(missing)}" if len(missing) < 20 else f"{host.caps.effective.bit_count()} held"
    else:
        detail = "all" if not missing else f"{host.caps.effective.bit_count() or 'none'} held"
    yield Fact("caller", "capabilities", None, detail)
    if host.no_new_privs:
        yield Fact("caller", "no_new_privs", None, "set: newuidmap and sudo gain nothing")
    if host.seccomp:
        yield Fact("caller", "seccomp", None, "the caller itself is filtered, and so are its containers")


def _modes() -> Iterator[Fact]:
    from stockade.sandbox.api import Sandbox

    for name in profiles.names("mode"):
        try:
            result = Sandbox(mode=name).run(["true"], timeout=20)
        except StockadeError as error:
            yield Fact("modes", name, False, error.message, error.hint)
            continue
        if result.ended_by == "exit" and result.exit_code == 0:
            yield Fact("modes", name, True, "a program ran")
        else:
            yield Fact("modes", name, False, f"true ended by {result.ended_by}, exit code {result.exit_code}")


def _identities(host: Host) -> Iterator[Fact]:
    for kind, ranges in (("user ids", host.subuid), ("group ids", host.subgid)):
        detail = ", ".join(f"{each.start} to {each.start + each.count - 1}" for each in ranges)
        remedy = "" if ranges else explain("newuidmap", 1, host)
        yield Fact("ids", kind, bool(ranges), detail or "no subordinate ids: only the own id can be mapped", remedy)
    if host.uid != 0:
        detail = host.newuidmap or host.no_helper or "newuidmap is of no use"
        usable = bool(host.newuidmap) and not host.no_helper
        yield Fact("ids", "newuidmap", usable, detail, "" if usable else explain("newuidmap", 2, host))


def _kernel(host: Host) -> Iterator[Fact]:
    yield Fact("kernel", "version", None, f"{host.kernel[0]}.{host.kernel[1]} on {host.arch}")
    present = [kind for kind in KINDS if os.path.exists(f"/proc/self/ns/{kind}")]
    absent = [kind for kind in KINDS if kind not in present]
    remedy = f"use a kernel that has {', '.join(absent)}" if absent else ""
    yield Fact("kernel", "namespaces", not absent, ", ".join(present), remedy)
    if host.no_userns:
        yield Fact("kernel", "user namespaces", False, host.no_userns, explain("user namespace", 1, host))
    elif host.apparmor_restricts_userns:
        yield Fact(
            "kernel", "user namespaces", host.privileged, "AppArmor restricts them", explain("propagation", 1, host)
        )
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    yield Fact("kernel", "seccomp", "errno" in actions, actions or "no filters", "" if actions else _NO_SECCOMP)


_NO_SECCOMP = "use a kernel with CONFIG_SECCOMP_FILTER, or --security-opt seccomp=unconfined"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


#: option → the smallest request for it; generous, since each has to fit into the limits that hold already
LIMITS = {
    "memory": oci.LinuxResources(memory=oci.LinuxMemory(limit=64 << 20)),
    "memory-swap": oci.LinuxResources(memory=oci.LinuxMemory(limit=64 << 20, swap=96 << 20)),
    "cpus": oci.LinuxResources(cpu=oci.LinuxCPU(quota=50000, period=100000)),
    "cpu-shares": oci.LinuxResources(cpu=oci.LinuxCPU(shares=512)),
    "pids-limit": oci.LinuxResources(pids=oci.LinuxPids(64)),
}


def _limits(host: Host) -> Iterator[Fact]:
    layout = cgroupfs.layout()
    yield Fact("limits", "control groups", bool(layout.hierarchies) or None, _layout(layout))
    processor = min(os.sched_getaffinity(0))
    asked = LIMITS | {"cpuset-cpus": oci.LinuxResources(cpu=oci.LinuxCPU(cpus=str(processor)))}
    for number, (name, resources) in enumerate(asked.items()):
        try:
            group = cgroups.create(f"stockade/info-{os.getpid()}-{number}", resources, layout=layout)
        except StockadeError as error:
            reason = error.message.removeprefix(f"{name} can't be enforced: ")
            yield Fact("limits", name, False, reason, error.hint)
            continue
        except OSError as error:
            yield Fact("limits", name, False, error.strerror or str(error), explain("cgroup", error.errno or 0, host))
            continue
        detail = _enforced(group, name)
        group.remove()
        yield Fact("limits", name, True, detail)


def _enforced(group: Cgroup, name: str) -> str:
    directory, _, file = group.enforced[name].rpartition("/")
    version = next((each.hierarchy.version for each in group.groups if each.path == directory), "")
    return f"cgroup v{version}, {file}"


def _layout(layout: Layout) -> str:
    if not layout.hierarchies:
        return "none is mounted"
    v1 = sorted(layout.v1)
    v2 = sorted(layout.v2_controllers)
    parts = [f"v1 with {', '.join(v1)}"] if v1 else []
    parts += [f"v2 with {', '.join(v2) or 'no controller'}"] if layout.v2 else []
    return "; ".join(parts)


HEADINGS = {"caller": "Caller", "modes": "Modes", "ids": "Ids for containers", "kernel": "Kernel", "limits": "Limits"}


def text(found: list[Fact], *, colour: bool) -> str:
    """Give the answers for a reader."""
    green, red, plain = ("\033[32m", "\033[31m", "\033[0m") if colour else ("", "", "")
    marks = {True: f"{green}yes{plain}  ", False: f"{red}no{plain}   ", None: "     "}
    width = max(len(fact.name) for fact in found)
    lines: list[str] = []
    group = ""
    for fact in found:
        if fact.group != group:
            lines += [""] * bool(group) + [HEADINGS[fact.group]]
            group = fact.group
        lines.append(f"  {fact.name:{width}}  {marks[fact.ok]}{printable(fact.detail)}")
        if fact.remedy:
            lines.append(f"  {'':{width}}       remedy: {printable(fact.remedy)}")
    return "\n".join(lines) + "\n"


EXAMPLES = (
    ("stockade info", "for a reader"),
    ("stockade info --format json | jq '.facts[] | select(.ok == false)'", "what is missing"),
)


@click.command(cls=Command, examples=EXAMPLES)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def info(form: str) -> None:
    """Tell what this host lets you do, and what to do about the rest.

    Starts the program true in each mode and makes an empty control group for each limit, so the answers are what
    happens. Both are removed again.
    """
    found = list(facts())
    if form == "json":
        click.echo(json.dumps({"facts": [fact._asdict() for fact in found]}, indent=2))
    else:
        click.echo(text(found, colour=coloured(sys.stdout)), nl=False)
