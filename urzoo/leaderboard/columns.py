"""The columns of the board's tables: one object each, for Markdown, for the page and for CSV.

A new column is one object here, named in the tables where it stands. Tables leave out a column in which no row has
anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from urzoo.leaderboard.schema import ProblemCurve, PublishedRow, Row, Section, SeedGroup
from urzoo.leaderboard.text import count, duration
from urzoo.markdown import markdown, markdown_code
from urzoo.recurrence.gates import SUBJECT

Cell = str | float | None
NOTHING = Markup("–")


@dataclass(frozen=True)
class Column:
    """A column of rows of one kind or of several.

    Args:
        name: In CSV.
        head: In tables; the section's metric and unit where it is empty.
        value: What CSV holds and the page sorts by, of a section and a row of it.
        shown: The value as text in tables; as `value` gives it when omitted.
        as_markdown, as_html: The cell where it is more than its text, escaped by the function itself.
        right: Aligned to the right, as numbers are.
        narrow: The class of the screens that leave it out: "wide" for phones, "wide mid" for tablets too.
    """

    name: str
    head: str
    value: Callable[[Section, Any], Cell]
    shown: Callable[[Section, Any], str] | None = None
    as_markdown: Callable[[Section, Any], str] | None = None
    as_html: Callable[[Section, Any], Markup] | None = None
    right: bool = False
    narrow: str = ""

    def heading(self, section: Section) -> str:
        """The head of the column in a section's table."""
        return self.head or section.heading

    def text(self, section: Section, row: Any) -> str:
        """The cell as plain text, "" for nothing."""
        if self.shown is not None:
            return self.shown(section, row)
        value = self.value(section, row)
        return "" if value is None else str(value)

    def markdown(self, section: Section, row: Any) -> str:
        """The cell as Markdown."""
        return self.as_markdown(section, row) if self.as_markdown else markdown(self.text(section, row))

    def html(self, section: Section, row: Any) -> Markup:
        """The cell as HTML."""
        if self.as_html:
            return self.as_html(section, row)
        return Markup.escape(self.text(section, row)) or NOTHING


def filled(columns: Sequence[Column], section: Section, rows: Sequence[Any]) -> list[Column]:
    """The columns in which a row has anything."""
    return [column for column in columns if any(column.text(section, row) for row in rows)]


def name_of(row: Any) -> str:
    """What a row's model is called."""
    return str(row.name if isinstance(row, SeedGroup) else row.model)


def name_html(row: Any) -> Markup:
    """The name, with places to break a line that browsers do not know: after an underscore."""
    return Markup("_<wbr>").join(name_of(row).split("_"))


def remarks(section: Section, row: Any) -> list[str]:
    """What there is to say of a row beside its figures."""
    if isinstance(row, SeedGroup):
        failed = section.failed(row)
        return [f"{failed} of {len(row.seeds)} seeds no better than chance"] if failed else []
    if isinstance(row, PublishedRow):
        of_metric = f"metric {row.metric}" if row.metric != section.metric else None
        return [text for text in (of_metric, row.note) if text]
    other = None if row.cell else f"not urzoo's: {row.architecture}"
    chance = "no better than chance" if section.at_chance(row) else None
    begun = f"begun with {row.begun_with}, whose training time is not counted" if row.begun_with else None
    return [text for text in (other, row.context, row.reason, row.caveat, row.conditions, begun, chance) if text]


def _of(name: str) -> Callable[[Section, Any], Any]:
    return lambda _, row: getattr(row, name, None)


def _score(_: Section, row: Row | SeedGroup | PublishedRow) -> float:
    return row.mean if isinstance(row, SeedGroup) else row.value if isinstance(row, Row) else float(row.shown)


def _standing(_: Section, row: Any) -> str:
    if isinstance(row, SeedGroup):
        return "mean over seeds"
    return "published" if isinstance(row, PublishedRow) else row.status


def _csv_note(section: Section, row: Any) -> str | None:
    if isinstance(row, SeedGroup):
        return "; ".join([f"mean and standard deviation of {', '.join(row.models)}", *remarks(section, row)])
    return "; ".join(remarks(section, row)) or None


