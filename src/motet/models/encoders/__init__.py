"""Encoders: inputs of one kind to features."""

from motet.models.encoders._tabular import PiecewiseLinear, ResidualBlock, TabularEncoder, bin_edges

__all__ = ["PiecewiseLinear", "ResidualBlock", "TabularEncoder", "bin_edges"]
