"""What a Dockerfile copies, mounts and sets, and how well it is kept."""

import posixpath
import re
from collections.abc import Iterator

from stockade.audit.facts import BuildStep
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen
from stockade.audit.rules import shell

_ADD = "https://docs.docker.com/build/building/best-practices/#add-or-copy"
_ADDRESS = re.compile(r"(?:https?|ftp|git|ssh)://|git@[\w.-]+:", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tar\.\w+)$", re.IGNORECASE)
_SOCKETS = re.compile(r"(?:docker|podman|containerd|crio|buildkitd)\.sock\b")


def _sources(step: BuildStep) -> tuple[str, ...]:
    """Give what ADD or COPY copies; the last word is where to, and heredocs are in the file itself."""
    return tuple([word for word in step.arguments[:-1] if not word.startswith("<<")])


@rule(Severity.LOW, _ADD, conditions=("IMG-ADDURL", "IMG-ADD"), attack=("T1195.002",), cwe=(494,))
def download_by_add(step: BuildStep) -> Iterator[Outcome]:
    """ADD downloads something that nobody compares.

    Whoever controls the server decides what is built in, and the next build may hold something else.

    Fix: ADD --checksum=sha256:..., or download and compare in one RUN.

    ```toml bad
    [[BuildStep]]
    instruction = "ADD"
    arguments = ["https://example.org/app.bin", "/usr/local/bin/app"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "ADD"
    arguments = ["https://example.org/app.bin", "/usr/local/bin/app"]
    flags = ["checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d"]
    ```
    """
    if step.instruction != "ADD" or any(flag.startswith("checksum=") for flag in step.flags):
        return
    for source in _sources(step):
        if _ADDRESS.match(source):
            yield Found(f"ADD downloads {source[:120]}", step.where, (seen(step, f"ADD {source}"),), key=source)


@rule(Severity.LOW, _ADD, conditions=("IMG-ADD",), cis=("4.9",), cwe=(710,))
def add_instead_of_copy(step: BuildStep) -> Iterator[Outcome]:
    """ADD is used where COPY would do.

    ADD also unpacks archives and downloads addresses: a source that changes its kind changes what is built in.

    Fix: use COPY.

    ```toml bad
    [[BuildStep]]
    instruction = "ADD"
    arguments = ["app.jar", "/srv/app.jar"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "COPY"
    arguments = ["app.jar", "/srv/app.jar"]
    ```
    """
    if step.instruction == "ADD":
        plain = [each for each in _sources(step) if not _ADDRESS.match(each) and not _ARCHIVE.search(each)]
        if plain:
            yield Found(f"ADD copies {plain[0][:120]}", step.where, (seen(step, f"ADD {plain[0]}"),), key=plain[0])


_SECRET_FILE = re.compile(
    r"(?:^|/)(?:id_(?:rsa|dsa|ecdsa|ed25519)|\.ssh|\.aws|\.azure|\.kube|\.gnupg|\.netrc|_netrc|\.npmrc|\.yarnrc|\.pypirc"
    r"|\.git-credentials|\.dockercfg|\.docker|kubeconfig|\.htpasswd|\.env(?:\.(?:local|prod|production|secret))?"
    r"|credentials(?:\.json)?|service[-_]?account\.json|[\w.-]+\.(?:key|p12|pfx|jks|keystore|kdbx|ppk))/?$",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"\.pub$|pub(?:lic)?[-_.]?key|\.asc$|known_hosts$|signing", re.IGNORECASE)


@rule(Severity.HIGH, "https://docs.docker.com/build/building/secrets/", conditions=("IMG-SECRET", "SCR-FILE"),
      attack=("T1552.001",), cwe=(538,))  # fmt: skip
def secret_file_copied(step: BuildStep) -> Iterator[Outcome]:
    """A file of credentials is copied into the image.

    It is in a layer for everyone who has the image; a later step that removes it only hides it.

    Severity: low in a stage that is not shipped, whose layers stay in the builder's cache.

    Fix: change the credentials; give them to the step that needs them by RUN --mount=type=secret.

    ```toml bad
    [[BuildStep]]
    instruction = "COPY"
    arguments = ["id_rsa", "/root/.ssh/id_rsa"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "COPY"
    arguments = ["id_rsa.pub", "/root/.ssh/authorized_keys"]
    ```
    """
    if step.instruction not in {"ADD", "COPY"} or any(flag.startswith("from=") for flag in step.flags):
        return
    for source in _sources(step):
        if _SECRET_FILE.search(source) and not _PUBLIC.search(source):
            line = (seen(step, f"{step.instruction} {source}"),)
            severity = None if step.shipped else Severity.LOW
            yield Found(f"{step.instruction} copies {source[:120]}", step.where, line, severity, key=source)


