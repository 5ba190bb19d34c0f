# ruff: noqa: E402
# %% [markdown]
# # KSR in five steps: train, save, load, recommend, update
#
# Run it cell by cell in an editor that knows `# %%` cells (VS Code, PyCharm, Spyder; Jupyter
# with jupytext), started in the repository's folder, or as a script:
#
#     python examples/tour.py [--dataset=ml-100k] [--data_path=FOLDER] [--KEY=VALUE ...]
#
# Everything it writes goes to `saved/tour/`.

# %%
import sys
from pathlib import Path

here = Path(globals().get("__file__", "examples/tour.py")).resolve()
sys.path.insert(0, str(here.parents[1]))  # as long as the package is not installed

from ksr_recbole.arguments import Parser
from ksr_recbole.cli import say_loading, script_arguments
from ksr_recbole.compat import silence_upstream_warnings

silence_upstream_warnings()
about = """KSR in five steps: train, save, load, recommend, update.

    python examples/tour.py [--KEY=VALUE ...]

Everything it writes goes to saved/tour/."""
parser = Parser("examples/tour.py", description=about, keys="of the model")
parser.add_names(model=False)
given = parser.read([]) if "ipykernel" in sys.modules else script_arguments(parser)
say_loading("Tour of KSR")

# %% [markdown]
# ## 1. Train
#
# One call does what `run_recbole.py` does: it reads the atomic files (ml-100k is made from what
# the `recbole` package brings), pretrains the knowledge graph's and the items' embeddings,
# trains and tests. The values in `quick.yaml` make it small and quick, not good; without them it
# is the default KSR, which takes some minutes. Any RecBole config key can stand there.

# %%
from ksr_recbole.quick_start import run

output = Path("saved/tour")
quick = here.with_name("quick.yaml")
folders = {"checkpoint_dir": str(output), "results_dir": str(output / "results")}
files = [str(quick), *given.config_files]
result = run("KSR", given.dataset or "ml-100k", files, folders | given.values)
print("MRR on test:", result["test_result"]["mrr"])

# %% [markdown]
# ## 2. Save
#
# The run left a checkpoint, which a training can be resumed from. A *model directory* is for
# everybody else: weights, options, tokens and histories, and a checksum of each. It holds no
# pickle, so that loading one never runs code from it.

# %%
from ksr_recbole import Recommender, save_model

directory = save_model(result, output / "model")
for file in sorted(directory.iterdir()):
    print(f"{file.stat().st_size:>12,} bytes  {file.name}")

# %% [markdown]
# ## 3. Load
#
# Neither the atomic files nor the pretrained vectors are needed any more.

# %%
rec = Recommender.load(directory)
print(rec.model_name, "with", len(rec.items), "items and", len(rec.users), "users")

# %% [markdown]
# ## 4. Recommend
#
# To a user of the dataset, by the token in the `.inter` file. What the user has had already is
# left out unless `exclude_history=False`.

# %%
user = rec.users[0]
for item, score in rec.recommend(user, k=5):
    print(f"user {user}: item {item}, score {score:.4f}")

# %% [markdown]
# To somebody new, by what they have had, the oldest first; and to many at once, which is one
# forward pass instead of many.

# %%
history = rec.items[:4]
print("after", history, "->", [item for item, _ in rec.recommend(history, k=5)])
for who, found in zip(rec.users[:3], rec.recommend_batch(rec.users[:3], k=5), strict=True):
    print("user", who, "->", [item for item, _ in found])

# %% [markdown]
# ## 5. Update
#
# A state is what KSR remembers of a user: the GRU's state (Eq. 1) and the value matrix of the
# memory (Eq. 8-9). An event changes it at the same cost however long the history is, and gives
# a new state; the old one stays valid, for another course of events.

# %%
state = rec.start()
for item in history:
    state = rec.update(state, item)
    print("after", item, "->", [found for found, _ in rec.recommend(state, k=5)])

# %% [markdown]
# At the end the state says the same as the whole history read at once, up to rounding.

# %%
step_by_step, at_once = (dict(rec.recommend(query, k=5)) for query in (state, history))
print("largest difference of a score:", max(abs(step_by_step[i] - at_once[i]) for i in at_once))

# %% [markdown]
# Scores are inner products of a user vector and item vectors (Eq. 10), so that an index for
# nearest neighbours can find them: see `examples/nearest_neighbours.py` and
# `docs/inference.md`.
