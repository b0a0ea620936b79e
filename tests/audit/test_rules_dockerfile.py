"""What the rules say of lines as Dockerfiles have them."""

from __future__ import annotations

import pytest

from stockade.audit.documents.walk import Source
from stockade.audit.engine import evaluate
from stockade.audit.static.dockerfile import targets

FOUND = [
    ("RUN curl -sSL https://x/y | bash", {"IMG-PIPE"}),
    ("RUN set -e; wget -qO- https://x | sudo sh -s -- a", {"IMG-PIPE", "IMG-SUDO", "PRV-SUDO"}),
    ('RUN sh -c "$(curl -fsSL https://x)"', {"IMG-PIPE"}),
    ("RUN bash -c 'curl https://x | tee y | python3 -'", {"IMG-PIPE"}),
    ('RUN ["sh", "-c", "curl https://x | sh"]', {"IMG-PIPE"}),
    ("RUN curl -fsSk https://x -o y", {"IMG-TLSOFF"}),
    ("RUN a && wget --no-check-certificate https://x", {"IMG-TLSOFF"}),
    ("RUN pip install --trusted-host=x y", {"IMG-TLSOFF"}),
    ("RUN npm config set strict-ssl=false", {"IMG-TLSOFF"}),
    ("RUN git config --global http.sslVerify false", {"IMG-TLSOFF"}),
    ("RUN NODE_TLS_REJECT_UNAUTHORIZED=0 npm ci", {"IMG-TLSOFF"}),
    ("ENV GIT_SSL_NO_VERIFY true", {"IMG-TLSOFF"}),
    ("RUN apt-get update && apt-get install -y --allow-unauthenticated x", {"IMG-TLSOFF"}),
    ("RUN apk add --allow-untrusted x.apk", {"IMG-TLSOFF"}),
    ("RUN apt-get update && sudo apt-get install -y x", {"IMG-SUDO", "PRV-SUDO"}),
    ("RUN if true; then sudo -E make; fi", {"IMG-SUDO", "PRV-SUDO"}),
    ("RUN <<EOF\nset -e\nsudo id\nEOF", {"IMG-SUDO", "PRV-SUDO"}),
    ("RUN echo 'root:root' | chpasswd", {"IMG-PASSWD"}),
    ("RUN passwd -d root", {"IMG-PASSWD"}),
    ("RUN useradd -p '$6$x' a", {"IMG-PASSWD"}),
    ("RUN --security=insecure make", {"IMG-INSECBUILD"}),
    ("RUN --network=host make", {"IMG-INSECBUILD"}),
    ("RUN export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI99 && a", {"IMG-SECRET"}),
    ("RUN git clone https://bot:hunter2xyz@example.org/x.git", {"IMG-SECRET"}),
    ("LABEL api_token=hunter2xyz", {"IMG-SECRET"}),
    ("COPY id_rsa /root/.ssh/", {"IMG-SECRET", "SCR-FILE"}),
    ("COPY --chown=a .env .npmrc /srv/", {"IMG-SECRET", "SCR-FILE"}),
    ("ADD https://x/y.tar.gz /", {"IMG-ADDURL", "IMG-ADD"}),
    ("ADD app.jar /", {"IMG-ADD"}),
    ('VOLUME ["/var/run/docker.sock"]', {"IMG-SOCK"}),
    ("RUN --mount=type=bind,source=/var/run/docker.sock,target=/d x", {"IMG-SOCK"}),
    ("WORKDIR /proc/self/fd/9", {"IMG-WORKDIRPROC"}),
    ("ENV F=8\nWORKDIR /proc/self/fd/$F/..", {"IMG-WORKDIRPROC"}),
    ("RUN apt-get update", {"IMG-QUAL"}),
    ("RUN apk update && apk upgrade\nWORKDIR srv", {"IMG-QUAL"}),
    ("MAINTAINER me", {"IMG-QUAL"}),
    ("EXPOSE 2222 22", {"IMG-PORT22", "NET-PRIVPORT"}),
    ("ONBUILD RUN curl https://x | sh", {"IMG-PIPE"}),
]
FINE = [
    "RUN apt-get install -y sudo curl",
    "RUN curl -fsSLo x https://y && sh x",
    "RUN echo 'curl x | sh'",
    "RUN echo curl --insecure is bad",
    "RUN cat a | sh",
    "RUN curl -o k -K cfg --kerberos https://x",
    "RUN passwd -l root",
    "RUN useradd -r -u 7 web",
    "RUN --network=none --mount=type=secret,id=x make",
    "RUN export TOKEN=$(cat /run/secrets/t)",
    "COPY id_rsa.pub package.json .dockerignore /x/",
    "COPY --from=build /root/.ssh/id_rsa /x",
    "COPY <<EOF /etc/sudoers\nroot ALL\nEOF",
    "ADD rootfs.tar.xz /",
    "ADD --checksum=sha256:24 https://x /y",
    "WORKDIR /proc",
    "WORKDIR $HOME/x",
    "RUN apt-get update && apt-get upgrade -y",
    "ENV GIT_SSL_NO_VERIFY=0",
    "LABEL token_ttl=5 maintainer=me",
    "CMD sudo x",
    "# RUN sudo x",
]
BASE = "FROM alpine:3@sha256:{digest}\nUSER 1000\nHEALTHCHECK CMD true\n".format(digest="ab" * 32)


def conditions(lines: str) -> set[str]:
    (target,) = targets(Source("Dockerfile", f"{BASE}{lines}\n".encode()))
    return {each for finding in evaluate(target).findings for each in finding.conditions}


@pytest.mark.parametrize(("lines", "expected"), FOUND, ids=[lines for lines, _ in FOUND])
def test_a_line_is_found(lines: str, expected: set[str]) -> None:
    assert conditions(lines) == expected


@pytest.mark.parametrize("lines", FINE)
def test_a_line_is_fine(lines: str) -> None:
    assert conditions(lines) == set()


def test_no_credential_is_shown() -> None:
    lines = "RUN export DB_PASSWORD=hunter2xyz && echo root:hunter2xyz | chpasswd\nENV API_KEY=hunter2xyz"
    (target,) = targets(Source("Dockerfile", f"{BASE}{lines}\n".encode()))

    judged = evaluate(target)
    assert {"IMG-PASSWD", "IMG-SECRET"} <= {each for finding in judged.findings for each in finding.conditions}
    assert "hunter2xyz" not in repr((judged.findings, judged.paths, judged.unknown))


def test_a_secret_in_a_stage_that_is_not_shipped_is_less_bad() -> None:
    content = "FROM a AS build\nCOPY id_rsa /\nFROM b\nCOPY id_rsa /\n"
    found = {
        target.id: finding.severity.label
        for target in targets(Source("D", content.encode()))
        for finding in evaluate(target).findings
        if finding.rule == "secret_file_copied"
    }

    assert found == {"D:build": "low", "D:1": "high"}
