"""Credentials in the environment and in mounted files. No value is ever shown."""

import posixpath
from collections.abc import Iterator

from stockade.audit.facts import Mount, Variable
from stockade.audit.report import Severity
from stockade.audit.rule import Found, Outcome, rule, seen
from stockade.audit.rules.known import normal
from stockade.audit.rules.sensitive import credentials

_OWASP = "https://cheatsheetseries.owasp.org/cheatsheets/Secrets_Management_Cheat_Sheet.html"


@rule(Severity.HIGH, _OWASP, conditions=("SCR-ENV",), cis=("4.10", "K8S 5.4.1"), attack=("T1552.001",), cwe=(798, 526))
def secret_in_environment(variable: Variable) -> Iterator[Outcome]:
    """A credential stands in the file.

    Everyone who reads the file has it, and whoever may inspect the container or read /proc/PID/environ. Error reports
    and child processes carry the environment on.

    Fix: change the credential; give it by a secret (secrets:, secretKeyRef, a mounted file).

    ```toml bad
    [[Variable]]
    name = "DB_PASSWORD"
    literal = true
    secret = "the value of DB_PASSWORD"
    ```

    ```toml good
    [[Variable]]
    name = "DB_PASSWORD"
    literal = false
    source = "secret"
    ```
    """
    if variable.literal and variable.secret:
        conditions = ("SCR-ENV", "IMG-SECRET") if variable.source in {"argument", "image"} else ("SCR-ENV",)
        what = "a credential" if variable.secret == f"the value of {variable.name}" else variable.secret
        title = f"the variable {variable.name} holds {what}"
        line = f"{variable.where}: {variable.name} is set, its value isn't shown"
        yield Found(title, variable.where, (line,), conditions=conditions, key=variable.name)


@rule(Severity.HIGH, _OWASP, conditions=("SCR-FILE", "MNT-SENS", "MNT-RW"), attack=("T1552.001",), cwe=(522,))
def secret_file_mounted(mount: Mount) -> Iterator[Outcome]:
    """A user's credentials are mounted.

    Whoever takes the container over takes the cloud account, the cluster or the registry with it.

    Fix: give the program credentials of its own, with the rights that it needs.

    ```toml bad
    [[Mount]]
    destination = "/creds"
    host_path = "/srv/ci/.aws/credentials"
    fstype = "ext4"
    writable = false
    options = ["ro"]
    ```

    ```toml good
    [[Mount]]
    destination = "/etc/ssl/certs"
    host_path = "/etc/ssl/certs"
    fstype = "ext4"
    writable = false
    options = ["ro"]
    ```
    """
    if mount.host_path is None or mount.destination == "/":
        return
    path = normal(mount.host_path)
    what = credentials(path)
    if what:
        conditions = ("SCR-FILE", "MNT-SENS", *(("MNT-RW",) if mount.writable else ()))
        title = f"{what} ({posixpath.basename(path)}) are mounted at {mount.destination}"
        line = seen(mount, f"{mount.destination} is the host's {mount.host_path}")
        yield Found(title, mount.where, (line,), None, conditions, key=f"{path} {mount.destination}")
