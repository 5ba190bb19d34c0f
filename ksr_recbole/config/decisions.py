"""What becomes of every config key of RecBole with the models of this project.

The one table of it: :func:`remarks` warns by it, :func:`refuse` refuses by it, and
``docs/recbole-keys.md`` is made of it by ``docs/make_recbole_keys.py``.  A test compares it with
the keys that RecBole's source reads.  Options of single models of RecBole, those
in ``properties/model/``, are not in it: they are honoured by the model that has them, and others
say that they have no effect.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from ksr_recbole.config.literals import read_yaml
from ksr_recbole.errors import UserError, shown
from ksr_recbole.paths import recbole_properties


class Fate(Enum):
    """What becomes of a key."""

    HONOURED = "honoured"
    NO_EFFECT = "no effect, with a warning"
    REFUSED = "refused"


@dataclass(frozen=True)
class Decision:
    """What becomes of a key, and why.

    Attributes:
        fate: with the models of this project, and those of RecBole under its protocol.
        note: what the key changes; or what to use instead.
    """

    fate: Fate
    note: str


def _all(fate: Fate, notes: Mapping[str, str]) -> dict[str, Decision]:
    return {key: Decision(fate, note) for keys, note in notes.items() for key in keys.split()}


_PICKLED = "datasets and loaders are not pickled; data_cache_dir keeps what was loaded"
_FIXED = "RecBole sets it itself"
_TRANSFORM = "only RecBole's own loaders transform their batches"
_TREES = "only RecBole's tree models (lightgbm, xgboost) read it"
_TRAINERS = "only the RecBole model with a trainer of its own reads it"
_SCALED = (
    "times keep their unit and no other number is read; with the task next-session it is refused"
)

DECISIONS: dict[str, Decision] = {
    **_all(Fate.HONOURED, {
        # What runs where
        "model dataset config_files": "what is run, and with which files",
        "gpu_id use_gpu device": "where it is computed",
        "seed reproducibility": "the same results again",
        "state show_progress": "what is logged, and whether bars are shown",
        "data_path": "the folder above the dataset's; by default dataset_atomic/",
        "checkpoint_dir": "where models are kept",
        "log_wandb wandb_project": "the trainer logs to Weights & Biases, which must be installed",
        "nproc world_size ip port": "several processes: docs/distributed.md",
        # Training
        "epochs train_batch_size learner learning_rate weight_decay clip_grad_norm shuffle":
            "training; train_batch_size counts targets",
        "eval_step stopping_step": "when to validate, and when to stop",
        "train_neg_sample_args": "distribution, sample_num and alpha of the negatives; dynamic is "
            "refused where the loss has negatives, as None is",
        "loss_type": "BPR, CE, sampled_CE or gBCE",
        "loss_decimal_place enable_amp enable_scaler": "as in RecBole's trainer",
        "train_rec_step train_kg_step": "epochs of each kind in turn, for models that have both",
        # Evaluation
        "eval_args": "mode; split and order must be {'LS': 'valid_and_test'} and TO, or the files "
            "of benchmark_filename are the split",
        "metrics topk valid_metric eval_batch_size metric_decimal_place":
            "the evaluation, by map, mrr, hit, ndcg, recall and precision; eval_batch_size counts "
            "users or positives",
        # Files
        "field_separator seq_separator encoding": "how the atomic files are written",
        "USER_ID_FIELD ITEM_ID_FIELD TIME_FIELD HEAD_ENTITY_ID_FIELD TAIL_ENTITY_ID_FIELD "
        "RELATION_ID_FIELD ENTITY_ID_FIELD": "columns of the atomic files",
        "RATING_FIELD": "the column that `convert` writes; no model here reads ratings",
        "LABEL_FIELD NEG_PREFIX LIST_SUFFIX ITEM_LIST_LENGTH_FIELD": "columns of the batches",
        "load_col": "columns read; what is needed is read in any case",
        "unload_col": "columns not read; one that is needed is refused",
        "benchmark_filename": "three files: training, validation and test. Of the filters only the "
            "link filter applies to them",
        "preload_weight additional_feat_suffix": "vectors of entities and relations to start from",
        "alias_of_entity_id alias_of_relation_id alias_of_item_id":
            "which ids a column of preload_weight, or of a file in pretrain_path, holds; other "
            "columns get no ids",
        "kg_reverse_r": "adds the reverse of every triple",
        # Filters
        "rm_dup_inter val_interval filter_inter_by_user_or_item user_inter_num_interval "
        "item_inter_num_interval entity_kg_num_interval relation_kg_num_interval":
            "filters, applied together with the link filter until none leaves out anything more",
    }),
    **_all(Fate.NO_EFFECT, {
        "repeatable": "what a user had is never a candidate, and a target is ranked even if it "
            "repeats; Recommender.recommend has exclude_history=False",
        "seq_len": "columns with sequences are not read; .inter has one interaction in a row",
        "threshold": "every interaction is a positive; leave out others with val_interval",
        "normalize_field normalize_all": _SCALED,
        "discretization numerical_features": "no model here reads numbers of users or items",
        "unused_col": "models read ids and times only, whatever else is loaded",
        "alias_of_user_id": "no other column holds users",
        "POSITION_FIELD": "batches have no positions",
        "worker": "batches are made in the process that trains, which costs less",
        "transform": _TRANSFORM,
        "CROP_ITEM_SEQ CROP_ITEM_SEQ_LEN INVERSE_ITEM_SEQ REORDER_ITEM_SEQ MASK_ITEM_SEQ "
        "MASK_INDEX NEG_ITEMS POS_ITEMS beta eta mask_ratio ft_ratio": _TRANSFORM,
        "require_pow": "only RecBole's EmbLoss reads it; weight_decay is there for all",
        "tail_ratio": "the metric TailPercentage is not computed here",
        "valid_neg_sample_args test_neg_sample_args": "eval_args: mode says what is drawn",
        "lgb_params lgb_num_boost_round xgb_params xgb_model xgb_nthread xgb_num_boost_round "
        "xgb_silent xgb_verbose_eval xgb_early_stopping_rounds convert_token_to_onehot "
        "token_num_threshold": _TREES,
        "kge_interval m_step n_dec_epochs n_enc_epochs pretrain_epochs save_step warm_up_step "
        "reg_weight": _TRAINERS,
        "MODEL_TYPE MODEL_INPUT_TYPE eval_type local_rank offset single_spec valid_metric_bigger "
        "verbose": _FIXED,
        "config_file": "config_files names files",
        "choice uniform quniform loguniform": "words of a file of run_hyper.py",
    }),
    **_all(Fate.REFUSED, {
        "save_dataset dataset_save_path save_dataloaders dataloaders_save_path": _PICKLED,
        "neg_sampling training_neg_sample_num": "RecBole has given it up for train_neg_sample_args",
        "MAX_ITEM_LIST_LENGTH": "it reads whole histories and keeps its state over them; "
            "chunk_length bounds how far a gradient goes back, train_ratio what is trained on, and "
            "RecBole's own models (GRU4Rec, SASRec, ...) read the last items only. RecBole's "
            "default of 50 is no error but has no effect, with a warning",
    }),
}  # fmt: skip
"""By key.  Whether RecBole's own models, which run as in RecBole, honour one, RecBole decides."""


