"""The HTML report in headless Chromium: what a reader sees, types and prints."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from stockade.reports.html import render
from tests.reports.browser import Page
from tests.reports.samples import many, three

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: contrast of each visible text with what lies behind it, as WCAG 2 computes it; those that are too low
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = rgb(getComputedStyle(element).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  document.querySelectorAll("details").forEach((element) => { element.open = true; });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = new Set();
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest(".vh, script, [aria-hidden]")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(`${element.className}: ${text}`);
  }
  return [seen, [...low]];
})()"""
VISIBLE = "[...document.querySelectorAll('{}')].filter((element) => element.checkVisibility()).length"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(three()))
    return path.as_uri()


@pytest.fixture
def page(browser: Page, address: str) -> Iterator[Page]:
    browser.size(1280, 900)
    browser.media()
    browser.open(address)
    yield browser
    assert browser.problems == []
    assert browser.requests == [address]


def visible(page: Page, selector: str) -> int:
    return int(page.run(VISIBLE.format(selector)))


def focused(page: Page) -> str:
    return str(
        page.run("((a) => a.name ? `${a.name}=${a.value}` : a.hash || a.id || a.localName)(document.activeElement)")
    )


def test_a_severity_is_taken_away_by_the_keyboard(page: Page) -> None:
    assert visible(page, ".card.finding") == 4
    page.run("document.querySelector('input[value=critical]').focus()")
    page.key(" ", 32)
    page.settle()

    assert visible(page, ".card.finding") == 2
    assert visible(page, ".card.finding[data-severity=critical]") == 0
    assert visible(page, ".card.path") == 0
    assert visible(page, "[data-nothing=path]") == 1
    assert page.run(STATUS) == "3 of 5 findings and 0 of 4 attack paths shown"
    assert page.run("document.getElementById('status').getAttribute('role')") == "status"


def test_words_are_found_in_title_evidence_and_target(page: Page) -> None:
    page.run("document.querySelector('[name=text]').focus()")
    page.type("DOCKER socket")

    assert visible(page, ".card.finding") == 1
    assert visible(page, ".card.path") == 1
    assert page.run(STATUS) == "1 of 5 findings and 1 of 4 attack paths shown"
    page.type(" nowhere")
    assert page.run(STATUS) == "0 of 5 findings and 0 of 4 attack paths shown"
    assert visible(page, "[data-nothing=finding]") == 1


def test_a_target_leaves_its_own_findings_in_shared_cards(page: Page) -> None:
    page.run(
        "(select => { select.value = 'container:blind'; select.dispatchEvent(new Event('input', { bubbles: true })); })"
        "(document.querySelector('[name=target]'))"
    )
    page.settle()

    assert page.run(STATUS) == "1 of 5 findings and 0 of 4 attack paths shown"
    assert page.run("document.querySelector('[data-rule=new_privileges] [data-of]').textContent") == "1 of 2 targets"
    assert page.run("document.querySelector('[data-tally=low]').textContent") == "1"
    assert page.run("document.querySelector('[data-tally=critical]').textContent") == "0"
    assert visible(page, "#unknown tbody tr") > 0


def test_a_category_and_a_path_can_be_chosen(page: Page) -> None:
    choose = (
        "(select => {{ select.value = '{}'; select.dispatchEvent(new Event('input', {{ bubbles: true }})); }})"
        "(document.querySelector('[name=rule]'))"
    )
    page.run(choose.format("category:resources"))
    page.settle()
    assert page.run(STATUS) == "1 of 5 findings and 0 of 4 attack paths shown"
    page.run(choose.format("AP-SOCK"))
    page.settle()
    assert page.run(STATUS) == "0 of 5 findings and 1 of 4 attack paths shown"


def test_clear_brings_everything_back(page: Page) -> None:
    page.run("document.querySelector('[name=text]').focus()")
    page.type("docker")
    page.run("document.querySelector('button[type=reset]').click()")
    page.settle()

    assert visible(page, ".card.finding") == 4
    assert page.run(STATUS) == "5 of 5 findings and 4 of 4 attack paths shown"


