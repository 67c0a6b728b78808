"""Data sets by name: where the bytes come from, splits and their digests. Knows no model."""

from urzoo.data.local import describe, register
from urzoo.data.schema import data_sets, load_data_set
from urzoo.data.sources import DataMissing
from urzoo.data.split import Split, hold_out, lacking, load_split

__all__ = [
    "DataMissing",
    "Split",
    "data_sets",
    "describe",
    "hold_out",
    "lacking",
    "load_data_set",
    "load_split",
    "register",
]
