"""A model in one file: KSR whose attention never leaves an attribute out.

``python examples/my_model.py --dataset=ml-100k --uniform_share=0.2`` trains and tests it with all
that KSR has: pretraining, checkpoints, candidates, metrics.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from ksr_recbole.cli import guarded, parse_arguments
from ksr_recbole.config import option
from ksr_recbole.model.ksr import KSR
from ksr_recbole.registry import add_model


class EvenKSR(KSR):
    """KSR in which a share of the attention (Eq. 6) is spread evenly over the attributes."""

    def _read_options(self, config: Any) -> None:
        super()._read_options(config)
        self.uniform_share = option(config, "uniform_share", float, minimum=0, below=1)

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Attention over the attributes for GRU states ``[..., H]``: ``[..., A]``."""
        learned = super().attention(hidden_states)
        return (1 - self.uniform_share) * learned + self.uniform_share / learned.shape[-1]


add_model("EvenKSR", EvenKSR, based_on="KSR", uniform_share=0.1)


def _run(arguments: list[str]) -> int:
    from ksr_recbole.quick_start import run

    values = parse_arguments(arguments)
    run("EvenKSR", values.pop("dataset", "ml-100k"), config_dict=values)
    return 0


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(guarded(lambda: _run(given), "examples/my_model.py", given))
