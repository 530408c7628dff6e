"""Encoders: inputs of one kind to features."""

from motet.models.encoders._factorised_attention import FactorisedAttentionPooling
from motet.models.encoders._layer_pooling import LayerPooling
from motet.models.encoders._lookup import LookupEncoder, number_sizes
from motet.models.encoders._modalities import Modalities
from motet.models.encoders._plain import PlainEncoder
from motet.models.encoders._tabular import PiecewiseLinear, ResidualBlock, TabularEncoder, bin_edges
from motet.models.encoders._tokens import TokenEncoder

__all__ = [
    "FactorisedAttentionPooling",
    "LayerPooling",
    "LookupEncoder",
    "Modalities",
    "PiecewiseLinear",
    "PlainEncoder",
    "ResidualBlock",
    "TabularEncoder",
    "TokenEncoder",
    "bin_edges",
    "number_sizes",
]
