"""Which versions are installed: from the distribution's package, else from the program itself.

A program is started for it (`--version`, empty environment, two seconds) only if root alone can have put it there:
otherwise the auditor, who may be root, would run somebody's program.
"""

import os
import re
import stat
import subprocess
import zlib
from collections.abc import Iterator

from stockade.audit import facts
from stockade.audit.facts import Fact, Gap, Where
from stockade.audit.targets import configuration
from stockade.audit.targets.configuration import Unreadable
from stockade.sandbox.linux import procfs

#: file name → the name that advisories have for it, and the packages that have its version
_PROGRAMS = {
    "runc": ("runc", ("runc",)),
    "containerd": ("containerd", ("containerd", "containerd.io")),
    "buildkitd": ("buildkit", ("buildkit",)),
}
_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/containerd/bin")
_CVE = re.compile(rb"CVE-\d{4}-\d{4,7}")
_NUMBER = re.compile(r"\bv?(\d+\.\d+\.\d+(?:[-~]rc\.?\d+)?)")
_LARGEST = 16 << 20


def programs(
    directories: tuple[str, ...] = _DIRECTORIES, dpkg: str = "/var/lib/dpkg", doc: str = "/usr/share/doc"
) -> Iterator[Fact | Gap]:
    """Give the version of each container program that is installed."""
    done: set[str] = set()
    for name, (program, packages) in _PROGRAMS.items():
        for directory in directories:
            path = os.path.realpath(f"{directory}/{name}")
            if path in done or not os.path.isfile(path):
                continue
            done.add(path)
            yield _installed(path, program, packages, dpkg, doc)


def _installed(path: str, program: str, packages: tuple[str, ...], dpkg: str, doc: str) -> Fact | Gap:
    where = Where(path)
    for package in packages:
        if _owns(package, path, dpkg) and (version := _package_version(package, dpkg)):
            number = _NUMBER.search(version.replace("~rc", "-rc"))
            if number:
                fixed = _changelog(package, doc)
                return facts.InstalledVersion(
                    where=where, name=program, version=number[1], package=version, fixed=fixed
                )
    if not trusted(path):
        return Gap(facts.InstalledVersion, f"{path} isn't root's alone, so it wasn't asked for its version", where)
    try:
        done = subprocess.run(
            [path, "--version"], check=False, capture_output=True, text=True, errors="replace", timeout=2, env={},
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gap(facts.InstalledVersion, f"{path} --version: {type(error).__name__}", where)
    number = _NUMBER.search(done.stdout)
    if number is None:
        return Gap(facts.InstalledVersion, f"{path} --version told no version", where)
    return facts.InstalledVersion(where=where, name=program, version=number[1])


def trusted(path: str) -> bool:
    """Say whether a program and all directories above it are root's, and nobody else may write there."""
    while True:
        try:
            status = os.lstat(path)
        except OSError:
            return False
        if status.st_uid or status.st_mode & 0o022 or stat.S_ISLNK(status.st_mode):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _owns(package: str, path: str, dpkg: str) -> bool:
    try:
        listed = configuration.read(f"{dpkg}/info/{package}.list") or b""
    except Unreadable:
        return False
    # Debian's /bin and /sbin may be links to those below /usr, and packages say either
    return any(f"\n{each}\n".encode() in b"\n" + listed for each in (path, path.removeprefix("/usr")))


def _package_version(package: str, dpkg: str) -> str | None:
    try:
        text = procfs.read_path(f"{dpkg}/status", limit=_LARGEST)
    except OSError:
        return None
    start = (
        0 if text.startswith(b"Package: %b\n" % package.encode()) else text.find(b"\nPackage: %b\n" % package.encode())
    )
    found = (
        re.search(rb"^Version: (\S+)$", text[start : text.find(b"\n\n", start)], re.MULTILINE) if start >= 0 else None
    )
    return found[1].decode("ascii", "replace") if found else None


def _changelog(package: str, top: str = "/usr/share/doc") -> tuple[str, ...]:
    """Give the CVE numbers in a package's own changelog: what the distribution has fixed in the version it has."""
    try:
        data = configuration.read(f"{top}/{package}/changelog.Debian.gz")
        text = zlib.decompressobj(wbits=31).decompress(data, _LARGEST) if data else b""
    except (Unreadable, zlib.error):
        return ()
    return tuple(sorted({found.decode() for found in _CVE.findall(text)}))


def kernel() -> Iterator[Fact]:
    """Give the kernel's version as upstream counts, where the distribution tells it, and the distribution's own."""
    release, told = os.uname().release, os.uname().version
    version = release
    debian = re.search(r"Debian (\d+\.\d+\.\d+\S*)", told)
    try:
        ubuntu = procfs.read_path("/proc/version_signature").decode("ascii", "replace").split()
    except OSError:
        ubuntu = []
    if debian:
        version = debian[1]
    elif len(ubuntu) == 3:  # Ubuntu 5.15.0-91.101-generic 5.15.131
        version = ubuntu[2]
    number = re.match(r"\d+\.\d+(\.\d+)?", version)
    if number:
        own = release if "-" in release else None
        fixed = _changelog(f"linux-image-{release}") if own and tuple(map(int, number[0].split("."))) < (5, 17) else ()
        yield facts.InstalledVersion(
            where=Where("/proc/sys/kernel/osrelease"), name="kernel", version=number[0], package=own, fixed=fixed
        )
