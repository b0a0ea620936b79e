"""Boot a guest and run pytest in it: `./dev guest [--kernel uml|qemu] [--keep DIR] [PYTEST ARG...]`.

The guest (image.py) has what a developer's machine may lack: cgroup v2 alone, systemd with a session for a user,
AppArmor, CAP_SYS_RESOURCE. This tree, as it is, is copied into it, with the libraries of .venv that it needs. Without
arguments pytest gets tests/guest; any other test of the tree may be named, as `./dev guest tests/kernel/test_run.py`.

The kernel is user-mode Linux, which boots in fifteen seconds, or Debian's own in qemu without hardware support, slower
by half, which has cpuset, Landlock and time namespaces too. Nothing is changed on the host, and the disk of the guest
forgets: its writes go to a file that is removed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tests.guest import image

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("stockade", "sandbox", "audit", "profiles", "reports", "tests", "docs", "pyproject.toml", "setup.cfg", "dev")
LEFT_OUT = {"__pycache__", ".mypy_cache"}
TREE = "srv/work/stockade"  # as ./dev binds it: a path that every user can enter
LIBRARIES = "srv/work/lib"
SCRIPT = """cd /{tree}
export PYTHONPATH=/{tree}:/{libraries} PYTHONDONTWRITEBYTECODE=1 STOCKADE_GUEST=1
{command}
"""
KERNELS = {"uml": ("linux.uml", "user-mode-linux"), "qemu": ("qemu-system-x86_64", "qemu-system-x86")}
END = re.compile(rb"guest: exit code (\d+)\n")


def arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="./dev guest", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--kernel", choices=KERNELS, default="uml", help="what runs the guest (uml)")
    parser.add_argument("--seconds", type=float, default=1500, help="when to give up (1500)")
    parser.add_argument("--console", action="store_true", help="show the kernel's and systemd's own words too")
    parser.add_argument("--shell", metavar="COMMAND", help="run a shell command there instead of pytest")
    return parser.parse_known_args(argv)


def libraries() -> dict[str, Path]:
    """Give the files of what this tree and pytest need of the environment: name below site-packages → path."""
    found: dict[str, Path] = {}
    names, seen = ["stockade", "pytest"], set[str]()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or an older Python
        wanted = (each for each in package.requires or () if "extra ==" not in each)
        names += [match[0] for each in wanted if (match := re.match(r"[\w.-]+", each))]
        if name != "stockade":  # an editable installation: the tree itself comes along
            for file in package.files or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    found[str(file)] = Path(str(file.locate()))
    return found


def pack(target: Path, command: str) -> None:
    """Write the archive that the guest unpacks: this tree, its libraries, and the script."""
    with tarfile.open(target, "w") as archive:
        for folder in FOLDERS:
            archive.add(ROOT / folder, f"stockade/{folder}", filter=_wanted)
        for name, path in libraries().items():
            archive.add(path, f"lib/{name}")
        text = SCRIPT.format(tree=TREE, libraries=LIBRARIES, command=command).encode()
        member = tarfile.TarInfo("script")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if Path(member.name).name in LEFT_OUT else member


def uml(kept: Path, work: Path) -> list[str]:
    """Give the command of a user-mode kernel: one processor, the host's directory `work` at /run/host."""
    return [
        *("linux.uml", "mem=2G", f"ubd0={work}/writes,{kept}/root.img", "root=/dev/ubda", "rw"),
        *("con=null", "con0=null,fd:1", f"uml_dir={work}", "apparmor=1", "security=apparmor"),
        *("systemd.unit=guest.target", "systemd.show_status=0", f"guest_directory={work}", "quiet"),
    ]


def qemu(kept: Path, work: Path) -> list[str]:
    """Give the command of Debian's kernel without hardware support: two processors, disks of NVMe, two serial ports."""
    append = "root=/dev/nvme0n1 rw console=ttyS0 systemd.unit=guest.target systemd.show_status=0 apparmor=1 quiet"
    drives = {
        "d0": f"file={kept}/root.img,format=raw,snapshot=on",
        "d1": f"file={work}/work.tar,format=raw,readonly=on",
    }
    disks = [
        word
        for name, drive in drives.items()
        for word in ("-drive", f"if=none,id={name},{drive}", "-device", f"nvme,drive={name},serial={name}")
    ]
    return [
        *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "2G"),
        *("-display", "none", "-no-reboot", "-nic", "none", *disks),
        *("-serial", "stdio", "-serial", f"file:{work}/said", "-kernel", f"{kept}/vmlinuz", "-append", append),
    ]


def follow(guest: subprocess.Popen[bytes], said: Path, seconds: float) -> int | None:
    """Print what the guest says while it runs; give the exit code that it tells at the end, None if it doesn't."""
    end = time.monotonic() + seconds
    with said.open("rb") as reader:
        last = b""
        while True:
            ended = guest.poll() is not None
            text = reader.read().replace(b"\r\n", b"\n")
            last = (last + text)[-200:]
            found = END.search(last)
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
            if found is not None:
                return int(found[1])
            if ended or time.monotonic() > end:
                return None
            time.sleep(0.1)


def boot(kernel: str, command: str, *, seconds: float, console: bool) -> int:
    """Run a shell command as root of a new guest, and give its exit code; what it says goes to standard output."""
    program, package = KERNELS[kernel]
    for needed, brings in ((program, package), ("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")):
        if shutil.which(needed) is None:
            sys.exit(f"./dev guest needs {needed}: apt-get install {brings}")
    kept = image.ready()
    with tempfile.TemporaryDirectory(prefix="stockade-guest-", dir="/var/tmp") as directory:
        work = Path(directory)
        pack(work / "work.tar", command)
        (work / "said").touch()
        argv = (uml if kernel == "uml" else qemu)(kept, work)
        environment = {"PATH": os.environ["PATH"], "HOME": directory, "TMPDIR": directory}
        with (work / "console").open("w+b") as words:
            output = None if console else words
            guest = subprocess.Popen(
                ["nice", *argv], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                code = follow(guest, work / "said", seconds)
                if code is not None:
                    _wait(guest, 20)
            finally:
                guest.kill()
                guest.wait()
            if code is None:
                words.seek(0)
                print(f"the guest ended early, or was late; its console:\n{words.read().decode(errors='replace')}")
                return 1
    return code


def _wait(guest: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        guest.wait(seconds)
    except subprocess.TimeoutExpired:
        print("the guest did not switch itself off", file=sys.stderr)


def main(argv: list[str]) -> int:
    options, words = arguments(argv)
    if not any(not word.startswith("-") for word in words):
        words.append("tests/guest")
    pytest = f"python3 -m pytest -p no:cacheprovider {shlex.join(words)}"
    return boot(options.kernel, options.shell or pytest, seconds=options.seconds, console=options.console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
