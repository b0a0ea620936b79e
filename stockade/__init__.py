"""Stockade: launches containers with exactly the privilege you name, and audits what any container really has."""

from __future__ import annotations

__version__ = "0.1.0"
