"""A plain PyTorch loop on scikit-learn's digits with one line changed: three tasks, and who pulls against whom.

    python examples/plain_loop.py [--epochs 20]

It needs scikit-learn for the images. The changed line is marked "was".
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from motet.balance import UPGrad


def read() -> tuple[Tensor, dict[str, Tensor]]:
    """Images (B, 64), and for each: which digit it is, whether that is odd, and how much ink it took."""
    images, digits = load_digits(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32) / 16
    digit = torch.tensor(digits)
    ink = inputs.mean(dim=1)
    return inputs, {"digit": digit, "odd": digit % 2, "ink": (ink - ink.mean()) / ink.std()}


def losses_of(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """One scalar a task."""
    return {
        "digit": functional.cross_entropy(outputs["digit"], targets["digit"]),
        "odd": functional.binary_cross_entropy_with_logits(outputs["odd"][:, 0], targets["odd"].float()),
        "ink": functional.mse_loss(outputs["ink"][:, 0], targets["ink"]),
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(words)
    torch.manual_seed(0)
    inputs, targets = read()
    order = torch.randperm(len(inputs))
    train, test = order[:1400], order[1400:]

    trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    heads = nn.ModuleDict({"digit": nn.Linear(32, 10), "odd": nn.Linear(32, 1), "ink": nn.Linear(32, 1)})
    optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=3e-3)
    balancer = UPGrad()

    for epoch in range(1, options.epochs + 1):
        for rows in train[torch.randperm(len(train))].split(64):
            z = trunk(inputs[rows])
            outputs = {name: head(z) for name, head in heads.items()}
            losses = losses_of(outputs, {name: target[rows] for name, target in targets.items()})
            optimizer.zero_grad()
            step = balancer.backward(losses, features=z)  # was: sum(losses.values()).backward()
            optimizer.step()
        if epoch % 5 == 0:
            shown = ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items())
            pairs = ", ".join(f"{a} against {b} (cosine {c:+.2f})" for a, b, c in step.conflicts) or "none"
            print(f"epoch {epoch}: {shown}; conflicts: {pairs}")

    with torch.no_grad():
        z = trunk(inputs[test])
        digit = (heads["digit"](z).argmax(dim=1) == targets["digit"][test]).float().mean()
        odd = ((heads["odd"](z)[:, 0] > 0) == targets["odd"][test].bool()).float().mean()
        ink = functional.mse_loss(heads["ink"](z)[:, 0], targets["ink"][test])
    print(f"held-out rows: digit {digit:.1%} right, odd {odd:.1%} right, ink's squared error {ink:.3f}")


if __name__ == "__main__":
    main()
