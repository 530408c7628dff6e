"""The plain shared network that many would write first: one trunk, one head a target, losses masked and added."""

import copy
import io
import time

import numpy as np
import torch
from _encoding import Encoded, Fitted, Predictions
from torch import nn
from torch.nn import functional

WIDTH, LAYERS, EPOCHS, PATIENCE, RATE = 256, 3, 60, 5, 1e-3


class Network(nn.Module):
    """Standardised numbers, a flag where one is missing, and embeddings, through a ReLU trunk to one linear layer."""

    def __init__(self, data: Encoded, matrix: np.ndarray, outputs: int) -> None:
        super().__init__()
        self.count = len(data.numbers)
        numbers = torch.from_numpy(matrix[:, : self.count]).double()
        mean, scale = numbers.nanmean(0), (numbers - numbers.nanmean(0)).square().nanmean(0).sqrt()
        self.register_buffer("mean", mean.nan_to_num().float())
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0).nan_to_num(1.0).float())
        sizes = [len(levels) + 1 for levels in data.levels.values()]
        widths = [min(32, (size + 1) // 2) for size in sizes]
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True))
        width, layers = 2 * self.count + sum(widths), []
        for _ in range(LAYERS):
            layers += [nn.Linear(width, WIDTH), nn.ReLU()]
            width = WIDTH
        self.trunk = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """(N, F) to all raw outputs side by side."""
        numbers = (matrix[:, : self.count] - self.mean) / self.scale
        codes = (matrix[:, self.count :].nan_to_num(-1) + 1).long()  # 0 is for missing and unseen
        words = [table(codes[:, place]) for place, table in enumerate(self.tables)]
        return self.trunk(torch.cat([numbers.nan_to_num(), numbers.isnan().float(), *words], dim=1))


class Heads:
    """Which outputs belong to which target, and its loss; numbers are standardised."""

    def __init__(self, data: Encoded, labels: dict[str, np.ndarray]) -> None:
        self.kinds, self.places, self.units, place = dict(data.dataset.targets), {}, {}, 0
        for target, kind in self.kinds.items():
            size = len(data.classes[target]) if kind == "multiclass" else 1
            self.places[target], place = slice(place, place + size), place + size
            numeric = kind == "regression"
            self.units[target] = (np.nanmean(labels[target]), np.nanstd(labels[target]) or 1) if numeric else (0, 1)
        self.size = place

    def loss(self, outputs: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """The sum over targets of the mean loss over the rows that have the label."""
        total = outputs.new_zeros(())
        for target, kind in self.kinds.items():
            present = ~labels[target].isnan()
            if not present.any():
                continue
            out, truth = outputs[present, self.places[target]], labels[target][present]
            if kind == "multiclass":
                total = total + functional.cross_entropy(out, truth.long())
            elif kind == "binary":
                total = total + functional.binary_cross_entropy_with_logits(out[:, 0], truth)
            elif kind == "count":
                total = total + functional.poisson_nll_loss(out[:, 0], truth)
            else:
                centre, scale = self.units[target]
                total = total + functional.mse_loss(out[:, 0], (truth - centre) / scale)
        return total

    def read(self, outputs: torch.Tensor) -> Predictions:
        """Raw outputs to values and probabilities."""
        found = {}
        for target, kind in self.kinds.items():
            out, (centre, scale) = outputs[:, self.places[target]], self.units[target]
            if kind == "multiclass":
                found[target] = out.softmax(1).numpy()
            elif kind == "regression":
                found[target] = out[:, 0].numpy() * scale + centre
            else:
                found[target] = (out[:, 0].sigmoid() if kind == "binary" else out[:, 0].exp()).numpy()
        return found


def mlp(data: Encoded, seed: int, threads: int, limit: float) -> Fitted:
    """One network for all targets, trained with Adam and stopped on the sum of validation losses."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    begun, generator = time.monotonic(), torch.Generator().manual_seed(seed)
    frames = {split: data.dataset.part(split) for split in ("train", "validation")}
    inputs = {split: data.matrix(frame) for split, frame in frames.items()}
    raw = {split: {t: data.labels(f, t) for t, _ in data.dataset.targets} for split, f in frames.items()}
    heads = Heads(data, raw["train"])
    network = Network(data, inputs["train"], heads.size)
    tensors = {split: torch.from_numpy(matrix) for split, matrix in inputs.items()}
    labels = {s: {t: torch.from_numpy(y).float() for t, y in targets.items()} for s, targets in raw.items()}
    rows = len(tensors["train"])
    batch = 1024 if rows > 20_000 else 128
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    best, kept, waited, notes, epochs = float("inf"), copy.deepcopy(network.state_dict()), 0, [], 0
    while epochs < EPOCHS and waited < PATIENCE:
        epochs += 1
        for rows_B in torch.randperm(rows, generator=generator).split(batch):
            optimizer.zero_grad()
            outputs = network(tensors["train"][rows_B])
            heads.loss(outputs, {target: values[rows_B] for target, values in labels["train"].items()}).backward()
            optimizer.step()
        with torch.inference_mode():
            loss = float(heads.loss(network(tensors["validation"]), labels["validation"]))
        waited += 1
        if loss < best:
            best, kept, waited = loss, copy.deepcopy(network.state_dict()), 0
        if time.monotonic() - begun > limit:
            notes.append("stopped by the time limit")
            break
    network.load_state_dict(kept)
    file = io.BytesIO()
    torch.save(kept, file)

    def predict(matrix: np.ndarray, threads: int) -> Predictions:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return heads.read(network(torch.from_numpy(matrix)))

    return Fitted(predict, file.getvalue(), [f"epochs: {epochs}", *notes])
