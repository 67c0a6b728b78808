"""`urzoo data`: a user's own data."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    data = typer.Typer(help="Your own data: describe a folder of parquet files.", no_args_is_help=True)
    # With one command alone typer would make it the group itself.
    data.callback()(lambda: None)
    data.command("digest")(digest)
    app.add_typer(data, name="data")


def digest(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="A folder with one parquet file a split: train.parquet, test.parquet."
        ),
    ],
) -> None:
    """Write the dataset.yaml of a folder of parquet files: columns as found, rows and digest of every split.

    What you changed in an earlier one stays: its name, title, licence and citation, and what classes are called.

    Example:

        urzoo data digest digits
    """
    import yaml

    from urzoo.data import describe
    from urzoo.data.local import DESCRIPTION
    from urzoo.errors import DataError
    from urzoo.files import write_text
    from urzoo.schema import LARGEST_YAML

    content = yaml.safe_dump(describe(folder), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    if len(content) > LARGEST_YAML:
        raise DataError(
            f"the description of {folder} has {len(content)} characters, expected at most {LARGEST_YAML}; its classes "
            "are too many, or have too long names."
        )
    write_text(folder / DESCRIPTION, content)
    typer.echo(folder / DESCRIPTION)
