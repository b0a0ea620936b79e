"""The shells' completion of `stockade-runtime`: plain scripts of the tables, so that a key costs no start of Python.

Only the names of containers are asked for when they are wanted: `list --quiet`, with the --root of the line.
"""

from __future__ import annotations

from stockade.sandbox.runtime.arguments import CHOICES, COMMANDS, FLAG, GLOBAL, NAMELESS, PROGRAM
from stockade.sandbox.runtime.usage import ABOUT, VALUES, meaning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stockade.sandbox.runtime.arguments import Row

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Give the script for a shell, one of SHELLS."""
    if shell == "fish":
        return _fish()
    body = _BASH.replace("@OPTIONS@", _cases({"": GLOBAL} | {name: row[2] for name, row in COMMANDS.items()}))
    body = body.replace("@VALUES@", _values()).replace("@COMMANDS@", " ".join(COMMANDS))
    body = body.replace("@VALUED@", "|".join(_valued(GLOBAL))).replace("@NAMELESS@", "|".join(_BARE))
    # zsh's own emulation of bash's completion: one script to keep right
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return head + body


_BARE = tuple(name for name, row in COMMANDS.items() if row[1] == 0)

_BASH = """\
_stockade_runtime() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    local command="" root="" given="" prefix="" place
    if [[ $word == "=" ]]; then word=""; fi
    if [[ $before == "=" ]]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi
    if [[ $word == --*=* ]]; then # zsh doesn't split at it
        before="${word%%=*}"; prefix="$before="; word="${word#*=}"
    fi
    for ((place = 1; place < COMP_CWORD; place++)); do
        case "${COMP_WORDS[place]}" in
            --root) root="${COMP_WORDS[place+1]}"; ((place++))
                if [[ $root == "=" ]]; then root="${COMP_WORDS[place+1]}"; ((place++)); fi ;;
            --root=*) root="${COMP_WORDS[place]#--root=}" ;;
            @VALUED@) if [[ -z $command ]]; then ((place++)); fi ;;
            =) ((place++)) ;;
            -*) ;;
            *) if [[ -z $command ]]; then command="${COMP_WORDS[place]}"; else given="${COMP_WORDS[place]}"; fi ;;
        esac
    done
    COMPREPLY=()
    case "$command $before" in
@VALUES@
    esac
    if [[ $word == -* ]]; then
        local options=""
        case "$command" in
@OPTIONS@
        esac
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    elif [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
    else
        case "$command" in
            completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")); return ;;
            help) COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word")); return ;;
            @NAMELESS@) return ;;
        esac
        if [[ -z $given ]]; then
            COMPREPLY=($(compgen -W "$(stockade-runtime ${root:+--root "$root"} list --quiet 2>/dev/null)" -- "$word"))
        elif [[ $command == kill ]]; then
            COMPREPLY=($(compgen -W "TERM KILL HUP INT QUIT USR1 USR2 STOP CONT" -- "$word"))
        fi
    fi
}
complete -o default -F _stockade_runtime stockade-runtime
"""


def _flags(name: str, row: Row) -> list[str]:
    return [f"--{name}", *([f"-{row[0]}"] if row[0] else [])]


def _valued(table: dict[str, Row]) -> list[str]:
    return [flag for name, row in table.items() if row[1] != FLAG for flag in _flags(name, row) if name != "root"]


def _cases(tables: dict[str, dict[str, Row]]) -> str:
    lines: list[str] = []
    for command, table in tables.items():
        flags = [flag for name, row in table.items() for flag in _flags(name, row)] + (["--help"] if command else [])
        lines.append(f'            "{command}") options="{" ".join(flags)}" ;;')
    return "\n".join(lines)


def _values() -> str:
    """Give a case for each kind of value: the options that take it, and compgen's way to complete it."""
    kinds: dict[str, list[str]] = {}
    for command, table in (("", GLOBAL), *((name, row[2]) for name, row in COMMANDS.items())):
        for name, row in table.items():
            if row[1] != FLAG:
                kinds.setdefault(_source(name), []).extend(f'"{command} {flag}"' for flag in _flags(name, row))
    lines: list[str] = []
    for source, patterns in kinds.items():
        lines.append("        " + "|".join(patterns) + ")")
        reply = f'COMPREPLY=($(compgen -P "$prefix" {source} -- "$word"))' if source else ":"
        lines.append(f"            {reply}; return ;;")
    return "\n".join(lines)


def _source(name: str) -> str:
    """Give compgen's option for the value of an option, or nothing where no word is better than another."""
    if name in CHOICES:
        return f'-W "{" ".join(CHOICES[name])}"'
    return {"DIR": "-d", "FILE": "-f", "SOCKET": "-f"}.get(VALUES.get(name, ""), "")


def _fish() -> str:
    """Give fish's script: one line for each command and each option."""
    words = " ".join(COMMANDS)
    lines = [
        "function __stockade_runtime_containers",
        "    set -l root (string match -r -- '--root[= ](\\S+)' (commandline -cp))[2]",
        f"    {PROGRAM} (test -n \"$root\"; and printf '%s\\n' --root $root) list --quiet 2>/dev/null",
        "end",
        f"complete -c {PROGRAM} -f",
    ]
    for name, (_, most, table) in COMMANDS.items():
        lines.append(
            _fish_line(f"not __fish_seen_subcommand_from {words}", f"-a {name} -d '{_quoted(ABOUT[name][1])}'")
        )
        if most != 0 and name not in NAMELESS:
            lines.append(_fish_line(f"__fish_seen_subcommand_from {name}", "-a '(__stockade_runtime_containers)'"))
        lines += [
            _fish_line(f"__fish_seen_subcommand_from {name}", _fish_option(name, option, row))
            for option, row in table.items()
        ]
    lines.append(_fish_line("__fish_seen_subcommand_from completion", f"-a '{' '.join(SHELLS)}'"))
    lines.append(_fish_line("__fish_seen_subcommand_from help", f"-a '{words}'"))
    seen = f"not __fish_seen_subcommand_from {words}"
    lines += [_fish_line(seen, _fish_option("", name, row)) for name, row in GLOBAL.items()]
    return "\n".join(lines)


def _fish_line(condition: str, rest: str) -> str:
    return f"complete -c {PROGRAM} -n '{condition}' {rest}"


def _fish_option(command: str, name: str, row: Row) -> str:
    short = f" -s {row[0]}" if row[0] else ""
    value = "" if row[1] == FLAG else " -r"
    if name in CHOICES:
        value = f" -x -a '{' '.join(CHOICES[name])}'"
    elif VALUES.get(name) in {"DIR", "FILE", "SOCKET"}:
        value = " -r -F"
    about = meaning(command, name)
    return f"-l {name}{short}{value}" + (f" -d '{_quoted(about)}'" if about else "")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
