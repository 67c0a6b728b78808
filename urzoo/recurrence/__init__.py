"""The gated recurrence over time, as functions on tensors; needs torch alone."""

from urzoo.recurrence.gates import GATINGS, Gating, State, gatings, initial_gate_bias
from urzoo.recurrence.held import HeldWeights
from urzoo.recurrence.scan import SlowBackendWarning, backend_for, backends, scan, step

__all__ = [
    "GATINGS",
    "Gating",
    "HeldWeights",
    "SlowBackendWarning",
    "State",
    "backend_for",
    "backends",
    "gatings",
    "initial_gate_bias",
    "scan",
    "step",
]
