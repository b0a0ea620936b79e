"""click's commands and groups as Stockade uses them: examples in every help, late imports, suggestions.

Only commands that need click import this. It knows no command itself, so the parts may use it too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from stockade.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SETTINGS = {"help_option_names": ["--help"], "max_content_width": 100}


class Examples(click.Command):
    """A command whose help ends in examples: pairs of a command line and what it does."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        kwargs["context_settings"] = SETTINGS | kwargs.get("context_settings", {})
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then the epilog."""
        if self.examples:
            with formatter.section("Examples"):
                for place, (line, text) in enumerate(self.examples):
                    if place:
                        formatter.write_paragraph()
                    formatter.write_text(f"# {text}")
                    indent = " " * formatter.current_indent
                    formatter.write(f"{indent}{line}\n")
        super().format_epilog(ctx, formatter)


class Command(Examples):
    """A command with examples."""


class LazyGroup(Examples, click.Group):
    """A group that imports a command when it is called, and says in its own help what the command's first line says.

    `lazy` maps a name to ("module:attribute", one line of help), so that the group's help needs none of the modules.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order of the table."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or refuse with the closest name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            path = ctx.command_path
            raise UsageError(
                f"there is no command {printable(name)!r}",
                hint=suggestion(name, self.list_commands(ctx)) or f"see '{path} --help'",
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the names with their lines of help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazy[name][1]) for name in self.lazy])


def suggestion(word: str, words: Iterable[str]) -> str:
    """Give "did you mean …?" for the word closest to a misspelt one, or nothing."""
    from difflib import get_close_matches

    bare = {each.lstrip("-"): each for each in words}  # two dashes alone would make --bogus look like --uts
    close = get_close_matches(word.lstrip("-"), list(bare), 1, 0.6)
    return f"did you mean {bare[close[0]]}?" if close else ""


def refusal(error: click.ClickException, command: str) -> UsageError:
    """Say what click says in our words: one line, and a remedy. `command` is the one that was called, if any was."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    path = ctx.command_path if ctx else f"stockade {command}".strip()
    see = f"see '{path} --help'"
    if isinstance(error, click.NoSuchOption):
        options = [flag for each in (ctx.command.get_params(ctx) if ctx else ()) for flag in each.opts]
        hints = getattr(ctx.command, "elsewhere", {}) if ctx else {}
        hint = hints.get(error.option_name) or suggestion(error.option_name, options)
        return UsageError(f"there is no option {error.option_name}", hint=hint or see)
    if isinstance(error, click.BadOptionUsage) and "requires" in error.message:
        return UsageError(f"{error.option_name} needs a value", hint=see)
    message = " ".join(error.format_message().split()).rstrip(".")
    return UsageError(message[:1].lower() + message[1:] if message[1:2].islower() else message, hint=see)
