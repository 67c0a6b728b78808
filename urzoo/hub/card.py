"""Model cards: a checkpoint folder's README.md, generated from its configuration, recipe, training and results.

With it go the results in the Hub's own format (`eval_results.py`).

The bytes depend on those alone: no clock, no machine. What comes from files is escaped, so that no value can end
the front matter, open a heading, a link or a table cell, or begin HTML; the front matter is written by PyYAML.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urzoo.data.schema import DataSet, data_sets, load_data_set
from urzoo.errors import CheckpointError, ResultError, StaleError
from urzoo.evaluation.schema import Result
from urzoo.evaluation.task import MetricSpec, Task, load_task, tasks
from urzoo.files import json_text, remove_file, write_text
from urzoo.hub.eval_results import generated_files, render_eval_results
from urzoo.hub.merge import BEGIN, end_mark, merge, shows_results
from urzoo.hub.samples import SAMPLES, Samples, prompts, read_samples
from urzoo.markdown import markdown, markdown_code, printable
from urzoo.models.card_urlstm import TAGS, pipeline_of
from urzoo.schema import parse_yaml, read_json, read_text, read_yaml
from urzoo.zoo import info
from urzoo.zoo.lookup import checkpoints, read_config, study_checkpoints
from urzoo.zoo.schema import CheckpointInfo, TrainingData

if TYPE_CHECKING:
    from jinja2 import Template

CARD = "README.md"
_TEMPLATE = Path(__file__).parent / "card.md.jinja"
# What the Hub's page offers to try, by the task or what the checkpoint does.
_EXAMPLES = {
    "imdb": (
        "A quiet film with two fine actors. I left the cinema happy.",
        "Two hours of my life that nobody will give back.",
    ),
    "text-generation": ("The history of Rome began", "The band recorded its first album in"),
}


def render_card(
    folder: Path, results: Sequence[Result], samples: Samples | None = None, *, repo_id: str | None = None
) -> str:
    """The model card of a checkpoint folder.

    Args:
        folder: The folder; its README.md, if any, does not matter.
        results: Those of this checkpoint, in any order; partial ones are left out.
        samples: What it writes; that of its samples.json when omitted.
        repo_id: The repository that it was pulled from, whose name it has unless a recipe gives it one.

    Raises:
        CheckpointError: The folder is not a complete checkpoint.
        ResultError: A result is that of other weights, or there are two on one task.
        StaleError: The samples are of another checkpoint.
    """
    checkpoint = info(folder)
    recipe = _recipe(folder)
    name = _name(recipe, repo_id or checkpoint.name)
    kept = _results_of(checkpoint, results)
    task = load_task(checkpoint.task) if checkpoint.task in tasks() else None
    learnt = _learnt_from(checkpoint)
    data = [one for one in learnt if isinstance(one, DataSet)]
    front = _front_matter(name, checkpoint, recipe, kept, data)
    body = _template().render(
        name=name,
        by_name="/" in name or name in (*checkpoints(), *study_checkpoints()),
        checkpoint=checkpoint,
        task=task,
        data=data,
        learnt=[one.title if isinstance(one, DataSet) else one for one in learnt],
        pipeline=_pipeline(checkpoint),
        training=checkpoint.training,
        more_data=_more_data(checkpoint),
        counted="documents" if _pipeline(checkpoint) == "text-generation" else "rows",
        recipe=_fenced(read_text(folder / "recipe.yaml", error=CheckpointError), "yaml") if recipe else None,
        processor=_processor(folder),
        time_scales=_time_scales(recipe),
        samples=samples or read_samples(folder),
        settings=prompts(),
        neural_cache=_neural_cache(folder),
        rows=[row for result in kept for row in _rows(name, result)],
        caveats=[
            {"task": task.title, "text": caveat}
            for task in (load_task(result.task.name) for result in kept)
            if (caveat := task.caveat_of(checkpoint.task)) is not None
        ],
        reproduce=[f"urzoo eval {name} --task {result.task.name}" for result in kept],
        licence=_licence(recipe),
        curve=(folder / "learning_curve.png").is_file(),
    )
    mark = end_mark(parse_yaml(front, "front matter", error=CheckpointError), body)
    return f"---\n{front}\n---\n\n{BEGIN}\n\n{body.strip()}\n\n{mark}\n"


def write_card(folder: Path, results: Sequence[Result]) -> Path:
    """Write a checkpoint folder's README.md and its `.eval_results`; for errors see `render_card`.

    What others wrote into README.md, outside of what is generated, and keys of the front matter stay.

    Returns:
        The path of README.md.
    """
    return write_files(folder, render_files(folder, results))


def has_results(folder: Path) -> bool:
    """Whether results were written into a checkpoint folder's card."""
    card = folder / CARD
    return card.is_file() and shows_results(read_text(card, error=CheckpointError))


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    """Write what `render_files` gave; returns the path of README.md."""
    for name in generated_files(folder).keys() - files.keys():
        remove_file(folder / name)
    for name, content in files.items():
        write_text(folder / name, content)
    return folder / CARD


