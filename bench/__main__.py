"""`./dev bench`: what a launch costs, against plain C and against other runtimes, side by side in one run.

Everything in a table is measured in turn, batch by batch. Ratios are medians over the batches, of medians within one:
what else the machine does meets all alike. Absolute times are this machine's at this moment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import py_compile
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING

from bench.measure import machine

if TYPE_CHECKING:
    from bench.measure import Table

#: name → (module, function, rounds): the last two take a mount namespace for this process
GROUPS = {
    "library": ("library", "launches", 30),
    "calls": ("library", "calls", 20),
    "threads": ("library", "threads", 10),
    "filters": ("filters", "loads", 15),
    "audit": ("auditing", "audits", 5),
    "files": ("files", "files", 3),
    "command": ("command", "commands", 20),
    "runtime": ("runtime", "lives", 20),
}
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {' '.join(GROUPS)}; all if none is named")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=0, help="batches of each subject (more where it is quick)")
    given = parser.parse_args()
    if unknown := set(given.groups) - set(GROUPS):
        parser.error(f"unknown: {' '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("the peers are measured as root runs them: start it as root")
    _compile()
    before = machine()
    tables = []
    for name, (module, function, rounds) in GROUPS.items():
        if given.groups and name not in given.groups:
            continue
        if sys.stderr.isatty():
            sys.stderr.write(f"measuring: {name}\n")
        tables.append(_measured(module, function, given.rounds or rounds))
        if given.format == "table":
            print(tables[-1], flush=True)
    after = machine()
    if given.format == "json":
        print(json.dumps({"before": before, "after": after, "tables": [t.to_json() for t in tables]}, indent=2))
    else:
        print(f"{before['date']}, {before['cpus']} CPUs ({before['model']}), Linux {before['kernel']}")
        print(f"load before {before['load']}, after {after['load']}")


def _measured(module: str, function: str, rounds: int) -> Table:
    # The new root is mounted on a directory in it by a user of a user namespace, who must be able to get there.
    scratch = tempfile.mkdtemp(prefix="stockade-bench-")
    os.chmod(scratch, 0o755)  # noqa: S103
    try:
        table: Table = getattr(importlib.import_module(f"bench.{module}"), function)(scratch, rounds)
        return table
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compile() -> None:
    """Write the bytecode of the package, as an installation does: without it each start compiles what has changed."""
    for top, _, names in os.walk(os.path.join(ROOT, "stockade"), followlinks=True):
        for name in names:
            if name.endswith(".py"):
                py_compile.compile(os.path.join(top, name), doraise=True)


if __name__ == "__main__":
    main()
