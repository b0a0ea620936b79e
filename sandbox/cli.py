"""`run` and `gc` for click: help, completion and errors of `run` from the table of options.

A plain `run` never comes here, see sandbox/arguments.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stockade.errors import UsageError, printable
from stockade.help import Command
from stockade.sandbox import arguments, options
from stockade.sandbox.complete import complete_program, complete_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click.shell_completion import CompletionItem

    from stockade.sandbox.options import Option

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # not generic before click 8.4

#: stands after a flag's name where `--flag=false` was written; no argument of a program can hold a NUL
_OFF = "\0off"


class Value(_ParamType):
    """Reads the value of an option by the option's own function."""

    name = "value"

    def __init__(self, option: Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """Read `value`; what is wrong with it names the option, and the remedy shows how it is written."""
        return read(self.option, value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Offer what the option may be."""
        return complete_value(self.option, incomplete)


def read(option: Option, text: str) -> object:
    """Read an option's value. Raises UsageError that names the option and shows an example."""
    try:
        return option.parse(text)
    except UsageError as error:
        raise UsageError(
            f"{option.long} {text}: {error.message}", hint=error.hint or f"for example {option.example}"
        ) from None


def normalise(argv: list[str]) -> list[str]:
    """Rewrite what Docker's users write and click can't read: `--flag=BOOL`, `-f=BOOL` and `-x=VALUE`.

    Everything else, and everything from the program on, stays as it is; unknown options are left for click to refuse.
    """
    done: list[str] = []
    place = 0
    while place < len(argv):
        argument = argv[place]
        if argument in ("--", "-") or not argument.startswith("-"):
            break
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            option = options.BY_FLAG.get(flag)
            done += _flag(option, value) if option and option.is_flag and equals else [argument]
            needs_value = option is not None and not option.is_flag and not equals
        else:
            short, needs_value = _short(argument)
            done += short
        place += 1
        if needs_value and place < len(argv):
            done.append(argv[place])
            place += 1
    return done + argv[place:]


def _short(argument: str) -> tuple[list[str], bool]:
    """Rewrite a cluster such as -it or -e=NAME; give it and whether its value is the next argument."""
    for place in range(1, len(argument)):
        option = options.BY_FLAG.get("-" + argument[place])
        rest = argument[place + 1 :]
        if option is None:
            break
        if rest.startswith("="):
            before = [argument[:place]] if place > 1 else []
            new = _flag(option, rest[1:]) if option.is_flag else [f"{option.long}={rest[1:]}"]
            return before + new, False
        if not option.is_flag:
            return [argument], not rest
    return [argument], False


def _flag(option: Option, value: str) -> list[str]:
    return [option.long if read(option, value) else option.long + _OFF]


class RunCommand(Command):
    """`run`, whose parameters are the rows of the table."""

    elsewhere = options.ELSEWHERE

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let click read Docker's syntax."""
        try:
            args = normalise(args)
        except UsageError:
            if not ctx.resilient_parsing:  # while the line is being written, click goes as far as it can
                raise
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the options as they are written."""
        return [item for item in super().shell_complete(ctx, incomplete) if _OFF not in str(item.value)]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Say that the root file system must be chosen, and that options end where the program starts."""
        return ["(--rootfs DIR | --host)", "[OPTIONS]", "[--]", "PROGRAM", "[ARG]..."]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the options under the headings of the table."""
        for heading, rows in options.GROUPS:
            with formatter.section(heading):
                formatter.write_dl([_help(option) for option in rows], col_max=32)
        with formatter.section("Help"):
            formatter.write_dl([("--help", "show this message")])


def _help(option: Option) -> tuple[str, str]:
    flags = ", ".join(option.flags)
    metavar = "|".join(option.choices) or option.metavar
    notes = [f"default: {option.default}"] if option.default else []
    notes += ["repeatable"] if option.repeatable else []
    return f"{flags} {metavar}".rstrip(), option.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _parameters() -> Iterable[click.Parameter]:
    for option in options.OPTIONS:
        if option.is_flag:
            flags = [option.name, f"{option.long}/{option.long}{_OFF}", *(f for f in option.flags if f != option.long)]
            yield click.Option(flags, is_flag=True, default=None, help=option.help)
        else:
            yield click.Option(
                [option.name, *option.flags],
                type=Value(option),
                metavar=option.metavar,
                multiple=True,  # of others the last one counts, but click would not read those before it
                default=None,
                help=option.help,
            )
    yield click.Argument(["argv"], nargs=-1, type=click.UNPROCESSED, shell_complete=complete_program)


def _run(argv: tuple[str, ...], **given: Any) -> int:
    from stockade.sandbox import lifecycle

    asked: dict[str, Any] = {}
    for option in options.OPTIONS:
        value = given[option.name]
        if option.is_flag and value is not None:
            asked[option.name] = value
        elif not option.is_flag and value:
            asked[option.name] = list(value) if option.repeatable else value[-1]
    return lifecycle.run(arguments.assemble(asked, argv))


EXAMPLES = (
    ("stockade run --host -- ls -l /", "a program of the host in a container of its own"),
    ("stockade run --host --mode rootless --network none --timeout 10 -- python3 job.py", "untrusted code, for 10 s"),
    (
        "stockade run --rootfs /srv/alpine -it -v ./src:/src:ro -w /src sh",
        "a shell in a root file system, with a directory of the host",
    ),
    (
        "stockade run --host --cap-drop ALL --cap-add NET_BIND_SERVICE --user 1000:1000 -- ./server",
        "exactly one capability",
    ),
    ("stockade run --host --memory 64m --pids-limit 50 --cpus 0.5 --json -- make", "limits, and what enforced them"),
    ("stockade run --host --plan -- true", "what would be done, and why"),
)

run = RunCommand(
    "run",
    params=list(_parameters()),
    callback=_run,
    context_settings={"allow_interspersed_args": False},
    examples=EXAMPLES,
    help="""Run a program in a container with exactly the privilege you name.

    What the options leave open is decided by the mode. Options end where the program starts.

    The exit code is the program's own, 128+N when signal N ended it, 125 when Stockade failed, 126 when the program
    can't be executed and 127 when there is none.
    """,
    short_help="Run a program in a container with exactly the privilege you name.",
)


@click.command(cls=Command, examples=(("stockade gc", "after a crash, a power cut or a kill -9"),))
def gc() -> None:
    """Remove what ended or killed containers left: records, processes, control groups, mounts, directories.

    Prints a line for each. What belongs to a running container is never touched.
    """
    from stockade.sandbox import lifecycle

    for line in lifecycle.gc():
        click.echo(printable(line))
