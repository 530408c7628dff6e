"""Blocks: the few parts of which every sharing architecture is made. Streams in, streams out."""

from motet.models.blocks._attention import TokenAttention
from motet.models.blocks._auxiliary import AUXILIARY
from motet.models.blocks._bridge import Bridge
from motet.models.blocks._dense_routes import FixedRoute, LinearRoute, SigmoidRoute, SoftmaxRoute, SumRoute
from motet.models.blocks._experts import Experts
from motet.models.blocks._gate import Gate
from motet.models.blocks._joined import JoinedExperts
from motet.models.blocks._mix import Levels, Mix
from motet.models.blocks._pruned_route import PrunedRoute
from motet.models.blocks._routes import Route, Routed
from motet.models.blocks._scale import ChannelScale, FeatureGate, SqueezeExcitation
from motet.models.blocks._slim import SlimLayer
from motet.models.blocks._sparse_routes import DSelectRoute, NestedRoute, TopKRoute
from motet.models.blocks._stacked import StackedLinear
from motet.models.blocks._token_block import TokenBlock

__all__ = [
    "AUXILIARY",
    "Bridge",
    "ChannelScale",
    "DSelectRoute",
    "Experts",
    "FeatureGate",
    "FixedRoute",
    "Gate",
    "JoinedExperts",
    "Levels",
    "LinearRoute",
    "Mix",
    "NestedRoute",
    "PrunedRoute",
    "Route",
    "Routed",
    "SigmoidRoute",
    "SlimLayer",
    "SoftmaxRoute",
    "SqueezeExcitation",
    "StackedLinear",
    "SumRoute",
    "TokenAttention",
    "TokenBlock",
    "TopKRoute",
]
