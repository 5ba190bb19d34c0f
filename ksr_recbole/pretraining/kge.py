"""KB embeddings (Sec. 4.2.2): entity and relation vectors trained on the triples with PyKEEN.

Settings of TransE that were compared on ml-100k's knowledge graph; the default in
``configs/pretraining.yaml`` keeps the loss TransE was proposed with.  1,000 triples held out
together with every other triple between the same two entities, filtered rank of the true tail
among all entities (MRR / hits@10), batches of 4,096, one thread, one seed, seconds of training:

    ===================  =======  =========  =======================  =======
    loss, margin         rate     negatives  after 30 epochs          seconds
    ===================  =======  =========  =======================  =======
    margin, 1            0.01     8          0.105 / 0.176            57
    margin, 2            0.02     8          0.104 / 0.194            62
    margin, 4            0.01     8          0.106 / 0.207            58
    margin, 4            0.03     4          0.084 / 0.174            42
    margin, 4, any norm  0.01     8          0.083 / 0.173            55
    nssa, 4              0.02     8          0.145 / 0.289            61
    nssa, 6              0.01     8          0.167 / 0.299            58
    nssa, 6, any norm    0.01     8          0.172 / 0.293            59
    nssa, 9, any norm    0.02     8          0.167 / 0.289            57
    ===================  =======  =========  =======================  =======

"Any norm" leaves out TransE's constraint that entities have length 1, which is kept: it makes
no difference to `nssa`, and Sec. 4.2.2 asks for "suitable regularization constraints".
"""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ksr_recbole import digests
from ksr_recbole.bars import on_terminal
from ksr_recbole.config.shared import KGEMethod
from ksr_recbole.core_sharing import sharing_cores
from ksr_recbole.errors import UserError
from ksr_recbole.lazy_adam import with_rows
from ksr_recbole.pretraining.partial import (
    ArrayKind,
    PartialTraining,
)
from ksr_recbole.seeds import epoch_seed, own_random_numbers
from ksr_recbole.text import terminal

MANY_ENTITIES = 200_000
"""With more entities a step of TransE updates only the vectors it reads."""


@dataclass(frozen=True)
class KGESettings:
    """How KB embeddings are trained.

    The paper names the methods and the size and takes OpenKE's implementation (Sec. 5.1, 5.3);
    the rest it does not give.

    Attributes:
        method: ``TransE``, ``TransH``, ``TransR`` or ``TransD`` (Sec. 5.3, Fig. 4(b)).
        dim: size of entity and of relation vectors (Sec. 5.1: 50).
        epochs: passes over the triples.
        batch_size: triples per step of Adam.
        learning_rate: of Adam.
        loss: ``margin``, the ranking loss of Bordes et al., NIPS 2013 (Eq. 1), which TransE was
            proposed with and the paper's reference [1]; or ``nssa``, the self-adversarial loss
            of Sun et al., ICLR 2019 (Eq. 5).
        margin: of either loss, for distances of TransE between vectors of length 1; about 1
            for ``margin``, about 6 for ``nssa``.
        negatives: corrupted triples per triple.
        norm: 1 or 2, which distance TransE is trained with; Sec. 5.4 ranks by L1.  The other
            methods keep PyKEEN's choice, that of their papers.
    """

    method: KGEMethod
    dim: int
    epochs: int
    batch_size: int
    learning_rate: float
    loss: Literal["margin", "nssa"]
    margin: float
    negatives: int
    norm: int


@dataclass(frozen=True)
class KGEmbeddings:
    """Vectors of entities and relations by id; ids that occur in no triple have zeros.

    Attributes:
        entity: ``float32 [n_entities, dim]``.
        relation: ``float32 [n_relations, dim]``.
    """

    entity: np.ndarray
    relation: np.ndarray


