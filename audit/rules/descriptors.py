"""Descriptors, working directories and programs that lie outside the container."""

from collections.abc import Iterator

from stockade.audit.facts import Executable, OpenDescriptor, WorkingDirectory
from stockade.audit.report import Severity
from stockade.audit.rule import CannotTell, Found, Outcome, rule, seen

_LEAKY = "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv"
_HARMLESS = frozenset(
    {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console"}
)


def _line(descriptor: OpenDescriptor) -> str:
    owner = f" of pid {descriptor.pid}" if descriptor.pid else ""
    return seen(descriptor, f"descriptor {descriptor.fd}{owner} is {descriptor.target}")


@rule(
    Severity.CRITICAL,
    _LEAKY,
    "https://nvd.nist.gov/vuln/detail/CVE-2024-21626",
    conditions=("FD-HOSTDIR",),
    attack=("T1611",),
    cwe=(403,),
    cve=("CVE-2024-21626",),
)
def outside_descriptor(descriptor: OpenDescriptor) -> Iterator[Outcome]:
    """A file outside the container is open inside it.

    A directory of the host that is open leads to all of the host by openat(descriptor, "../.."); no mount, mask or root
    directory stands in between (CVE-2024-21626).

    Severity: high for a file that is open for writing; none for files that are read and for standard streams.

    Fix: update the runtime; start it with no descriptors open but the standard ones.

    ```toml bad
    [[OpenDescriptor]]
    fd = 7
    target = "/etc"
    kind = "directory"
    outside = true
    ```

    ```toml good
    [[OpenDescriptor]]
    fd = 1
    target = "/var/log/app.log"
    kind = "file"
    writable = true
    outside = true
    ```
    """
    if descriptor.outside is None and descriptor.kind in {"directory", "file"}:
        yield CannotTell(
            f"whether descriptor {descriptor.fd} lies outside the container is not known", descriptor.where
        )
    if not descriptor.outside:
        return
    if descriptor.kind == "directory":
        title = f"the host's directory {descriptor.target} is open inside the container"
        yield Found(title, descriptor.where, (_line(descriptor),), key=descriptor.target)
    elif descriptor.kind == "file" and descriptor.writable and descriptor.fd > 2:
        title = f"the host's file {descriptor.target} is open for writing inside the container"
        yield Found(title, descriptor.where, (_line(descriptor),), Severity.HIGH, key=descriptor.target)


@rule(Severity.HIGH, _LEAKY, conditions=("FD-DEV", "FD-NETLINK", "FD-NSFD"), attack=("T1611",), cwe=(403,))
def leaked_handle(descriptor: OpenDescriptor) -> Iterator[Outcome]:
    """A device, namespace or socket of the host is open inside the container.

    Whoever holds it can use it: setns(2) into the host's namespace, configure the host's network, talk to the
    device. The container's own mounts and policy were passed when it was opened.

    Severity: low for a terminal of the host, through which keystrokes can be forged (TIOCSTI).

    Fix: start the runtime with no descriptors open but the standard ones; give the container a terminal of its own
    (-t).

    ```toml bad
    [[OpenDescriptor]]
    fd = 9
    target = "net:[4026531840]"
    kind = "namespace"
    outside = true
    ```

    ```toml good
    [[OpenDescriptor]]
    fd = 0
    target = "/dev/null"
    kind = "device"
    outside = true
    ```
    """
    condition = {"device": "FD-DEV", "netlink": "FD-NETLINK", "namespace": "FD-NSFD"}.get(descriptor.kind)
    if condition is None or descriptor.target in _HARMLESS:
        return
    if descriptor.outside is None:
        yield CannotTell(f"whether descriptor {descriptor.fd} belongs to the host is not known", descriptor.where)
    if not descriptor.outside:
        return
    terminal = descriptor.target.startswith(("/dev/pts/", "/dev/tty"))
    title = f"the host's {descriptor.target} is open inside the container"
    severity = Severity.LOW if terminal else None
    key = "terminal" if terminal else f"{descriptor.kind} {descriptor.target.split('[')[0]}"
    yield Found(title, descriptor.where, (_line(descriptor),), severity, (condition,), key=key)


@rule(
    Severity.CRITICAL,
    _LEAKY,
    "https://nvd.nist.gov/vuln/detail/CVE-2024-21626",
    conditions=("FD-CWD",),
    attack=("T1611",),
    cwe=(403,),
    cve=("CVE-2024-21626",),
)
def outside_directory(directory: WorkingDirectory) -> Iterator[Outcome]:
    """The working directory lies outside the container.

    A relative path such as ../../etc/shadow then names a file of the host (CVE-2024-21626).

    Fix: update the runtime; refuse images whose WORKDIR lies under /proc.

    ```toml bad
    [WorkingDirectory]
    path = "(unreachable)/root"
    outside = true
    ```

    ```toml good
    [WorkingDirectory]
    path = "/srv"
    outside = false
    ```
    """
    if directory.outside:
        title = "the working directory lies outside the container"
        yield Found(title, directory.where, (seen(directory, f"working directory {directory.path}"),))


@rule(
    Severity.MEDIUM,
    "https://nvd.nist.gov/vuln/detail/CVE-2019-5736",
    conditions=("FD-EXE",),
    attack=("T1611",),
    cwe=(403,),
    cve=("CVE-2019-5736",),
)
def outside_program(program: Executable) -> Iterator[Outcome]:
    """A program of the host runs inside the container.

    Through /proc/PID/exe the container holds the host's file. A runtime that was started by root could be
    overwritten in this way (CVE-2019-5736).

    Severity: none for a sealed memory file, which is how runtimes protect themselves.

    Fix: update the runtime; use an init that is in the image or in sealed memory.

    ```toml bad
    [[Executable]]
    path = "/usr/sbin/runc"
    outside = true
    ```

    ```toml good
    [[Executable]]
    path = "/memfd:init (deleted)"
    outside = true
    deleted = true
    ```
    """
    if program.outside is None:
        yield CannotTell(f"whether {program.path} lies outside the container is not known", program.where)
    elif program.outside and not program.path.startswith("/memfd:"):
        owner = f"pid {program.pid} runs " if program.pid else ""
        title = f"the host's program {program.path} runs inside the container"
        yield Found(title, program.where, (seen(program, f"{owner}{program.path}"),), key=program.path)
