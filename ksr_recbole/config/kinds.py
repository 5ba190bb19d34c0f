"""What kind of value each config key has.

The one place where the types are declared; what depends on the model, such as the losses it
knows, is checked by it.  :func:`checked` looks at the values a user gave before anything else
happens, so that an odd one is a sentence and not a traceback in the middle of a run.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ksr_recbole.config.literals import intervals, is_plain
from ksr_recbole.config.options import option, refused
from ksr_recbole.errors import UserError, shown
from ksr_recbole.names import check_name

Check = Callable[[str, Any], Any]
"""Given a key and a value, the value as it is used; raises ``UserError`` on another kind."""

_SIZE = 2**16 + 1
"""Vectors are shorter; with a million items of this size nothing fits into memory."""

_PATH_LENGTH = 4096


@dataclass(frozen=True)
class Value:
    """A value that :func:`~ksr_recbole.config.options.option` checks."""

    kind: type
    minimum: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    optional: bool = False

    def __call__(self, key: str, value: Any) -> Any:
        option(
            {key: value},
            key,
            self.kind,
            minimum=self.minimum,
            below=self.below,
            choices=self.choices,
            optional=self.optional,
        )
        return value


def _optional(check: Check) -> Check:
    return lambda key, value: None if value is None else check(key, value)


def _path(key: str, value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    printable = isinstance(value, str) and not any(ord(each) < 32 for each in value)
    if not printable or not value or len(value) > _PATH_LENGTH or not _can_be_written(value):
        raise refused(key, value, "a path, without control characters")
    return value


def _can_be_written(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _resume(key: str, value: Any) -> Any:
    return value if isinstance(value, bool) or value is None else _path(key, value)


def _name(key: str, value: Any) -> str:
    return check_name(value, key)


def _field(key: str, value: Any) -> str:
    """The name of a column: the header of an atomic file can hold it."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s:,\"\x00-\x1f\x7f]{1,100}", value):
        raise refused(key, value, "a column's name, without blanks, colons and commas")
    return value


def _separator(key: str, value: Any) -> str:
    value = "\t" if value == "\\t" else value  # as it is typed on a command line
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise refused(key, value, "one ASCII character")
    return value


def _encoding(key: str, value: Any) -> str:
    try:
        known = codecs.lookup(value)
        if not getattr(known, "_is_text_encoding", True):
            raise LookupError
    except (LookupError, TypeError, ValueError) as error:
        raise refused(key, value, "an encoding that Python knows, such as utf-8") from error
    return value


