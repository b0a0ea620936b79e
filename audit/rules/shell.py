"""The commands of a Dockerfile's RUN, from the words that its collector split: pipelines, and the programs in them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from stockade.audit.facts import BuildStep
from stockade.audit.static.dockerfile_words import shell_words

_ENDS = frozenset({";", "&&", "||", "&", ";;", "(", ")"})
_PIPES = frozenset({"|", "|&"})
_KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{", "}", "fi", "done", "time"})
#: programs that only start another one, and their options that take a word
_STARTERS = {
    "sudo": frozenset({"-u", "-g", "-h", "-p", "-C", "-r", "-t"}),
    "doas": frozenset({"-u", "-C"}),
    "env": frozenset({"-u", "-C", "-S"}),
    "exec": frozenset(),
    "nohup": frozenset(),
    "command": frozenset(),
    "timeout": frozenset({"-k", "-s"}),
    "nice": frozenset({"-n"}),
    "xargs": frozenset({"-n", "-I", "-L", "-P", "-d"}),
}
SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_DEEPEST = 3

Command = tuple[str, ...]
Pipeline = tuple[Command, ...]


def pipelines(step: BuildStep) -> Iterator[Pipeline]:
    """Give the pipelines of a RUN, those in the text of `sh -c` too; none of another instruction."""
    if step.instruction == "RUN":
        yield from _pipelines(step.arguments if step.shell else _in_one(step.arguments), 0)


def commands(step: BuildStep) -> Iterator[Command]:
    """Give each command of a RUN as words, with the assignments before it and what starts it (sudo, env)."""
    for pipeline in pipelines(step):
        yield from pipeline


def _in_one(arguments: Sequence[str]) -> tuple[str, ...]:
    """Take operators out of the JSON form, in which nothing is one."""
    return tuple([word if word not in _ENDS | _PIPES else f"'{word}'" for word in arguments])


def _pipelines(words: Sequence[str], depth: int) -> Iterator[Pipeline]:
    pipeline: list[Command] = []
    command: list[str] = []
    for word in (*words, ";"):
        if word not in _ENDS and word not in _PIPES:
            command.append(word)
            continue
        if command:
            pipeline.append(tuple(command))
            command = []
        if word in _ENDS and pipeline:
            yield tuple(pipeline)
            if depth < _DEEPEST:
                for each in pipeline:
                    yield from _inside(each, depth)
            pipeline = []


def _inside(command: Command, depth: int) -> Iterator[Pipeline]:
    name, arguments = program(command)
    if name in SHELLS:
        for option, text in pairwise(arguments):
            if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
                yield from _pipelines([word for word, _ in shell_words(text)], depth + 1)
                return


def assigned(command: Command) -> dict[str, str]:
    """Give the variables that are set for a command, or by `export`."""
    found: dict[str, str] = {}
    words = command[1:] if command[:1] in {("export",), ("env",), ("declare",)} else command
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            break
        found[name] = value
    return found


def programs(command: Command) -> Iterator[str]:
    """Give the names of the program that a command runs and of those that start it: of `sudo env a`, all three."""
    while command:
        name, rest = _first(command)
        if not name:
            return
        yield name
        if name not in _STARTERS:
            return
        command = _after(name, rest)


def program(command: Command) -> tuple[str, Command]:
    """Give the name of the program that a command is about, without its directory, and its arguments."""
    while True:
        name, rest = _first(command)
        if name not in _STARTERS:
            return name, rest
        command = _after(name, rest)


def _first(command: Command) -> tuple[str, Command]:
    for number, word in enumerate(command):
        if word in _KEYWORDS or ("=" in word and word.split("=", 1)[0].isidentifier()):
            continue
        return word.rpartition("/")[2], command[number + 1 :]
    return "", ()


def _after(name: str, rest: Command) -> Command:
    """Give what a program that starts another one is given to start."""
    index = 0
    takes = _STARTERS[name]
    while index < len(rest) and rest[index].startswith("-"):
        index += 2 if rest[index] in takes else 1
    if name == "timeout":
        index += 1
    return rest[index:]
