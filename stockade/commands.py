"""The command line as click sees it: a group whose commands are imported when they are called."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

from stockade import __version__
from stockade.errors import StockadeError
from stockade.help import Command, LazyGroup, refusal

#: the variable by which a shell asks for completions
COMPLETE = "_STOCKADE_COMPLETE"

#: name → (where the command is, its line in the group's help)
COMMANDS = {
    "run": ("stockade.sandbox.cli:run", "Run a program in a container with exactly the privilege you name."),
    "audit": ("stockade.cli_audit:audit", "Tell how a container could reach the host."),
    "info": ("stockade.sandbox.info:info", "Tell what this host lets you do, and what to do about the rest."),
    "gc": ("stockade.sandbox.cli:gc", "Remove what ended or killed containers left."),
    "completion": ("stockade.commands:completion", "Print the completion for a shell."),
}

EXAMPLES = (
    ("stockade run --host ls /", "a program of the host, without the host's privilege"),
    ("stockade run --rootfs /srv/alpine --memory 64m --timeout 10 -it sh", "a shell in a root file system of your own"),
    ("stockade audit pid:1234", "how could that process reach the host?"),
    ("stockade info", "what can be enforced here?"),
)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    examples=EXAMPLES,
    invoke_without_command=True,
    epilog="Every command has its own --help. Colour: only on a terminal, and never with NO_COLOR set.",
)
@click.version_option(__version__, message="stockade %(version)s")
@click.pass_context
def stockade(ctx: click.Context) -> None:
    """Launch containers with exactly the privilege you name, and see what any container really has."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


SHELLS = ("bash", "zsh", "fish")

_COMPLETION_EXAMPLES = (
    ('eval "$(stockade completion bash)"', "in ~/.bashrc"),
    ('eval "$(stockade completion zsh)"', "in ~/.zshrc, after compinit"),
    ("stockade completion fish > ~/.config/fish/completions/stockade.fish", "for fish, once"),
)


class Bash(BashComplete):
    """bash hands over words that it split at = and : too (COMP_WORDBREAKS), click expects `--memory=64m` as one."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Give the words before the one to complete, and that one."""
        before, incomplete = super().get_completion_args()
        words: list[str] = []
        glue = False
        for word in (*before, incomplete):
            joint = word in {"=", ":"}
            if words and (joint or glue):
                words[-1] += word
            else:
                words.append(word)
            glue = joint
        return words[:-1], words[-1]


add_completion_class(Bash, "bash")


@click.command(cls=Command, examples=_COMPLETION_EXAMPLES)
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion for a shell: options, values, files, capabilities, programs."""
    source = get_completion_class(shell)
    if source is None:
        raise StockadeError(f"click knows no completion for {shell}")
    # BashComplete.source() would run bash to learn its version
    click.echo(ShellComplete.source(source(stockade, {}, "stockade", COMPLETE)))


def dispatch(arguments: list[str]) -> int:
    """Run the command that `arguments` ask for and give its exit code. Raises StockadeError and BrokenPipeError.

    click's own main() would make an exit code 1 of a broken pipe, which is a verdict of an audit.
    """
    instruction = os.environ.get(COMPLETE)
    if instruction:
        return shell_complete(stockade, {}, "stockade", COMPLETE, instruction)
    try:
        with stockade.make_context("stockade", arguments) as ctx:
            code = stockade.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:  # click's word for KeyboardInterrupt
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        raise refusal(error, arguments[0] if arguments and arguments[0] in COMMANDS else "") from None
    return code if isinstance(code, int) else 0
