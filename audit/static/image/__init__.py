"""Reads container images: OCI layouts, and the archives that docker save, podman save and skopeo write.

An image is read as a stream, nothing of it is unpacked. Archives are never trusted: names, sizes and links in them are
data, what is read of each is limited, and a layer that is broken leaves the others to be judged.
"""

from stockade.audit.static.image.collect import targets

__all__ = ["targets"]
