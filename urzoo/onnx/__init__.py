"""urzoo's models as ONNX files, for machines without Python: `pip install 'urzoo[onnx]'`.

The graph is built from the weights, operator by operator, and not traced by torch's exporter: that one would follow the
Python loop over the steps of one length, or need the CPU back end's own operators translated. Built, the recurrence is
one `Scan` for any length, the file needs standard operators of opset 18 only, and its form does not change with torch.
"""

from urzoo.onnx.export import export_onnx, to_onnx

__all__ = ["export_onnx", "to_onnx"]
