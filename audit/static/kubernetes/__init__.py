"""Reads Kubernetes objects: every kind that makes pods, roles and bindings, namespaces, persistent volumes."""

from stockade.audit.static.kubernetes.collect import targets

__all__ = ["targets"]
