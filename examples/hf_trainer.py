"""A tiny BERT that reads digits pixel by pixel, under the Hugging Face Trainer: `training_step` is what changes.

    python examples/hf_trainer.py [--epochs 12]

It needs transformers, accelerate and scikit-learn.
"""

import argparse
import tempfile

import torch
from plain_loop import losses_of, read
from torch import Tensor, nn
from torch.utils.data import StackDataset, Subset
from transformers import BertConfig, BertModel, Trainer, TrainingArguments, set_seed

from motet.balance import UPGrad


class PixelReader(nn.Module):
    """A BERT with random weights over 64 tokens of 17 grey levels, and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        shape = BertConfig(
            vocab_size=17, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
            max_position_embeddings=64, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, initializer_range=0.1,
        )  # fmt: skip
        self.trunk = BertModel(shape, add_pooling_layer=False)
        self.balancer = UPGrad()  # in the model, so that its state is saved with it
        self.heads = nn.ModuleDict({"digit": nn.Linear(48, 10), "odd": nn.Linear(48, 1), "ink": nn.Linear(48, 1)})

    def forward(self, pixels: Tensor, **targets: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The shared features, the outputs and the losses."""
        z = self.trunk(input_ids=pixels).last_hidden_state.mean(dim=1)
        outputs = {name: head(z) for name, head in self.heads.items()}
        return z, outputs, losses_of(outputs, targets)


class BalancedTrainer(Trainer):
    """The Trainer with a balanced backward pass; all else (schedules, clipping, callbacks) stays as it is."""

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | None = None,  # noqa: ARG002  the Trainer's own signature
    ) -> Tensor:
        """Forward, balanced backward, and the sum of the losses for the log."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            z, _, losses = model(**inputs)
        parts = self.current_gradient_accumulation_steps
        step = self.model.balancer.backward({name: loss / parts for name, loss in losses.items()}, features=z)
        if self.state.global_step % 50 == 0:
            pairs = ", ".join(f"{a} against {b} (cosine {c:+.2f})" for a, b, c in step.conflicts) or "none"
            print(f"step {self.state.global_step}: conflicts: {pairs}")
        return sum(losses.values()).detach() / parts


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=float, default=12)
    options = parser.parse_args(words)
    set_seed(0)
    inputs, targets = read()
    rows = StackDataset(pixels=(inputs * 16).long(), **targets)
    order = torch.randperm(len(rows)).tolist()
    model = PixelReader()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=options.epochs, per_device_train_batch_size=64, learning_rate=3e-3,
            logging_steps=50, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
            dataloader_pin_memory=False, remove_unused_columns=False, label_names=list(targets),
        )  # fmt: skip
        BalancedTrainer(model, arguments, train_dataset=Subset(rows, order[:1400])).train()
    test = order[1400:]
    with torch.no_grad():
        _, outputs, _ = model.eval()(rows.datasets["pixels"][test], **{name: y[test] for name, y in targets.items()})
    right = (outputs["digit"].argmax(dim=1) == targets["digit"][test]).float().mean()
    print(f"held-out rows: digit {right:.1%} right")


if __name__ == "__main__":
    main()
