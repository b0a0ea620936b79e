"""Nothing that a container chose gets through to a report as a secret, a control character or a forged line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.audit.redact import HIDDEN, clean, visible


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("mysqld --password=hunter2 --port 3306", "hunter2"),
        ("app --db-password hunter2", "hunter2"),
        ("env API_KEY=hunter2 app", "hunter2"),
        ("//server/share cifs username=u,password=hunter2,uid=0", "hunter2"),
        ("curl -H 'Authorization: Bearer hunter2' host", "hunter2"),
        ("postgres://app:hunter2@db/app", "hunter2"),
        ("deploy AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("push ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
        ("SECRET_TOKEN='two words'", "two words"),
        ("password=\x1b[31mhunter2", "hunter2"),
    ],
)
def test_a_secret_is_replaced(text: str, secret: str) -> None:
    shown = clean(text)

    assert secret not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        "/proc/7/status:9: host uids 0 0 0 0",
        "the filter lets through keyctl, add_key",
        "CAP_SYS_ADMIN counts against the host",
        "keyctl is allowed: use keyrings, which have no namespace",
        "/etc/ssh is the host's /etc/ssh, writable",
        "/run/secrets/app: owned by 0",
        "secrets.yml:3: privileged: true",
        "start-up files: the host's /etc/passwd is mounted at /etc/passwd",
    ],
)
def test_evidence_without_secrets_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_escapes_and_bidirectional_marks_become_visible() -> None:
    assert visible("a\x1b[2Jb\u202ec\nd\udcffe") == "a\\x1b[2Jb\\u202ec\\x0ad\\xffe"


@given(st.text())
def test_what_is_shown_is_one_line_of_printable_characters(text: str) -> None:
    shown = clean(text)

    shown.encode("utf-8")
    assert not any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u2028\u2029\u202e" for each in shown)
