"""Inputs of several modalities: what a row lacks, what it costs, what is wrong, and that it learns on real scans."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from motet import RequestError
from motet.models import MultiTaskModel, TabularEncoder, bin_edges
from motet.models.encoders import Modalities
from motet.models.sharing import M3Net, Sharing, SkillNet
from motet.tasks import Binary, Multiclass

ROWS, WIDTH = 6, 8


class Text(nn.Module):
    """Word numbers (B, 3) to a token each."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, WIDTH)
        self.seen: list[int] = []

    def forward(self, words: Tensor) -> Tensor:
        self.seen.append(len(words))
        return self.words(words)


def encoder(num_tokens: dict[str, int] | None = None, drop: float = 0.0) -> Modalities:
    torch.manual_seed(0)
    return Modalities({"image": nn.Linear(4, WIDTH), "text": Text()}, width=WIDTH, num_tokens=num_tokens, drop=drop)


def batch(count: int = ROWS) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "image": torch.randn(count, 4, generator=draw), "text": torch.randint(5, (count, 3), generator=draw),
    }  # fmt: skip


def test_each_modality_gives_its_mean_or_its_tokens() -> None:
    net, rows = encoder(), batch()
    image = net.encoders["image"](rows["image"]) + net.codes[0]
    words = net.encoders["text"](rows["text"])
    torch.testing.assert_close(net(rows), torch.stack([image, words.mean(dim=1) + net.codes[1]], dim=1))
    assert (net.names, net.kinds) == (["image", "text"], [0, 1])
    net = encoder({"text": 3})
    assert net.kinds == [0, 1, 1, 1]
    torch.testing.assert_close(net(rows)[:, 1:], net.encoders["text"](rows["text"]) + net.codes[1])


@pytest.mark.parametrize("num_tokens", [None, {"text": 3}])
def test_what_a_row_lacks_is_a_learned_token_whatever_stands_beside_it(num_tokens: dict[str, int] | None) -> None:
    net, rows = encoder(num_tokens), batch()
    present = torch.tensor([True, False, True, True, False, False])
    whole = net(rows)
    found = net({**rows, "present": {"text": present}})
    places = slice(1, None)
    torch.testing.assert_close(found[present], whole[present])
    torch.testing.assert_close(found[~present][:, 0], whole[~present][:, 0])
    torch.testing.assert_close(found[~present][:, places], net.absent[1].expand(3, len(net.kinds) - 1, -1))
    without = net({"image": rows["image"]})
    torch.testing.assert_close(without[~present], found[~present])
    torch.testing.assert_close(net({**rows, "present": {"text": torch.zeros(ROWS, dtype=torch.bool)}}), without)


def test_an_encoder_sees_the_rows_that_have_its_modality_alone() -> None:
    net, rows = encoder(), batch()
    present = torch.tensor([True, False, True, True, False, False])
    rows["image"] = torch.where(present.unsqueeze(1), rows["image"], torch.nan)
    net({**rows, "present": {"text": ~present, "image": present}}).square().sum().backward()
    net({"image": batch()["image"]})
    assert net.encoders["text"].seen == [3]
    for name, parameter in net.named_parameters():
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


def test_a_modality_is_hidden_in_training_alone() -> None:
    net, rows = encoder(drop=0.5), batch(400)
    hidden = (net(rows) == net.absent).all(dim=2).float().mean(dim=0)
    assert ((hidden > 0.4) & (hidden < 0.6)).all()
    assert not (net.eval()(rows) == net.absent).all(dim=2).any()


@pytest.mark.slow
def test_a_batch_that_lacks_some_exports_and_compiles_whole() -> None:
    net, rows = encoder().eval(), batch()
    present = torch.tensor([True, False, True, True, False, False])
    rows["image"] = torch.where(present.unsqueeze(1), rows["image"], torch.nan)
    inputs = {**rows, "present": {"image": present, "text": present.flip(0)}}
    exported = torch.export.export(net, (inputs,), strict=False).module()
    torch.testing.assert_close(exported(inputs), net(inputs))
    net.encoders["text"].forward = net.encoders["text"].words  # a list that grows is no part of a graph
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    found = compiled(inputs)
    torch.testing.assert_close(found, net(inputs))
    found.square().sum().backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in net.parameters())


