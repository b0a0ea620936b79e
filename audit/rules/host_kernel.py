"""What several settings of the host's kernel decide together, and which ids its users share."""

from collections.abc import Iterator

from stockade.audit.facts import Host, HostSetting, SubordinateIds
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen, several

_KERNEL = "https://docs.kernel.org/admin-guide/sysctl/kernel.html"


@rule(Severity.LOW, _KERNEL, conditions=("HST-KPTR",), scope="host", attack=("T1068",), cwe=(200,))
def kernel_addresses(settings: tuple[HostSetting, ...]) -> Iterator[Outcome]:
    """The kernel shows its addresses.

    With kptr_restrict 0 they are hashed where files print them, but /proc/kallsyms has them for whoever may measure the
    kernel. With 1 they ask for CAP_SYSLOG, with 2 nobody is shown them.

    Severity: info while perf_event_paranoid keeps users from measuring the kernel.

    Fix: kernel.kptr_restrict = 1, or 2.

    ```toml bad
    [[HostSetting]]
    name = "kernel.kptr_restrict"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.kptr_restrict"
    value = "1"
    ```
    """
    by_name = {setting.name: setting for setting in settings}
    kptr, perf = by_name.get("kernel.kptr_restrict"), by_name.get("kernel.perf_event_paranoid")
    if kptr is not None and kptr.value == "0":
        shown = perf is not None and perf.value in {"-1", "0", "1"}
        title = "users may read the kernel's addresses" if shown else "the kernel's addresses aren't kept from root"
        line = seen(kptr, "kernel.kptr_restrict = 0")
        yield Found(title, kptr.where, (line,), severity=None if shown else Severity.INFO, key="kptr")


@rule(
    Severity.LOW,
    "https://docs.kernel.org/admin-guide/LSM/Yama.html",
    conditions=("HST-PTRACE",),
    scope="host",
    attack=("T1055",),
    cwe=(269,),
)
def trace_own_programs(host: Host) -> Iterator[Outcome]:
    """A process may trace every other one of the same user.

    One program that was taken over then takes over all of that user's: agents, shells, and containers that run with the
    same host uid. Yama allows descendants only from 1 on.

    Fix: kernel.yama.ptrace_scope = 1, on a kernel with Yama.

    ```toml bad
    [Host]
    yama = 0
    ```

    ```toml good
    [Host]
    yama = 1
    ```
    """
    if host.yama == 0:
        title = "processes may trace others of the same user"
        yield Found(title, host.where, ("kernel.yama.ptrace_scope = 0, or the kernel is without Yama",))


@rule(
    Severity.MEDIUM,
    "https://docs.kernel.org/admin-guide/hw-vuln/index.html",
    conditions=("HST-MITIG",),
    scope="host",
    cwe=(1037,),
)
def processor_weakness(settings: tuple[HostSetting, ...]) -> Iterator[Outcome]:
    """The kernel says that the processor is open to a known attack.

    What one container works with can be read by another, or by a guest, through the processor's caches and buffers. The
    kernel knows the weakness and doesn't, or can't, keep it shut.

    Fix: update the microcode and the kernel; take mitigations=off from the kernel's command line.

    ```toml bad
    [[HostSetting]]
    name = "cpu.spec_store_bypass"
    value = "Vulnerable"
    ```

    ```toml good
    [[HostSetting]]
    name = "cpu.meltdown"
    value = "Mitigation: PTI"
    ```
    """
    open_ = [each for each in settings if each.name.startswith("cpu.") and (each.value or "").startswith("Vulnerable")]
    if open_:
        names = ", ".join(each.name.removeprefix("cpu.") for each in open_)
        lines = several(open_, (f"{each.value}" for each in open_))
        yield Found(f"the processor is open to {names}", open_[0].where, lines, key="processor")


@rule(
    Severity.INFO,
    "https://man7.org/linux/man-pages/man7/user_namespaces.7.html",
    conditions=("HST-USERNS",),
    scope="host",
)
def user_namespaces(settings: tuple[HostSetting, ...]) -> Iterator[Outcome]:
    """Whether users may make user namespaces is a trade-off.

    In a namespace of one's own one has every capability against it, and so reaches parts of the kernel that were meant
    for root: many escalations began so. Without it rootless containers and browsers' sandboxes need a setuid helper, or
    don't work. No fault either way; what this host decided is told.

    Fix: where nothing needs them, user.max_user_namespaces = 0; else leave them and keep the kernel up to date.

    ```toml bad
    [[HostSetting]]
    name = "user.max_user_namespaces"
    value = "15000"
    ```

    ```toml good
    [[HostSetting]]
    name = "vm.mmap_min_addr"
    value = "65536"
    ```
    """
    by_name = {setting.name: setting for setting in settings}
    most = by_name.get("user.max_user_namespaces")
    if most is None or most.value is None:
        return
    shut = [by_name[name] for name, value in _SHUT.items() if name in by_name and by_name[name].value == value]
    title = (
        "users may not make user namespaces: rootless engines need help" if shut else "users may make user namespaces"
    )
    told = shut or [most]
    yield Found(title, told[0].where, several(told, (f"{each.name} = {each.value}" for each in told)), key="userns")


_SHUT = {
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
}


@rule(
    Severity.MEDIUM,
    "https://man7.org/linux/man-pages/man5/subuid.5.html",
    conditions=("HST-SUBID",),
    scope="host",
    attack=("T1611",),
    cwe=(284,),
)
def shared_subordinate_ids(rows: tuple[SubordinateIds, ...]) -> Iterator[Outcome]:
    """Two users' subordinate ids overlap, or contain somebody's own.

    newuidmap(1) lets a user map them into a user namespace. Whoever shares them owns the other's container files and
    may signal and trace the other's containers; a range with an account's id makes the user that account.

    Severity: critical where a range contains root.

    Fix: give each user a range of its own above all accounts (usermod --add-subuids).

    ```toml bad
    [[SubordinateIds]]
    user = "ann"
    kind = "uid"
    first = 100000
    count = 65536

    [[SubordinateIds]]
    user = "bob"
    kind = "uid"
    first = 165535
    count = 65536
    ```

    ```toml good
    [[SubordinateIds]]
    user = "ann"
    kind = "uid"
    first = 100000
    count = 65536

    [[SubordinateIds]]
    user = "bob"
    kind = "uid"
    first = 165536
    count = 65536
    ```
    """
    ordered = sorted(rows, key=lambda row: (row.kind, row.first))
    for index, row in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if other.kind != row.kind or other.first >= row.first + row.count:
                break
            if other.user != row.user:
                title = f"subordinate {row.kind}s of {row.user} and {other.user} overlap from {other.first} on"
                lines = several((row, other), (_text(each) for each in (row, other)))
                yield Found(title, other.where, lines, key=f"{row.kind} {row.user} {other.user}")
        mine = [name for name in row.accounts if name != row.user]
        if mine:
            title = f"subordinate {row.kind}s of {row.user} contain {', '.join(mine[:5])}"
            severity = Severity.CRITICAL if row.first == 0 and row.count else None
            yield Found(title, row.where, (seen(row, _text(row)),), severity=severity, key=f"{row.kind} {row.user}")


def _text(row: SubordinateIds) -> str:
    return f"{row.user}:{row.first}:{row.count}"