@rule(Severity.HIGH, "https://docs.docker.com/engine/security/protect-access/", conditions=("IMG-SOCK",),
      attack=("T1611",), cwe=(250,))  # fmt: skip
def socket_in_build(step: BuildStep) -> Iterator[Outcome]:
    """The image expects or uses a container engine's socket.

    Whoever runs the image as it asks to be run gives it the engine, which is root on the host.

    Fix: take it out; give a program that needs containers a builder without privilege or a proxy that allows only what
    it needs.

    ```toml bad
    [[BuildStep]]
    instruction = "VOLUME"
    arguments = ["/var/run/docker.sock"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "VOLUME"
    arguments = ["/var/lib/app"]
    ```
    """
    words = step.arguments if step.instruction in {"VOLUME", "ADD", "COPY"} else ()
    mounts = [flag for flag in step.flags if flag.startswith("mount=")] if step.instruction == "RUN" else []
    for word in (*words, *mounts):
        if _SOCKETS.search(word):
            line = (seen(step, f"{step.instruction} {word}"),)
            yield Found(f"{step.instruction} names an engine's socket", step.where, line, key=word)


_PROCESS = re.compile(r"/proc/(?:self|thread-self|\d+|\$\{?\w+\}?)/(?:task/\d+/)?(?:fd|cwd|root)(?:/|$)")


@rule(
    Severity.CRITICAL,
    "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv",
    conditions=("IMG-WORKDIRPROC",),
    attack=("T1611",),
    cwe=(403, 668),
    cve=("CVE-2024-21626",),
)
def working_directory_of_a_descriptor(step: BuildStep) -> Iterator[Outcome]:
    """The working directory is one that a runtime left open.

    runc before 1.1.12 leaked a descriptor of the host's /sys/fs/cgroup: a container whose working directory is
    /proc/self/fd/8 sat on the host's file system. No honest image names such a path.

    Fix: name a directory of the image; find out who built this one.

    ```toml bad
    [[BuildStep]]
    instruction = "WORKDIR"
    arguments = ["/proc/self/fd/8"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "WORKDIR"
    arguments = ["/srv"]
    ```
    """
    if step.instruction == "WORKDIR" and step.arguments:
        path = posixpath.normpath(step.arguments[0])
        if _PROCESS.match(path):
            yield Found(f"WORKDIR {path}", step.where, (seen(step, f"WORKDIR {path}"),))


_UPDATES = {
    "apt-get": {"update"}, "apt": {"update"}, "apk": {"update"}, "yum": {"update", "makecache"},
    "dnf": {"makecache"}, "zypper": {"refresh"}, "pacman": {"-Sy"},
}  # fmt: skip
_INSTALLS = frozenset({"install", "add", "upgrade", "dist-upgrade", "full-upgrade", "in", "-S", "build-dep", "-Syu"})


@rule(Severity.INFO, _ADD, conditions=("IMG-QUAL",), cis=("4.7",), cwe=(710,))
def careless_instruction(step: BuildStep) -> Iterator[Outcome]:
    """An instruction does not do what it seems to do.

    `RUN apt-get update` alone is cached: later builds install from the old list, without its security updates. A
    relative WORKDIR depends on what the base image says. MAINTAINER is deprecated.

    Fix: update and install in one RUN; give WORKDIR an absolute path; use LABEL.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["apt-get", "update"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["apt-get", "update", "&&", "apt-get", "install", "-y", "curl"]
    shell = true
    ```
    """
    if step.instruction == "MAINTAINER":
        yield Found("MAINTAINER is deprecated", step.where, key="maintainer")
    if step.instruction == "WORKDIR" and step.arguments:
        path = step.arguments[0]
        if not re.match(r"/|\$|[A-Za-z]:", path):
            yield Found(f"WORKDIR {path[:80]} is relative", step.where, key="workdir")
    known = [shell.program(command) for command in shell.commands(step)]
    updates = [name for name, arguments in known if _UPDATES.get(name, set()) & set(arguments[:2])]
    if updates and not any(_INSTALLS & set(arguments) for name, arguments in known if name in _UPDATES):
        yield Found(f"{updates[0]} only updates its list", step.where, key="update")
