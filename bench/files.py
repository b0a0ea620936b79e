"""What an audit of files costs: of one from start to end, and of thousands of mixed ones, beside checkov where it is.

The files are made anew, each with contents of its own. checkov is asked for the frameworks that it has for them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time

from bench import processes
from bench.measure import Subject, Table, interleave

STOCKADE = os.path.join(os.path.dirname(sys.executable), "stockade")
MANY = 5000
#: checkov is given fewer, since it needs a minute for 5,000; what counts is files a second
FEW = 500
VERDICTS = (0, 1)

DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {{name: web{n}, namespace: shop{group}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web{n}}}}}
  template:
    metadata: {{labels: {{app: web{n}}}}}
    spec:
      hostNetwork: {rare}
      serviceAccountName: web
      securityContext: {{runAsNonRoot: true, runAsUser: {uid}, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: web
          image: registry.example.org/web:1.{group}.{n}
          ports: [{{containerPort: 8080}}]
          env:
            - {{name: LOG_LEVEL, value: info}}
            - name: DB_PASSWORD
              valueFrom: {{secretKeyRef: {{name: db, key: password}}}}
          securityContext:
            privileged: {rare}
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL], add: [NET_BIND_SERVICE]}}
          resources: {{limits: {{memory: 256Mi, cpu: 500m}}, requests: {{memory: 64Mi, cpu: 50m}}}}
          volumeMounts: [{{name: data, mountPath: /data}}]
        - name: log
          image: fluent/fluent-bit
          volumeMounts: [{{name: logs, mountPath: /var/log}}]
      volumes:
        - {{name: data, emptyDir: {{}}}}
        - {{name: logs, hostPath: {{path: /var/log}}}}
"""
COMPOSE = """services:
  web:
    image: nginx:1.{group}.{n}
    ports: ["127.0.0.1:{port}:80"]
    privileged: {rare}
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    volumes: ["./site{n}:/usr/share/nginx/html:ro"]
  runner:
    image: runner
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
    environment: {{POSTGRES_HOST: db, JOB: "{n}"}}
  db:
    image: postgres:16
    environment: ["POSTGRES_PASSWORD=${{DB_PASSWORD}}"]
volumes: {{data: {{}}}}
"""
DOCKERFILE = """# syntax=docker/dockerfile:1
FROM golang:1.{group} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache go mod download && \\
    go build -o /out/app{n} ./...
FROM alpine:3.{group}
RUN apk add --no-cache ca-certificates && adduser -D -u {uid} app
COPY --from=build /out/app{n} /usr/local/bin/app
EXPOSE {port}
USER app
ENTRYPOINT ["app"]
"""
OTHER = """name: ci{n}
on: [push]
jobs:
  test:
    runs-on: ubuntu-latest
    services: {{db: {{image: "postgres:{group}"}}}}
    steps: [{{uses: actions/checkout@v4}}, {{run: make test}}]
"""
#: of ten files each: template, name
MIX = [
    *[(DEPLOYMENT, "k8s/web{n}.yaml")] * 4,
    *[(COMPOSE, "apps/{n}/compose.yaml")] * 2,
    *[(DOCKERFILE, "apps/{n}/Dockerfile")] * 2,
    *[(OTHER, "ci/{n}.yml")] * 2,
]


def make(directory: str, count: int) -> str:
    """Write `count` mixed files below a directory."""
    chance = random.Random(7)
    for number in range(count):
        template, name = MIX[number % len(MIX)]
        path = os.path.join(directory, name.format(n=number))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        values = {
            "group": number % 30,
            "uid": 1000 + number,
            "port": 1024 + number,
            "rare": str(number % 50 == 0).lower(),
        }
        with open(path, "w", encoding="utf-8") as file:
            file.write(template.format(n=number, **values) + f"# {chance.getrandbits(64):x}\n")
    return directory


def files(scratch: str, rounds: int) -> Table:
    """`stockade audit FILE`, `stockade audit DIR` of 5,000 files, and checkov on one file and on 500."""
    many, few = make(os.path.join(scratch, "many"), MANY), make(os.path.join(scratch, "few"), FEW)
    one = os.path.join(few, "k8s", "web0.yaml")
    report = os.path.join(scratch, "report.json")
    ours = [STOCKADE, "audit", "--format", "json", "--output", report]
    candidates = [("audit FILE", [*ours, one], 1), (f"audit DIR of {MANY}", [*ours, many], MANY),
                  (f"audit DIR of {FEW}", [*ours, few], FEW)]  # fmt: skip
    checkov = shutil.which("checkov")
    if checkov:
        asked = [
            checkov,
            "--quiet",
            "--compact",
            "--skip-download",
            "-o",
            "json",
            "--framework",
            "kubernetes",
            "dockerfile",
        ]
        candidates += [
            ("checkov -f FILE", [*asked, "-f", one], 1),
            (f"checkov -d DIR of {FEW}", [*asked, "-d", few], FEW),
        ]
    subjects = [_subject(name, argv) for name, argv, _ in candidates]
    interleave(subjects, rounds=rounds, each=1)
    for subject, (_, argv, count) in zip(subjects, candidates, strict=True):
        speed = f"{count / subject.median:.0f} files/s, " if count > 1 else ""
        subject.note = f"{speed}peak {_peak(argv) >> 20} MiB in all processes"
    subjects[0].note += "; goal: 300 ms"
    subjects[1].note += "; goals: 500 files/s, 150 MB"
    goals = [(0, 3, 0.0), (2, 4, 0.0)] if checkov else []
    return Table("Files: mixed ones, two processors, a report in JSON", subjects, goals)


def _subject(name: str, argv: list[str]) -> Subject:
    subject = Subject(name, lambda _: [processes.command(argv, allowed=VERDICTS, cpu=subject.cpu)])
    return subject


def _peak(argv: list[str]) -> int:
    """Run a command and give the most memory that its processes had together, shared pages counted once."""
    highest = 0
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    waiting = threading.Thread(target=running.wait)
    waiting.start()
    while waiting.is_alive():
        highest = max(highest, _together(running.pid))
        time.sleep(0.02)
    return highest


def _together(session: int) -> int:
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                    if int(file.read().rpartition(")")[2].split()[3]) != session:
                        continue
                with open(f"/proc/{name}/smaps_rollup", encoding="ascii") as file:
                    total += sum(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
            except (OSError, IndexError):
                continue
    return total
