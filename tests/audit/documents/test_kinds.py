"""What a file is, is told by its content first."""

from __future__ import annotations

import pytest

from stockade.audit.documents.kinds import may_matter, recognise
from stockade.audit.documents.walk import Source

KNOWN = [
    ("kubernetes", "x.yaml", "apiVersion: v1\nkind: Pod\n"),
    ("kubernetes", "compose.yml", "# a pod\n---\nkind: Pod\napiVersion: v1\n"),
    ("kubernetes", "x.json", '{"kind": "Pod", "apiVersion": "v1"}'),
    ("kubernetes", "stdin", "{apiVersion: v1, kind: Pod}"),
    ("kubernetes", "x.yml", "- apiVersion: v1\n  kind: Pod\n"),
    ("compose", "x.yml", "services:\n  web:\n    image: a\n"),
    ("compose", "x.yml", '"services": \n  web:\n    build: .\n'),
    ("compose", "docker-compose.yml", "web:\n  image: a\n"),
    ("compose", "compose.prod.yaml", "include: [a.yml]\n"),
    ("compose", "x.json", '{"services": {"web": {"image": "a"}}}'),
    ("dockerfile", "Dockerfile", "ARG A\nFROM a\n"),
    ("dockerfile", "web.Dockerfile", "FROM a\n"),
    ("dockerfile", "Containerfile.prod", "FROM a\n"),
    ("dockerfile", "build", "# syntax=docker/dockerfile:1\n\nfrom a\nrun b\n"),
    ("dockerfile", "stdin", "FROM a\nRUN b\n"),
    ("oci", "config.json", '{"ociVersion": "1.0.2", "process": {}}'),
    ("docker-inspect", "x.json", '[{"Id": "1", "HostConfig": {}, "Config": {}}]'),
    ("podman-inspect", "stdin", '[{"Id": "1", "OCIRuntime": "crun", "HostConfig": {}, "Config": {}}]'),
    ("quadlet", "web.container", "[Unit]\nA=b\n[Container]\nImage=a\n"),
    ("quadlet", "web.pod", "[Pod]\nPodName=a\n"),
    ("systemd", "web.service", "[Service]\nExecStart=/usr/bin/docker run a\n"),
    ("helm", "Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n"),
    ("image", "a.tar.gz", "\x1f\x8b"),
]
NOT = [
    ("ci.yml", "on: push\njobs:\n  a:\n    services:\n      db:\n        image: a\n"),
    ("openapi.yml", "openapi: 3.0.0\nservices:\n  a:\n    image: b\n"),
    ("values.yaml", "image:\n  repository: a\n"),
    ("package.json", '{"name": "a", "version": "1"}'),
    ("symfony.yml", "services:\n  App\\Foo:\n    arguments: [a]\n"),
    ("notes", "From me to you\n"),
    ("script", "#!/bin/sh\nFROM a\n"),
    ("a.md", "FROM a\n"),
    ("empty.yaml", ""),
    ("a.service", "[Unit]\nDescription=x\n"),
]


@pytest.mark.parametrize(("kind", "name", "content"), KNOWN)
def test_a_kind_is_recognised(kind: str, name: str, content: str) -> None:
    assert recognise(Source(f"dir/{name}", content.encode("latin-1"))) == kind


@pytest.mark.parametrize(("name", "content"), NOT)
def test_what_declares_no_container_is_passed_over(name: str, content: str) -> None:
    assert recognise(Source(f"dir/{name}", content.encode())) is None


@pytest.mark.parametrize("name", ["a.yml", "A.YAML", "Dockerfile", "Dockerfile.prod", "x.container", "a.tgz", "build"])
def test_a_name_that_may_matter_is_opened(name: str) -> None:
    assert may_matter(name)


@pytest.mark.parametrize("name", ["a.py", "a.md", "Dockerfile.md", "logo.png", "main.go", "a.txt"])
def test_a_name_that_can_not_matter_is_not_opened(name: str) -> None:
    assert not may_matter(name)
