"""Settings of the host's kernel that decide how much a container or a user of the host finds to attack.

Each is read from where the kernel shows it. A file that isn't there is a knob that this kernel lacks: None.
"""

import os
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.targets.host import HostView
from stockade.sandbox.linux import procfs

_SYSCTLS = (
    "kernel/kptr_restrict", "kernel/dmesg_restrict", "kernel/unprivileged_bpf_disabled", "kernel/perf_event_paranoid",
    "kernel/kexec_load_disabled", "kernel/io_uring_disabled", "kernel/randomize_va_space",
    "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns", "user/max_user_namespaces",
    "vm/unprivileged_userfaultfd", "vm/mmap_min_addr", "fs/protected_symlinks", "fs/protected_hardlinks",
    "fs/protected_fifos", "fs/protected_regular",
)  # fmt: skip
_OTHERS = {
    "module.sig_enforce": "/sys/module/module/parameters/sig_enforce",
    "kernel.lockdown": "/sys/kernel/security/lockdown",
}
_CPU = "/sys/devices/system/cpu/vulnerabilities"
_LARGEST = 1 << 22


def settings(host: HostView) -> Iterator[Fact | Gap]:
    """Give every setting that the rules ask for; what may not be read is a gap."""
    files = {name.replace("/", "."): f"/proc/sys/{name}" for name in _SYSCTLS} | _OTHERS
    try:
        files |= {f"cpu.{name}": f"{_CPU}/{name}" for name in sorted(os.listdir(_CPU))}
    except OSError:
        pass  # a kernel before 4.15, or one for another architecture
    for name, path in files.items():
        value: str | None = None
        try:
            value = procfs.read_path(path).decode("ascii", "replace").strip()
        except FileNotFoundError:
            pass
        except OSError as error:
            yield Gap(facts.HostSetting, f"{path}: {error.strerror}", Where(path))
            continue
        if name == "kernel.lockdown":
            value = host.fact.lockdown  # also where securityfs isn't mounted
        yield facts.HostSetting(where=Where(path), name=name, value=value)


def subordinate(host: HostView, etc: str = "/etc") -> Iterator[Fact | Gap]:
    """Give the rows of /etc/subuid and /etc/subgid. Rows that are none are passed over, as newuidmap(1) does."""
    for path, kind, names in ((f"{etc}/subuid", "uid", host.users), (f"{etc}/subgid", "gid", host.group_names)):
        try:
            text = procfs.read_path(path, limit=_LARGEST).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Gap(facts.SubordinateIds, f"{path}: {error.strerror}", Where(path))
            continue
        for line, row in enumerate(text.split("\n"), 1):
            user, *numbers = row.split(":")
            if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
                continue
            first, count = map(int, numbers)
            inside = tuple([name for number, name in names.items() if first <= number < first + count])
            yield facts.SubordinateIds(
                where=Where(path, line),
                user=host.users.get(int(user), user) if user.isdigit() else user,
                kind="uid" if kind == "uid" else "gid",
                first=first,
                count=count,
                accounts=inside,
            )
