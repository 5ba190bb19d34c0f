"""Every model of RecBole's three families under the paper's protocol: works, or refused and why.

    python timings/recbole_models.py [MODEL ...]

Each is trained for an epoch on a small generated dataset, in one process.  The table that is
printed stands in docs/recbole-models.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from contextlib import redirect_stdout
from logging import disable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksr_recbole.commands import ended
from ksr_recbole.compat import keeping_anomaly_mode, silence_upstream_warnings
from ksr_recbole.errors import UserError, shown
from ksr_recbole.quick_start import run
from ksr_recbole.registry import GROUPS, MODELS, group_of
from ksr_recbole.text import markdown_row
from tests.toy import toy_values, write_toy

N_ITEMS = 150
"""CPR's models read their 100 nearest items."""

OPTIONS = {"NCL": {"num_clusters": 5}}
"""What a model needs on so little data."""

RECBOLES_OWN = ("embedding_size", "hidden_size", "kg_embedding_size", "kge_epochs", "bpr_epochs")
"""Sizes of the toy runs that are left at RecBole's defaults."""


def main() -> int:
    """Run the models and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="by default all")
    names = parser.parse_args().models
    known = {name for group in GROUPS for name in group_of(group)}
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"There is no model {shown(unknown[0])} in these families; "
            "docs/recbole-models.md has a table of all."
        )
    warnings.simplefilter("ignore")
    silence_upstream_warnings()
    disable()  # the table alone is of interest
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        data = write_toy(Path(folder) / "data", n_users=40, n_items=N_ITEMS)
        classes = (f"i{k + 1}\tc{k % 3} c{k % 2}\n" for k in range(N_ITEMS))
        item_file = data / "toy" / "toy.item"
        item_file.write_text("item_id:token\tclass:token_seq\n" + "".join(classes))
        print("| model | family | under the protocol |\n|---|---|---|")
        for group in GROUPS:
            for name in group_of(group):
                if not names or name in names:
                    family = group.removeprefix("recbole-")
                    print(markdown_row([name, family, outcome(name, data)]), flush=True)
        os.chdir("/")
    return 0


def outcome(name: str, data: Path) -> str:
    """What becomes of a model, in the words of the table."""
    if name in MODELS:
        return "a method of the comparison, with this project's loaders"
    values = {k: v for k, v in toy_values(data).items() if k not in RECBOLES_OWN}
    values |= {"protocol": "paper", "epochs": 1, **OPTIONS.get(name, {})}
    try:
        with keeping_anomaly_mode(), redirect_stdout(sys.stderr):  # some print while they train
            run(name, "toy", None, values)
    except UserError as error:
        reason = str(error).removesuffix(".").partition("protocol: ")[2] or str(error)
        return f"refused: {reason}"
    return "works"


if __name__ == "__main__":
    sys.exit(ended(main))
