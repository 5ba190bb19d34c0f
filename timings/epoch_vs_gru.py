"""Seconds of a KSR training epoch and of a bare ``nn.GRU`` of the same sizes.

    python timings/epoch_vs_gru.py [--dataset=ml-100k] [--data_path=FOLDER] [--gpu_id=0]

Both run over the same batches in turn.  The bare GRU gets the frozen item embeddings of a batch,
padded as ``nn.GRU`` wants them, runs forward, takes a given gradient of its states backward and
lets the same optimizer step: no memory, no scores, no loss, no negatives, no batch making.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import common
import torch


def bare_epoch(bench: common.Bench) -> tuple[Callable[[], None], int]:
    """A function that runs the bare GRU over an epoch's batches, and its padded positions."""
    model, config = bench.trainer.model, bench.config
    gru = torch.nn.GRU(model.options.embedding_size, model.options.hidden_size, batch_first=True)
    gru = gru.to(config["device"])
    optimizer = type(bench.trainer.optimizer)(gru.parameters(), lr=config["learning_rate"])
    batches = [batch[model.ITEM_SEQ].to(config["device"]) for batch in bench.train]
    widest = max(b.numel() for b in batches)
    gradient = torch.randn(widest, model.options.hidden_size, device=batches[0].device)

    def run() -> None:
        for items in batches:
            optimizer.zero_grad()
            states, _ = gru(model.item_embedding(items))
            states.backward(gradient[: items.numel()].view_as(states))
            optimizer.step()

    return run, sum(b.numel() for b in batches)


def in_turn(bench: common.Bench, runs: int) -> tuple[list[float], list[float], int]:
    """Seconds of the model's epochs and of the bare GRU's, one of each in turn; what it pads to."""
    bare, n_padded = bare_epoch(bench)
    epoch = iter(range(1_000))

    def ours() -> None:
        bench.train_epoch(next(epoch))

    ours(), bare()
    pairs = [(common.seconds_of(ours), common.seconds_of(bare)) for _ in range(runs)]
    mine, theirs = map(list, zip(*pairs, strict=True))
    return mine, theirs, n_padded


def main() -> None:
    """Print both figures and their ratio."""
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=common.count, default=5, help="epochs of each")
    options = parser.parse_args()
    print(common.machine())
    bench = common.prepare(options)
    mine, theirs, n_padded = in_turn(bench, options.epochs)
    n_positions = sum(int((batch[bench.trainer.model.ITEM_SEQ] > 0).sum()) for batch in bench.train)
    print(
        f"{n_positions:,} positions an epoch, {n_padded:,} with padding, {len(bench.train)} batches"
    )
    print(f"KSR epoch        {common.in_words(mine)}")
    print(f"bare nn.GRU      {common.in_words(theirs)}")
    print(f"KSR / bare GRU   {median(mine) / median(theirs):.2f}")


if __name__ == "__main__":
    common.start(main)
