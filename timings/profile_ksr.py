"""Where the time of a training epoch goes, stage by stage.

    python timings/profile_ksr.py [--dataset=ml-100k] [--data_path=FOLDER] [--set KEY=VALUE ...]

The backward pass of an operation is counted under the stage whose forward pass recorded it.
The profiler itself slows an epoch down a little, so the last line gives the time without it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from statistics import median
from typing import Any

import common
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from ksr_recbole.dataset.dataloader import SequenceTrainLoader
from ksr_recbole.model import gru_recommender, ksr
from ksr_recbole.model.kernels.packing import Packing

STAGE = "stage: "
BACKWARD = "autograd::engine::evaluate_function: "


def label(owner: Any, name: str, stage: str) -> None:
    """Make the function ``name`` of ``owner`` appear in the profile as ``stage``."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def labelled(*args: Any, **kwargs: Any) -> Any:
        with record_function(STAGE + stage):
            return function(*args, **kwargs)

    setattr(owner, name, labelled)


def label_stages(bench: common.Bench) -> None:
    """Name the stages of an epoch."""
    model = bench.trainer.model
    label(Packing, "of", "batch, packing")
    label(gru_recommender, "run_gru", "GRU (Eq. 1)")
    label(model, "attention", "attention (Eq. 6)")
    label(ksr, "write_then_read", "memory (Eq. 5, 7-9)")
    label(model.user_mlp, "forward", "user MLP (Eq. 10)")
    label(model, "item_vectors", "item MLP (Eq. 10)")
    label(model, "scores", "scores, loss (Eq. 10-11)")
    label(model, "_cross_entropy", "scores, loss (Eq. 10-11)")
    label(bench.trainer.optimizer, "step", "optimizer")
    batches = SequenceTrainLoader.__iter__

    def labelled(self: SequenceTrainLoader) -> Iterable[Any]:
        iterator = batches(self)
        while True:
            with record_function(STAGE + "batch, packing"):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    SequenceTrainLoader.__iter__ = labelled


def stage_of(event: FunctionEvent) -> str | None:
    """The innermost stage an event happened in."""
    while event is not None:
        if event.name.startswith(STAGE):
            return event.name.removeprefix(STAGE)
        event = event.cpu_parent
    return None


def in_backward(event: FunctionEvent) -> bool:
    """Whether an event belongs to the backward pass."""
    while event is not None:
        if event.name.startswith(BACKWARD):
            return True
        event = event.cpu_parent
    return False


def attribute(events: Iterable[FunctionEvent]) -> dict[str, list[float]]:
    """Forward and backward seconds by stage."""
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    recorded: dict[int, str] = {}
    events = sorted(events, key=lambda event: event.time_range.start)
    for event in events:
        if event.name.startswith(STAGE):
            seconds[stage_of(event)][0] += event.cpu_time_total / 1e6
            outer = stage_of(event.cpu_parent)
            if outer:
                seconds[outer][0] -= event.cpu_time_total / 1e6
        elif event.sequence_nr >= 0 and not in_backward(event):
            # Without a gradient it carries the number of the next one that has: the last wins.
            recorded[event.sequence_nr] = stage_of(event) or "between stages"
    for event in events:
        if event.name.startswith(BACKWARD) and event.cpu_parent is None:
            stage = recorded.get(event.sequence_nr, "between stages")
            seconds[stage][1] += event.cpu_time_total / 1e6
    return seconds


def main() -> None:
    """Print the table."""
    options = common.parser(__doc__).parse_args()
    print(common.machine())
    bench = common.prepare(options)
    epoch = iter(range(100))

    def train() -> None:
        bench.train_epoch(next(epoch))

    train()  # compiles the kernels
    plain = [common.seconds_of(train) for _ in range(3)]
    peak = common.gemm_peak()
    rows = count_rows(bench)
    label_stages(bench)
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        whole = common.seconds_of(train)
    seconds = attribute(profiler.events())
    seconds["rest"] = [whole - sum(map(sum, seconds.values())), 0.0]
    print(f"\n{'stage':28}{'forward':>10}{'backward':>10}{'share':>9}")
    for stage, (forward, backward) in sorted(seconds.items(), key=lambda x: -sum(x[1])):
        share = (forward + backward) / whole
        print(f"{stage:28}{forward:8.3f} s{backward:8.3f} s{share:8.1%}")
    print(f"\nprofiled epoch {whole:.2f} s; without the profiler {common.in_words(plain)}")
    flops = epoch_gflop(bench, rows)
    print(
        f"matrix products: {flops:.0f} GFLOP an epoch, {flops / median(plain):.0f} GFLOP/s, "
        f"{flops / median(plain) / peak:.0%} of this machine's {peak:.0f} GFLOP/s"
    )


def count_rows(bench: common.Bench) -> Counter[str]:
    """Count, from now on, the rows of the products that have one for each distinct item."""
    model, rows = bench.trainer.model, Counter[str]()
    inputs_of, vectors_of = model._inputs, model.item_vectors

    def inputs(items: Tensor) -> Any:
        vectors, index = inputs_of(items)
        rows["positions"] += len(items)
        rows["inputs"] += len(vectors)
        return vectors, index

    def item_vectors(items: Tensor | None = None) -> Tensor:
        vectors = vectors_of(items)
        rows["item vectors"] += len(vectors)
        return vectors

    model._inputs, model.item_vectors = inputs, item_vectors
    return rows


def epoch_gflop(bench: common.Bench, rows: Mapping[str, int]) -> float:
    """Floating-point operations of the matrix products of an epoch in the paper's setting, in 10^9.

    A row's product with a weight has two gradients of the same size.  Frozen item embeddings need
    no gradient of the GRU's input, nor of the item MLP's.

    Args:
        bench: what was trained.
        rows: of one epoch (:func:`count_rows`).
    """
    options = bench.trainer.model.options
    n_items, n_hidden, n_kb = (
        options.embedding_size, options.hidden_size, options.kg_embedding_size
    )  # fmt: skip
    n_user = n_hidden + n_kb
    position = 3 * (3 * n_hidden * n_hidden + n_hidden * n_kb + n_user * n_user)
    products = rows["positions"] * position
    products += rows["inputs"] * 2 * 3 * n_hidden * n_items
    products += rows["item vectors"] * 2 * (n_items + n_kb) * n_user
    return 2 * products / 1e9


if __name__ == "__main__":
    common.start(main)
