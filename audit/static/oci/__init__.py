"""Reads config.json of the OCI runtime specification, and with it bundles: what a runtime is told to start."""

from stockade.audit.static.oci.collect import targets

__all__ = ["targets"]
