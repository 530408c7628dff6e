"""What `benchmarks/sharing.py` sets beside the peers is motet's own, and what it counts is counted right."""

import _sharing_peers as peers
import pytest
import sharing
import torch
from torch import nn

from motet.models.sharing import PLE


def test_the_deep_ple_is_ple_where_experts_have_one_layer():
    torch.manual_seed(0)
    ours = peers.Ours(peers.Shape("ple", 3, 2, (16,), (8,)))
    ple = PLE(3, width=peers.INPUTS, num_specific=2, num_shared=2, levels=(16, 16))
    ple.load_state_dict(ours.sharing.state_dict())
    rows = torch.randn(8, peers.INPUTS)
    torch.testing.assert_close(ours.tower(ple(rows)).squeeze(-1).T, ours(rows))


@pytest.mark.parametrize("shape", peers.SHAPES[:3], ids=lambda shape: f"{shape.kind}-{shape.tasks}")
def test_ours_answers_every_task(shape):
    assert peers.Ours(shape)(torch.zeros(4, peers.INPUTS)).shape == (4, shape.tasks)
    assert len(peers.Ours(shape).mixes) == shape.levels


def test_what_is_kept_for_the_backward_pass():
    rows = torch.randn(500, 1000)
    assert sharing.kept_mb(nn.Linear(1000, 3), rows) == 2.0
    assert sharing.kept_mb(nn.Sequential(nn.Linear(1000, 500), nn.ReLU(), nn.Linear(500, 3)), rows) == 3.0
