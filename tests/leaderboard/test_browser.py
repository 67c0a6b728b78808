"""The page in headless Chromium: sorting, filtering, links to rows, the keyboard, contrast, and hostile results.

Skipped where there is no Chromium; what the page says and allows is tested without one in test_page.py.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.leaderboard.build import build

from .browser import CHROMIUM, Page
from .test_page import HOSTILE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

ROW = "smnist/urlstm-128-smnist"


def visible_models(page: Page, task: str = "smnist", kind: str = "measured") -> list[str]:
    part = "study" if kind in ("seeds", "study") else "task"
    rows = f"document.querySelectorAll('#{part}-{task} table.{kind} tbody tr:not(.detail):not([hidden]) th a')"
    return page.run(f"[...{rows}].filter((a) => a.offsetParent).map((a) => a.textContent)")


def choose(page: Page, field: str, value: str) -> None:
    page.run(
        f"(() => {{ const field = document.querySelector('.filters [name={field}]'); field.value = {json.dumps(value)};"
        "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def sort_by(page: Page, head: str) -> str:
    """Click the head of a column of the measured sMNIST rows; returns how it says it is sorted."""
    button = (
        f"[...document.querySelectorAll('#task-smnist table.measured thead button')]"
        f".find((button) => button.textContent === {json.dumps(head)})"
    )
    return page.run(f"(() => {{ const b = {button}; b.click(); return b.parentElement.getAttribute('aria-sort'); }})()")


def test_the_page_opens_from_a_file_in_silence(page: Page):
    assert page.run("document.title") == "urzoo leaderboard"
    assert page.run("document.documentElement.classList.contains('js')")


def test_columns_sort_both_ways_with_blanks_last(page: Page):
    assert sort_by(page, "Parameters") == "ascending"
    ascending = visible_models(page)
    assert ascending[-2:] == ["someone/urgru-256", "google/vit-tiny"]
    assert sort_by(page, "Parameters") == "descending"
    assert visible_models(page)[:2] == ["google/vit-tiny", "someone/urgru-256"]
    for direction in ("ascending", "descending"):
        assert sort_by(page, "#") == direction
        assert visible_models(page)[-1] == "google/vit-tiny"
    sort_by(page, "Model")
    assert visible_models(page) == sorted(visible_models(page))


def test_an_opened_row_stays_with_its_row_when_sorted(page: Page):
    page.run(f"document.getElementById('{ROW}').querySelector('button').click()")
    sort_by(page, "Accuracy, %")
    assert page.run(f"document.getElementById('{ROW}').nextElementSibling.className") == "detail"


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("model", "GRU", ["someone/urgru-256"]),
        ("gate", "--", ["lstm-128-smnist"]),
        ("cell", "gru", ["someone/urgru-256"]),
        ("kind", "baseline", ["google/vit-tiny"]),
        ("kind", "published", []),
        ("size", "1000000-10000000", ["google/vit-tiny"]),
        ("task", "pmnist", []),
    ],
)
def test_filters_leave_the_rows_that_fit(page: Page, field: str, value: str, left: list[str]):
    choose(page, field, value)
    assert visible_models(page) == left
    counted = page.run("[...document.querySelectorAll('table.rows tbody tr')].filter((row) => row.offsetParent).length")
    assert page.run("document.querySelector('.filters output').textContent").startswith(f"{counted} of ")


def test_filters_combine_live_in_the_address_and_can_be_cleared(page: Page, address: str):
    choose(page, "gate", "UR")
    choose(page, "cell", "lstm")
    assert visible_models(page) == ["urlstm-128-smnist"]
    assert page.run("location.search") == "?gate=UR&cell=lstm"
    page.open(f"{address}?gate=UR&cell=lstm")
    assert visible_models(page) == ["urlstm-128-smnist"]
    page.run("document.querySelector('.filters button[type=reset]').click()")
    page.run("new Promise((done) => setTimeout(done, 20))")
    assert len(visible_models(page)) == 4
    assert page.run("location.search") == ""


def test_a_filter_that_fits_nothing_says_so(page: Page):
    choose(page, "model", "no such model")
    assert page.run("document.querySelector('#task-smnist .empty').offsetParent !== null")


def test_a_row_opens_its_provenance_and_command(page: Page):
    page.run(f"document.getElementById('{ROW}').querySelector('button').click()")
    text = page.run(f"document.getElementById('{ROW}').nextElementSibling.innerText")
    for expected in ("urzoo eval urlstm-128-smnist --task smnist", "a" * 64, "selection split", "validation", "2.13.0"):
        assert expected in text
    assert page.run(f"document.getElementById('{ROW}').querySelector('button').getAttribute('aria-expanded')") == "true"
    page.run(f"document.getElementById('{ROW}').querySelector('button').click()")
    assert page.run("document.querySelectorAll('tr.detail').length") == 0


@pytest.mark.parametrize("query", ["", "?task=pmnist", "?model=nothing"])
def test_a_deep_link_opens_and_shows_its_row_whatever_is_filtered(page: Page, address: str, query: str):
    page.open(f"{address}{query}#{ROW}")
    place = page.run(f"document.getElementById('{ROW}').getBoundingClientRect().top")
    assert 0 <= place < 900
    assert page.run(f"document.getElementById('{ROW}').nextElementSibling.className") == "detail"


def test_the_back_button_and_links_of_plots_lead_to_rows(page: Page):
    page.run(f"document.querySelector('#task-smnist svg a[href=\"#{ROW}\"]').dispatchEvent("
             "new MouseEvent('click', { bubbles: true, cancelable: true }))")  # fmt: skip
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert page.run("location.hash") == f"#{ROW}"
    assert page.run("document.querySelector('tr.linked').id") == ROW


@pytest.mark.parametrize("fragment", ["%", "%E0%A4%A", "nothing", "overview", "smnist/published-1"])
def test_a_link_to_anything_else_breaks_nothing(page: Page, address: str, fragment: str):
    page.open(f"{address}#{fragment}")
    assert len(visible_models(page)) == 4


def test_everything_can_be_reached_and_used_with_the_keyboard(page: Page):
    page.run(f"document.querySelector('#task-smnist table.measured').closest('.scroll').focus()")  # noqa: F541
    seen = []
    for _ in range(40):
        page.press("Tab", 9)
        seen.append(page.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"))
        if seen[-1] == "Provenance of urlstm-128-smnist on Sequential MNIST":
            break
    assert seen[0] == "#"
    assert "urlstm-128-smnist" in seen
    page.press("Enter", 13)
    assert page.run(f"document.getElementById('{ROW}').nextElementSibling.className") == "detail"
    outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_controls_have_names_for_a_screen_reader(page: Page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    for node in nodes:
        role = node.get("role", {}).get("value")
        if (
            role in {"button", "link", "combobox", "searchbox", "textbox", "table", "image", "region"}
            and not node["ignored"]
        ):
            assert node.get("name", {}).get("value"), node


# Contrast as WCAG 2 defines it, of every text against the first opaque background behind it.
CONTRAST = """
(() => {
  const channel = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const worst = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    const unseen = element.closest("script, title, desc, option, .hear, caption, .skip");
    if (!text || unseen || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(parse(element.closest("svg") ? style.fill : style.color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst.push(`${ratio.toFixed(2)} ${element.tagName} ${text.slice(0, 30)}`);
  }
  return worst;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_enough_contrast(page: Page, address: str, dark: bool):
    page.dress(dark=dark)
    page.open(f"{address}#{ROW}")
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", background)) < 150) == dark
    assert page.run(CONTRAST) == []


def test_a_command_and_a_link_are_copied_and_a_refusal_is_told(page: Page, address: str):
    page.run(f"document.getElementById('{ROW}').querySelector('button').click()")
    page.run("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    command, link = (
        "document.querySelectorAll('.detail .command button')[0]",
        ("document.querySelectorAll('.detail .command button')[1]"),
    )
    page.run(f"{command}.click()")
    assert page.run("window.copied").startswith("urzoo eval urlstm-128-smnist")
    assert page.run(f"{command}.textContent") == "Copied"
    page.run(f"{link}.click()")
    assert page.run("window.copied") == f"{address}#{ROW}"
    page.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    page.run(f"{command}.click()")
    assert page.run(f"{command}.textContent") == "Not allowed"
    assert page.run("getSelection().toString()").startswith("urzoo eval urlstm-128-smnist")


def test_without_javascript_the_tables_and_plots_are_there(page: Page, address: str):
    page.dress(scripts=False)
    page.open(address)
    # The protocol's own evaluation goes on working where the page's scripts do not.
    assert not page.run("document.documentElement.classList.contains('js')")
    assert visible_models(page)[0] == "someone/urgru-256"
    assert page.run("document.querySelectorAll('svg.plot').length") == 4
    assert page.run("document.querySelector('.filters').offsetParent") is None
    assert page.run(f"document.getElementById('{ROW}').querySelector('.c-open a').offsetParent !== null")
    page.dress()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_screenshot_shows_something(page: Page, address: str, tmp_path: Path, dark: bool):
    from PIL import Image

    page.dress(dark=dark)
    page.open(address)
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (1280, 900)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_hostile_results_run_nothing(chromium: Page, put: Callable[..., Path], results: Path):
    for number, text in enumerate(HOSTILE):
        free = ("model__architecture", "command", "device", "hardware", "backend", "data__subset", "model__revision")
        put(f"model-{number}", "smnist", 0.98, **dict.fromkeys(free, text), model__training__hardware=text)
    build(results, results.parent)
    chromium.console.clear()
    chromium.requests.clear()
    chromium.dress()
    address = (results.parent / "index.html").as_uri()
    chromium.open(address)
    chromium.run("document.querySelectorAll('.c-open button').forEach((button) => button.click())")
    assert chromium.run("document.querySelectorAll('tr.detail').length") == len(HOSTILE)
    assert chromium.run("document.title") == "urzoo leaderboard"
    assert chromium.run("document.querySelectorAll('main img, main script, main iframe').length") == 0
    shown = chromium.run("[...document.querySelectorAll('.detail pre')].map((pre) => pre.textContent)")
    assert sorted(shown) == sorted(HOSTILE)
    assert chromium.run("document.documentElement.scrollWidth") <= 1280
    assert chromium.requests == [address]
    assert chromium.console == []


def test_injected_markup_could_not_run_even_if_it_were_there(page: Page):
    """The policy is the second line of defence: a handler put into the page by force is refused by the browser."""
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert page.run("document.title") == "urzoo leaderboard"
    assert any("Content Security Policy" in line for line in page.console)
    page.console.clear()
    page.requests[:] = [request for request in page.requests if request.endswith("index.html")]


def test_means_over_seeds_lead_to_the_single_rows(chromium: Page, put: Callable[..., Path], results: Path):
    for gate in ("UR", "--"):
        for seed in range(3):
            name = f"urlstm-128-{'ur' if gate == 'UR' else 'plain'}-seed{seed}-smnist"
            put(
                name,
                "smnist",
                0.97 + 0.001 * seed + 0.01 * (gate == "UR"),
                model__gate=gate,
                model__training__seed=seed,
            )
    build(results, results.parent)
    chromium.dress()
    chromium.open((results.parent / "index.html").as_uri())
    assert visible_models(chromium, kind="seeds") == ["urlstm-128-ur-smnist", "urlstm-128-plain-smnist"]
    shown = chromium.run("document.querySelector('table.seeds td.c-value b').textContent")
    assert shown == "98.10 ± 0.10"
    chromium.run("document.querySelectorAll('table.seeds td.c-seeds a')[2].click()")
    chromium.run("new Promise((done) => setTimeout(done, 50))")
    assert chromium.run("document.querySelector('tr.linked').id") == "smnist/urlstm-128-ur-seed2-smnist"
    # The single rows are folded away until one is asked for.
    assert chromium.run("document.querySelector('tr.linked').offsetParent !== null")
    choose(chromium, "gate", "--")
    assert visible_models(chromium, kind="seeds") == ["urlstm-128-plain-smnist"]
    # A mark of a mean leads to the group's row.
    group = "smnist/urlstm-128-plain-seed0-smnist/seeds"
    assert chromium.run(f"document.querySelectorAll('svg a[href=\"#{group}\"]').length") == 1
    chromium.open((results.parent / "index.html").as_uri() + f"#{group}")
    assert chromium.run("document.querySelector('tr.linked').id") == group


def test_a_thousand_rows_are_filtered_and_sorted(chromium: Page, put: Callable[..., Path], results: Path):
    for n in range(500):
        for task in ("smnist", "pmnist"):
            put(f"model-{n}", task, 0.9 + n / 10_000, model__gate=("UR", "--", "OM")[n % 3])
    build(results, results.parent)
    chromium.dress()
    chromium.open((results.parent / "index.html").as_uri())
    choose(chromium, "gate", "OM")
    chromium.run("document.querySelector('#task-smnist table.measured thead button').click()")
    models = visible_models(chromium)
    assert len(models) == 166
    assert models[0] == "model-497"


def test_the_first_view_has_the_best_of_each_task_and_what_to_take(
    chromium: Page, put: Callable[..., Path], results: Path
):
    put("urlstm-512-imdb", "imdb", 0.9264)
    put("urlstm-256-smnist", "smnist", 0.9894)
    put("someone/better", "smnist", 0.992, model__source="Hub")
    build(results, results.parent)
    chromium.dress()
    chromium.open((results.parent / "index.html").as_uri())
    rows = chromium.run("[...document.querySelectorAll('#overview tbody tr')].map((row) => row.innerText)")
    assert rows[0].startswith("IMDB reviews")
    assert "urlstm-512-imdb recommended" in rows[0].replace("\n", " ")
    [smnist] = [row for row in rows if row.startswith("Sequential MNIST")]
    assert smnist.index("someone/better") < smnist.index("urlstm-256-smnist recommended")
    assert "99.00 to 99.38" in smnist
    assert "99.28" in smnist
    # All of it above the fold: the head, the first rows and the plot.
    assert chromium.run("document.querySelector('#overview svg').getBoundingClientRect().bottom") < 900
    assert chromium.run("document.querySelector('#task-smnist .take').innerText").startswith("Take urlstm-256-smnist")


def test_single_rows_of_the_study_unfold_when_they_are_asked_for(
    chromium: Page, put: Callable[..., Path], results: Path
):
    put("urlstm-256-smnist", "smnist", 0.9894)
    for seed in range(2):
        put(f"urlstm-128-r-seed{seed}-smnist", "smnist", 0.97, model__gate="-R", model__training__seed=seed)
    build(results, results.parent)
    chromium.dress()
    address = (results.parent / "index.html").as_uri()
    chromium.open(address)
    assert visible_models(chromium) == ["urlstm-256-smnist"]
    # A closed `details` still has boxes; what can be seen of it is its summary.
    folded = "document.querySelector('#study-smnist details').open"
    assert not chromium.run(folded)
    choose(chromium, "gate", "-R")
    assert chromium.run(folded)
    assert visible_models(chromium, kind="study") == ["urlstm-128-r-seed0-smnist", "urlstm-128-r-seed1-smnist"]
    chromium.open(f"{address}#smnist/urlstm-128-r-seed1-smnist")
    assert chromium.run(folded)
    buttons = "[...document.querySelectorAll('.detail .command button')].map((button) => button.textContent)"
    assert chromium.run(buttons) == ["Copy command", "Copy link"]
