"""URLSTM, URGRU and their cells as torch.nn.Modules; nothing of HuggingFace."""

from urzoo.nn.cells import URGRUCell, URLSTMCell
from urzoo.nn.convert import from_torch_lstm, from_ur_lstm_torch
from urzoo.nn.layers import URGRU, URLSTM
from urzoo.nn.stream import Stream
from urzoo.recurrence.held import HeldWeights

__all__ = [
    "URGRU",
    "URLSTM",
    "HeldWeights",
    "Stream",
    "URGRUCell",
    "URLSTMCell",
    "from_torch_lstm",
    "from_ur_lstm_torch",
]
