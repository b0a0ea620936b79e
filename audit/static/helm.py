"""Audits a Helm chart: what `helm template` makes of it with its own values, read as Kubernetes objects.

The places are lines of that output, which `helm template release CHART` prints again.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator

from stockade.audit.documents.kinds import NotOne
from stockade.audit.documents.load import Broken, documents
from stockade.audit.documents.tree import Map
from stockade.audit.documents.walk import Source
from stockade.audit.facts import Target, Where
from stockade.audit.static import kubernetes

#: seconds that filling in a chart may take; those of operators take one or two
PATIENCE = 60.0


def targets(source: Source) -> Iterator[Target | Broken]:
    """Give the targets of a chart by its Chart.yaml. Raises Broken where helm is missing or refuses the chart.

    Library charts and charts inside of others make nothing of their own: they raise NotOne.
    """
    directory = os.path.dirname(source.path) or "."
    if _within_another(directory) or _library(source):
        raise NotOne
    path = f"{source.path} (helm template)"
    yield from kubernetes.targets(Source(path, _filled_in(source.path, directory)))


def _within_another(directory: str) -> bool:
    above = os.path.dirname(os.path.abspath(directory))
    return os.path.basename(above) == "charts" and os.path.exists(os.path.join(os.path.dirname(above), "Chart.yaml"))


def _library(source: Source) -> bool:
    first = next(iter(documents(source.data, source.path)), None)
    return isinstance(first, Map) and first.get("type") == "library"


def _filled_in(path: str, directory: str) -> bytes:
    helm = shutil.which("helm")
    if helm is None:
        raise Broken(
            Where(path),
            "a Helm chart, and helm isn't installed to fill it in",
            hint=f"install helm, or where it is: helm template {directory} | stockade audit -",
        )
    # as an absolute path it is never taken for an option or for the name of a chart in a repository
    command = [helm, "template", "release", os.path.abspath(directory)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Broken(Where(path), f"helm template did not end within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise Broken(Where(path), f"{helm} can't be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        hint = "`helm dependency build` fetches what it needs" if "dependenc" in " ".join(said) else ""
        raise Broken(Where(path), f"helm template: {said[-1] if said else f'exit code {done.returncode}'}", hint=hint)
    return done.stdout
