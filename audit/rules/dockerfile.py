"""What a Dockerfile's RUN does while the image is built: what it trusts, and what it leaves in the image."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from stockade.audit.facts import BuildStep
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen
from stockade.audit.rules import shell
from stockade.audit.static.credentials import credential

_PRACTICES = "https://docs.docker.com/build/building/best-practices/"
_DOWNLOADS = frozenset({"curl", "wget", "fetch", "aria2c", "http", "lwp-request"})
_INTERPRETERS = shell.SHELLS | {"python", "python3", "perl", "ruby", "node", "php"}
_SUBSTITUTED = re.compile(r"(?:\$\(|`|<\()\s*(?:sudo\s+)?(?:\S*/)?(?:curl|wget|fetch)\s")


@rule(Severity.LOW, _PRACTICES + "#user", conditions=("IMG-SUDO", "PRV-SUDO"), attack=("T1548.003",), cwe=(250,))
def sudo_in_build(step: BuildStep) -> Iterator[Outcome]:
    """A step of the build uses sudo.

    It needs sudo in the image, set so that no password is asked for, and there it stays for whoever breaks in. Steps
    run as root unless USER says otherwise.

    Fix: do the step before USER, or between USER root and USER of the program; take sudo out of the image.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["apk", "add", "curl", "&&", "sudo", "make", "install"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["make", "install"]
    shell = true
    ```
    """
    for command in shell.commands(step):
        if {"sudo", "doas"} & set(shell.programs(command)):
            yield Found("RUN uses sudo", step.where, (seen(step, _line(command)),), key="sudo")
            return


@rule(
    Severity.LOW,
    "https://www.kicksecure.com/wiki/Dev/curl_bash_pipe",
    conditions=("IMG-PIPE",),
    attack=("T1195.002",),
    cwe=(494,),
)
def download_piped_to_shell(step: BuildStep) -> Iterator[Outcome]:
    """A download is run without being looked at.

    Whoever controls the server, or the way to it, decides what is built in. A transfer that breaks off half way is run
    up to there.

    Fix: download to a file, compare its digest (sha256sum --check), run it then; better use a package.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["curl", "-fsSL", "https://example.org/install.sh", "|", "bash"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["curl", "-fsSLo", "i.sh", "https://example.org/i.sh", "&&", "sha256sum", "-c", "s", "&&", "sh", "i.sh"]
    shell = true
    ```
    """
    for pipeline in shell.pipelines(step):
        names = [shell.program(command)[0] for command in pipeline]
        fetched = next((number for number, name in enumerate(names) if name in _DOWNLOADS), None)
        piped = fetched is not None and any(name in _INTERPRETERS for name in names[fetched + 1 :])
        inside = any(
            name in _INTERPRETERS | {"eval", "source", "."} and _SUBSTITUTED.search(" ".join(command))
            for name, command in zip(names, pipeline, strict=True)
        )
        if piped or inside:
            line = " | ".join(_line(command) for command in pipeline)
            yield Found("a download is piped to an interpreter", step.where, (seen(step, line),), key=line[:80])


#: program → words of its arguments that turn the check of certificates or signatures off
_UNCHECKED: dict[str, tuple[str, ...]] = {
    "curl": ("-k", "--insecure", "--proxy-insecure", "--doh-insecure"),
    "wget": ("--no-check-certificate",),
    "pip": ("--trusted-host",),
    "pip3": ("--trusted-host",),
    "apt-get": ("--allow-unauthenticated", "--force-yes", "--allow-insecure-repositories"),
    "apt": ("--allow-unauthenticated", "--force-yes", "--allow-insecure-repositories"),
    "apk": ("--allow-untrusted",),
    "yum": ("--nogpgcheck",),
    "dnf": ("--nogpgcheck", "--no-gpgchecks"),
    "microdnf": ("--nogpgcheck",),
    "tdnf": ("--nogpgcheck",),
    "zypper": ("--no-gpg-checks", "--allow-unsigned-rpm"),
    "rpm": ("--nosignature", "--nodigest"),
    "gem": ("--trust-policy=NoSecurity",),
    "helm": ("--insecure-skip-tls-verify",),
    "skopeo": ("--src-tls-verify=false", "--dest-tls-verify=false", "--tls-verify=false"),
}
#: two words after one another that do the same by a configuration
_SETTINGS = {
    "npm": ("strict-ssl", "false"),
    "yarn": ("strict-ssl", "false"),
    "pnpm": ("strict-ssl", "false"),
    "git": ("http.sslVerify", "false"),
    "composer": ("disable-tls", "true"),
}
#: variables of the environment that do it, and the values that they do it with
_VARIABLES = {
    "NODE_TLS_REJECT_UNAUTHORIZED": {"0"},
    "PYTHONHTTPSVERIFY": {"0"},
    "GIT_SSL_NO_VERIFY": {"1", "true"},
    "NPM_CONFIG_STRICT_SSL": {"false"},
    "PIP_TRUSTED_HOST": None,
    "CURL_INSECURE": {"1", "true"},
}
_SHORT = re.compile(r"-[a-zA-Z]*k[a-zA-Z]*$")


@rule(Severity.MEDIUM, "https://cwe.mitre.org/data/definitions/295.html", conditions=("IMG-TLSOFF",),
      attack=("T1557", "T1195.002"), cwe=(295,))  # fmt: skip
def unchecked_download(step: BuildStep) -> Iterator[Outcome]:
    """Certificates or signatures are not checked.

    Whoever sits between the build and the server can put a program of his own into the image. Set by ENV it holds for
    the running container as well.

    Fix: leave the option out; where a private authority signs, add its certificate (update-ca-certificates).

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["curl", "-sk", "https://example.org/x", "-o", "x"]
    shell = true
    ```

    ```toml bad
    [[BuildStep]]
    instruction = "ENV"
    arguments = ["NODE_TLS_REJECT_UNAUTHORIZED=0"]
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["curl", "-s", "https://example.org/x", "-o", "x"]
    shell = true
    ```
    """
    if step.instruction == "ENV":
        pairs = _pairs(step.arguments)
        if len(step.arguments) == 2 and "=" not in step.arguments[0]:
            pairs = {step.arguments[0]: step.arguments[1]}
        for name in _turned_off(pairs):
            yield Found(f"{name} turns checks off", step.where, (seen(step, f"ENV {name}"),), key=name)
    for command in shell.commands(step):
        for what in (*_turned_off(shell.assigned(command)), *_unchecked(*shell.program(command))):
            line = (seen(step, _line(command)),)
            yield Found(f"{what} turns checks off", step.where, line, key=what)


def _pairs(words: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        found[name] = value
    return found


def _turned_off(pairs: dict[str, str]) -> Iterator[str]:
    for name, value in pairs.items():
        values = _VARIABLES.get(name.upper(), set())
        if values is None or value.strip("\"'").lower() in values:
            yield name


def _unchecked(name: str, arguments: shell.Command) -> Iterator[str]:
    for word in arguments:
        for option in _UNCHECKED.get(name, ()):
            if word == option or (option.startswith("--") and word.startswith(option + "=") and "=false" not in word):
                yield f"{name} {option}"
        if name == "curl" and word != "-k" and _SHORT.match(word) and not word.startswith("--"):
            yield "curl -k"
    wanted = _SETTINGS.get(name)
    if wanted:
        words = [part for word in arguments for part in word.split("=")]
        if wanted in pairwise(words):
            yield f"{name} {wanted[0]} {wanted[1]}"


@rule(Severity.HIGH, "https://man7.org/linux/man-pages/man8/chpasswd.8.html", conditions=("IMG-PASSWD",),
      attack=("T1078.003",), cwe=(798, 258))  # fmt: skip
def password_in_build(step: BuildStep) -> Iterator[Outcome]:
    """A step of the build sets or removes a user's password.

    Everyone who has the image has the password: it stands in the history, and its hash in /etc/shadow. With su, sudo
    or sshd in the image it is a way to another user.

    Fix: give no user a password; let the container run as the user that it needs.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["echo", "root:secret", "|", "chpasswd"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["useradd", "--system", "web"]
    shell = true
    ```
    """
    for command in shell.commands(step):
        name, arguments = shell.program(command)
        if _sets_password(name, arguments):
            # the words may hold the password itself
            yield Found(f"RUN sets a password ({name})", step.where, (seen(step, f"RUN {name} ..."),), key=name)


def _sets_password(name: str, arguments: shell.Command) -> bool:
    words = set(arguments)
    if name in {"useradd", "usermod", "adduser"}:
        return bool(words & {"-p", "--password"}) or any(word.startswith("--password=") for word in arguments)
    locks = bool(words & {"-l", "--lock", "-e", "--expire", "-S", "--status"})
    return name == "chpasswd" or (name == "passwd" and not locks)


@rule(Severity.HIGH, "https://docs.docker.com/reference/dockerfile/#run---security", conditions=("IMG-INSECBUILD",),
      attack=("T1611",), cwe=(250,))  # fmt: skip
def insecure_build_step(step: BuildStep) -> Iterator[Outcome]:
    """A step of the build runs without its sandbox.

    --security=insecure is a privileged container: what the step downloads and runs is root on the builder.
    --network=host reaches everything that listens on the builder's loopback interface.

    Fix: leave the flag out; do what needs it outside of the build.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["make"]
    flags = ["security=insecure"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["make"]
    flags = ["network=none"]
    shell = true
    ```
    """
    for flag in ("security=insecure", "network=host"):
        if step.instruction == "RUN" and flag in step.flags:
            severity = Severity.HIGH if flag == "security=insecure" else Severity.MEDIUM
            yield Found(f"RUN --{flag}", step.where, (seen(step, f"RUN --{flag}"),), severity, key=flag)


@rule(Severity.HIGH, "https://docs.docker.com/build/building/secrets/", conditions=("IMG-SECRET",),
      attack=("T1552.001",), cwe=(798, 538))  # fmt: skip
def secret_in_build_step(step: BuildStep) -> Iterator[Outcome]:
    """A step of the build holds a credential.

    It stands in the image's history for everyone who has the image, whatever later steps remove.

    Fix: change the credential; give it to the step by RUN --mount=type=secret.

    ```toml bad
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["export", "API_TOKEN=s3cr3t-value-1", "&&", "make"]
    shell = true
    ```

    ```toml good
    [[BuildStep]]
    instruction = "RUN"
    arguments = ["export", "API_TOKEN=$(cat /run/secrets/token)", "&&", "make"]
    flags = ["mount=type=secret,id=token"]
    shell = true
    ```
    """
    found: dict[str, str] = {}
    if step.instruction == "LABEL":
        found = _pairs(step.arguments)
    for command in shell.commands(step):
        found.update(shell.assigned(command))
        for word in command:
            if credential("", word):
                found[""] = word
    for name, value in found.items():
        what = credential(name, value)
        if what:
            line = f"{step.where}: {step.instruction} holds {what}, which isn't shown"
            yield Found(f"{step.instruction} holds {what}", step.where, (line,), key=name)


def _line(command: shell.Command) -> str:
    return " ".join(command)[:200]
