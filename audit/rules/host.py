"""Settings of the host's kernel: what they leave open to every user of the host, root or not, contained or not."""

from collections.abc import Iterator

from stockade.audit.facts import HostSetting
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen

_KERNEL = "https://docs.kernel.org/admin-guide/sysctl/kernel.html"
_FS = "https://docs.kernel.org/admin-guide/sysctl/fs.html"
_VM = "https://docs.kernel.org/admin-guide/sysctl/vm.html"


def _is(setting: HostSetting, name: str, *values: str) -> bool:
    """Say whether it is the setting of this name and has one of these values."""
    return setting.name == name and setting.value in values


def _found(setting: HostSetting, title: str, severity: Severity | None = None) -> Found:
    line = seen(setting, f"{setting.name} = {setting.value}")
    return Found(title, setting.where, (line,), severity=severity, key=setting.name)


@rule(Severity.LOW, _KERNEL, conditions=("HST-DMESG",), scope="host", cwe=(200,))
def kernel_log_for_everyone(setting: HostSetting) -> Iterator[Outcome]:
    """Everyone may read the kernel's log.

    Oopses and drivers leave addresses and names of devices there, which exploits of the kernel look for. With 1 the
    log asks for CAP_SYSLOG.

    Fix: kernel.dmesg_restrict = 1.

    ```toml bad
    [[HostSetting]]
    name = "kernel.dmesg_restrict"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.dmesg_restrict"
    value = "1"
    ```
    """
    if _is(setting, "kernel.dmesg_restrict", "0"):
        yield _found(setting, "users without privilege may read the kernel's log")


@rule(Severity.MEDIUM, _KERNEL, conditions=("HST-BPF",), scope="host", attack=("T1068",), cwe=(269,))
def bpf_for_everyone(setting: HostSetting) -> Iterator[Outcome]:
    """Users without privilege may load BPF programs.

    The verifier that has to tell harmful programs from harmless ones is large, and its mistakes were root. Engines'
    seccomp profiles refuse bpf(2) to containers; those without one, and every user of the host, may call it.

    Fix: kernel.unprivileged_bpf_disabled = 1, or 2, which can be taken back.

    ```toml bad
    [[HostSetting]]
    name = "kernel.unprivileged_bpf_disabled"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.unprivileged_bpf_disabled"
    value = "2"
    ```
    """
    if _is(setting, "kernel.unprivileged_bpf_disabled", "0"):
        yield _found(setting, "users without privilege may load BPF programs")


@rule(
    Severity.LOW,
    _KERNEL,
    "https://docs.kernel.org/admin-guide/perf-security.html",
    conditions=("HST-PERF",),
    scope="host",
    attack=("T1068",),
    cwe=(200,),
)
def perf_for_everyone(setting: HostSetting) -> Iterator[Outcome]:
    """Users without privilege may measure the kernel.

    perf_event_open(2) with the kernel's samples shows what it does and where, and was a way to root more than once.
    From 2 on users measure their own programs only.

    Severity: medium with -1, where nothing is kept from users.

    Fix: kernel.perf_event_paranoid = 2 or more.

    ```toml bad
    [[HostSetting]]
    name = "kernel.perf_event_paranoid"
    value = "1"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.perf_event_paranoid"
    value = "2"
    ```
    """
    if _is(setting, "kernel.perf_event_paranoid", "-1", "0", "1"):
        title = "users without privilege may measure what the kernel does"
        yield _found(setting, title, Severity.MEDIUM if setting.value == "-1" else None)


@rule(Severity.INFO, _KERNEL, conditions=("HST-KEXEC",), scope="host", cwe=(269,))
def another_kernel(setting: HostSetting) -> Iterator[Outcome]:
    """Root may start another kernel.

    kexec_load(2) replaces the running kernel and all that it forbids. It asks for CAP_SYS_BOOT, which engines
    give only when told to; a privileged container has it.

    Fix: kernel.kexec_load_disabled = 1 where kdump isn't used; it stays so until the next boot.

    ```toml bad
    [[HostSetting]]
    name = "kernel.kexec_load_disabled"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.kexec_load_disabled"
    value = "1"
    ```
    """
    if _is(setting, "kernel.kexec_load_disabled", "0"):
        yield _found(setting, "root may replace the running kernel")


@rule(
    Severity.INFO,
    "https://docs.kernel.org/admin-guide/module-signing.html",
    conditions=("HST-MODULES",),
    scope="host",
    attack=("T1547.006",),
    cwe=(347,),
)
def unsigned_modules(setting: HostSetting) -> Iterator[Outcome]:
    """Modules load without a signature.

    Whoever has CAP_SYS_MODULE against the host loads any code into the kernel. With signatures enforced it has to be
    the distributor's.

    Fix: module.sig_enforce=1 on the kernel's command line, or kernel.modules_disabled = 1 once all that is needed is
    loaded.

    ```toml bad
    [[HostSetting]]
    name = "module.sig_enforce"
    value = "N"
    ```

    ```toml good
    [[HostSetting]]
    name = "module.sig_enforce"
    value = "Y"
    ```
    """
    if _is(setting, "module.sig_enforce", "N"):
        yield _found(setting, "the kernel loads modules that nobody signed")


