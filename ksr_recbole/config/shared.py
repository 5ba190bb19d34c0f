"""Options that all models share, and those of the models that are RecBole's.

Each class is the one place that says what its keys mean and may hold: ``docs/make_options.py``
writes the comments of ``configs/`` and the tables of ``docs/options.md`` from it.  Where a YAML
file gives a key another value than the field, the YAML file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ksr_recbole.config import checks
from ksr_recbole.config.options import (
    SIZE,
    AboveZero,
    Options,
    Value,
    as_whole,
    choice,
    declared,
    flag,
    optional,
    real,
    whole,
)
from ksr_recbole.errors import UserError
from ksr_recbole.threads import checked_threads

PATH = checks.path
"""A path, which may not be left out."""

MAYBE_PATH = optional(checks.path)

_SAMPLING = checks.dict_with({
    "distribution": Value(str, choices=("uniform", "popularity", "none"), optional=True),
    "sample_num": checks.none_word(Value(int, 1, 10_001)),
    "alpha": checks.none_word(Value(float, 0)),
    "dynamic": Value(bool),
    "candidate_num": Value(int, 0, 10_001),
})  # fmt: skip

SAMPLING = checks.none_for_word(optional(_SAMPLING))
"""How negatives are drawn, or ``None``."""

EVALUATION = checks.dict_with({
    "split": checks.split,
    "order": Value(str, choices=("RO", "TO")),
    "group_by": Value(str, choices=("user", "none"), optional=True),
    "mode": checks.mode,
})  # fmt: skip


_CLIPPING = checks.dict_with({
    "max_norm": AboveZero(),
    "norm_type": AboveZero(),
    "error_if_nonfinite": Value(bool),
    "foreach": Value(bool, optional=True),
})  # fmt: skip

CLIPPING = optional(checks.needing("max_norm", _CLIPPING))


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """What of the data is used."""

    train_ratio: float = declared(1.0, AboveZero(1))
    """Share of each user's training interactions that is kept, the latest (Sec. 5.3, Fig. 3)."""
    session_length: float | None = declared(None, optional(AboveZero()), "above 0")
    """Seconds of a session: interactions with equal timestamp // session_length. 86400, a day in
    UTC, with the task next-session."""
    attributes: list[str] | None = declared(None, optional(checks.list_of(checks.text)))
    """Relations used as attributes; by default those in which items are heads (Sec. 4.2.2)."""


GIVEN_VECTORS = ("ent", "rel", "bpr")
"""Suffixes of the files in ``pretrain_path``."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Where files lie, and how a run computes."""

    protocol: str | None = choice(None, "paper", "recbole")
    """For RecBole's own models: recbole (the default), its split and evaluation; or paper, ours.
    The models compared here run under ours."""
    normalize_all: bool | None = declared(False, Value(bool, optional=True))
    """False: timestamps stay as they are; RecBole's ml-100k.yaml would scale them."""
    data_cache_dir: str | None = declared("cache", MAYBE_PATH)
    """Folder of loaded datasets, found again by the content of their files; ~ for none."""
    pretrain_dir: str = declared("pretrained", PATH)
    """Folder where pretrained vectors are kept for later runs."""
    pretrain_path: str | None = declared(None, MAYBE_PATH)
    """Folder of given vectors: <dataset>.ent, .rel and/or .bpr; what is missing is trained."""
    pretrain_export_path: str | None = declared(None, MAYBE_PATH)
    """Folder to write the vectors to, as atomic files that RecBole's KSR and GRU4RecKG read."""
    results_dir: str = declared("results", PATH)
    """Folder of the result files."""
    resume: bool | str | None = declared(False, checks.resume)
    """Resume from a checkpoint: its path, or True for the newest one of this model and dataset."""
    trust_checkpoint: bool = flag(False)
    """Load RecBole's pickled checkpoints of built-in models that this run did not write."""
    kg: str | None = declared(None, MAYBE_PATH)
    """Another knowledge graph for a dataset that is converted here, such as ml-1m; see
    docs/data.md."""
    link: str | None = declared(None, MAYBE_PATH)
    """File that says which entity of that graph each item is. A line has an item, a tab and its
    entity."""
    names: str | None = declared(None, MAYBE_PATH)
    """File of names. A line has an entity of that graph, a tab and its name."""
    download: bool = flag(True)
    """Download a public dataset that is not on this machine, such as ml-1m."""
    num_threads: int | None = declared(
        None, lambda key, value: checked_threads(key, as_whole(value)), "from 1 up to the cores"
    )
    """Threads of PyTorch and Numba in each process, up to the machine's cores. ~: the smallest of
    OMP_NUM_THREADS, the cores the process may run on and the CPU quota of its container."""


