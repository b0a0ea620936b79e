"""What a shell offers for the values of `run`'s options and for PROGRAM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from stockade.sandbox import values
from stockade.sandbox.linux import capabilities

if TYPE_CHECKING:
    import click

    from stockade.sandbox.options import Option


def complete_value(option: Option, incomplete: str) -> list[CompletionItem]:
    """Give what a shell offers for the value of an option; type "file" and "dir" leave it to the shell."""
    if option.completion in ("file", "dir"):
        return [CompletionItem(incomplete, type=option.completion)]
    if option.completion == "volume":
        return [] if ":" in incomplete else [CompletionItem(incomplete, type="file")]
    before, comma, word = (
        incomplete.rpartition(",") if option.completion.startswith("capability") else ("", "", incomplete)
    )
    return [CompletionItem(before + comma + each) for each in words(option) if each.startswith(word)]


def words(option: Option) -> tuple[str, ...]:
    """Give the words that an option's value is made of, as far as they are known."""
    names = tuple(name.removeprefix("CAP_") for name in capabilities.NAMES)
    if option.completion == "mode":
        from stockade import profiles

        return tuple(profiles.names("mode"))
    if option.completion == "env":
        return tuple(os.environ)
    if option.completion == "user":
        import pwd

        return tuple(entry.pw_name for entry in pwd.getpwall())
    if option.completion == "signal":
        import signal

        return tuple(each.name.removeprefix("SIG") for each in signal.Signals)
    known = {
        "capability": ("ALL", *names),
        "capability_set": ("ALL", "none", *names),
        "security": (
            "no-new-privileges",
            "seccomp=unconfined",
            "seccomp=default",
            "seccomp=",
            "systempaths=unconfined",
        ),
        "mount": ("type=bind,source=", "type=tmpfs,target="),
        "ulimit": tuple(f"{name}=" for name in values.ULIMITS),
    }
    return option.choices or known.get(option.completion, ())


def complete_program(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Offer the host's programs for PROGRAM with --host, files for all that follows."""
    if ctx.params.get("argv") or not ctx.params.get("host") or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    found: set[str] = set()
    for directory in os.environ.get("PATH", os.defpath).split(":"):
        try:
            found.update(name for name in os.listdir(directory) if name.startswith(incomplete))
        except OSError:
            continue
    return [CompletionItem(name) for name in sorted(found)]
