"""All that is measured on a GPU, in one run: it prints a page in Markdown, and can write it.

    python timings/gpu.py [--dataset=ml-1m --data_path=FOLDER] [--gpu_id=0] [--output=gpu.md]

Epochs next to cuDNN's GRU, with and without ``enable_amp``; how often a step waits for the GPU;
evaluation; the memory's kernel and plain PyTorch; the softmax over many items in pieces and at
once.  ``--gpu_id=`` tries the script on the CPU, where there is no count of waits and no figure of
the GPU's memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import common
import torch
from epoch_vs_gru import in_turn
from evaluation import several
from torch.nn import functional as F

from ksr_recbole.model.kernels import memory
from ksr_recbole.model.kernels.losses import softmax_loss
from ksr_recbole.text import markdown_row

ON_CPU = "-"
"""In place of what only a GPU has."""

EPOCHS: dict[str, dict[str, Any]] = {
    "the paper's setting": {"model": "KSR-paper"},
    "the default, softmax over all items": {"model": "KSR"},
    "the default on a sample": {"model": "KSR", "loss_type": "sampled_CE"},
    "the memory of exact values": {"model": "KSR-exact"},
}
"""Settings of which an epoch is measured."""


def rows_of_epochs(options: Any) -> Iterator[tuple[str, ...]]:
    """An epoch of every setting without and with AMP, each in turn with the bare ``nn.GRU``."""
    for name, values in EPOCHS.items():
        for with_amp in (False, True):
            scaled = with_amp and torch.cuda.is_available()
            bench = common.prepare(options, **values, enable_amp=with_amp, enable_scaler=scaled)
            mine, theirs, _ = in_turn(bench, options.runs)
            yield (
                f"{name}{', AMP' if with_amp else ''}",
                common.in_words(mine),
                common.in_words(theirs),
                f"{median(mine) / median(theirs):.2f}",
                peak_mib(partial(bench.train_epoch, options.runs + 1)),
                waits_of_a_step(bench),
            )


def waits_of_a_step(bench: common.Bench) -> str:
    """How often the CPU waits for the GPU in a step."""
    if not torch.cuda.is_available():
        return ON_CPU
    batches = iter(bench.train)
    bench.step(next(batches))
    batch = next(batches)
    torch.set_warn_always(True)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            bench.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.set_warn_always(False)
    return str(sum("synchronizing" in str(warning.message) for warning in said))


def rows_of_evaluation(options: Any) -> Iterator[tuple[str, ...]]:
    """All users of the test ranked in both modes; untrained, which changes no time."""
    bench = common.prepare(options, model="KSR")
    for mode, name in (("uni50pop50", "101 candidates"), ("full", "all items")):
        seconds = several(partial(bench.trainer.rank, bench.test, mode), options.runs)
        yield name, common.in_words(seconds)


def rows_of_memory(options: Any) -> Iterator[tuple[str, ...]]:
    """Write and read with the gradient of the weights: the fused kernel and plain PyTorch."""
    device = device_of(options)
    for n_attributes, n_users, n_steps in ((9, 64, 64), (17, 64, 64), (41, 64, 64), (17, 512, 64)):
        generator = torch.Generator().manual_seed(0)
        n_rows = n_users * n_steps
        table = torch.randn(2_000, n_attributes, 50, generator=generator).to(device) / 10
        index = torch.randint(2_000, (n_rows,), generator=generator).to(device)
        weights = torch.rand(n_rows, n_attributes, generator=generator).to(device).requires_grad_()
        values = torch.zeros(n_users, n_attributes, 50, device=device)
        updates, widths = memory.Updates(table, index), [n_users] * n_steps

        def run(backend: memory.Backend) -> None:
            reads, _ = memory.write_then_read(weights, updates, values, widths, backend)  # noqa: B023
            reads.sum().backward()

        fused = several(partial(run, "auto"), options.runs)
        plain = several(partial(run, "torch"), options.runs)
        yield (
            f"{n_attributes} attributes, {n_users} users, {n_steps} steps",
            common.in_words([1_000 * each for each in fused], "ms"),
            common.in_words([1_000 * each for each in plain], "ms"),
            f"{median(plain) / median(fused):.1f}",
        )


def rows_of_softmax(options: Any) -> Iterator[tuple[str, ...]]:
    """The loss over all items with both gradients, in pieces and with all scores at once."""
    device = device_of(options)
    for n_items in options.items:
        users = torch.randn(options.positions, 256, device=device, requires_grad=True)
        items = torch.randn(n_items, 256, device=device, requires_grad=True)
        targets = torch.randint(n_items, (options.positions,), device=device)
        losses: dict[str, Callable[[], torch.Tensor]] = {
            "in pieces": lambda: softmax_loss(users, items, targets),  # noqa: B023
            "at once": lambda: F.cross_entropy(users @ items.T, targets, reduction="sum"),  # noqa: B023
        }
        for how, loss in losses.items():

            def run(loss: Callable[[], torch.Tensor] = loss) -> None:
                users.grad = items.grad = None  # noqa: B023
                loss().backward()

            try:
                seconds, peak = common.in_words(several(run, options.runs)), peak_mib(run)
            except torch.cuda.OutOfMemoryError:
                seconds, peak = "out of memory", ON_CPU
            yield f"{n_items:,} items, {options.positions:,} positions, {how}", seconds, peak


def device_of(options: Any) -> torch.device:
    """The GPU that was asked for, or the CPU."""
    return torch.device("cuda" if options.gpu_id else "cpu")


def peak_mib(action: Callable[[], Any]) -> str:
    """MiB of the GPU's memory that a call needs at most."""
    if not torch.cuda.is_available():
        return ON_CPU
    torch.cuda.reset_peak_memory_stats()
    action()
    return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"


SECTIONS: dict[str, tuple[Callable[[Any], Iterator[tuple[str, ...]]], tuple[str, ...]]] = {
    "An epoch": (
        rows_of_epochs,
        ("KSR", "epoch", "bare `nn.GRU`", "ratio", "peak memory", "waits in a step"),
    ),
    "Evaluation of all users": (rows_of_evaluation, ("ranked among", "seconds")),
    "The memory": (rows_of_memory, ("a batch", "fused", "plain PyTorch", "ratio")),
    "The softmax": (rows_of_softmax, ("loss and gradients", "seconds", "peak memory")),
}
"""Each with its rows and the titles of its columns."""


def main() -> None:
    """Print each table as soon as it is measured."""
    parser = common.parser(__doc__)
    parser.set_defaults(gpu_id="0")
    parser.add_argument(
        "--runs", type=common.count, default=3, help="runs of each, after one to warm up"
    )
    parser.add_argument(
        "--items", nargs="+", type=common.count, default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--positions", type=common.count, default=4_096, help="of the softmax")
    parser.add_argument("--output", type=Path, help="file for the page")
    options = parser.parse_args()
    if options.gpu_id and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; try the script on the CPU with --gpu_id=.")
    lines = [common.machine()]
    print(lines[0], flush=True)
    for title, (rows, columns) in SECTIONS.items():
        table = [f"\n## {title}\n", markdown_row(columns), markdown_row(["---"] * len(columns))]
        table += [markdown_row(row) for row in rows(options)]
        print("\n".join(table), flush=True)
        lines += table
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    common.start(main)