@dataclass(frozen=True, kw_only=True)
class ProcessOptions(Options):
    """Several processes, on one machine or several."""

    nproc: int = whole(1, 1, below=4097)
    """Processes started here."""
    world_size: int = whole(-1, -1, below=65537)
    """Processes on all machines together; -1: those started here."""
    group_offset: int = whole(0, 0, below=65537)
    """How many processes are started on the machines before this one."""
    ip: str = declared("localhost", checks.text)
    """Address or name of the machine that starts process 0, which listens only there."""
    port: int | None = whole(None, 1, below=65536, optional=True)
    """Port of process 0: by default a free one, or 5678 with several machines."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Options):
    """What is predicted, and how it is evaluated."""

    task: str = declared("next-item", checks.name)
    """next-item: the last item is the test; next-session: the last session. The one before is the
    validation."""
    eval_args: dict[str, Any] = declared(
        {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": "uni50pop50",
        },
        EVALUATION,
    )
    """split and order: leave-one-out in time order; mode: full, uniN, popN or uniNpopM, the
    candidates of a positive (Sec. 5.1: 50 uniform and 50 by popularity)."""
    report_modes: list[str] | str = declared(["uni50pop50", "full"], checks.modes)
    """Modes reported at the end, in addition to that of eval_args. A mode that ends in +popularity
    adds popularity to the scores, with a weight fitted on validation."""
    metrics: list[str] = declared(["MAP", "MRR", "Hit", "NDCG"], checks.texts)
    """MAP and MRR over the whole list, Hit and NDCG at topk."""
    topk: list[int] = declared([10], checks.topk)
    """Lengths k of the top lists for Hit and NDCG."""
    valid_metric: str = declared("MRR", checks.text)
    """Metric on validation that chooses the best epoch."""
    eval_batch_size: int = whole(256, 1)
    """Users (of sessions: positives) evaluated at a time."""
    metric_decimal_place: int = whole(4, 0, below=16)
    """Decimals shown."""


SHARED_SAMPLE = ("sampled_CE", "gBCE")
"""Values of ``loss_type`` for which all positions of a batch share a sample of items."""

MANY_ITEMS = 20_000
"""With more items than this a softmax over all of them costs more than all else in training."""

SAMPLE_OF_MANY = 2048
"""``sampled_items`` where the loss on a sample is chosen for them: on Music's 12,492 items 2,048
are nearly as good as all, and cost a seventh more than 512 (docs/performance.md, *Many items*)."""


WITHOUT_A_VALUE: Mapping[str, Any] = {
    "sampled_items": 512,
    "sampled_popularity": 0.5,
    "gbce_calibration": 0.75,
    "time_scales": [3.0, 20.0, 100.0, 0.0],
    "memory_fit": "training",
}
"""What options without a value stand for: they came later, and runs without them are the same."""


def meant_by(key: str, value: Any) -> Any:
    """The value that an option has, given or not."""
    return WITHOUT_A_VALUE.get(key) if value is None else value


def fits_memory_later(settings: Mapping[str, Any]) -> bool:
    """Whether a model's memory is fitted on validation, once the model is trained.

    Args:
        settings: config values, those of a memory among them or not.
    """
    exact = settings.get("value_matrix") == "exact"
    return exact and meant_by("memory_fit", settings.get("memory_fit")) == "validation"


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """The sample of items that a batch shares, for ``sampled_CE`` and ``gBCE``.

    Their defaults are ``None``, so that runs with other losses are those they were.
    """

    sampled_items: int | None = whole(None, 1, optional=True)
    """Items drawn for a batch with loss_type sampled_CE or gBCE, all different and the same for
    all its positions. ~: 512, or 2,048 where sampled_CE takes the place of CE because there are
    more than 20,000 items."""
    sampled_popularity: float | None = real(None, 0, below=1, optional=True)
    """Share of popularity in the chances to be drawn for sampled_CE; the rest is uniform. ~:
    0.5."""
    gbce_calibration: float | None = declared(None, optional(checks.within(0, 1)), "from 0 to 1")
    """t of gBCE (gSASRec); 0: plain cross entropy of each item. ~: 0.75."""

    def sample_size(self, n_items: int) -> int:
        """Items to draw of ``n_items`` ids, padding among them."""
        return min(meant_by("sampled_items", self.sampled_items), n_items - 1)

    @property
    def popularity(self) -> float:
        """Share of popularity in the chances to be drawn."""
        return float(meant_by("sampled_popularity", self.sampled_popularity))

    @property
    def calibration(self) -> float:
        """t of gBCE."""
        return float(meant_by("gbce_calibration", self.gbce_calibration))


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """What the trainer reads, whatever the model."""

    train_neg_sample_args: dict[str, Any] | None = declared(
        {
            "distribution": "uniform",
            "sample_num": 1,
            "alpha": 1.0,
            "dynamic": False,
            "candidate_num": 0,
        },
        SAMPLING,
    )
    """Negatives of Eq. 11, as in RecBole; items not seen by the user in training."""
    learner: str = choice("adam", "adagrad", "adam", "adamw", "sgd", "rmsprop")
    """Optimizer."""
    learning_rate: float = real(0.001, 0)
    """Learning rate."""
    train_batch_size: int = whole(4096, 1)
    """Interactions in a batch."""
    weight_decay: float = real(0.0, 0)
    """L2 regularisation in the optimizer, as in RecBole."""
    clip_grad_norm: dict[str, Any] | None = declared(None, CLIPPING)
    """Arguments of torch.nn.utils.clip_grad_norm_, as in RecBole."""
    ema_decay: float | None = real(None, 0, below=1, optional=True)
    """Decay of an exponential moving average of the weights, for each step, for example 0.996.
    The average is validated, tested and saved. ~: no averaging."""
    matmul_precision: str | None = choice(None, "highest", "high", "medium")
    """highest, high or medium, as torch.set_float32_matmul_precision, for the products in training;
    highest also for those in validation and test;
    medium is faster where the processor multiplies bfloat16 (AMX) or TF32. ~: PyTorch's setting."""
    train_rec_step: int | None = whole(1, optional=True)
    """This many epochs of recommendation, then train_kg_step epochs of TransE, and so on. ~, for
    CKE: both parts in every batch."""
    train_kg_step: int | None = whole(0, optional=True)
    """Epochs of TransE on the graph after train_rec_step epochs; 0: none. It needs freeze_kg:
    False."""
    epochs: int = whole(200, 1)
    """Most passes over the training data."""
    stopping_step: int = whole(5, 0)
    """Stop once more than this many validations in a row were not better, as in RecBole."""
    eval_step: int = whole(1, -(2**31))
    """Epochs from one validation to the next, as in RecBole; below 1: none."""

    def check(self) -> None:
        """Refuse a run without epochs of either kind.

        Raises:
            UserError: ``train_rec_step`` and ``train_kg_step`` are both 0.
        """
        if self.train_rec_step == self.train_kg_step == 0:
            raise UserError(
                "Config keys train_rec_step and train_kg_step are both 0; give at least one of "
                "them 1 or more."
            )


