"""A model in one file: KSR whose attention never leaves an attribute out.

    python examples/my_model.py [--dataset=ml-100k] [--uniform_share=0.2] [--KEY=VALUE ...]

trains and tests it with all that KSR has: pretraining, checkpoints, candidates, metrics.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # if the package is not installed

from ksr_recbole.arguments import Parser
from ksr_recbole.commands import run_command, say_loading

if __name__ == "__main__" and not {"-h", "--help", "--version"} & set(sys.argv):
    say_loading("EvenKSR")

from torch import Tensor

from ksr_recbole.config.options import real
from ksr_recbole.model.ksr import KSR, KSROptions
from ksr_recbole.registry import add_model


@dataclass(frozen=True, kw_only=True)
class EvenOptions(KSROptions):
    """KSR's options and one more."""

    uniform_share: float = real(0.1, minimum=0, below=1)
    """Share of the attention that is spread evenly."""


class EvenKSR(KSR):
    """KSR in which a share of the attention (Eq. 6) is spread evenly over the attributes."""

    Options = EvenOptions
    options: EvenOptions

    def attention(self, hidden_states: Tensor) -> Tensor:
        """Attention over the attributes for GRU states ``[..., H]``: ``[..., A]``."""
        learned, share = super().attention(hidden_states), self.options.uniform_share
        return (1 - share) * learned + share / learned.shape[-1]


add_model("EvenKSR", EvenKSR, based_on="KSR")


def _run(given: Namespace) -> int:
    from ksr_recbole.quick_start import run

    run("EvenKSR", given.dataset or "ml-100k", given.config_files, given.values)
    return 0


if __name__ == "__main__":
    parser = Parser("examples/my_model.py", description=__doc__, keys="of the model")
    parser.add_names(model=False)
    sys.exit(run_command(_run, parser, None))
