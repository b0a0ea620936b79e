"""What a Spec asks for against what the caller holds and the host has: fitted, warned about, or refused in one line.

* Capabilities. One that the kernel has not is left out with a warning, as runc does. One that the caller has not is
  left out with a warning where the configuration asks for all (`--privileged`, `--cap-add ALL`): for every one that
  the kernel has of Linux 3.16's, 0 to 37; no engine's list of all is shorter, and an older engine's ends there. Else
  it was named, and its lack is refused. In a user namespace of the container's own nothing lacks.
* An ambient capability that is not both permitted and inheritable is left out with a warning: the kernel takes no
  such one (capabilities(7)), and `runc spec` writes such configurations.
* oom_score_adj below the caller's own, in a user namespace, is left out with a warning: nobody there may lower it.
* A profile of AppArmor or a label of SELinux on a host without that module is refused, but for "unconfined".
"""

from __future__ import annotations

import os

from stockade.errors import StockadeError
from stockade.sandbox.linux import capabilities, procfs
from stockade.sandbox.plan_identity import wanted_sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.linux.capabilities import Sets
    from stockade.sandbox.oci.spec import LinuxCapabilities, Process, Spec
    from stockade.sandbox.runtime.caller import Caller

#: CAP_CHOWN to CAP_AUDIT_READ: all that there were from Linux 3.16 to 5.7
ALL_SINCE_3_16 = (1 << 38) - 1
APPARMOR = "/sys/module/apparmor/parameters/enabled"
SELINUX = "/sys/fs/selinux/enforce"


def fit(spec: Spec, who: Caller) -> tuple[Spec, tuple[str, ...]]:
    """Give the Spec as it can be had, and warnings. Raises StockadeError for what was asked for and can't be."""
    warnings: list[str] = []
    if spec.linux.mount_label:
        _need_selinux(f"the mount label {spec.linux.mount_label!r}")
    namespace = spec.linux.namespace("time")
    if spec.linux.time_offsets and namespace is not None and namespace.path:
        raise StockadeError(
            f"time offsets can't be set in the time namespace {namespace.path}: somebody is in it",
            hint="leave $.linux.timeOffsets out, or the path of the time namespace",
        )
    if spec.process is None:
        return spec, ()
    own = spec.linux.namespace("user") is not None
    process = fit_process(spec.process, who, warnings, user_namespace=own)
    return spec if process is spec.process else spec.replace(process=process), tuple(warnings)


def fit_process(process: Process, who: Caller, warnings: list[str], *, user_namespace: bool) -> Process:
    """Do the same for a process alone, such as one that joins; `user_namespace` whether it will be in another one."""
    if process.capabilities is not None:
        held = who.caps.bounding if who.uid == 0 else who.caps.permitted
        wanted = wanted_sets(process)
        sets = _fit_sets(wanted, None if user_namespace else held, warnings)
        if sets != wanted:
            process = process.replace(capabilities=_named(process.capabilities, sets))
    if process.oom_score_adj is not None and who.nested and not _may_set(process.oom_score_adj):
        warnings.append(
            f"oom_score_adj {process.oom_score_adj} is left out: nobody in a user namespace may lower the caller's"
        )
        process = process.replace(oom_score_adj=None)
    if process.apparmor_profile and not has_apparmor():
        if process.apparmor_profile != "unconfined":
            raise StockadeError(
                f"the AppArmor profile {process.apparmor_profile!r} can't be enforced: AppArmor is not enabled here",
                hint="start without one (--security-opt apparmor=unconfined), or boot the host with apparmor=1",
            )
        process = process.replace(apparmor_profile="")
    if process.selinux_label:
        _need_selinux(f"the SELinux label {process.selinux_label!r}")
    return process


def has_apparmor() -> bool:
    """Tell whether AppArmor is there and enabled."""
    try:
        return procfs.read_path(APPARMOR).startswith(b"Y")
    except OSError:
        return False


def _need_selinux(what: str) -> None:
    if not os.path.exists(SELINUX):
        raise StockadeError(
            f"{what} can't be enforced: SELinux is not enabled here",
            hint="start without one (--security-opt label=disable), or enable SELinux on the host",
        )


def _fit_sets(wanted: Sets, held: int | None, warnings: list[str]) -> Sets:
    """Take out what can't be had; `held` is what the caller can give, None for all that there are."""
    asked = wanted.bounding | wanted.permitted | wanted.effective | wanted.inheritable | wanted.ambient
    if held is None or asked & ~held:
        known = capabilities.supported()
        if asked & ~known:
            warnings.append(f"this kernel has no {_words(asked & ~known)}: left out")
        wanted = _reduced(wanted, known)
        if held is not None and (lacking := asked & known & ~held):
            every = ALL_SINCE_3_16 & known
            if asked & every != every:
                raise StockadeError(
                    f"{_words(lacking)} can't be given: the caller does not hold it",
                    hint="leave it out, or call the runtime with it; only where all capabilities are asked for are "
                    "those left out that the caller has not",
                )
            warnings.append(f"all capabilities are asked for, and the caller does not hold {_words(lacking)}: left out")
            wanted = _reduced(wanted, held)
    if wanted.effective & ~wanted.permitted:
        raise _impossible("effective", wanted.effective & ~wanted.permitted, "permitted")
    if wanted.inheritable & ~wanted.bounding:
        raise _impossible("inheritable", wanted.inheritable & ~wanted.bounding, "bounding")
    if lost := wanted.ambient & ~(wanted.permitted & wanted.inheritable):
        warnings.append(f"ambient {_words(lost)} is not both permitted and inheritable: left out of the ambient set")
        wanted = wanted.replace(ambient=wanted.ambient & ~lost)
    return wanted


def _impossible(name: str, mask: int, other: str) -> StockadeError:
    return StockadeError(
        f"{_words(mask)} can't be {name}: it is not in the {other} set",
        hint=f"add it to $.process.capabilities.{other}, see capabilities(7)",
    )


def _words(mask: int) -> str:
    return " ".join(capabilities.names(mask))


def _reduced(sets: Sets, to: int) -> Sets:
    return sets.replace(**{name: getattr(sets, name) & to for name in type(sets)._fields})


def _named(given: LinuxCapabilities, sets: Sets) -> LinuxCapabilities:
    return given.replace(**{name: capabilities.names(getattr(sets, name)) for name in type(given)._fields})


def _may_set(value: int) -> bool:
    """Tell whether oom_score_adj can be lowered to this value, by doing so: the launcher inherits it, we end soon."""
    try:
        if int(procfs.read("self", "oom_score_adj")) <= value:
            return True
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)
    except PermissionError:
        return False
    except OSError:
        pass  # where /proc is not as usual the launcher says what is wrong
    return True