READ_BY_SEQUENCE_MODELS = frozenset({"MAX_ITEM_LIST_LENGTH"})
"""Refused keys of which models without sequences say that they have no effect, and which RecBole's
sequential models honour."""

READ_BY_RECBOLES_MODELS = frozenset(
    key
    for key, each in DECISIONS.items()
    if each.fate is Fate.NO_EFFECT and each.note in (_TRANSFORM, _TRAINERS)
) | {"repeatable", "worker", "require_pow"}
"""Keys of no effect on our models that RecBole's loaders, trainers and models read under the
protocol too."""

SET_BY_RECBOLE = frozenset(key for key, each in DECISIONS.items() if each.note == _FIXED)
"""Keys that no run of any model takes from a user."""

FILTERS = (
    *("rm_dup_inter", "val_interval", "filter_inter_by_user_or_item"),
    *("user_inter_num_interval", "item_inter_num_interval"),
)
"""Keys that leave out interactions."""


@cache
def _defaults() -> dict[str, Any]:
    properties = recbole_properties()
    files = ("dataset/sample.yaml", "overall.yaml")  # the first is for every dataset
    return {key: value for file in files for key, value in read_yaml(properties / file).items()}


def _says_nothing(key: str, value: Any) -> bool:
    """Whether the value equals RecBole's default."""
    if key in SET_BY_RECBOLE and value is False:  # False is a wish where RecBole has True
        return not _defaults().get(key)
    return value in (None, False, "", [], {}) or value == _defaults().get(key, ...)


def negatives_differ(parts: Mapping[str, Any]) -> bool:
    """Whether a part of ``train_neg_sample_args`` has another value than RecBole's default."""
    default = _defaults()["train_neg_sample_args"]
    return any(default.get(part, ...) != value for part, value in parts.items())


def remarks(
    model: str, given: Mapping[str, Any], honoured: Container[str], sequential: bool = True
) -> list[str]:
    """A sentence on each key that was given and that does nothing for a model.

    Args:
        model: one that runs under the protocol.
        given: the user's config values.
        honoured: keys that are no business of the table's, such as the model's own options.
        sequential: whether it is a model of this project, which reads whole sequences.
    """
    said = []
    for key, value in given.items():
        decision = DECISIONS.get(key)
        if decision is None or key in honoured:
            continue
        # RecBole's default is a wish here: not even that length is read.
        if key in READ_BY_SEQUENCE_MODELS and value is not None:
            why = "it reads whole histories" if sequential else "it reads no sequences"
            said.append(f"Config key {key} has no effect on {model}: {why}.")
        elif decision.fate is Fate.NO_EFFECT and not _says_nothing(key, value):
            said.append(f"Config key {key} has no effect on {model}: {decision.note}.")
    return said


def refuse(model: str, given: Mapping[str, Any], sequential: bool = True) -> None:
    """Refuse config keys and values that this project does not support.

    Args:
        model: any model.
        given: the user's config values.
        sequential: whether it is a model of this project, which reads whole sequences.

    Raises:
        UserError: naming the key and what to use instead.
    """
    for key, value in given.items():
        decision = DECISIONS.get(key)
        if decision is None or decision.fate is not Fate.REFUSED or _says_nothing(key, value):
            continue
        if key in READ_BY_SEQUENCE_MODELS and not sequential:
            continue
        raise UserError(
            f"Config key {key} is {shown(value)}, which {model} cannot have here: "
            f"{decision.note}; leave it out."
        )
