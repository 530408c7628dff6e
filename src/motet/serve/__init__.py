"""What a finished run becomes outside Python torch."""

from motet.serve._export import Exported, export_onnx

__all__ = ["Exported", "export_onnx"]