def train_kge(
    triples: np.ndarray,
    n_entities: int,
    n_relations: int,
    settings: KGESettings,
    seed: int,
    device: str = "cpu",
    show_progress: bool = True,
    checkpoint: Path | None = None,
) -> KGEmbeddings:
    """Train KB embeddings.

    TransH, TransR and TransD have more parameters than a vector per entity and relation.
    Taken are those that ``e_1 + r`` (Eq. 7) is made of: the entities' own vectors, not
    projected, and the translation vectors ``r``; not TransH's normals, TransR's matrices nor
    TransD's projection vectors.

    The same arguments give the same vectors, also if training was interrupted in between.

    Args:
        triples: head, relation and tail id, ``int64 [n, 3]``.
        n_entities: rows of the entity vectors.
        n_relations: rows of the relation vectors.
        settings: how to train.
        seed: of the initial vectors, the order of triples and the corrupted triples.
        device: where to train.
        show_progress: whether to show PyKEEN's progress bar.
        checkpoint: file to keep the state in, to resume from after an interruption; it stays
            after the training, for the caller to remove once the vectors are safe.

    Raises:
        UserError: the loss became infinite, ``checkpoint`` or PyKEEN's own folder cannot be
            written.
    """
    entities, compact = np.unique(triples[:, [0, 2]], return_inverse=True)
    relations, compact_relations = np.unique(triples[:, 1], return_inverse=True)
    compact = compact.reshape(-1, 2)
    entity = np.zeros((n_entities, settings.dim), np.float32)
    relation = np.zeros((n_relations, settings.dim), np.float32)
    if len(triples):
        # Only ids that occur are trained on: padding must not be drawn as a negative.
        used = np.stack([compact[:, 0], compact_relations, compact[:, 1]], axis=1)
        key = digests.of_values({"triples": triples, "settings": asdict(settings), "seed": seed})
        partial = PartialTraining(checkpoint, key)
        with _quiet(), own_random_numbers(device), sharing_cores():
            loop, factory = _training_loop(used, settings, seed, device)
            _run_epochs(loop, factory, settings, seed, show_progress, partial)
        entity[entities] = _vectors(loop.model.entity_representations[0])
        relation[relations] = _vectors(loop.model.relation_representations[0])
    return KGEmbeddings(entity=entity, relation=relation)


def _vectors(representation: Any) -> np.ndarray:
    """All vectors of a PyKEEN representation, ``float32 [n, dim]``."""
    with torch.no_grad():
        return representation(indices=None).cpu().numpy()


def _training_loop(
    triples: np.ndarray, settings: KGESettings, seed: int, device: str
) -> tuple[Any, Any]:
    """PyKEEN's loop over ``triples`` (``int64 [n, 3]``), with a new model, and its triples.

    Ids of either kind are 0, 1, ...

    Raises:
        UserError: PyKEEN's own folder cannot be written, or it cannot be imported with ``-OO``.
    """
    if sys.flags.optimize > 1:
        raise UserError(
            "Python was started with -OO (or PYTHONOPTIMIZE=2), which removes docstrings, and "
            "PyKEEN cannot be imported without them; leave it out."
        )
    try:
        from pykeen.training import SLCWATrainingLoop
        from pykeen.triples import CoreTriplesFactory
    except OSError as error:  # importing PyKEEN creates folders
        raise UserError(
            f"PyKEEN cannot create its folder {error.filename}: {error.strerror}; "
            "set the environment variable PYSTOW_HOME to a folder you may write to."
        ) from error
    logging.getLogger("pykeen").setLevel(logging.ERROR)  # after its import, which sets another
    n_entities, n_relations = triples[:, [0, 2]].max() + 1, triples[:, 1].max() + 1
    factory = CoreTriplesFactory(torch.from_numpy(triples), int(n_entities), int(n_relations))
    model = _model(settings, factory, seed).to(device)
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=_optimizer(model, settings),
        automatic_memory_optimization=False,  # its search would train for nothing
        negative_sampler_kwargs={"num_negs_per_pos": settings.negatives},
    )
    return loop, factory


def _run_epochs(
    loop: Any,
    factory: Any,
    settings: KGESettings,
    seed: int,
    show_progress: bool,
    partial: PartialTraining,
) -> None:
    """Train to the last epoch, from the kept state if there is one.

    Raises:
        UserError: the loss became infinite, or the state cannot be kept.
    """
    from pykeen.training.training_loop import NonFiniteLossError

    start = _restore(loop, partial)
    if start >= settings.epochs:
        return
    torch.manual_seed(epoch_seed(seed, start))
    try:
        loop.train(
            triples_factory=factory,
            num_epochs=settings.epochs,
            batch_size=settings.batch_size,
            continue_training=start > 0,
            use_tqdm=show_progress and on_terminal(),
            use_tqdm_batch=False,
            tqdm_kwargs={"desc": settings.method, "file": terminal(), "dynamic_ncols": True},
            callbacks=_end_of_epoch(loop, partial, seed, settings.epochs),
            checkpoint_directory=tempfile.gettempdir(),  # unused, but it would create another
            pin_memory=False,
        )
    except NonFiniteLossError as error:
        raise UserError(
            f"The loss of {settings.method} is not finite; lower kge_learning_rate."
        ) from error


