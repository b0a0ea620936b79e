"""docs/ keeps up with what is driven."""

from __future__ import annotations

from tests.kernel.clients import table


def test_the_page_about_clients_has_every_test() -> None:
    assert (table.HERE.parents[2] / "docs/clients.md").read_text() == table.page()


def test_every_file_of_tests_has_its_client() -> None:
    files = {path.name for path in table.HERE.glob("test_*.py")}

    assert files - {"test_documentation.py", "test_audit.py"} == set(table.CLIENTS)
