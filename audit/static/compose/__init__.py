"""Collects what a compose file declares: one target for each service, with what it includes, extends and overrides."""

from stockade.audit.static.compose.collect import project, targets

__all__ = ["project", "targets"]
