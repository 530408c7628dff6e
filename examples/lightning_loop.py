"""The digits of `plain_loop.py` under Lightning: manual optimisation, and the balancer's state inside the checkpoint.

    python examples/lightning_loop.py [--epochs 10]

It needs lightning and scikit-learn. The changed line is marked "was".
"""

import argparse
import warnings

import lightning
import torch
from plain_loop import losses_of, read
from torch import Tensor, nn
from torch.utils.data import DataLoader, StackDataset, Subset

from motet.balance import CAGrad


class Digits(lightning.LightningModule):
    """A shared trunk, a head a task, and a balancer that is a module like any other."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False  # the balancer fills .grad itself
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"digit": nn.Linear(32, 10), "odd": nn.Linear(32, 1), "ink": nn.Linear(32, 1)})
        self.balancer = CAGrad()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """One balanced step."""
        optimizer = self.optimizers()
        z = self.trunk(batch["inputs"])
        losses = losses_of({name: head(z) for name, head in self.heads.items()}, batch)
        optimizer.zero_grad()
        step = self.balancer.backward(losses, features=z)  # was: self.manual_backward(sum(losses.values()))
        optimizer.step()
        self.log_dict({f"loss/{name}": loss for name, loss in losses.items()})
        if batch_idx == 0:
            pairs = ", ".join(f"{a} against {b} (cosine {c:+.2f})" for a, b, c in step.conflicts) or "none"
            self.print(f"epoch {self.current_epoch}: conflicts: {pairs}")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002  Lightning's own signature
        """How many digits are right."""
        digit = self.heads["digit"](self.trunk(batch["inputs"])).argmax(dim=1)
        self.log("digit_right", (digit == batch["digit"]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A method that learns weights, such as UncertaintyWeighting, has parameters of its own in here."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(words)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    lightning.seed_everything(0, verbose=False)
    inputs, targets = read()
    rows = StackDataset(inputs=inputs, **targets)
    order = torch.randperm(len(rows)).tolist()
    trainer = lightning.Trainer(
        max_epochs=options.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = Digits()
    trainer.fit(model, DataLoader(Subset(rows, order[:1400]), batch_size=64, shuffle=True))
    right = trainer.test(model, DataLoader(Subset(rows, order[1400:]), batch_size=400), verbose=False)
    print(f"held-out rows: digit {right[0]['digit_right']:.1%} right")


if __name__ == "__main__":
    main()