def _intervals(key: str, value: Any) -> str:
    try:
        intervals(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise refused(
            key, value, "an interval such as [5,inf), or several with ; between"
        ) from error
    return value


def _gpu_id(key: str, value: Any) -> str:
    """RecBole's: one GPU or several, as text or numbers; none if it is empty."""
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[\w\s,:/-]{0,1000}", value, re.ASCII):
        raise refused(key, value, "the number of a GPU, several as 0,1, or empty for none")
    return value


def _device(key: str, value: Any) -> str:
    if str(value) not in ("cpu", "cuda"):
        raise refused(key, value, "cpu or cuda; gpu_id says which GPU")
    return str(value)


def _topk(key: str, value: Any) -> list[int]:
    cuts = [value] if isinstance(value, int) else value
    good = isinstance(cuts, list | tuple) and len(cuts) > 0
    if not good or not all(_is_cut(each) for each in cuts):
        raise refused(key, value, "a whole number from 1 to 100000, or a list of them")
    return list(cuts)


def _is_cut(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 100_000


def _texts(key: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    good = isinstance(texts, list | tuple) and len(texts) > 0
    if not good or not all(isinstance(each, str) and 0 < len(each) <= 200 for each in texts):
        raise refused(key, value, "a word or a list of words")
    return list(texts)


def _modes(key: str, value: Any) -> Any:
    """Modes in a list, or as text with commas between, which is taken apart later."""
    texts = _texts(key, value)
    return value if isinstance(value, str) else texts


def _list_of(each: Check) -> Check:
    def check(key: str, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise refused(key, value, "a list")
        return [each(key, item) for item in value]

    return check


def _names(key: str, value: Any) -> list[str]:
    """File suffixes, alone or in a list."""
    return _list_of(_name)(key, [value] if isinstance(value, str) else value)


def _dict_of(each: Check) -> Check:
    def check(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise refused(key, value, "a dict")
        return {name: each(f"{key}.{name}", item) for name, item in value.items()}

    return check


def _dict_with(parts: Mapping[str, Check]) -> Check:
    def check(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not value.keys() <= parts.keys():
            raise refused(key, value, f"a dict of {', '.join(parts)}")
        return {name: parts[name](f"{key}.{name}", item) for name, item in value.items()}

    return check


def _columns(key: str, value: Any) -> Any:
    """Columns of one file, or ``*``."""
    return value if value == "*" else _list_of(_field)(key, value)


def _mode(key: str, value: Any) -> Any:
    modes = value.values() if isinstance(value, dict) else [value]
    phases = set(value) if isinstance(value, dict) else {"valid"}
    texts = all(isinstance(mode, str) and 0 < len(mode) <= 60 for mode in modes)
    if not texts or not phases or not phases <= {"valid", "test"}:
        raise refused(
            key, value, "a mode such as full or uni100, or one for valid and one for test"
        )
    return value


def _split(key: str, value: Any) -> Any:
    expected = "{'LS': 'valid_and_test'}, or {'RS': [0.8,0.1,0.1]} for RecBole's own models"
    if not isinstance(value, dict) or len(value) != 1 or set(value) - {"LS", "RS"}:
        raise refused(key, value, expected)
    [(way, parts)] = value.items()
    if way == "LS" and parts not in ("valid_and_test", "valid_only", "test_only"):
        raise refused(key, value, expected)
    if way == "RS":
        shares = _list_of(_real(minimum=0))(key, parts)
        if len(shares) != 3 or not sum(shares):
            raise refused(key, value, expected)
    return value


def _interval_or_tokens(key: str, value: Any) -> Any:
    """What a column may hold: an interval of numbers, or a list of tokens."""
    if isinstance(value, list | tuple) and all(isinstance(each, str | int) for each in value):
        return list(value)
    return _intervals(key, value)


def _any_plain(key: str, value: Any) -> Any:
    if not is_plain(value):
        raise refused(key, value, "text, a number, a list or a dict")
    return value


def _none_word(check: Check) -> Check:
    """``none``, as RecBole writes what does not apply, or what ``check`` takes."""
    return lambda key, value: value if value in ("none", "None") else check(key, value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise refused(key, value, "a word")
    return value


def _wandb(key: str, value: Any) -> bool:
    """Whether to log to Weights & Biases, which is not among what this project needs."""
    if _FLAG(key, value) and find_spec("wandb") is None:
        raise UserError(
            f"Config key {key} is True, which needs `pip install wandb`; or leave it out."
        )
    return value


def _level(key: str, value: Any) -> Any:
    """RecBole's levels of its log, in any case."""
    levels = ("info", "debug", "error", "warning", "critical")
    if value is not None and (not isinstance(value, str) or value.lower() not in levels):
        raise refused(key, value, f"one of: {', '.join(levels)}")
    return value


def _above_0(most: float | None = None) -> Check:
    def check(key: str, value: Any) -> Any:
        number = option({key: value}, key, float)
        if number <= 0 or (most is not None and number > most):
            raise refused(key, value, "above 0" + (f", at most {most:g}" if most else ""))
        return value

    return check


def _whole(minimum: int = 0, below: int | None = None, optional: bool = False) -> Value:
    return Value(int, minimum, below, optional=optional)


def _real(
    minimum: float | None = None, below: float | None = None, optional: bool = False
) -> Value:
    return Value(float, minimum, below, optional=optional)


def _one_of(*choices: Any, optional: bool = False) -> Check:
    def check(key: str, value: Any) -> Any:
        found = isinstance(value, str) and value in choices
        if not found and not (optional and value is None):
            raise refused(key, value, f"one of: {', '.join(choices)}")
        return value

    return check


_FLAG = Value(bool)
_MAYBE_FLAG = Value(bool, optional=True)
_DECIMALS = _whole(0, below=16)
_LAYERS = _whole(0, below=65)
_SIZES = _whole(1, below=_SIZE)
_POSITIVE = _whole(1)

_SAMPLING = _dict_with({
    "distribution": _optional(_one_of("uniform", "popularity", "none")),
    "sample_num": _none_word(_whole(1, below=10_001)),
    "alpha": _none_word(_real(0)),
    "dynamic": _FLAG,
    "candidate_num": _whole(0, below=10_001),
})  # fmt: skip

_EVALUATION = _dict_with({
    "split": _split,
    "order": _one_of("RO", "TO"),
    "group_by": _optional(_one_of("user", "none")),
    "mode": _mode,
})  # fmt: skip

_CLIPPING = _dict_with({
    "max_norm": _above_0(),
    "norm_type": _above_0(),
    "error_if_nonfinite": _FLAG,
    "foreach": _MAYBE_FLAG,
})  # fmt: skip

FIELDS = (
    "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD",
    "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD", "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD", "ENTITY_ID_FIELD",
)  # fmt: skip
"""Keys that name columns; two of them never name the same."""

FOR_ALL: dict[str, Check] = {
    # What runs where, and what it leaves
    "dataset": _name, "task": _name, "seed": _whole(0, below=2**32), "gpu_id": _gpu_id,
    "device": _device, "use_gpu": _FLAG, "worker": _whole(0, below=129),
    "reproducibility": _FLAG, "show_progress": _FLAG, "shuffle": _FLAG,
    "protocol": _one_of("paper", "recbole", optional=True),
    "state": _level,
    "data_path": _path, "checkpoint_dir": _path, "results_dir": _path, "pretrain_dir": _path,
    "data_cache_dir": _optional(_path), "pretrain_path": _optional(_path),
    "pretrain_export_path": _optional(_path), "dataset_save_path": _optional(_path),
    "dataloaders_save_path": _optional(_path), "save_dataset": _FLAG, "save_dataloaders": _FLAG,
    "log_wandb": _wandb, "wandb_project": _text, "resume": _resume, "trust_checkpoint": _FLAG,
    "download": _FLAG,
    "nproc": _whole(1, below=4097), "world_size": _whole(-1, below=65537),
    "group_offset": _whole(0, below=65537), "ip": _text,
    "port": Value(int, 1, 65536, optional=True),
    # Training
    "epochs": _whole(0), "train_batch_size": _POSITIVE, "learner": _text,
    "learning_rate": _real(0), "weight_decay": _real(0), "clip_grad_norm": _optional(_CLIPPING),
    "train_neg_sample_args": _none_word(_optional(_SAMPLING)), "eval_step": _whole(-(2**31)),
    "stopping_step": _whole(0), "loss_decimal_place": _DECIMALS, "require_pow": _FLAG,
    "enable_amp": _FLAG, "enable_scaler": _FLAG,
    "transform": _one_of(
        "mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined",
        optional=True,
    ),
    "train_ratio": _above_0(1), "ema_decay": _real(0, below=1, optional=True),
    "matmul_precision": _one_of("highest", "high", "medium", optional=True),
    "num_threads": _optional(_POSITIVE),
    "session_length": _above_0(),
    # Evaluation
    "eval_args": _EVALUATION, "repeatable": _FLAG, "metrics": _texts, "topk": _topk,
    "valid_metric": _text, "valid_metric_bigger": _FLAG, "eval_batch_size": _POSITIVE,
    "metric_decimal_place": _DECIMALS, "report_modes": _modes,
    # Data
    "field_separator": _separator, "seq_separator": _separator, "encoding": _optional(_encoding),
    **dict.fromkeys(FIELDS, _field), "NEG_PREFIX": _field, "LIST_SUFFIX": _field,
    "MAX_ITEM_LIST_LENGTH": _whole(1, below=100_001),
    "seq_len": _optional(_dict_of(_POSITIVE)), "threshold": _optional(_dict_of(_real())),
    "numerical_features": _list_of(_field),
    "load_col": _optional(_dict_of(_optional(_columns))),
    "unload_col": _optional(_dict_of(_optional(_columns))),
    "unused_col": _optional(_dict_of(_optional(_columns))),
    "additional_feat_suffix": _optional(_names), "benchmark_filename": _optional(_names),
    "rm_dup_inter": _one_of("first", "last", optional=True),
    "val_interval": _optional(_dict_of(_interval_or_tokens)),
    "filter_inter_by_user_or_item": _FLAG,
    "user_inter_num_interval": _optional(_intervals),
    "item_inter_num_interval": _optional(_intervals),
    "entity_kg_num_interval": _optional(_intervals),
    "relation_kg_num_interval": _optional(_intervals),
    "alias_of_user_id": _optional(_list_of(_field)),
    "alias_of_item_id": _optional(_list_of(_field)),
    "alias_of_entity_id": _optional(_list_of(_field)),
    "alias_of_relation_id": _optional(_list_of(_field)),
    "preload_weight": _optional(_dict_of(_field)),
    "normalize_field": _optional(_list_of(_field)), "normalize_all": _MAYBE_FLAG,
    "discretization": _optional(_dict_of(_any_plain)), "kg_reverse_r": _FLAG,
    # RecBole's KD_DAGFM evaluates this one.
    "teacher": _one_of("CrossNet", "CIN"),
}  # fmt: skip
"""Keys that mean the same whatever the model."""

OF_MODELS: dict[str, Check] = {
    "embedding_size": _SIZES, "hidden_size": _SIZES, "kg_embedding_size": _SIZES,
    "mf_embedding_size": _SIZES, "mlp_embedding_size": _SIZES,
    "mlp_hidden_size": _list_of(_SIZES), "num_layers": _whole(1, below=65),
    "query_mlp_layers": _whole(1, below=65), "score_mlp_layers": _LAYERS,
    "memory_slots": _SIZES, "chunk_length": _POSITIVE, "item_init": _one_of("bpr", "random"),
    "loss_type": _one_of("BPR", "CE"),
    "kb_score": _FLAG, "kb_input": _FLAG, "freeze_item": _FLAG, "freeze_kg": _FLAG,
    "project_entities": _FLAG, "kb_scale": _real(0), "gamma": _real(0), "gate_bias": _real(),
    "memory_scale": _real(0), "memory_weight": _real(0), "attention_scale": _real(0),
    "value_matrix": _one_of("private", "shared"),
    "memory_backend": _one_of("auto", "numba", "triton", "torch"),
    "attributes": _optional(_list_of(_text)),
    "dropout_prob": _real(0, below=1), "reg_weights": _list_of(_real(0)),
    "train_rec_step": _whole(0, optional=True), "train_kg_step": _whole(0, optional=True),
    "mf_train": _FLAG, "mlp_train": _FLAG, "use_pretrain": _FLAG,
    "mf_pretrain_path": _optional(_path), "mlp_pretrain_path": _optional(_path),
    # Pretraining
    "kge_method": _one_of("TransE", "TransH", "TransR", "TransD"), "kge_epochs": _POSITIVE,
    "kge_batch_size": _POSITIVE,
    "kge_learning_rate": _real(0), "kge_loss": _one_of("margin", "nssa"), "kge_margin": _real(0),
    "kge_negatives": _whole(1, below=10_001), "kge_norm": Value(int, choices=(1, 2)),
    "bpr_epochs": _POSITIVE,
    "bpr_learning_rate": _real(0), "bpr_regularization": _real(0),
}  # fmt: skip
"""Options of the models compared here; a model of RecBole may give the name another meaning."""


def checked(values: Mapping[str, Any], of_models: bool) -> dict[str, Any]:
    """Config values that a user gave, each of the kind that its key has.

    Args:
        values: by key.
        of_models: whether the options of this project's models are among them.

    Returns:
        The values as they are used: a number that must be a float is one, a tuple is a list.

    Raises:
        UserError: naming the first key whose value is of another kind.
    """
    kinds = {**FOR_ALL, **OF_MODELS} if of_models else FOR_ALL
    return {key: kinds.get(key, _any_plain)(key, value) for key, value in values.items()}


def check_fields(values: Mapping[str, Any]) -> None:
    """Refuse two columns of one name.

    Raises:
        UserError: naming the keys.
    """
    by_name: dict[str, str] = {}
    for key in FIELDS:
        name = values.get(key)
        if name is not None and (other := by_name.setdefault(name, key)) != key:
            raise UserError(
                f"Config keys {other} and {key} are both {shown(name)}; they name different "
                "columns, so give them different names."
            )
