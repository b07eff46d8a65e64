"""The report's page in a real browser: what it shows, what can be done with it, and that its console stays empty."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import pytest
from chromium import Browser, Page

from sqzlab.analysis.published import read_published
from sqzlab.analysis.report import make_report, write_report

MakeStudy = Callable[..., Path]
Begin = Callable[..., Path]
ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>console.error('out')</script><img src=x onerror=console.error(1)>&lt;\u2028 end"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    try:
        path = chromium.find()
    except LookupError as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    one = Browser(path, tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    with browser.page() as page:
        yield page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, write: MakeStudy, begin: Begin) -> Path:
    """The page of a study that is half done, with a failed run whose files are hostile; made once, never changed."""
    folder = tmp_path_factory.mktemp("chromium") / "results" / "half"
    write(folder, seeds=(0, 1, 2), states={"resnet18-SP": "missing", "resnet18-RG-s0": "failed"})
    begin(folder, "resnet18-SP-s0", epoch=3)
    begin(folder, "resnet18-SP-s1", epoch=5, alive=False)
    failed = next(folder.glob("resnet18-RG-s0*"))
    told = {"error": f"ValueError: {HOSTILE}", "traceback": HOSTILE, "time": HOSTILE, "host": HOSTILE}
    (failed / "failure.json").write_text(json.dumps(told))
    (failed / "log.txt").write_text(f"{HOSTILE}\n" * 60)
    (failed / "config.json").write_text(json.dumps({"study": HOSTILE, "config": {HOSTILE: {HOSTILE: HOSTILE}}}))
    segment = {"first_step": 0, "last_step": 1, "why": HOSTILE, "host": HOSTILE}
    (failed / "provenance.json").write_text(json.dumps({"command": HOSTILE, "segments": [segment]}))
    (failed / "<img src=x onerror=console.error(1)>").touch()
    return report_of(folder)


def report_of(folder: Path) -> Path:
    return write_report(make_report(folder, read_published(ROOT / "results" / "published.csv")))


def run_id(written: Path, start: str) -> str:
    return next(path.name for path in written.parents[1].glob(f"{start}*"))


def column(tab: Page, table: str, number: int, body: int = 0) -> list[str]:
    rows = f"document.querySelector('{table}').tBodies[{body}].rows"
    found: list[str] = tab.ask(
        f"[...{rows}].filter(r => !r.matches('.section')).map(r => r.cells[{number}].textContent)"
    )
    return found


def header(table: str, number: int) -> str:
    return f"{table} thead th:nth-child({number + 1}) button"


# ---- a silent console --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_and_a_runs_page_say_nothing_and_ask_for_nothing(
    tab: Page, written: Path, scheme: str, width: int
) -> None:
    tab.shape(width)
    tab.media(scheme)
    tab.open(written)
    for start in ("resnet18-gap-s0", "resnet18-RG-s0", "resnet18-SP-s0"):
        tab.turn(f"#run-{run_id(written, start)}")
    tab.settle()
    assert tab.said == []
    assert set(tab.asked) == {written.as_uri()}


def test_a_page_of_every_kind_of_study_is_silent(tab: Page, make_study: MakeStudy) -> None:
    two = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap"]}
    studies = [
        *(make_study("results/none", states={"resnet18": "missing"}), make_study("results/one", seeds=[0])),
        *(make_study("results/two", matrix=two), make_study("results/failed", states={"resnet18": "failed"})),
    ]
    (studies[2] / "plan.json").unlink()
    for folder in studies:
        page = report_of(folder)
        tab.open(page)
        link = tab.ask("document.querySelector('a[href^=\"#run-\"]')?.getAttribute('href')")
        if link is not None:
            tab.turn(link)
        tab.settle()
    assert tab.said == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("throw new Error('lost')", "lost"),
        ("console.error('wrong')", "wrong"),
        ("console.warn('odd')", "odd"),
        ("Promise.reject(new Error('late'))", "late"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://localhost:9/x.png'}))", "violates"),
        ("fetch('https://localhost:9/').catch(() => 0)", "violates"),
        ("document.body.append(Object.assign(document.createElement('script'), {src: 'x.js'}))", "violates"),
    ],
)
def test_a_broken_page_is_noticed(tab: Page, written: Path, tmp_path: Path, broken: str, said: str) -> None:
    copy = tmp_path / "broken.html"
    copy.write_text(written.read_text().replace("</body>", f"<script>{broken}</script></body>"))
    tab.open(copy)
    tab.until_said(said)


def test_what_files_say_stays_text(tab: Page, written: Path) -> None:
    run = run_id(written, "resnet18-RG-s0")
    tab.open(written)
    before = tab.ask("[document.scripts.length, document.images.length]")
    tab.turn(f"#run-{run}")
    assert tab.ask("[document.scripts.length, document.images.length]") == before
    text = tab.ask("document.getElementById('run').textContent")
    assert text.count(HOSTILE) >= 40 + 6  # the log's lines, failure, configuration and origin
    assert tab.ask("[...document.querySelectorAll('#run .files a')].some(a => a.textContent.startsWith('<img'))")
    assert tab.said == []


# ---- runs --------------------------------------------------------------------------------------


def test_a_run_opens_by_its_link_and_back_returns_to_the_place_left(tab: Page, written: Path) -> None:
    run = run_id(written, "resnet18-gap-s1")
    tab.open(written)
    tab.click(f"a[href='#run-{run}']")
    tab.until("document.getElementById('report').hidden")
    left = tab.ask("document.querySelector('#run h2').textContent")
    assert left == run
    assert (
        tab.ask("[document.getElementById('report').hidden, document.title.startsWith('resnet18-gap-s1')]")
        == [True] * 2
    )
    assert tab.ask("document.activeElement.textContent") == run
    tab.ask("history.back()")
    tab.until("document.getElementById('run').hidden")
    tab.settle()
    assert tab.ask("[document.getElementById('run').hidden, document.getElementById('report').hidden]") == [True, False]
    assert tab.ask(f"(r => r.top >= 0 && r.bottom <= innerHeight)(document.querySelector('a[href=\"#run-{run}\"]')"
                   ".getBoundingClientRect())")  # fmt: skip


def test_a_run_opens_by_its_address_and_leads_back_to_its_arm(tab: Page, written: Path) -> None:
    tab.open(written, f"#run-{run_id(written, 'resnet18-gap-s1')}")
    text = tab.ask("document.getElementById('run').innerText")
    for part in ("Learning curve", "Configuration", "Where it comes from", "Files", "Other seeds of this arm"):
        assert part in text
    assert tab.ask("document.querySelectorAll('#run .curves svg polyline').length") == 4
    tab.click("#run .back a:nth-of-type(2)")
    tab.until("document.getElementById('run').hidden")
    assert "gap-s0" in tab.ask("document.querySelector('tr:target').textContent")


def test_a_run_without_a_page_says_how_to_see_it(tab: Page, written: Path) -> None:
    tab.open(written, "#run-nothing")
    assert "--explain" in tab.ask("document.getElementById('run').innerText")
    tab.open(written, "#run-__proto__")
    assert "--explain" in tab.ask("document.getElementById('run').innerText")
    tab.open(written, "#run-%")
    assert tab.said == []


def test_the_state_of_a_running_study_is_on_top(tab: Page, written: Path) -> None:
    tab.open(written)
    text = tab.ask("document.body.innerText")
    said = (
        "Still running: 20 of 24 runs done, 1 in progress (epoch 4 of 8), 1 interrupted (after epoch 5 of 8), 1 failed"
    )
    assert f"{said}, 1 not started" in text
    assert text.index(said) < text.index("Before you read the numbers") < text.index("Result")


# ---- sorting -----------------------------------------------------------------------------------

RUNS = "#runs table"


def test_a_click_sorts_up_then_down_then_back(tab: Page, written: Path) -> None:
    tab.open(written)
    before = column(tab, RUNS, 3)
    states, seen = [], []
    for _ in range(3):
        tab.click(header(RUNS, 3))
        states.append(tab.ask(f"document.querySelector('{RUNS} thead th:nth-child(4)').getAttribute('aria-sort')"))
        seen.append(column(tab, RUNS, 3))
    assert states == ["ascending", "descending", None]
    numbers = [float(text) for text in before if text]
    missing = [""] * (len(before) - len(numbers))
    assert [float(text) for text in seen[0] if text] == sorted(numbers)
    assert seen[0][len(numbers) :] == seen[1][len(numbers) :] == missing  # last either way
    assert [float(text) for text in seen[1] if text] == sorted(numbers, reverse=True)
    assert seen[2] == before


def test_the_keyboard_sorts_too(tab: Page, written: Path) -> None:
    tab.open(written)
    tab.ask(f"document.querySelector('{header(RUNS, 2)}').focus()")
    tab.press("Enter", 13, "\r")
    assert column(tab, RUNS, 2) == sorted(column(tab, RUNS, 2))
    assert tab.ask(f"document.querySelector('{RUNS} [aria-sort]').textContent") == "seed"


def test_sections_sort_within_themselves_and_by_the_value_behind_the_text(tab: Page, make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap", "gmp", "SP", "RG"]}
    tab.open(report_of(make_study(matrix=matrix, states={"resnet34-gmp": "missing"})))
    squeeze = "#table-squeeze table"
    before = [column(tab, squeeze, 0, body) for body in (0, 1)]
    tab.click(header(squeeze, 1))
    after = [column(tab, squeeze, 0, body) for body in (0, 1)]
    assert [sorted(names) for names in before] == [sorted(names) for names in after]
    for body in (0, 1):
        shown = [text.split()[0] for text in column(tab, squeeze, 1, body)]
        numbers = [float(text) for text in shown if text != "missing"]
        assert numbers == sorted(numbers)
    assert column(tab, squeeze, 1, 1)[-1] == "missing"
    sections = f"[...document.querySelectorAll('{squeeze} tbody')].map(b => b.rows[0].textContent)"
    assert tab.ask(sections) == ["resnet18", "resnet34"]


# ---- light, dark, narrow, printed --------------------------------------------------------------


def paper(tab: Page) -> str:
    colour: str = tab.ask("getComputedStyle(document.body).backgroundColor")
    return colour


def test_the_page_follows_the_system_until_told_otherwise_and_remembers(tab: Page, written: Path) -> None:
    tab.media("light")
    tab.open(written)
    assert paper(tab) == "rgb(255, 255, 255)"
    tab.media("dark")
    dark = paper(tab)
    assert dark == "rgb(22, 24, 27)"
    assert tab.ask("document.getElementById('theme').textContent") == "light"
    tab.click("#theme")
    assert paper(tab) == "rgb(255, 255, 255)"
    tab.reload()
    assert paper(tab) == "rgb(255, 255, 255)"
    tab.click("#theme")
    assert paper(tab) == dark


def test_the_toggle_works_where_storage_is_denied(tab: Page, written: Path) -> None:
    tab.before(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    )
    tab.media("light")
    tab.open(written)
    tab.click("#theme")
    assert paper(tab) == "rgb(22, 24, 27)"
    assert tab.said == []


FAINT_TEXT = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(node.closest('svg') ? style.fill : style.color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return [seen, found];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("start", [None, "resnet18-RG-s0", "resnet18-gap-s0"])
def test_every_text_stands_out_from_its_ground(tab: Page, written: Path, scheme: str, start: str | None) -> None:
    """Contrast of 4.5 at least: WCAG 2.2, 1.4.3."""
    tab.media(scheme)
    tab.open(written, f"#run-{run_id(written, start)}" if start else "")
    seen, faint = tab.ask(FAINT_TEXT)
    assert seen > 40
    assert faint == []


@pytest.mark.parametrize("start", [None, "resnet18-RG-s0", "resnet18-gap-s0"])
def test_a_phone_scrolls_no_page_sideways(tab: Page, written: Path, start: str | None) -> None:
    tab.shape(390)
    tab.open(written, f"#run-{run_id(written, start)}" if start else "")
    assert tab.ask("innerWidth") == 390
    assert tab.ask("document.documentElement.scrollWidth") <= 390


def test_wide_tables_scroll_inside_and_by_the_keyboard(tab: Page, written: Path) -> None:
    tab.shape(390)
    tab.open(written)
    wide = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth)"
    assert tab.ask(f"{wide}.length") > 3
    assert tab.ask(f"{wide}.every(w => w.tabIndex === 0)")


def test_on_paper_the_page_is_light_and_without_buttons(tab: Page, written: Path) -> None:
    tab.media("dark", "print")
    tab.open(written)
    assert paper(tab) == "rgb(255, 255, 255)"
    assert tab.ask("getComputedStyle(document.getElementById('theme')).display") == "none"


# ---- for everyone ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, "resnet18-RG-s0"])
def test_headings_tables_and_drawings_have_names_and_headings_skip_no_level(
    tab: Page, written: Path, start: str | None
) -> None:
    tab.open(written, f"#run-{run_id(written, start)}" if start else "")
    shown = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length)"
    levels = tab.ask(f"{shown.format('h1,h2,h3,h4,h5')}.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    name = "e.ariaLabel || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent"
    assert tab.ask(f"{shown.format('table, [role=img]')}.filter(e => !({name})).length") == 0
    ids = tab.ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert tab.ask("document.documentElement.lang") == "en"


def test_every_link_within_the_page_leads_somewhere(tab: Page, written: Path) -> None:
    tab.open(written)
    links = tab.ask("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    ids = set(tab.ask("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    runs = set(tab.ask("Object.keys(JSON.parse(document.getElementById('data').textContent))"))
    for link in links:
        if link.startswith("#run-"):
            assert link.removeprefix("#run-") in runs
        elif link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (written.parent / link).is_file(), link
