"""BPR item embeddings of the training interactions (Sec. 4.3: "We pre-train the item embedding
q_i by using the classic BPR model [25], and fix them").

The classic model draws negatives uniformly.  `implicit` draws the item of a random interaction, so
that popular items are negatives more often.

Trained with `implicit`'s BPR on one thread.  It was compared on ml-100k with RecBole's BPR model
in a vectorised loop (Adam, rate 0.003, batches of 4,096, weight decay 1e-5), both with 256
columns, leaving out each user's last two interactions and ranking the last but one among all
items not in the user's training part.  MRR / NDCG@10:

    ==========================  ===============  =======  ========================
    vectors                     as BPR           seconds  in a GRU
    ==========================  ===============  =======  ========================
    implicit, 50 epochs         0.0584 / 0.0621  3        0.1132 / 0.1257
    RecBole's BPR, 40 epochs    0.0648 / 0.0706  16       0.1083 / 0.1212
    random                                                0.0234 / 0.0214
    ==========================  ===============  =======  ========================

"As BPR" is the mean of three seeds for `implicit` and one seed for RecBole's.  "In a GRU" is
what they are needed for, fixed item embeddings: best of 6 epochs, one seed.  RecBole's are the
better recommender by themselves but not the better embeddings.  On ml-1m, `implicit` had
0.0372 / 0.0378 after 50 epochs and 51 s, RecBole's BPR 0.0353 / 0.0352 after 30 epochs and
184 s, on cores that others were using too.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ksr_recbole import digests
from ksr_recbole.bars import Bar
from ksr_recbole.errors import UserError
from ksr_recbole.pretraining.partial import PartialTraining
from ksr_recbole.seeds import epoch_seed


@dataclass(frozen=True)
class BPRSettings:
    """How the item embeddings are trained.

    Attributes:
        dim: columns of a vector (Sec. 5.1: 256).
        epochs: passes over the interactions, a fixed number: stopping early would look at
            interactions that are not for training.  The paper gives none; tuned on ml-100k.
        learning_rate: of stochastic gradient descent; tuned on ml-100k.
        regularization: weight of the squared norms; `implicit`'s default.
    """

    dim: int
    epochs: int
    learning_rate: float
    regularization: float


@dataclass(frozen=True)
class BPRVectors:
    """Vectors whose inner product ranks items for a user.

    Attributes:
        user: ``float32 [n_users, dim]``.
        item: ``float32 [n_items, dim]``.
    """

    user: np.ndarray
    item: np.ndarray


def train_bpr(
    users: np.ndarray,
    items: np.ndarray,
    n_users: int,
    n_items: int,
    settings: BPRSettings,
    seed: int,
    show_progress: bool = True,
    checkpoint: Path | None = None,
) -> BPRVectors:
    """Train BPR on ``(users[k], items[k])``; a pair that occurs twice counts once.

    `implicit` adds a bias column to the ``factors`` it is asked for, with a constant 1 for
    users.  It cannot be left out, so ``dim - 1`` factors are asked for: the last column of an
    item is its bias, that of a user is 1, and the inner product of the ``dim`` columns is the
    BPR score.  Rows of users and items that do not occur, such as padding, are zeros.

    The same arguments give the same vectors, also if training was interrupted in between.

    Args:
        users: ``int64 [n]``.
        items: ``int64 [n]``.
        n_users: rows of the user vectors.
        n_items: rows of the item vectors.
        settings: how to train.
        seed: of the initial vectors and of sampling.
        show_progress: whether to show a progress bar.
        checkpoint: file to keep the state in, to resume from after an interruption; it stays
            after the training, for the caller to remove once the vectors are safe.

    Raises:
        UserError: ``dim`` is 1, or ``checkpoint`` cannot be written.
    """
    if settings.dim < 2:
        raise UserError("Config key embedding_size is 1; BPR needs at least 2 columns.")
    if len(users) == 0:  # implicit cannot draw from nothing
        shapes = (n_users, settings.dim), (n_items, settings.dim)
        return BPRVectors(*(np.zeros(shape, np.float32) for shape in shapes))
    ones = np.ones(len(users), np.float32)
    matrix = sp.csr_matrix((ones, (users, items)), shape=(n_users, n_items))
    parts = {"users": users, "items": items, "shape": matrix.shape}
    key = digests.of_values({**parts, "settings": asdict(settings), "seed": seed})
    model = _model(settings, seed)
    partial = PartialTraining(checkpoint, key)
    _fit(model, matrix, settings, seed, partial, show_progress)
    user, item = model.user_factors, model.item_factors
    user[np.diff(matrix.indptr) == 0] = 0  # implicit leaves their constant 1
    return BPRVectors(user=user, item=item)


def _model(settings: BPRSettings, seed: int) -> Any:
    """An untrained model of `implicit`."""
    with warnings.catch_warnings():
        # It advises environment variables against threads of BLAS, which BPR does not call.
        warnings.simplefilter("ignore", RuntimeWarning)
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        return BayesianPersonalizedRanking(
            factors=settings.dim - 1,
            learning_rate=settings.learning_rate,
            regularization=settings.regularization,
            iterations=1,
            num_threads=1,  # threads race for the vectors, so two runs would differ
            random_state=seed,
        )


def _fit(
    model: Any,
    matrix: sp.csr_matrix,
    settings: BPRSettings,
    seed: int,
    partial: PartialTraining,
    show_progress: bool,
) -> None:
    """One call per epoch, so that one can be interrupted; `fit` continues with the factors."""
    kind = np.dtype(np.float32)
    shapes = zip(("user", "item"), matrix.shape, strict=True)
    wanted = {name: (kind, (rows, settings.dim)) for name, rows in shapes}
    state = partial.load(lambda epoch: wanted)
    start = 0
    if state is not None:
        model.user_factors, model.item_factors = state["user"], state["item"]
        start = int(state["epoch"])
    bar = {"desc": "BPR", "unit": "epoch", "initial": start, "total": settings.epochs}
    for epoch in Bar(range(start, settings.epochs), disable=not show_progress, **bar):
        model.random_state = epoch_seed(seed, epoch)
        _one_epoch(model, matrix, epoch)
        if partial.due():
            partial.save(epoch + 1, {"user": model.user_factors, "item": model.item_factors})


def _one_epoch(model: Any, matrix: sp.csr_matrix, epoch: int) -> None:
    from implicit.recommender_base import ModelFitError

    try:
        model.fit(matrix, show_progress=False)
        finite = np.isfinite(model.user_factors).all() and np.isfinite(model.item_factors).all()
    except ModelFitError:  # it looks for NaN, not for infinity
        finite = False
    if not finite:
        raise UserError(
            f"The vectors of BPR are not finite after epoch {epoch + 1}; "
            "lower bpr_learning_rate or bpr_regularization."
        )
