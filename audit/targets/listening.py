"""On which TCP addresses a process listens, whoever opened them: systemd hands an engine sockets it never names."""

import os
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from stockade.sandbox.linux import procfs

_LISTEN = "0A"  # include/net/tcp_states.h


def tcp(pid: int) -> Iterator[tuple[str, int, str]]:
    """Give address, port, and the file of /proc that says so. Nothing where the descriptors may not be read."""
    sockets = set(_sockets(pid))
    for name in ("tcp", "tcp6") if sockets else ():
        path = f"/proc/{pid}/net/{name}"
        try:
            lines = procfs.read_path(path).decode("ascii", "replace").split("\n")[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            if len(fields) > 9 and fields[3] == _LISTEN and fields[9] in sockets:
                host, _, port = fields[1].partition(":")
                yield _address(host), int(port, 16), path


def visible(pid: int) -> bool:
    """Say whether the descriptors of a process may be read."""
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return False
    except OSError:
        pass  # it has ended, and listens no more
    return True


def _sockets(pid: int) -> Iterator[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _address(text: str) -> str:
    """Read words of 32 bits, each in the machine's order."""
    words = [int(text[index : index + 8], 16) for index in range(0, len(text), 8)]
    data = struct.pack(f"={len(words)}I", *words)
    return str(IPv4Address(data)) if len(data) == 4 else f"[{IPv6Address(data)}]"
