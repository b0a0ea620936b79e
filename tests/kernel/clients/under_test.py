"""The runtime under test, and the configuration of each engine: docs/ has it, and what docs/ shows is what runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.kernel.clients.world import TREE

# In a guest the tree has no environment of its own.
PLACES = (TREE / ".venv/bin/stockade-runtime", Path("/usr/local/bin/stockade-runtime"))
INSTALLED = next((place for place in PLACES if place.exists()), PLACES[0])
# What comes instead of the installed command, for a comparison: STOCKADE_CLIENTS_RUNTIME=/usr/sbin/runc
RUNTIME = Path(os.environ.get("STOCKADE_CLIENTS_RUNTIME", INSTALLED))
NAME = RUNTIME.name


def snippet(page: str, language: str, number: int = 0) -> str:
    """Give a block of code of a page of docs/, by its language and its place among those of that language."""
    text = (TREE / "docs" / page).read_text()
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return blocks[number]


def configured(page: str, language: str, number: int = 0) -> str:
    """Give such a block with the runtime under test in the place of the installed one."""
    text = snippet(page, language, number).replace("/usr/local/bin/stockade-runtime", str(RUNTIME))
    return text if NAME == "stockade-runtime" else re.sub(r"(?<!/)\bstockade-runtime\b", NAME, text)
