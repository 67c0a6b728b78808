"""The page in headless Chromium at the widths of phones, tablets and screens. Skipped where there is no Chromium."""

from collections.abc import Callable
from pathlib import Path

import pytest

from urzoo.leaderboard.build import build

from .browser import CHROMIUM, Page
from .test_browser import ROW
from .test_groups import put_seeds

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


# Every word that is broken inside, other than after a hyphen, an underscore, a slash or a dot.
BROKEN = """
(() => {
  const broken = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!parent.getClientRects().length || parent.closest("svg, .hear, caption, option, code, pre")) continue;
    for (const word of node.data.matchAll(/[^\\s\\-_\\/.,]+/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((rect) => Math.round(rect.top))).size > 1) broken.push(word[0]);
    }
  }
  return broken;
})()
"""


@pytest.mark.parametrize("width", [360, 500, 768, 900, 1280])
def test_no_word_is_broken_inside(chromium: Page, put: Callable[..., Path], results: Path, width: int):
    put("urlstm-128-rates-character_trajectories", "character_trajectories", 0.99)
    perplexity = {"metrics": {"word_perplexity_stream": 158.2}, "primary_metric": "word_perplexity_stream"}
    put("urlstm-1024-wikitext103", "wikitext103", 0.5, **perplexity, intervals={})
    pages = {"metrics": {"word_perplexity": 4705.8}, "primary_metric": "word_perplexity"}
    around = {"word_perplexity": {"low": 3813.1, "high": 5941.9, "level": 0.95, "method": "bootstrap"}}
    put(
        "urlstm-1024-wikitext103",
        "wikitext103_pages",
        0.5,
        **pages,
        intervals=around,
        model__training__task="wikitext103",
    )
    put_seeds(put, (0.98, 0.97))
    build(results, results.parent)
    chromium.dress(width=width, height=800)
    chromium.open((results.parent / "index.html").as_uri())
    assert chromium.run("document.querySelector('#overview').innerText.includes('Transformer-XL')")
    assert chromium.run(BROKEN) == []
    assert chromium.run("document.documentElement.scrollWidth") <= width
    beyond = (
        "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth)"
        ".map((box) => box.getAttribute('aria-labelledby'))"
    )
    assert chromium.run(beyond) == []
    chromium.dress()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(page: Page, address: str, width: int):
    page.dress(width=width, height=800)
    page.open(f"{address}#{ROW}")
    assert page.run("document.documentElement.scrollWidth") <= width
    inside = page.run("document.querySelector('.detail .inside').getBoundingClientRect().right")
    assert inside <= width


def test_on_a_phone_buttons_are_large_enough_for_a_finger(page: Page, address: str):
    page.dress(width=390, height=844)
    page.open(address)
    sizes = page.run(
        "[...document.querySelectorAll('.c-open button, .filters select, .filters button')]"
        ".map((element) => element.getBoundingClientRect()).map(({ width, height }) => [width, height])"
    )
    assert all(width >= 32 and height >= 32 for width, height in sizes)
