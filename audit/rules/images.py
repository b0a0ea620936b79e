"""Images: which one is meant, and what its files bring along."""

from collections.abc import Iterator

from stockade.audit.facts import Image, ImageFile, NoNewPrivs
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen, several

_TAGS = "https://docs.docker.com/build/building/best-practices/#pin-base-image-versions"


@rule(
    Severity.LOW,
    _TAGS,
    conditions=("IMG-LATEST",),
    covers=("no_digest",),
    attack=("T1525",),
    cwe=(1104,),
)
def latest_tag(image: Image) -> Iterator[Outcome]:
    """The image has no version.

    Without a tag, or with "latest", another program may run after each pull, and nobody can say which one ran.

    Fix: name a version (nginx:1.27.3), better with its digest.

    ```toml bad
    [Image]
    reference = "nginx:latest"
    tag = "latest"
    ```

    ```toml good
    [Image]
    reference = "nginx:1.27.3@sha256:0a399eb16751829e1af26fea27b20c3ec28d7ab1fb72182879dcae1cca21206a"
    tag = "1.27.3"
    digest = "sha256:0a399eb16751829e1af26fea27b20c3ec28d7ab1fb72182879dcae1cca21206a"
    ```
    """
    if not image.local and image.digest is None and image.tag in {None, "latest"}:
        what = "has no tag" if image.tag is None else "has the tag latest"
        yield Found(f"the image {image.reference} {what}", image.where, (seen(image, image.reference),), key="latest")


@rule(Severity.INFO, _TAGS, conditions=("IMG-DIGEST",), attack=("T1525",), cwe=(494,))
def no_digest(image: Image) -> Iterator[Outcome]:
    """The image is named by a tag alone.

    Tags move: whoever may write to the repository, or sits before it, decides what is started. A digest is the
    content.

    Fix: add the digest (nginx:1.27.3@sha256:...).

    ```toml bad
    [Image]
    reference = "nginx:1.27.3"
    tag = "1.27.3"
    ```

    ```toml good
    [Image]
    reference = "nginx:1.27.3@sha256:0a399eb16751829e1af26fea27b20c3ec28d7ab1fb72182879dcae1cca21206a"
    tag = "1.27.3"
    digest = "sha256:0a399eb16751829e1af26fea27b20c3ec28d7ab1fb72182879dcae1cca21206a"
    ```
    """
    if not image.local and image.digest is None:
        yield Found(f"the image {image.reference} has no digest", image.where, (seen(image, image.reference),))


_RAISES = frozenset({"setuid", "setgid", "capability"})


@rule(
    Severity.LOW,
    "https://www.cisecurity.org/benchmark/docker",
    conditions=("IMG-SUID", "PRV-SUID"),
    cis=("4.8",),
    attack=("T1548.001",),
    cwe=(250,),
)
def privileged_programs(files: tuple[ImageFile, ...], no_new_privs: NoNewPrivs | None) -> Iterator[Outcome]:
    """The image has programs that raise privileges.

    A flaw in one program with a setuid bit or file capabilities makes any user of the container its root.

    Severity: none where no_new_privs is set, which ends the bit's effect.

    Fix: take the bits away in the image (chmod a-s), or set no-new-privileges.

    ```toml bad
    absent = ["NoNewPrivs"]

    [[ImageFile]]
    path = "/usr/bin/su"
    kind = "setuid"
    detail = "04755 root"
    ```

    ```toml good
    [[ImageFile]]
    path = "/usr/bin/su"
    kind = "setuid"
    detail = "04755 root"
    ```
    """
    if no_new_privs is not None and no_new_privs.value:
        return
    found = sorted((each for each in files if each.kind in _RAISES and not each.removed), key=lambda each: each.path)
    if found:
        title = f"the image has {len(found)} program{'s' if found[1:] else ''} that raise privileges: {found[0].path}"
        evidence = several(found, (f"{each.path} {each.kind} {each.detail}".rstrip() for each in found))
        yield Found(title, found[0].where, evidence, key="setuid")