KGEMethod = Literal["TransE", "TransH", "TransR", "TransD"]
"""The methods of KB embeddings that the paper compares (Sec. 5.3, Fig. 4)."""


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions(Options):
    """The training of the vectors that models start from."""

    kge_method: KGEMethod = choice("TransE", *get_args(KGEMethod))
    """TransE, TransH, TransR or TransD (Sec. 5.3, Fig. 4)."""
    kge_epochs: int = whole(40, 1)
    """Passes over the triples."""
    kge_batch_size: int = whole(4096, 1)
    """Triples in a step."""
    kge_learning_rate: float = real(0.01, 0)
    """Learning rate of Adam."""
    kge_loss: Literal["margin", "nssa"] = choice("margin", "margin", "nssa")
    """margin, the ranking loss of the TransE paper, or nssa (Sun et al. 2019)."""
    kge_margin: float = real(1.0, 0)
    """Margin of the loss; nssa wants about 6."""
    kge_negatives: int = whole(4, 1, below=10_001)
    """Corrupted triples for each true one."""
    kge_norm: Literal[1, 2] = declared(1, Value(int, choices=(1, 2)))
    """Norm of TransE's distance, 1 or 2; 1 matches the L1 of Sec. 5.4."""
    bpr_epochs: int = whole(50, 1)
    """Passes over the training interactions."""
    bpr_learning_rate: float = real(0.02, 0)
    """Learning rate."""
    bpr_regularization: float = real(0.01, 0)
    """L2 regularisation."""