@rule(Severity.INFO, _KERNEL, conditions=("HST-IOURING",), scope="host", attack=("T1068",), cwe=(1188,))
def io_uring_for_everyone(setting: HostSetting) -> Iterator[Outcome]:
    """Every process may use io_uring.

    Its operations pass by seccomp filters, as only io_uring_enter(2) is seen, and many of the kernel's escalations of
    the last years began there. Docker's profile refuses it to containers.

    Fix: kernel.io_uring_disabled = 1, which leaves it to a group, or 2, where nothing uses it.

    ```toml bad
    [[HostSetting]]
    name = "kernel.io_uring_disabled"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.io_uring_disabled"
    value = "2"
    ```
    """
    if _is(setting, "kernel.io_uring_disabled", "0"):
        yield _found(setting, "io_uring is open to every process that no filter keeps from it")


@rule(Severity.LOW, _VM, conditions=("HST-UFFD",), scope="host", attack=("T1068",), cwe=(362,))
def userfaultfd_for_everyone(setting: HostSetting) -> Iterator[Outcome]:
    """Users without privilege may stop the kernel at a page fault.

    A thread that waits inside the kernel for as long as a user wants turns narrow races into sure ones. 0 is the
    kernel's default and leaves faults of user space alone to users.

    Fix: vm.unprivileged_userfaultfd = 0.

    ```toml bad
    [[HostSetting]]
    name = "vm.unprivileged_userfaultfd"
    value = "1"
    ```

    ```toml good
    [[HostSetting]]
    name = "vm.unprivileged_userfaultfd"
    value = "0"
    ```
    """
    if _is(setting, "vm.unprivileged_userfaultfd", "1"):
        yield _found(setting, "users without privilege may handle the kernel's page faults")


@rule(Severity.MEDIUM, _VM, conditions=("HST-MMAP",), scope="host", cwe=(476,))
def page_zero(setting: HostSetting) -> Iterator[Outcome]:
    """Users may map the first page.

    A null pointer that the kernel follows by mistake then leads to memory that the user filled. Below 4096 page 0
    itself can be mapped; 65536 is usual.

    Fix: vm.mmap_min_addr = 65536.

    ```toml bad
    [[HostSetting]]
    name = "vm.mmap_min_addr"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "vm.mmap_min_addr"
    value = "65536"
    ```
    """
    if setting.name == "vm.mmap_min_addr" and setting.value is not None and 0 <= int(setting.value) < 4096:
        yield _found(setting, "page 0 can be mapped")


@rule(Severity.MEDIUM, _KERNEL, conditions=("HST-ASLR",), scope="host", cwe=(330,))
def fixed_addresses(setting: HostSetting) -> Iterator[Outcome]:
    """Addresses are the same in every process.

    Exploits of memory errors have to know where things are. Without randomisation they do, in each container too.

    Severity: low with 1, which leaves the heap alone at its place.

    Fix: kernel.randomize_va_space = 2.

    ```toml bad
    [[HostSetting]]
    name = "kernel.randomize_va_space"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.randomize_va_space"
    value = "2"
    ```
    """
    if _is(setting, "kernel.randomize_va_space", "0", "1"):
        yield _found(setting, "addresses aren't randomised", Severity.LOW if setting.value == "1" else None)


@rule(
    Severity.INFO,
    "https://man7.org/linux/man-pages/man7/kernel_lockdown.7.html",
    conditions=("HST-LOCKDOWN",),
    scope="host",
    cwe=(693,),
)
def no_lockdown(setting: HostSetting) -> Iterator[Outcome]:
    """The kernel isn't locked down.

    Root may change the running kernel: by modules, /dev/mem, kexec, BPF. With lockdown the host's root, and so whoever
    escapes to it, is not the kernel.

    Fix: lockdown=integrity on the kernel's command line, where Secure Boot doesn't switch it on.

    ```toml bad
    [[HostSetting]]
    name = "kernel.lockdown"
    value = "none"
    ```

    ```toml good
    [[HostSetting]]
    name = "kernel.lockdown"
    value = "integrity"
    ```
    """
    if _is(setting, "kernel.lockdown", "none"):
        yield _found(setting, "root may change the running kernel")


_LINKS = {
    "fs.protected_symlinks": "links of others in /tmp are followed",
    "fs.protected_hardlinks": "files of others can be linked",
    "fs.protected_fifos": "FIFOs of others in /tmp are opened for files",
    "fs.protected_regular": "files of others in /tmp are opened for new ones",
}


@rule(Severity.LOW, _FS, conditions=("HST-LINKS",), scope="host", cwe=(59,))
def links_of_others(setting: HostSetting) -> Iterator[Outcome]:
    """Links and files that other users left in shared directories are followed.

    A program of root's that opens a name in /tmp then opens what a user has put there. It concerns host directories
    that containers share, too.

    Severity: info for FIFOs and plain files, which are a way in for few programs.

    Fix: fs.protected_symlinks = 1, fs.protected_hardlinks = 1, fs.protected_fifos = 2, fs.protected_regular = 2.

    ```toml bad
    [[HostSetting]]
    name = "fs.protected_symlinks"
    value = "0"
    ```

    ```toml good
    [[HostSetting]]
    name = "fs.protected_symlinks"
    value = "1"
    ```
    """
    if setting.name in _LINKS and setting.value == "0":
        minor = setting.name in {"fs.protected_fifos", "fs.protected_regular"}
        yield _found(setting, _LINKS[setting.name], Severity.INFO if minor else None)
