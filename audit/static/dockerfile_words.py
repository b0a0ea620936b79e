"""Words of a Dockerfile: variables replaced as BuildKit does, and shell commands split into words and operators.

Source: moby/buildkit, frontend/dockerfile/shell/lex.go; POSIX XCU 2.3 for the shell's tokens.
"""

import re
from collections.abc import Callable, Iterator, Mapping

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+?]|##?|%%?|//?)((?:[^{}\\]|\\.|\$\{[^{}]*\})*))?\})")
#: levels of ${a:-${b:-...}}
_DEEPEST = 8
_DOUBLE = re.compile(r"\\.|[^\\]+|\\$", re.DOTALL)
_PARTS = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|[^'\"\\]+|.", re.DOTALL)


class Unresolved(Exception):
    """A variable has no value here: an ARG without a default."""


def substitute(text: str, variables: Mapping[str, str | None], escape: str = "\\") -> str:
    """Replace variables and take quotes away, as BuildKit does with the words of most instructions.

    A variable of value None is an ARG without a default: Unresolved is raised where it is used. One that isn't there is
    empty.
    """
    if "$" not in text and escape not in text and '"' not in text and "'" not in text:
        return text
    parts = []
    for match in _PARTS.finditer(text if escape == "\\" else text.replace("\\", "\\\\").replace(escape, "\\")):
        part = match.group()
        if part[0] == "'" and len(part) > 1:
            parts.append(part[1:-1])
        elif part[0] == '"' and len(part) > 1:
            parts += [_quoted(each, variables) for each in _DOUBLE.findall(part[1:-1])]
        elif part[0] == "\\" and len(part) > 1:
            parts.append(part[1])
        else:
            parts.append(_expanded(part, variables, 0))
    return "".join(parts)


def _quoted(part: str, variables: Mapping[str, str | None]) -> str:
    """Give a part of what stands in double quotes: only a quote, a dollar and a backslash can be escaped there."""
    escaped = len(part) == 2 and part[0] == "\\" and part[1] in '"$\\'
    return part[1] if escaped else _expanded(part, variables, 0)


def _expanded(text: str, variables: Mapping[str, str | None], depth: int) -> str:
    if "$" not in text or depth > _DEEPEST:
        return text
    return _VARIABLE.sub(lambda match: _value(match, variables, depth), text)


def _value(match: re.Match[str], variables: Mapping[str, str | None], depth: int) -> str:
    name = match[1] or match[2]
    operator, word = match[3] or "", match[4] or ""
    known = name in variables
    value = variables.get(name)
    unset = not known or (operator.startswith(":") and value == "")
    if operator.endswith("+"):
        return "" if unset else _expanded(word, variables, depth + 1)
    if operator.endswith("-") and (unset or value is None):
        return _expanded(word, variables, depth + 1)
    if known and value is None:
        raise Unresolved(name)
    if operator and operator[0] in "#%/" and value:
        raise Unresolved(name)  # patterns: rare, and a wrong guess is worse than none
    return value or ""


def pairs(text: str, split: Callable[[str], list[str]]) -> list[tuple[str, str]]:
    """Read the arguments of ENV, ARG or LABEL: `name=value ...`, or the old form `name value` of one pair."""
    found = split(text)
    if not found:
        return []
    if "=" not in found[0]:
        name, _, value = text.strip().partition(" ")
        return [(name, value.strip())] if value else [(name, "")]
    return [(name, value) for name, equals, value in (word.partition("=") for word in found) if equals or name]


_OPERATORS = (
    "&&",
    "||",
    ";;",
    "|&",
    ">>",
    "<<<",
    "<<-",
    "<<",
    ">&",
    "<&",
    "&>",
    ">|",
    "|",
    "&",
    ";",
    "(",
    ")",
    "<",
    ">",
)
_BREAKS = frozenset(" \t\n|&;()<>")
_TOKEN = re.compile("|".join(re.escape(each) for each in _OPERATORS))


def shell_words(text: str, escape: str = "\\") -> Iterator[tuple[str, int]]:
    """Split a shell command into words without their quotes, and operators; each with its offset.

    A newline that ends a command is the word ";". Variables and substitutions stay as they are written.
    """
    index, length = 0, len(text)
    while index < length:
        character = text[index]
        if character == "\n":
            yield ";", index
            index += 1
        elif character.isspace():
            index += 1
        elif character == "#":
            index = _line_end(text, index)
        elif match := _TOKEN.match(text, index):
            yield match.group(), index
            index = match.end()
        else:
            word, end = _shell_word(text, index, escape)
            yield word, index
            index = max(end, index + 1)


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end


def _shell_word(text: str, index: int, escape: str) -> tuple[str, int]:
    parts: list[str] = []
    while index < len(text) and text[index] not in _BREAKS:
        character = text[index]
        if character == "'":
            end = text.find("'", index + 1)
            end = len(text) if end < 0 else end
            parts.append(text[index + 1 : end])
            index = end + 1
        elif character == '"':
            part, index = _double(text, index + 1)
            parts.append(part)
        elif character in {escape, "\\"}:
            if text[index + 1 : index + 2] != "\n":
                parts.append(text[index + 1 : index + 2])
            index += 2
        elif text.startswith(("$(", "${"), index):
            end = _balanced(text, index + 1)
            parts.append(text[index:end])
            index = end
        elif character == "`":
            end = text.find("`", index + 1)
            end = len(text) if end < 0 else end + 1
            parts.append(text[index:end])
            index = end
        else:
            parts.append(character)
            index += 1
    return "".join(parts), index


def _double(text: str, index: int) -> tuple[str, int]:
    """Read on in double quotes; gives what stands there and the index after the closing one."""
    parts: list[str] = []
    while index < len(text):
        character = text[index]
        if character == '"':
            return "".join(parts), index + 1
        if character == "\\" and text[index + 1 : index + 2] in {'"', "\\", "$", "`", "\n"}:
            parts.append(text[index + 1].replace("\n", ""))
            index += 2
        elif text.startswith(("$(", "${"), index):
            end = _balanced(text, index + 1)
            parts.append(text[index:end])
            index = end
        else:
            parts.append(character)
            index += 1
    return "".join(parts), index


def _balanced(text: str, index: int) -> int:
    """Find the end of what is opened at `index` by a bracket, brackets in it counted; the end of the text otherwise."""
    opening, closing = text[index], {"(": ")", "{": "}"}[text[index]]
    depth = 0
    for place in range(index, len(text)):
        if text[place] == opening:
            depth += 1
        elif text[place] == closing:
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)