def check_card(folder: Path, results: Sequence[Result]) -> None:
    """Compare a folder's README.md and `.eval_results` with what its files and results give, added text aside.

    Raises:
        StaleError: They differ, or one is missing or left over.
    """
    files = render_files(folder, results)
    for name in sorted(files.keys() | generated_files(folder).keys()):
        path = folder / name
        if name not in files or not path.is_file() or path.read_bytes() != files[name].encode():
            raise StaleError(f"{path} is stale or edited by hand. Write it again with: urzoo card {folder}")


def render_files(folder: Path, results: Sequence[Result], samples: Samples | None = None) -> dict[str, str]:
    """Every generated file by its path in the folder, README.md last; for arguments and errors see `render_card`."""
    card, present = render_card(folder, results, samples), folder / CARD
    if present.is_file():
        card = merge(card, read_text(present, error=CheckpointError), force=True).text
    name = _name(_recipe(folder), info(folder).name)
    made = {} if samples is None else {SAMPLES: json_text(samples.model_dump(mode="json"))}
    return {**made, **render_eval_results(name, [result for result in results if not result.partial]), CARD: card}


def _fenced(content: str, language: str) -> str:
    """`content` in a code block whose fence is longer than any row of backticks in it."""
    clean = printable(content.replace("\r\n", "\n")).rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", clean)), default=0))
    return f"{fence}{language}\n{clean}\n{fence}"


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {"text": markdown, "code": markdown_code}
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _front_matter(
    name: str, checkpoint: CheckpointInfo, recipe: dict[str, Any], results: Sequence[Result], data: list[DataSet]
) -> str:
    from huggingface_hub import ModelCardData

    shown = load_task(checkpoint.task).metrics if checkpoint.task in tasks() and checkpoint.task else []
    pipeline = _pipeline(checkpoint)
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        license=_licence(recipe),
        datasets=[one.repository for one in data if one.revision is not None] or None,  # others are not on the Hub
        metrics=[spec.name for spec in shown if spec.primary] or None,
        tags=[*TAGS, *([checkpoint.task] if checkpoint.task else [])],
        model_name=None if results else name,
        widget=[{"text": one} for one in _EXAMPLES.get(checkpoint.task or "", _EXAMPLES.get(pipeline or "", ()))]
        or None,
    )
    if results:
        # One by one: the library puts figures of one problem and data together, as if they were of one task.
        card["model-index"] = [{"name": name, "results": [one for each in results for one in _indexed(name, each)]}]
    front_matter: str = card.to_yaml()
    return front_matter


