"""Who is connected to whom by Unix sockets, sock_diag(7): /proc/net/unix does not tell the peer."""

from __future__ import annotations

import _socket
import os
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_UDIAG_SHOW_PEER = 4
_UNIX_DIAG_PEER = 2
_ALL_STATES = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_MESSAGE = struct.Struct("=BBBBIII")  # struct unix_diag_msg
_ATTRIBUTE = struct.Struct("=HHI")  # struct nlattr with one number


def unix_peers() -> dict[int, int]:
    """Give inode → inode of the other end for each connected Unix socket of the caller's network namespace.

    The other end may be in another namespace. Raises FileNotFoundError where the kernel lacks CONFIG_UNIX_DIAG.
    """
    netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    try:
        body = _REQUEST.pack(_socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _UDIAG_SHOW_PEER, 0, 0)
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body)
        peers: dict[int, int] = {}
        while not _take(netlink.recv(1 << 18), peers):
            pass
        return peers
    finally:
        netlink.close()


def _take(data: bytes, peers: dict[int, int]) -> bool:
    """Read the messages of one packet; give whether it was the last."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, place)
        start = place + _HEADER.size
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", data, start)[0]
            raise OSError(number, os.strerror(number), "NETLINK_SOCK_DIAG")
        inode = _MESSAGE.unpack_from(data, start)[4]
        attribute = start + _MESSAGE.size
        while attribute + _ATTRIBUTE.size <= place + length:
            size, name, value = _ATTRIBUTE.unpack_from(data, attribute)
            if name == _UNIX_DIAG_PEER:
                peers[inode] = value
            attribute += max(4, size + 3 & ~3)
        place += max(_HEADER.size, length + 3 & ~3)
    return False