def test_tab_goes_through_the_page_in_the_order_of_reading(page: Page) -> None:
    order = []
    for _ in range(17):
        page.key("Tab", 9)
        order.append(focused(page))

    assert order[0] == "#main"
    assert order[1:7] == ["#unknown", "#paths", "#targets", "#findings", "#unknown", "#not-applicable"]
    assert order[7:12] == [f"severity={name}" for name in ("critical", "high", "medium", "low", "info")]
    assert order[12:16] == ["target=", "rule=", "text=", "button"]
    assert order[16] == "summary"


def test_the_focus_can_be_seen_and_skipping_leads_to_the_report(page: Page) -> None:
    page.key("Tab", 9)
    outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
    page.key("Enter", 13)
    page.run("document.activeElement.click()")
    page.settle()

    assert outline == "solid"
    assert focused(page) == "main"


def test_a_link_opens_what_it_points_at_even_when_filtered_out(page: Page) -> None:
    page.run("document.querySelector('[name=text]').focus()")
    page.type("AP-DISK")
    anchor = page.run("document.querySelector('[data-rule=new_privileges] [data-item]').id")
    assert visible(page, f"#{anchor}") == 0
    page.run(f"location.hash = '#{anchor}'")
    page.settle()

    assert visible(page, f"#{anchor}") == 1
    assert page.run(f"document.getElementById('{anchor}').getBoundingClientRect().top") > 40  # below the filters


def test_only_the_rows_that_differ_can_be_asked_for(page: Page) -> None:
    alike = visible(page, ".beside tr.alike")
    page.run("document.getElementById('only-differing').click()")

    assert alike > 0
    assert visible(page, ".beside tr.alike") == 0
    assert visible(page, ".beside tr.differs") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_asks_for(page: Page, scheme: str) -> None:
    page.media(prefers_color_scheme=scheme)
    seen, low = page.run(CONTRAST)

    assert seen > 200
    assert low == []


def test_the_contrast_test_can_fail(page: Page) -> None:
    page.run("document.querySelector('h1').style.color = 'silver'")

    assert page.run(CONTRAST)[1]


def test_on_paper_all_is_open_and_no_control_is_left(page: Page) -> None:
    closed = "document.querySelector('.finding:not([open]) .fix').checkVisibility({ contentVisibilityAuto: false })"
    assert page.run(closed) is False
    page.media("print")

    assert page.run(closed) is True
    assert visible(page, "#filters, nav, .tools, .only-differing") == 0
    assert page.paper().startswith(b"%PDF-")


def test_paper_says_that_it_shows_a_part_only(page: Page) -> None:
    page.run("document.querySelector('[name=text]').focus()")
    page.type("docker")
    page.media("print")

    assert visible(page, "#status") == 1
    assert visible(page, "#filters select") == 0


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_window_scrolls_tables_and_never_the_page(page: Page, width: int) -> None:
    page.size(width, 800)
    page.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    page.settle()

    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("((e) => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))") is True


def test_without_a_script_everything_can_be_read(page: Page, address: str) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(address)
        page.call("Emulation.setScriptExecutionDisabled", value=False)  # so that the test can look
        assert visible(page, "#filters, .tools, .only-differing") == 0
        assert visible(page, ".card.finding > summary") == 4
        assert visible(page, ".chain .end") == 4
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_policy_stops_a_script_that_got_into_the_file(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(
        render(three()).replace("<main", "<script>document.title = 'owned'</script><img src=//x.invalid/y><main")
    )
    browser.open(path.as_uri())

    assert browser.run("document.title") != "owned"
    assert sum("Content Security Policy" in problem for problem in browser.problems) == 2


def test_a_large_report_answers_at_once(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "large.html"
    path.write_text(render(many(200, 3000)))
    browser.size(1280, 900)
    browser.media()
    browser.open(path.as_uri())
    browser.run("document.querySelector('[name=text]').focus()")
    took = browser.run(
        "new Promise((done) => { const began = performance.now(); const field = document.querySelector('[name=text]');"
        " field.value = 'docker web-1'; field.dispatchEvent(new Event('input', { bubbles: true }));"
        " requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))); })"
    )

    assert took < 2000
    assert browser.run(STATUS).endswith("attack paths shown")
    assert not browser.run(STATUS).startswith("3000 ")
    assert browser.problems == []


def test_the_picture_is_not_empty(page: Page) -> None:
    picture = page.picture()

    assert picture.startswith(b"\x89PNG")
    assert len(zlib.compress(picture)) > 20_000