def _indexed(name: str, result: Result) -> list[dict[str, Any]]:
    """What the front matter says of a result."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    task, (repository, title, revision) = load_task(result.task.name), _evaluated_data(result)
    figures = [
        EvalResult(
            task_type=task.problem,
            task_name=task.title,
            dataset_type=repository,
            dataset_name=title,
            dataset_config=result.data.config,
            dataset_split=result.data.split,
            dataset_revision=revision,
            metric_type=spec.name,
            metric_name=spec.title,
            metric_value=result.metrics[spec.name],
        )
        for spec in task.metrics
        if spec.name in result.metrics
    ]
    found: list[dict[str, Any]] = eval_results_to_model_index(name, figures)[0]["results"]
    return found


def _evaluated_data(result: Result) -> tuple[str, str, str | None]:
    if result.data.name not in data_sets():
        return result.data.name, result.data.name, None
    data = load_data_set(result.data.name)
    return data.repository, data.title, data.revision


def _results_of(checkpoint: CheckpointInfo, results: Sequence[Result]) -> list[Result]:
    kept = sorted((result for result in results if not result.partial), key=lambda result: result.task.name)
    for result in kept:
        if result.model.weights_sha256 != checkpoint.weights_sha256:
            raise ResultError(
                f"the result on {result.task.name} is of weights {result.model.weights_sha256[:12]}, but the "
                f"checkpoint's are {checkpoint.weights_sha256[:12]}. Evaluate this checkpoint."
            )
    names = [result.task.name for result in kept]
    if len(set(names)) < len(names):
        raise ResultError(f"there are two results on one task among {', '.join(names)}; give one each.")
    return kept


def _rows(name: str, result: Result) -> list[dict[str, Any]]:
    task: Task = load_task(result.task.name)
    specs: list[MetricSpec] = [spec for spec in task.metrics if spec.name in result.metrics]
    return [
        {
            "task": task.title,
            "version": result.task.version,
            "metric": spec.title,
            "value": f"{result.metrics[spec.name] * spec.scale:.{spec.digits}f} {spec.unit}",
            "samples": f"{result.samples:,} ({result.data.split})",
            "run": f"{result.dtype}, {result.backend} on {result.device}",
            "command": f"urzoo eval {name} --task {task.name}",
        }
        for spec in specs
    ]


def _name(recipe: dict[str, Any], otherwise: str) -> str:
    """What the recipe calls the checkpoint; `otherwise` without a recipe."""
    name = recipe.get("name", otherwise)
    if not isinstance(name, str) or not re.fullmatch(r"([\w.-]+/)?[A-Za-z0-9][A-Za-z0-9._+-]{0,95}", name, re.ASCII):
        raise CheckpointError(
            f"the checkpoint is called {str(name)[:80]!r}; expected letters, digits and any of . _ + -."
        )
    return name


def _recipe(folder: Path) -> dict[str, Any]:
    """The recipe's content, empty if the folder has none."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}
    recipe = read_yaml(path, error=CheckpointError)
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{path} holds no keys; expected a recipe.")
    return recipe


def _licence(recipe: dict[str, Any]) -> str | None:
    licence = recipe.get("licence")
    return None if licence is None else str(licence)


def _learnt_from(checkpoint: CheckpointInfo) -> list[DataSet | str]:
    """The data sets that it has learnt from, each once; of a user's own there is only the name."""
    training = checkpoint.training
    names = [] if training is None else [data.name for data in (training.data, *training.additional_data)]
    return [load_data_set(name) if name in data_sets() else name for name in dict.fromkeys(names)]


def _more_data(checkpoint: CheckpointInfo) -> list[TrainingData]:
    """What it learnt from beside its first split, each split once: an ancestor may have read the same."""
    training = checkpoint.training
    if training is None:
        return []
    each = {(data.name, data.config, data.split): data for data in (*reversed(training.additional_data), training.data)}
    return [data for data in reversed(each.values()) if data != training.data]


def _pipeline(checkpoint: CheckpointInfo) -> str | None:
    has_tokenizer = (checkpoint.folder / "tokenizer_config.json").is_file()
    return pipeline_of(checkpoint.architecture, reads_text=has_tokenizer)


def _time_scales(recipe: dict[str, Any]) -> tuple[float, float] | None:
    """Between which factors series were resampled in training; None for a recipe that is not of series."""
    augmentation = recipe.get("augmentation")
    if not isinstance(augmentation, dict) or "time_scale_min" not in augmentation:
        return None
    try:
        return float(augmentation["time_scale_min"]), float(augmentation["time_scale_max"])
    except (KeyError, TypeError, ValueError) as failure:
        raise CheckpointError("the recipe's section augmentation lacks a time scale, or it is no number.") from failure


def _neural_cache(folder: Path) -> int:
    """How many steps the checkpoint's neural cache looks back on; 0 without one."""
    size = read_config(folder).get("neural_cache_size", 0)
    if not isinstance(size, int) or size < 0:
        raise CheckpointError(f"{folder / 'config.json'}: neural_cache_size is no number of steps.")
    return size


def _processor(folder: Path) -> dict[str, Any] | None:
    """What the card says of the image processor, None for a checkpoint without one."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    content = read_json(path, error=CheckpointError)
    try:
        size = content["size"]
        return {
            "height": int(size["height"]),
            "width": int(size["width"]),
            "colour": not content["do_grayscale"],
            "permuted": content.get("pixel_order") is not None,
            "resizes": content.get("do_resize", True),
        }
    except (KeyError, TypeError, ValueError) as failure:
        raise CheckpointError(f"{path} lacks size or do_grayscale, or they are malformed.") from failure