def scans() -> tuple[dict[str, object], dict[str, Tensor]]:
    """Scanned digits: the upper half as an image, the lower half as 32 numbers of a table."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(found.data).float()[order].view(-1, 1, 8, 8) / 8.0 - 1.0
    digit = torch.from_numpy(found.target)[order]
    table = {"numbers": pixels[:, 0, 4:].flatten(1), "categories": torch.zeros(len(digit), 0, dtype=torch.long)}
    return {"image": pixels[:, :, :4], "table": table}, {"digit": digit, "even": (digit % 2 == 0).float()}


def taken(inputs: dict[str, object], rows: Tensor) -> dict[str, object]:
    table = {name: part[rows] for name, part in inputs["table"].items()}
    return {"image": inputs["image"][rows], "table": table}


@pytest.mark.parametrize("kind", ["m3net", "skillnet"])
def test_it_learns_from_both_and_answers_with_one(kind: str) -> None:
    inputs, targets = scans()
    torch.manual_seed(0)
    image = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 32))
    edges = bin_edges(inputs["table"]["numbers"][:1000].numpy(), num_bins=8)
    table = TabularEncoder(edges, [], width=32, num_blocks=1, number_dim=4)
    encode = Modalities({"image": image, "table": table}, width=32, drop=0.15)
    sharing: Sharing = (
        M3Net(2, width=32, kinds=encode.kinds) if kind == "m3net"
        else SkillNet(2, width=32, skills=[[0, 1, 2], [0, 1, 2]], kinds=encode.kinds, num_levels=1)
    )  # fmt: skip
    model = MultiTaskModel(
        encode, sharing, [Multiclass("digit", classes=tuple(range(10))), Binary("even", classes=(False, True))]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in range(150):
        rows = torch.randint(1000, (64,), generator=draw)
        labels = {name: values[rows] for name, values in targets.items()}
        present = {name: torch.ones(64, dtype=torch.bool) for name in labels}
        optimizer.zero_grad()
        sum(model.losses(model(taken(inputs, rows)), labels, present).values()).backward()
        optimizer.step()
    rest = torch.arange(1000, len(targets["digit"]))
    held, digit = taken(inputs, rest), targets["digit"][rest]
    some = torch.zeros(len(rest), dtype=torch.bool)
    some[::2] = True
    right = {}
    with torch.no_grad():
        for name, given in {
            "both": held, "image": {"image": held["image"]}, "table": {"table": held["table"]},
            "half": {**held, "present": {"image": some}},
        }.items():  # fmt: skip
            right[name] = float((model.eval()(given)["digit"].argmax(dim=1) == digit).float().mean())
    assert right["both"] > 0.9
    assert min(right["image"], right["table"]) > 0.5
    assert max(right["image"], right["table"]) < right["both"] - 0.03
    assert right["table"] < right["half"] < right["both"]


def test_errors_say_what_to_do() -> None:
    for encoders in ({}, {"present": nn.Identity()}):
        with pytest.raises(RequestError, match=r"at least one modality.*such as 'image'"):
            Modalities(encoders, width=8)
    with pytest.raises(RequestError, match=r"3 tokens of 'txet'.*Did you mean 'text'.*Change num_tokens"):
        encoder({"txet": 3})
    with pytest.raises(RequestError, match=r"0 tokens of 'text' were asked for.*one token at least"):
        encoder({"text": 0})
    with pytest.raises(RequestError, match=r"The share 1.0 of rows was to be hidden.*Give 0.1"):
        encoder(drop=1.0)
    net, rows = encoder(), batch()
    with pytest.raises(RequestError, match=r"'imgae' arrived; there is no such modality. Did you mean 'image'"):
        net({"imgae": rows["image"]})
    with pytest.raises(RequestError, match=r"image with 6, text with 4 rows arrived.*the same rows"):
        net({**rows, "text": rows["text"][:4]})
    with pytest.raises(RequestError, match=r"image with 6, present\['text'\] with 5 rows"):
        net({"image": rows["image"], "present": {"text": torch.ones(5, dtype=torch.bool)}})
    with pytest.raises(RequestError, match=r"A batch of no modality rows arrived"):
        net({})
    with pytest.raises(RequestError, match=r"'text' is a list; a tensor.*a tokeniser's numbers"):
        net({"text": ["a word"]})
    with pytest.raises(RequestError, match=r"encoder of 'text' gave \(6, 3, 8\) for 6 rows; \(6, 2, 8\) was expected"):
        encoder({"text": 2})(rows)
    with pytest.raises(RequestError, match=r"encoder of 'image' gave \(6, 8\).*\(6, 1, 5\) or \(6, 5\).*to 5"):
        Modalities({"image": nn.Linear(4, 8)}, width=5)({"image": rows["image"]})