def _model(settings: KGESettings, factory: Any, seed: int) -> Any:
    """An untrained PyKEEN model.  TransE keeps entities at length 1, as its paper does."""
    from pykeen import models
    from pykeen.losses import MarginRankingLoss, NSSALoss

    options: dict[str, Any] = {"embedding_dim": settings.dim}
    if settings.method == "TransE":
        options["scoring_fct_norm"] = settings.norm
    if settings.method in ("TransR", "TransD"):
        options["relation_dim"] = settings.dim
    loss = {"nssa": NSSALoss, "margin": MarginRankingLoss}[settings.loss](margin=settings.margin)
    return getattr(models, settings.method)(
        triples_factory=factory, loss=loss, random_seed=seed, **options
    )


def _optimizer(model: Any, settings: KGESettings) -> torch.optim.Optimizer:
    """Adam; for TransE of many entities lazy, with rows that a step reads alone kept at length 1.

    Otherwise a step would compute on every vector and both of its means, three times over.
    """
    kind, entities = torch.optim.Adam, model.entity_representations[0]
    if settings.method == "TransE" and entities.max_id > MANY_ENTITIES:
        constrain, entities.constrainer = entities.constrainer, None
        entities._embeddings.sparse = True  # PyKEEN has no public way
        kind = _lazy(constrain)
    return kind(model.parameters(), lr=settings.learning_rate, fused=True)


def _lazy(constrain: Callable[[torch.Tensor], torch.Tensor]) -> type[torch.optim.Adam]:
    """A class, since PyKEEN makes a new optimizer of the class of the one it is given."""

    class LazyAdam(torch.optim.Adam):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            with_rows(self, constrain)

    return LazyAdam


def _end_of_epoch(loop: Any, partial: PartialTraining, seed: int, epochs: int) -> Any:
    """A PyKEEN callback that keeps the state and seeds the next epoch."""
    from pykeen.training.callbacks import TrainingCallback

    class EndOfEpoch(TrainingCallback):
        def post_epoch(self, epoch: int, epoch_loss: float, **kwargs: Any) -> None:
            if partial.due() or epoch == epochs:
                partial.save(epoch, _state(loop))
            torch.manual_seed(epoch_seed(seed, epoch))

    return EndOfEpoch()


def _state(loop: Any) -> dict[str, np.ndarray]:
    """Parameters, Adam's moments and losses of a training loop, by name.

    PyKEEN's own checkpoints are pickles, and not written atomically.
    """
    state = {f"model.{name}": t.cpu().numpy() for name, t in loop.model.state_dict().items()}
    for index, moments in loop.optimizer.state_dict()["state"].items():
        state.update({f"adam.{index}.{name}": t.cpu().numpy() for name, t in moments.items()})
    return {**state, "losses": np.array(loop.losses_per_epochs)}


def _kinds(loop: Any, epoch: int) -> dict[str, ArrayKind]:
    """Type and shape of every array of :func:`_state` after so many epochs."""
    single = np.dtype(np.float32)
    kinds = {f"model.{name}": _kind(t) for name, t in loop.model.state_dict().items()}
    for index, parameter in enumerate(loop.model.parameters()):
        moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), _kind(parameter)) | {
            "step": (single, ())
        }
        kinds |= {f"adam.{index}.{name}": kind for name, kind in moments.items()}
    return {**kinds, "losses": (np.dtype(np.float64), (epoch,))}


def _kind(tensor: torch.Tensor) -> ArrayKind:
    return tensor.detach().cpu().numpy().dtype, tuple(tensor.shape)


def _restore(loop: Any, partial: PartialTraining) -> int:
    """Put a kept state back into the loop; the number of epochs it has had."""
    state = partial.load(lambda epoch: _kinds(loop, epoch))
    if state is None:
        return 0
    parameters: dict[str, torch.Tensor] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in state.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            parameters[rest] = torch.from_numpy(array)
        elif kind == "adam":
            index, _, moment = rest.partition(".")
            moments.setdefault(int(index), {})[moment] = torch.from_numpy(array)
    loop.model.load_state_dict(parameters)
    loop.optimizer.load_state_dict({**loop.optimizer.state_dict(), "state": moments})
    loop.losses_per_epochs = state["losses"].tolist()
    loop._epoch = int(state["epoch"])  # PyKEEN has no public way but its pickles
    return loop._epoch


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute warnings and PyKEEN's full garbage collection after every epoch; keep its log level."""
    logger = logging.getLogger("pykeen")
    level = logger.level
    gc.freeze()  # it took 0.2 s of each epoch, looking at objects that only imports made
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