@rule(Severity.HIGH, "https://docs.docker.com/build/building/secrets/", conditions=("IMG-SECRET", "SCR-FILE"),
      cis=("4.10",), attack=("T1552.001",), cwe=(522, 798))  # fmt: skip
def secret_file_in_image(file: ImageFile) -> Iterator[Outcome]:
    """A credential lies in the image.

    Everyone who may pull the image has it. A later layer that removes the file changes nothing: the layer with it is
    pulled as well.

    Fix: change the credential, and give it to the build by a secret mount (RUN --mount=type=secret).

    ```toml bad
    [[ImageFile]]
    path = "/root/.aws/credentials"
    kind = "secret"
    detail = "an AWS access key"
    removed = true
    ```

    ```toml good
    [[ImageFile]]
    path = "/usr/bin/crontab"
    kind = "setgid"
    removed = true
    ```
    """
    if file.kind == "secret":
        gone = ", which a later layer removes" if file.removed else ""
        title = f"{file.path} is {file.detail or 'a credential'}{gone}"
        yield Found(title, file.where, (seen(file, f"{file.path} in layer {file.layer or '?'}"),), key=file.path)


@rule(
    Severity.CRITICAL,
    "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
    conditions=("IMG-DEVLINK",),
    attack=("T1611", "T1195.002"),
    cwe=(59, 61),
    cve=("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
)
def hostile_link(file: ImageFile) -> Iterator[Outcome]:
    """The image has a link where the runtime mounts.

    A symbolic link at /dev, /dev/null, /proc or /sys sends what the runtime mounts there, or masks with it, to another
    place: runtimes before the fixes of 2025 have mounted the host's files for it.

    Severity: high for a link that only leads out of the image.

    Fix: don't run the image; update the runtime.

    ```toml bad
    [[ImageFile]]
    path = "/dev/null"
    kind = "device-link"
    detail = "../proc/sys/kernel/core_pattern"
    ```

    ```toml good
    [[ImageFile]]
    path = "/usr/bin/crontab"
    kind = "setgid"
    removed = true
    ```
    """
    if file.kind in {"device-link", "hostile-link"}:
        severity = None if file.kind == "device-link" else Severity.HIGH
        title = f"{file.path} is a link to {file.detail}"
        yield Found(title, file.where, (seen(file, f"{file.path} -> {file.detail}"),), severity, key=file.path)


@rule(Severity.MEDIUM, "https://man7.org/linux/man-pages/man1/chmod.1.html", conditions=("IMG-WORLDW",),
      attack=("T1574.007",), cwe=(732,))  # fmt: skip
def world_writable_path(file: ImageFile) -> Iterator[Outcome]:
    """Anybody may write where programs are looked for.

    Whoever takes over one user of the container replaces a program that root starts later.

    Fix: chmod o-w.

    ```toml bad
    [[ImageFile]]
    path = "/usr/local/bin"
    kind = "world-writable"
    detail = "0777"
    ```

    ```toml good
    [[ImageFile]]
    path = "/usr/bin/crontab"
    kind = "setgid"
    removed = true
    ```
    """
    if file.kind == "world-writable" and not file.removed:
        title = f"anybody may write {file.path}"
        yield Found(title, file.where, (seen(file, f"{file.path} {file.detail}"),), key=file.path)


@rule(Severity.HIGH, "https://man7.org/linux/man-pages/man5/shadow.5.html", conditions=("IMG-PASSWD",),
      attack=("T1078.003",), cwe=(258,))  # fmt: skip
def open_account(file: ImageFile) -> Iterator[Outcome]:
    """An account of the image has an empty password.

    su and login let anybody become that user.

    Fix: lock the account (passwd -l).

    ```toml bad
    [[ImageFile]]
    path = "/etc/shadow"
    kind = "account"
    detail = "root"
    ```

    ```toml good
    [[ImageFile]]
    path = "/usr/bin/crontab"
    kind = "setgid"
    removed = true
    ```
    """
    if file.kind == "account" and not file.removed:
        title = f"the account {file.detail} has an empty password"
        yield Found(title, file.where, (seen(file, f"{file.path}: {file.detail}"),), key=file.detail)