# Models of RecBole that are compared here --------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BPROptions(Options):
    """BPR (Rendle et al., UAI 2009)."""

    embedding_size: int = whole(64, 1, below=SIZE)
    """Users and items."""


@dataclass(frozen=True, kw_only=True)
class NeuMFOptions(Options):
    """NCF (He et al., WWW 2017)."""

    mf_embedding_size: int = whole(64, 1, below=SIZE)
    """Users and items, matrix factorisation."""
    mlp_embedding_size: int = whole(64, 1, below=SIZE)
    """Users and items, multilayer perceptron."""
    mlp_hidden_size: list[int] = declared([128, 64], checks.list_of(Value(int, 1, SIZE)))
    """Layers of the perceptron."""
    dropout_prob: float = real(0.1, 0, below=1)
    """Dropout in the perceptron."""
    mf_train: bool = flag(True)
    """Train the matrix factorisation, as in RecBole."""
    mlp_train: bool = flag(True)
    """Train the perceptron, as in RecBole."""
    use_pretrain: bool = flag(False)
    """Start from RecBole's pretrained parts."""
    mf_pretrain_path: str | None = declared(None, MAYBE_PATH)
    """RecBole's file of the pretrained matrix factorisation."""
    mlp_pretrain_path: str | None = declared(None, MAYBE_PATH)
    """RecBole's file of the pretrained perceptron."""


@dataclass(frozen=True, kw_only=True)
class FPMCOptions(BPROptions):
    """FPMC (Rendle et al., WWW 2010)."""

    loss_type: str = choice("BPR", "BPR")
    """The only loss of RecBole's FPMC."""


@dataclass(frozen=True, kw_only=True)
class CKEOptions(Options):
    """CKE (Zhang et al., KDD 2016) with the knowledge graph alone (Sec. 5.1)."""

    embedding_size: int = whole(64, 1, below=SIZE)
    """Users, items and entities."""
    kg_embedding_size: int = whole(64, 1, below=SIZE)
    """Relations."""
    reg_weights: list[float] = declared([0.0001, 0.0001], checks.list_of(Value(float, 0)))
    """L2 regularisation of the recommendation and the graph part."""


OF_RECBOLES_MODELS: dict[str, type[Options]] = {
    "BPR": BPROptions,
    "NeuMF": NeuMFOptions,
    "FPMC": FPMCOptions,
    "CKE": CKEOptions,
}
"""Model name to its options; a model of this package has its own in its class."""

SHARED_OPTIONS = (DataOptions, RunOptions, ProcessOptions, TaskOptions)
"""What holds for any run."""
