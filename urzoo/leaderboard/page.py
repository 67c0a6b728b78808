"""The board as one self-contained HTML page: style, script, plots and provenance are all inside it.

The page asks for nothing from the network and its content security policy allows nothing but the one
style sheet and the one script it was made with, by their hashes: text from a result file could not run
even if it got past the template's escaping. Tables, plots and links work without JavaScript; the script
adds sorting, filtering and the opening of rows.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from urzoo.leaderboard import columns
from urzoo.leaderboard.charts import KINDS, Chart
from urzoo.leaderboard.problem_curves import CURVES
from urzoo.leaderboard.schema import Board, PublishedRow, Row, SeedGroup
from urzoo.leaderboard.svg import plot_style, render_svg
from urzoo.leaderboard.tables import STUDY
from urzoo.leaderboard.text import script_json
from urzoo.recurrence.gates import Gating

PAGE_FILES = Path(__file__).parent / "page_files"

# Sizes to choose from in the filter: label and the least and most parameters.
SIZES = (
    ("up to 100 k", 0, 100_000),
    ("100 k to 1 M", 100_000, 1_000_000),
    ("1 M to 10 M", 1_000_000, 10_000_000),
    ("over 10 M", 10_000_000, None),
)


def render_page(board: Board, drawn: Sequence[Chart]) -> str:
    """The page as HTML; the same board always gives the same text.

    Args:
        board: What to show.
        drawn: Its charts.
    """
    style, script = plot_style() + _asset("page.css"), _asset("page.js")
    rows: list[Row | SeedGroup | PublishedRow] = []
    for section in board.sections:
        rows += [*section.measured, *section.outdated, *section.published]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            policy=_policy(style, script),
            # The style and the script are files of this package, not text from outside; so are the drawings, whose
            # text render_svg escapes, and the provenance, which script_json makes safe to stand in a script element.
            style=Markup(style),
            script=Markup(script),
            provenance=Markup(script_json(_provenance(board))),
            sections=board.sections,
            table=CURVES,
            study=STUDY,
            columns=columns,
            plots=lambda section, *kinds: [
                {"caption": chart.with_panel(KINDS[chart.kind]), "svg": Markup(render_svg(chart))}
                for chart in drawn
                if chart.task == (section.task if section else "") and chart.kind in kinds
            ],
            gates=sorted({row.gate for row in rows if row.gate}, key=lambda gate: Gating(gate).order),
            cells=sorted({row.cell for row in rows if row.cell}),
            kinds=[
                *sorted({row.kind for section in board.sections for row in section.measured}),
                *(["study"] if any(section.study for section in board.sections) else []),
                *(["outdated"] if any(section.outdated for section in board.sections) else []),
                *(["published"] if any(section.published for section in board.sections) else []),
            ],
            sizes=SIZES,
        )
    )


def _provenance(board: Board) -> dict[str, Any]:
    """What an opened row shows, by the row's id."""
    return {
        row.id: {
            "command": row.command,
            "link": row.link,
            "note": row.reason,
            "result": row.provenance,
        }
        for section in board.sections
        for row in (*section.measured, *section.outdated)
    }


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (PAGE_FILES / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(PAGE_FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
