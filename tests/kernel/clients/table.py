"""docs/clients.md, made of the tests of this folder: `python -m tests.kernel.clients.table >docs/clients.md`."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = {
    "test_podman_run.py": "Podman 4.3.1 as root: what a container is given",
    "test_podman_life.py": "Podman 4.3.1 as root: the life of a container",
    "test_podman_rootless.py": "Podman 4.3.1 as a user without privilege",
    "test_buildah.py": "Buildah 1.28.2",
    "test_docker.py": "Docker 20.10.24",
    "test_docker_remapped.py": "Docker 20.10.24 with userns-remap and live-restore",
    "test_containerd.py": "containerd 1.6.20 with ctr",
    "test_kubernetes.py": "containerd 1.6.20 with CRI, as Kubernetes' kubelet asks it",
    "test_swarm.py": "Docker Swarm on three hosts",
    "test_slurm.py": "Slurm 22.05.8 on three hosts",
}
CONTRACTED = {
    " cant ": " can't ",
    "the hosts": "the host's",
    "the shells": "the shell's",
    "ones own": "one's own",
    "kernels": "kernel's",
    "users": "user's",
}
NOT_COMMANDS = {"patient", "one", "pgrep", "plain", "seen", "task"}  # names of containers, and a program of the host
HEAD = """# What was driven

Real clients, from Debian 12's packages, with `stockade-runtime` as their runtime. Each line is a test of
tests/kernel/clients, which looks at the effect from inside the container, and whose fixture checks at the end that
containers of this runtime came and went meanwhile. `./dev test tests/kernel/clients` drives them all; with
STOCKADE_CLIENTS_RUNTIME=/usr/sbin/runc in the environment it drives runc instead, for comparison.
On a machine whose root lacks CAP_SYS_RESOURCE runc 1.1.5 then fails at Docker's `--privileged`, at a volume with
`idmap`, at `--personality`, at the state that a poststart hook is given and at what is mounted below a read-only
volume; crun 1.8.1, from which the v2 hierarchy has to be hidden, at Docker's `--privileged`, at a volume with
`ro,bind`, and at programs that can't be started, which its messages don't name or Docker doesn't understand.

Each engine runs in namespaces and control groups of its own, on cgroup v1 with the empty v2 hierarchy beside it and
no systemd. The configuration is that of its page here: [Podman and Buildah](podman.md), [Docker](docker.md),
[containerd](containerd.md), [Kubernetes](kubernetes.md), [Swarm](swarm.md), [Slurm](slurm.md).
"""


def _cases(function: ast.FunctionDef) -> int:
    """Say how many cases a test has: the product of the lists of its parameters."""
    lists = [
        call.args[1].elts
        for call in function.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.args[1], ast.List)
    ]
    return math.prod(len(values) for values in lists)


def _words(function: ast.FunctionDef) -> list[str]:
    """Give the client's commands that a test gives, then its options."""
    texts = [
        node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    options = sorted({text for text in texts if re.fullmatch(r"--[a-z-]+[a-z]", text)})
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
    firsts = [
        call.args[0] for call in calls if ast.unparse(call.func).partition(".")[2] in {"", "said", "terminal", "call"}
    ]
    given = {first.value for first in firsts if isinstance(first, ast.Constant)}
    commands = sorted(
        {text for text in given if isinstance(text, str) and re.fullmatch(r"[a-zA-Z]+", text)} - NOT_COMMANDS
    )
    return [*commands, *options]


def _rows(path: Path) -> list[str]:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    rows: list[str] = []
    for test in functions:
        if test.name.startswith("test_"):
            name = test.name.removeprefix("test_").replace("_", " ")
            for plain, right in CONTRACTED.items():
                name = name.replace(plain, right)
            cases = f" ({_cases(test)} cases)" if _cases(test) > 1 else ""
            words = " ".join(f"`{word}`" for word in _words(test))
            rows.append(f"| {name[0].upper()}{name[1:]}{cases} | {words} |\n")
    return rows


def page() -> str:
    """Give the page's text."""
    text = HEAD
    for file, client in CLIENTS.items():
        text += f"\n## {client}\n\n| what was done and seen | with |\n| --- | --- |\n"
        text += "".join(_rows(HERE / file))
    return text


if __name__ == "__main__":
    print(page(), end="")