def _model_html(section: Section, row: Any) -> Markup:
    chip = Markup(' <span class="chip">recommended</span>') if getattr(row, "recommended", False) else Markup()
    whys = Markup().join(Markup('<span class="why">{}</span>').format(text) for text in remarks(section, row))
    return Markup('<a href="#{}">{}</a>{}{}').format(row.id, name_html(row), chip, whys)


def _model_markdown(_: Section, row: Any) -> str:
    return markdown(name_of(row)) + (", *recommended*" if getattr(row, "recommended", False) else "")


def _score_html(_: Section, row: Any) -> Markup:
    if isinstance(row, PublishedRow):
        return Markup("<i>{}</i>").format(row.shown if row.comparable else f"{row.shown} {row.unit}")
    around = row.span if isinstance(row, SeedGroup) else row.interval
    below = Markup('<span class="interval">{}</span>').format(around) if around else Markup()
    return Markup("<b>{}</b>{}").format(row.shown, below)


def _score_markdown(_: Section, row: Any) -> str:
    return markdown(row.shown) if isinstance(row, PublishedRow) else f"**{markdown(row.shown)}**"


def _gate_html(_: Section, row: Any) -> Markup:
    if not row.gate:
        return NOTHING
    return Markup('<span class="gate{}">{}</span>').format(" ur" if row.gate == SUBJECT else "", row.gate)


def _seeds_html(_: Section, row: SeedGroup) -> Markup:
    return Markup(" ").join(
        Markup('<a href="#{}" aria-label="Row of {}">{}</a>').format(id_, model, seed)
        for id_, model, seed in zip(row.rows, row.models, row.seeds, strict=True)
    )


def _source_html(_: Section, row: PublishedRow) -> Markup:
    return Markup('<a href="https://arxiv.org/abs/{}" rel="noreferrer noopener" title="{}, {}">{}</a>').format(
        row.arxiv, row.title, row.authors, row.listed
    )


def _open_html(section: Section, row: Row) -> Markup:
    button = Markup(
        '<button type="button" class="script" aria-expanded="false" aria-label="Provenance of {} on {}"></button>'
    ).format(row.model, section.title)
    link = Markup('<a class="noscript" href="{}">result</a>').format(row.link) if row.link else Markup()
    return button + link


RANK = Column("rank", "#", _of("rank"), right=True)
MODEL = Column("model", "Model", lambda _, row: name_of(row), as_markdown=_model_markdown, as_html=_model_html)
SCORE = Column(
    "value", "", _score, lambda _, row: str(row.shown), as_markdown=_score_markdown, as_html=_score_html, right=True
)
INTERVAL = Column("interval", "Interval", _of("interval"), right=True)
RANGE = Column("range", "Range", _of("span"), right=True)
GATE = Column("gate", "Gating", _of("gate"), as_html=_gate_html)
CELL = Column(
    "cell",
    "Cell",
    _of("cell"),
    lambda _, row: row.cell.upper() if row.cell else getattr(row, "architecture", ""),
    as_html=lambda _, row: Markup.escape(row.cell.upper()) if row.cell else NOTHING,
    narrow="wide",
)
HIDDEN = Column(
    "hidden_size", "Hidden", _of("hidden_size"), lambda _, row: count(row.hidden_size), right=True, narrow="wide mid"
)
PARAMETERS = Column(
    "parameters", "Parameters", _of("parameters"), lambda _, row: count(row.parameters), right=True, narrow="wide"
)
TRAINING = Column(
    "training_seconds",
    "Training",
    _of("training_seconds"),
    lambda _, row: duration(row.training_seconds),
    right=True,
    narrow="wide",
)
KIND = Column("kind", "Kind", lambda _, row: getattr(row, "kind", "published"), narrow="wide")
DATE = Column("date", "Date", _of("date"), narrow="wide mid")
COMMAND = Column("command", "Command", _of("command"), as_markdown=lambda _, row: markdown_code(row.command))
OPEN = Column("open", "", lambda *_: "open", as_html=_open_html)
SEEDS = Column(
    "seeds",
    "Seeds",
    lambda _, row: row.seeds if isinstance(row, ProblemCurve) else len(row.seeds),
    lambda _, row: str(row.seeds) if isinstance(row, ProblemCurve) else ", ".join(str(seed) for seed in row.seeds),
    as_html=_seeds_html,
    right=True,
)
UNIT = Column(
    "unit",
    "Unit",
    lambda section, row: row.unit if isinstance(row, PublishedRow) else section.unit,
)
SOURCE = Column("source", "Source", _of("listed"), as_html=_source_html)
ARXIV = Column(
    "arxiv", "arXiv", _of("arxiv"), as_markdown=lambda _, row: f"[{row.arxiv}](https://arxiv.org/abs/{row.arxiv})"
)
NOTE = Column("note", "Note", _csv_note, lambda section, row: "; ".join(remarks(section, row)))
STEPS = Column("steps", "Steps", lambda _, row: row.steps[-1], lambda _, row: count(row.steps[-1]), right=True)
MEDIAN = Column(
    "median",
    "Median at the end",
    lambda _, row: row.median[-1],
    lambda section, row: f"{row.median[-1]:.{section.digits}f}",
    right=True,
)
ENDS = Column(
    "ends",
    "Range",
    lambda _, row: row.low[-1],
    lambda section, row: f"{row.low[-1]:.{section.digits}f} to {row.high[-1]:.{section.digits}f}",
    right=True,
)


