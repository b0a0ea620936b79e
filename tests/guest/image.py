"""The guest's root: Debian 12 with systemd, podman and AppArmor, made once by mmdebstrap, kept outside of the tree.

    ready() -> Path     the directory with root.img (ext4), vmlinuz (for qemu) and nothing else; made if it isn't there

Its name holds a digest of all that it is made of, so a change here makes another. It takes two minutes and 1 GB.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SUITE = "bookworm"
SIZE = "3G"  # sparse; some of it is for the images of podman
PACKAGES = (
    *("systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "kmod", "iproute2", "procps", "apparmor"),
    *("podman", "crun", "runc", "conmon", "uidmap", "slirp4netns", "fuse-overlayfs", "catatonit", "iptables"),
    *("netavark", "aardvark-dns", "python3", "libseccomp2", "busybox-static", "golang-github-containers-common"),
    "linux-image-cloud-amd64",
)
USER = "stockade-test"
# What a desktop's or a server's boot has and this one has no use for: seconds each, without a processor of its own.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "podman.service", "podman.socket", "podman-restart.service", "podman-auto-update.timer"),
    *("systemd-udev-trigger.service", "systemd-udevd.service", "systemd-udevd-kernel.socket"),
    *("systemd-udevd-control.socket", "systemd-timesyncd.service", "systemd-networkd.service", "getty.target"),
    *("systemd-update-utmp.service", "systemd-journal-flush.service", "systemd-random-seed.service"),
)
FILES = {
    "etc/fstab": "",
    "etc/hostname": "guest\n",
    "etc/subuid": f"{USER}:100000:65536\ncontainers:1000000:1000000\n",
    "etc/subgid": f"{USER}:100000:65536\ncontainers:1000000:1000000\n",
    f"var/lib/systemd/linger/{USER}": "",
    "etc/systemd/system/guest.target": """[Unit]
Requires=basic.target guest.service
Wants=dbus.socket systemd-logind.service apparmor.service
After=basic.target
AllowIsolate=yes
""",
    "etc/systemd/system/guest.service": """[Unit]
After=basic.target dbus.socket systemd-logind.service apparmor.service user@1000.service
Wants=user@1000.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/guest
ExecStopPost=/bin/systemctl poweroff --force --force
StandardOutput=null
StandardError=null
TimeoutStartSec=infinity
LimitNOFILE=1024:4096
""",
    # What a guest is asked to do comes as a directory of the host's, or as an archive on a second disk; what it says
    # goes into a file of that directory, or to the second serial port.
    "usr/local/sbin/guest": """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
directory=$(sed -n 's/.*guest_directory=\\([^ ]*\\).*/\\1/p' /proc/cmdline)
mkdir -p /srv/work
if [ -n "$directory" ]; then
    mkdir -p /run/host
    mount -t hostfs none /run/host -o "$directory"
    archive=/run/host/work.tar said=/run/host/said
else
    archive=/dev/nvme1n1 said=/dev/ttyS1
    stty -F "$said" raw -echo
fi
tar -C /srv/work -xf "$archive"
sh /srv/work/script >"$said" 2>&1 </dev/null
echo "guest: exit code $?" >>"$said"
sync
""",
}


def place() -> Path:
    """Give the directory of this image, whether it is there or not."""
    parts = repr((SUITE, SIZE, PACKAGES, USER, MASKED, FILES, _uml_modules()))
    base = Path(os.environ.get("XDG_CACHE_HOME") or "/var/tmp")
    return base / f"stockade-guest-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def ready() -> Path:
    """Give the directory of this image, made if need be (root, mmdebstrap, two minutes)."""
    kept = place()
    if (kept / "root.img").exists():
        return kept
    print(f"making the guest's root in {kept}, once: two minutes or more", flush=True)
    with tempfile.TemporaryDirectory(prefix="stockade-guest-making-", dir=kept.parent) as work:
        root = Path(work, "root")
        options = ("--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}")
        # in a mount namespace of its own: what it mounts below `work` must not be there when that is removed
        _run("unshare", "-m", "nice", "mmdebstrap", *options, SUITE, str(root))
        Path(work).chmod(0o755)
        _furnish(root)
        made = Path(work, "made")
        made.mkdir()
        shutil.copy(next(root.glob("boot/vmlinuz-*")), made / "vmlinuz")
        filesystem = ("-q", "-t", "ext4", "-O", "^has_journal", "-d")
        _run("nice", "mke2fs", *filesystem, str(root), str(made / "root.img"), SIZE)
        made.rename(kept)
    return kept


def _furnish(root: Path) -> None:
    _run("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/sh", "--uid", "1000", USER)
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "usr/local/sbin/guest").chmod(0o755)
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    modules = _uml_modules()
    if modules:
        shutil.copytree(modules, root / "lib/modules" / Path(modules).name, symlinks=True)
    for waste in (*root.glob("boot/initrd*"), *root.glob("var/cache/apt/archives/*.deb")):
        waste.unlink()


def _uml_modules() -> str:
    """Give the directory of user-mode Linux' modules, "" where it isn't installed."""
    return max((str(path) for path in Path("/usr/lib/uml/modules").glob("[0-9]*")), default="")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
