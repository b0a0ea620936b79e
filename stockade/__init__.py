"""Stockade: launches containers with exactly the privilege you name, and audits what any container really has.

    from stockade import Sandbox

    result = Sandbox(memory=256 << 20).run(["python3", "-c", "print(6 * 7)"], timeout=10)

The names below are imported when they are first used: `import stockade` itself costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.errors import StockadeError
    from stockade.sandbox.api import Result, Sandbox
    from stockade.sandbox.harden import harden

__version__ = "0.1.0"
__all__ = ["Result", "Sandbox", "StockadeError", "__version__", "harden"]

_HOMES = {
    "Result": "stockade.sandbox.api",
    "Sandbox": "stockade.sandbox.api",
    "StockadeError": "stockade.errors",
    "harden": "stockade.sandbox.harden",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'stockade' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