def _epochs_to(share: float) -> Column:
    """After which epoch the seeds first had a share of the validation rows right; sorted by the last one to have it."""

    def last(section: Section, group: SeedGroup) -> float | None:
        epochs = [epoch for epoch in section.epochs_to(share, group) if epoch is not None]
        return max(epochs) if len(epochs) == len(group.seeds) else None

    def each(section: Section, group: SeedGroup) -> str:
        epochs = section.epochs_to(share, group)
        if not any(epochs):
            return "never" if epochs else ""
        return ", ".join("never" if epoch is None else f"{epoch:g}" for epoch in epochs)

    return Column(f"epochs_to_{share:g}", f"{100 * share:g} % after epoch", last, each, right=True, narrow="wide mid")


EPOCHS = (_epochs_to(0.5), _epochs_to(0.9))

_ROW = (GATE, CELL, HIDDEN, PARAMETERS, TRAINING)
# Tables by what they show: the columns in Markdown, and those on the page, which has the rest in an opened row.
MEASURED = (RANK, MODEL, SCORE, INTERVAL, *_ROW, KIND, DATE, NOTE, COMMAND)
MEASURED_ON_PAGE = (RANK, MODEL, SCORE, *_ROW, KIND, DATE, OPEN)
GROUPS = (MODEL, SCORE, RANGE, *EPOCHS, *_ROW, SEEDS, NOTE)
GROUPS_ON_PAGE = (MODEL, SCORE, *EPOCHS, *_ROW, SEEDS)
PUBLISHED = (MODEL, SCORE, UNIT, GATE, PARAMETERS, SOURCE, ARXIV, NOTE)
PUBLISHED_ON_PAGE = (MODEL, SCORE, GATE, PARAMETERS, SOURCE)
CURVES = (GATE, SEEDS, STEPS, MEDIAN, ENDS)

CSV = (
    Column("task", "", lambda section, _: section.task),
    Column(
        "task_version",
        "",
        lambda section, row: getattr(row, "task_version", None if _is_quoted(row) else section.version),
    ),
    Column("standing", "", _standing),
    RANK,
    MODEL,
    Column("recommended", "", lambda _, row: "yes" if getattr(row, "recommended", False) else None),
    Column("metric", "", lambda section, row: _metric(section, row)),
    SCORE,
    Column("low", "", _of("low")),
    Column("high", "", _of("high")),
    Column("deviation", "", _of("deviation")),
    UNIT,
    KIND,
    Column("architecture", "", _of("architecture")),
    CELL,
    GATE,
    HIDDEN,
    PARAMETERS,
    TRAINING,
    Column("samples", "", _of("samples")),
    Column("selection_split", "", _of("selection_split")),
    DATE,
    COMMAND,
    SOURCE,
    ARXIV,
    NOTE,
)


def _is_quoted(row: Any) -> bool:
    return isinstance(row, PublishedRow)


def _metric(section: Section, row: Any) -> str:
    if isinstance(row, Row):
        return str(row.provenance["primary_metric"])
    return row.metric if isinstance(row, PublishedRow) else section.metric
