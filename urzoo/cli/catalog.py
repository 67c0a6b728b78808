"""`urzoo list` and `urzoo info`: what is there, and what runs it."""

from typing import Annotated, Any

import typer

from urzoo.cli.output import complete_checkpoint, note, print_fields, print_json, print_table, warn
from urzoo.errors import CheckpointError, UsageError

_UNMEASURED = (
    "The back end triton was tested under Triton's interpreter only; nothing is known of its speed on a GPU "
    "until `urzoo bench --device cuda` has run on one."
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("list")(list_checkpoints)
    app.command("info")(info)


def list_checkpoints(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All that are shipped, not only the recommended ones.")
    ] = False,
    study: Annotated[
        bool, typer.Option("--study", help="The networks of the gating study instead, which a clone has.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="One name a line, nothing else.")] = False,
    hub: Annotated[
        str | None, typer.Option(metavar="OWNER", help="Those of a user or organisation on the Hub instead.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --hub: only those with this in their name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
) -> None:
    """List the recommended checkpoint of every task, all that are shipped, the study's, or an owner's on the Hub.

    Example:

        urzoo list --all
    """
    from urzoo.evaluation.recommended import recommended_checkpoints
    from urzoo.zoo import checkpoints, study_checkpoints
    from urzoo.zoo.lookup import STUDY_FOLDER

    if plain and as_json:
        raise UsageError("--plain and --json exclude each other; give one of them.")
    if hub is not None:
        if everything or study:
            raise UsageError(f"--hub {hub} lists all that {hub} has; leave {'--all' if everything else '--study'} out.")
        _list_hub(hub, search, plain=plain, as_json=as_json)
        return
    if search is not None:
        raise UsageError(f"--search {search} goes with --hub OWNER; give that too.")
    if everything and study:
        raise UsageError("--all and --study exclude each other; give one of them.")
    if study and not study_checkpoints():
        raise UsageError(f"--study: there is no folder {str(STUDY_FOLDER)!r} here; run this in a clone of urzoo.")
    recommended_for: dict[str, list[str]] = {}
    for task, name in recommended_checkpoints().items():
        recommended_for.setdefault(name, []).append(task)
    names = checkpoints() if everything else study_checkpoints() if study else sorted(recommended_for)
    if plain:
        for name in names:
            typer.echo(name)
        return
    described = [_described(name) | {"recommended_for": recommended_for.get(name, [])} for name in names]
    if as_json:
        print_json(described)
        return
    print_table(
        ["name", "task", "cell", "gate", "hidden", "parameters", "validation"],
        [_row(entry) for entry in described],
        numeric=("hidden", "parameters", "validation"),
    )
    if not everything and not study:
        note(f"{len(checkpoints()) - len(names)} more checkpoints are shipped: urzoo list --all")
        if study_checkpoints():
            note(f"{len(study_checkpoints())} networks of the gating study are in {STUDY_FOLDER}: urzoo list --study")


def info(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A name of `urzoo list`, a folder or OWNER/NAME; this installation if omitted.",
            autocompletion=complete_checkpoint,
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False,
) -> None:
    """Describe a checkpoint, or this installation: versions, which back end runs the recurrence and why, the tasks.

    Example:

        urzoo info urlstm-128-pmnist
    """
    content = _installation() if checkpoint is None else _checkpoint(checkpoint)
    if as_json:
        print_json(content)
        return
    own = ("backends", "default_back_end", "tasks", "training", "remark")
    print_fields([(name.replace("_", " "), _flat(value)) for name, value in content.items() if name not in own])
    if content.get("training"):
        typer.echo("\nits training")
        print_fields([(f"  {name.replace('_', ' ')}", _flat(value)) for name, value in content["training"].items()])
    if "backends" in content:
        typer.echo("\nback ends of the recurrence, in order of preference")
        for name, reason in content["backends"].items():
            typer.echo(f"  {name:<10}  {reason or 'usable'}")
        typer.echo("\nwhat runs a float32 problem here when no back end is named")
        for name, gatings in content["default_back_end"].items():
            typer.echo(f"  {name:<10}  {', '.join(gatings)}")
        typer.echo(f"\n{content['remark']}")
        typer.echo("\ntasks of `urzoo eval`")
        for name, title in content["tasks"].items():
            typer.echo(f"  {name:<{max(map(len, content['tasks']))}}  {title}")


def _list_hub(owner: str, search: str | None, *, plain: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from urzoo.hub.listing import list_hub

    found = list_hub(owner, search=search)
    if plain:
        for checkpoint in found:
            typer.echo(checkpoint.repo_id)
    elif as_json:
        print_json([asdict(checkpoint) for checkpoint in found])
    elif not found:
        note(f"{owner} has no urzoo checkpoints on the Hub that can be seen from here.")
    else:
        print_table(
            ["repository", "pipeline", "visibility", "updated"],
            [[one.repo_id, one.pipeline_tag, "private" if one.private else "public", one.updated] for one in found],
        )


def _described(name: str) -> dict[str, Any]:
    from urzoo.zoo import info as checkpoint_info

    try:
        content = checkpoint_info(name).model_dump(mode="json")
    except CheckpointError as error:
        # One damaged folder must not hide the others; whoever loads it gets the error itself.
        warn(str(error))
        return {"name": name, "damaged": str(error)}
    return content | {"validation": (content.get("training") or {}).get("validation")}


def _checkpoint(name: str) -> dict[str, Any]:
    from urzoo.hub.names import info as checkpoint_info

    described = checkpoint_info(name)
    return described.model_dump(mode="json") | {"folder": str(described.folder)}


def _installation() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    import torch

    from urzoo.evaluation import load_task, tasks
    from urzoo.provenance import processor_name
    from urzoo.recurrence import backend_for, backends, gatings

    packages = ("urzoo", "torch", "transformers", "huggingface_hub", "datasets", "accelerate", "safetensors")
    chosen: dict[str, list[str]] = {}
    for cell in ("lstm", "gru"):
        for gating in gatings(cell):
            chosen.setdefault(backend_for(torch.zeros(1, 1, 1), gating), []).append(f"{cell} {gating.name}")
    return {
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "default_back_end": chosen,
        "backends": backends(),
        "tasks": {name: load_task(name).title for name in tasks()},
        "remark": _UNMEASURED,
    }


def _row(entry: dict[str, Any]) -> list[object]:
    from urzoo.evaluation import load_task, tasks
    from urzoo.evaluation.recommended import validation_score

    shown = None
    if (task := entry.get("task")) in tasks():
        shown = validation_score(entry["validation"], load_task(task))
    elif (perplexity := (entry.get("validation") or {}).get("word_perplexity")) is not None:
        shown = f"{perplexity:.2f} per word"
    fields = [entry.get(key) for key in ("name", "task", "cell", "gate", "hidden_size")]
    return [*fields, f"{entry['parameters']:,}" if "parameters" in entry else None, shown]


def _flat(value: Any) -> object:
    """A nested value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(part)}" for key, part in value.items() if part is not None) or None
    if isinstance(value, list):
        return ", ".join(str(_flat(part)) for part in value) or None
    if isinstance(value, float):
        return f"{value:.6g}"
    return value
