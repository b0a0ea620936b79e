"""The HTML report, read as a document: its structure, what it escapes, what its policy allows."""

from __future__ import annotations

import itertools
import re
import time
import unicodedata
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from stockade.audit.report import Report, Severity
from stockade.reports import html
from stockade.reports.html import render
from tests.reports.samples import many, three

HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "<!-- ]]> <![CDATA[",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt; &#60;i&#62;",
    '=HYPERLINK("http://evil.invalid","x")',
]
#: fields that hold a word of our own or a number, not text of a container
OURS = {
    "kind",
    "uid_map",
    "gid_map",
    "capabilities",
    "namespaces",
    "rule",
    "conditions",
    "references",
    "generated",
    "fingerprint",
}
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Document(HTMLParser):
    """All elements with their attributes, and the text of each as it would be read."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def text(self, tag: str) -> str:
        return "".join(text for inside, text in self.texts if inside == tag)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def poison(value: Any, payload: str) -> Any:
    """Add a payload to each text of a report that a container could have chosen."""
    if isinstance(value, str):
        return value + payload
    if isinstance(value, tuple):
        return tuple(poison(each, payload) for each in value)
    if isinstance(value, dict):
        return {key: poison(each, payload) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: poison(getattr(value, f.name), payload) for f in fields(value) if f.name not in OURS}
        return replace(value, **changed)
    return value


@pytest.fixture(scope="module")
def document() -> Document:
    return Document(render(three()))


def shape(source: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(attributes)) for tag, attributes in Document(source).tags]


@pytest.mark.parametrize("payload", HOSTILE)
def test_no_text_of_a_container_adds_an_element_or_an_attribute(payload: str) -> None:
    assert shape(render(poison(three(), payload))) == shape(render(poison(three(), " harmless")))


@pytest.mark.parametrize("payload", HOSTILE)
def test_what_a_container_is_called_can_be_read_as_it_is(payload: str) -> None:
    found = Document(render(poison(three(), payload)))

    assert f"container:weak{payload}" in [text for _, text in found.texts]
    assert f"container:weak{payload}" in found.attributes("data-target")


def test_control_and_reordering_characters_are_shown_and_do_nothing() -> None:
    nasty = "\x1b]0;owned\x07\x00\r\u202egpj.exe\u2066\u200b\ufeff\u00ad\U000e0041\udcff"
    source = render(poison(three(), nasty))

    forbidden = {c for c in source if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs"}}

    assert not forbidden
    assert "\\x1b]0;owned\\x07\\x00\\x0d\\u202egpj.exe\\u2066\\u200b\\ufeff\\xad\\U000e0041\\xff" in source
    source.encode()


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(document: Document) -> None:
    (policy,) = [
        meta["content"] for meta in document.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    style, script = html.digest(document.text("style")), html.digest(document.text("script"))

    assert len(document.all("style")) == len(document.all("script")) == 1
    assert (
        policy == f"default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"
    )


def test_the_policy_stands_before_everything_that_it_governs(document: Document) -> None:
    tags = [tag for tag, _ in document.tags]

    assert tags[:4] == ["html", "head", "meta", "meta"]
    assert document.tags[3][1]["http-equiv"] == "Content-Security-Policy"


def test_nothing_is_loaded_from_outside(document: Document) -> None:
    names = {name for _, attributes in document.tags for name in attributes}
    style = document.text("style")

    assert not names & {"src", "srcset", "action", "poster", "data", "background", "style"}
    assert not [name for name in names if name.startswith("on")]
    assert not {tag for tag, _ in document.tags} & {"link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import|@font-face", style)
    assert {"href" in attributes for attributes in document.all("a")} == {True}
    assert all(re.match(r"#|https?://", attributes["href"]) for attributes in document.all("a"))


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "https://x.invalid/ onclick", "file:///x"]
)
def test_only_a_web_address_becomes_a_link(address: str) -> None:
    report = three()
    report = replace(report, findings=tuple(replace(one, references=(address,)) for one in report.findings))
    found = Document(render(report))

    assert address not in found.attributes("href")
    assert address in [text for _, text in found.texts]


def test_the_parts_come_in_the_order_of_their_weight(document: Document) -> None:
    sections = [attributes["id"] for attributes in document.all("section") if "id" in attributes]

    assert sections == ["paths", "targets", "findings", "unknown", "not-applicable"]


def test_headings_skip_no_level_and_there_is_one_title(document: Document) -> None:
    levels = [int(tag[1]) for tag, _ in document.tags if re.fullmatch(r"h[1-6]", tag)]

    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_anchor_is_unique_and_every_reference_meets_one(document: Document) -> None:
    ids = document.attributes("id")
    inner = [href[1:] for href in document.attributes("href") if href.startswith("#")]

    assert len(ids) == len(set(ids))
    assert {*inner, *document.attributes("aria-labelledby")} <= set(ids)


def test_tables_say_what_they_are_and_what_their_cells_belong_to(document: Document) -> None:
    assert len(document.all("table")) == len(document.all("caption"))
    assert all("scope" in attributes for attributes in document.all("th"))
    assert not re.findall(r"<(?:td|th)[^>]*></(?:td|th)>", render(three()).replace("<tr><td></td>", ""))


def test_an_attack_path_is_a_chain_that_ends_on_the_host_and_shows_the_link_to_break() -> None:
    source = render(three())
    (card,) = re.findall(
        r'<details class="card path"[^>]*data-rule="AP-MODULE.*?</div>\s*</div>\s*</details>', source, re.DOTALL
    )
    links = re.findall(r'<li class="(start|fact breaks|fact folded|fact|end)"', card)
    (path,) = [path for path in three().paths if path.id == "AP-MODULE"]

    assert links[0] == "start"
    assert links[-1] == "end"
    assert links.count("fact breaks") == 1
    assert len(links) == len(path.evidence) + 2
    assert "The cheapest fix that breaks it" in card


def test_a_long_chain_folds_and_never_hides_what_the_fix_takes_away() -> None:
    report = three()
    path = replace(
        report.paths[0], evidence=tuple(f"/dev/x{n}: fact {n}" for n in range(20)), breaks="/dev/x19: fact 19"
    )
    source = render(replace(report, paths=(path,)))
    folded = source[source.index("fact folded") : source.index("</details>", source.index("fact folded"))]

    assert "16 more of the same kind" in folded
    assert "fact 18" in folded
    assert "fact 19" not in folded
    assert source.count("the fix takes this away") == 1


def test_targets_stand_side_by_side_and_what_differs_is_said() -> None:
    source = render(three())
    table = source[source.index('<table class="beside">') : source.index("</table>")]
    head = table[: table.index("</thead>")]

    assert [name in head for name in ("container:weak", "container:socket", "container:blind")] == [True] * 3
    assert table.count("<td>") == 3 * table.count('scope="row"') + 1
    assert 'Effective</span><span class="vh"> (differs)' in table
    assert 'Limit of swap</span><span class="vh"> (differs)' in table
    assert 'Inheritable</span><span class="vh"> (differs)' not in table
    assert "risky: </span>SYS_ADMIN" in table


def test_capabilities_in_an_own_user_namespace_are_not_called_risky() -> None:
    report = three()
    (weak, *_) = report.targets
    own = replace(weak, namespaces={**weak.namespaces, "user": "own"})

    assert "risky: </span>SYS_ADMIN" not in render(replace(report, targets=(own,)))
    assert "count in its own user namespace only" in render(replace(report, targets=(own,)))


def test_the_same_finding_on_two_targets_is_one_card_with_both() -> None:
    source = render(three())
    (card,) = re.findall(
        r'<details class="card finding"[^>]*data-rule="new_privileges".*?</details>', source, re.DOTALL
    )

    assert re.findall(r'data-item data-target="([^"]*)"', card) == ["container:blind", "container:socket"]
    assert card.count("Why it matters") == 1


def test_a_finding_tells_evidence_reason_fix_conditions_and_references() -> None:
    report = three()
    source = re.sub(r"</?(?:code|span)[^>]*>", "", render(report))

    for finding in report.findings:
        prose = [html.sentence(text) for text in (finding.title, finding.why.split(".")[0], finding.fix)]
        for text in (*prose, *finding.evidence, *finding.conditions, finding.rule, *finding.references):
            assert text.replace("'", "&#39;") in source


def test_what_was_not_checked_is_listed_with_its_reason() -> None:
    report = three()
    source = render(report)

    reasons = [each.reason for each in report.unknown] + [each.reason for each in report.not_applicable]

    assert len(set(reasons)) >= 2
    for reason in reasons:
        assert html.sentence(reason) in source
    assert f"{len(report.unknown)} checks could not be made" in source


def test_nothing_found_is_said_with_what_it_is_worth() -> None:
    clean = replace(three(), findings=(), paths=())

    assert "No attack path to the host was found" in render(clean)
    assert "What could not be checked may hide one" in render(clean)
    assert "No container was audited" in render(Report(targets=(), findings=()))


def test_the_verdict_is_told_in_words() -> None:
    assert "<b>Failed</b>" in render(three())
    assert 'class="verdict' not in render(replace(three(), verdict=Report((), ()).verdict))


def test_the_same_report_gives_the_same_text_and_no_time_of_its_own() -> None:
    report = replace(three(), generated="")

    assert render(report) == render(report)
    assert "<time" not in render(report)


def test_twice_the_same_fingerprint_makes_no_double_anchor() -> None:
    report = three()
    twins = tuple(replace(one, fingerprint="aaaa") for one in report.findings)
    ids = Document(render(replace(report, findings=twins))).attributes("id")

    assert len(ids) == len(set(ids))
    assert {"finding-aaaa", "finding-aaaa-2"} <= set(ids)


def test_two_hundred_targets_and_three_thousand_findings_take_two_seconds_at_most() -> None:
    report = many(200, 3000)
    began = time.process_time()
    source = render(report)
    took = time.process_time() - began

    assert took < 2
    assert Document(source).attributes("data-of")
    assert source.count("<li id=") == 3000
    assert len(source) < 10_000_000


def test_a_name_is_a_capital_only_where_that_changes_no_identifier() -> None:
    assert html.sentence("the container is privileged") == "The container is privileged"
    for text in ("/dev/vda can be opened", "core_pattern can be written", "sysrq-trigger reboots", "x"):
        assert html.sentence(text) == text


def test_every_severity_can_be_filtered() -> None:
    found = Document(render(three()))

    assert found.attributes("data-tally") == [severity.label for severity in reversed(Severity)]


def test_nothing_found_is_no_tick_where_not_everything_was_checked() -> None:
    source = render(three())
    row = source[source.index("Attack paths</span>") :]
    row = row[: row.index("</tr>")]

    assert re.findall(r"tone (\w+)", row) == ["risk", "risk", "unknown"]
    assert "not everything could be checked" in row


@pytest.mark.parametrize(
    ("evidence", "source", "text"),
    [
        ("/proc/17/status: host uids 0 0 0 0", "/proc/17/status", "host uids 0 0 0 0"),
        ("/proc/17/mountinfo:3: /usr is the host's", "/proc/17/mountinfo:3", "/usr is the host's"),
        ("compose.yml:7:3: privileged: true", "compose.yml:7:3", "privileged: true"),
        ("CAP_BPF, CAP_SYSLOG: the container looks in", "", "CAP_BPF, CAP_SYSLOG: the container looks in"),
    ],
)
def test_evidence_tells_its_place_from_what_was_read(evidence: str, source: str, text: str) -> None:
    assert html.line_of(evidence) == (source, text)
