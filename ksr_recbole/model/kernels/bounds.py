"""Row numbers, checked before kernels that check nothing read memory by them."""

from __future__ import annotations

from torch import Tensor


def check_rows(index: Tensor, n_rows: int) -> None:
    """Make sure that every number of ``index``, of any shape on the CPU, is a row of ``n_rows``.

    Raises:
        IndexError: one is not, as in PyTorch's own selections.
    """
    if index.numel() == 0:
        return
    numbers = index.numpy()
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest >= n_rows:
        wrong = lowest if lowest < 0 else highest
        raise IndexError(f"row {wrong} is out of range: there are {n_rows:,} rows, from 0 on")
