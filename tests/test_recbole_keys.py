"""Every config key of RecBole is decided, and the documentation says how."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import yaml
from recbole.utils import argument_list

from ksr_recbole.comparison import store
from ksr_recbole.compat import keeping_anomaly_mode
from ksr_recbole.config import Config, idle
from ksr_recbole.config.decisions import DECISIONS, Fate
from ksr_recbole.config.keys import FORMER_KEYS, known_keys
from ksr_recbole.config.kinds import FOR_ALL, compared_keys
from ksr_recbole.errors import DamagedFileError, UserError
from ksr_recbole.paths import CHECKOUT, source_of
from ksr_recbole.quick_start import recbole_models, restore, run
from ksr_recbole.quick_start.recbole_models import is_usable
from ksr_recbole.registry import GROUPS, group_of
from tests.toy import toy_run, toy_values, write_toy

RECBOLE = source_of("recbole").parent
CONFIGS = {
    "config", "config_dict", "final_config_dict", "external_config_dict", "internal_config_dict",
}  # fmt: skip
"""Names under which RecBole's source holds a configuration."""


def _is_config(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
    return name in CONFIGS


def _keys_read(source: str) -> Iterator[str]:
    """Keys in ``config["key"]``, ``config.get("key")`` and ``"key" in config``."""
    for node in ast.walk(ast.parse(source)):
        key: ast.AST | None = None
        if isinstance(node, ast.Subscript) and _is_config(node.value):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            reads = node.func.attr in ("get", "pop", "setdefault") and _is_config(node.func.value)
            key = node.args[0] if reads and node.args else None
        elif isinstance(node, ast.Compare) and _is_config(node.comparators[0]):
            key = node.left
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def _read_by_recbole() -> dict[str, set[str]]:
    """By key, the files of RecBole's source that read it."""
    found: dict[str, set[str]] = {}
    for path in RECBOLE.rglob("*.py"):
        for key in _keys_read(path.read_text(encoding="utf-8")):
            found.setdefault(key, set()).add(path.relative_to(RECBOLE).as_posix())
    return found


def _named_by_recbole() -> set[str]:
    """Keys of its lists of arguments and of the YAML files that are not of one model."""
    lists = [value for name, value in vars(argument_list).items() if name.endswith("_arguments")]
    files = [RECBOLE / "properties" / "overall.yaml"]
    files += (RECBOLE / "properties" / "quick_start_config").glob("*.yaml")
    for file in files:
        lists.append(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return set().union(*lists)


def test_the_walk_finds_every_way_of_reading():
    source = """
config["a"]; self.config["b"]; config.get("c", 1); "d" in self.config; other["e"]
self.final_config_dict["f"]
"""
    assert set(_keys_read(source)) == {"a", "b", "c", "d", "f"}


def test_every_key_that_recbole_reads_is_decided():
    read = _read_by_recbole()
    assert len(read) > 300
    general = {k for k, files in read.items() if any(not f.startswith("model/") for f in files)}
    assert len(general) > 100
    undecided = (general | _named_by_recbole()) - DECISIONS.keys()
    assert not undecided


def test_no_key_is_decided_that_recbole_does_not_have():
    aliases = {key for key in DECISIONS if key.startswith("alias_of_")}
    logged = {"log_wandb", "wandb_project"}  # utils/wandblogger.py reads them by getattr
    known = set(_read_by_recbole()) | _named_by_recbole() | aliases | logged
    assert set(DECISIONS) - known <= {"config_files"}


def test_every_key_of_the_table_that_a_user_gives_has_a_kind():
    """Those without one are RecBole's own, or of its transforms and its trees."""
    without = {key for key in DECISIONS.keys() - FOR_ALL.keys()}
    honoured = {key for key in without if DECISIONS[key].fate is Fate.HONOURED}
    assert honoured <= {
        "model", "config_files", "config_file", "offset", "loss_type",
        "train_rec_step", "train_kg_step",
    }  # fmt: skip


@pytest.mark.skipif(CHECKOUT is None, reason="the documentation is not installed")
def test_the_page_is_made_of_the_table():
    assert CHECKOUT is not None
    text = (CHECKOUT / "docs" / "recbole-keys.md").read_text(encoding="utf-8")
    told = "run `python docs/make_recbole_keys.py`"
    script = runpy.run_path(str(CHECKOUT / "docs" / "make_recbole_keys.py"))
    assert text == script["page"](), told
    for key in DECISIONS:
        assert f"`{key}`" in text


_GIVEN = {
    "seq_len": {"titles": 3}, "threshold": {"rating": 3}, "normalize_field": ["timestamp"],
    "normalize_all": True, "discretization": {"rating": {"method": "LD"}},
    "numerical_features": ["rating"], "unused_col": {"inter": ["rating"]},
    "alias_of_user_id": ["friend"], "require_pow": True,
    "transform": "mask_itemseq", "repeatable": True,
}  # fmt: skip
"""Values that a user may give; of other keys a number will do."""

_RECBOLES = {"choice", "uniform", "quniform", "loguniform", "local_rank", "MODEL_TYPE"} | {
    "MODEL_INPUT_TYPE", "eval_type", "single_spec", "verbose", "valid_metric_bigger"
}  # fmt: skip


@pytest.mark.parametrize(
    "key",
    sorted(k for k, d in DECISIONS.items() if d.fate is Fate.NO_EFFECT and k not in _RECBOLES),
)
def test_what_has_no_effect_is_said(toy_folder, key):
    value = _GIVEN.get(key, "odd" if key.endswith("_FIELD") else 7)
    if key.endswith("_neg_sample_args"):
        value = {"distribution": "uniform"}
    config = Config("KSR-paper", "toy", None, toy_values(toy_folder, **{key: value}))
    (said,) = [remark for remark in config.remarks() if key in remark]
    assert f"Config key {key} has no effect on KSR-paper: {DECISIONS[key].note}." == said


def test_recboles_defaults_are_no_remark(toy_folder):
    given = {"worker": 0, "repeatable": False, "normalize_all": False, "threshold": None}
    config = Config("KSR-paper", "toy", None, toy_values(toy_folder, **given))
    assert config.remarks() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": {"rating": 3}}, ["threshold"]),
        ({"normalize_all": True, "valid_neg_sample_args": {"distribution": "uniform"}},
         ["normalize_all", "valid_neg_sample_args"]),
        ({"repeatable": True, "worker": 1, "transform": "mask_itemseq", "mask_ratio": 0.3},
         ["transform"]),
    ],
)  # fmt: skip
def test_recboles_models_under_the_protocol_say_it_too(toy_folder, given, said):
    values = toy_values(toy_folder, protocol="paper", **given)
    for key in ("kge_epochs", "bpr_epochs", "kg_embedding_size"):
        del values[key]
    config = Config("GRU4Rec", "toy", None, values)
    assert [remark.split()[2] for remark in config.remarks()] == said


@pytest.mark.parametrize("model", ["GRU", "GRU4Rec"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gpu_id": "0"}, "gpu_id has no effect here: everything is computed on the CPU"),
        ({"use_gpu": True}, "use_gpu has no effect here"),
        ({"enable_scaler": True}, "enable_scaler has no effect here"),
        ({"wandb_project": "mine"}, "wandb_project has no effect without --log_wandb=True"),
        ({"eval_step": 0, "stopping_step": 3}, "stopping_step has no effect with eval_step 0"),
        ({"eval_step": -1, "stopping_step": 3}, "stopping_step has no effect with eval_step -1"),
        ({"valid_metric_bigger": False}, "valid_metric_bigger has no effect"),
        ({"port": 5000}, "port has no effect on a single process"),
        ({"gpu_id": ""}, None), ({"use_gpu": False, "wandb_project": "mine", "nproc": 2}, "wandb"),
        ({"eval_step": 1, "stopping_step": 3}, None), ({"port": 5000, "nproc": 2}, None),
    ],
)  # fmt: skip
def test_what_does_nothing_on_this_machine_or_alone_is_said(toy_folder, model, given, told):
    values = {"gpu_id": "", "data_path": str(toy_folder), "device": "cpu", **given}
    if model == "GRU4Rec":
        values["train_neg_sample_args"] = None
    remarks = Config(model, "toy", None, values).remarks()
    assert remarks == [] if told is None else len(remarks) == 1 and told in remarks[0]


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("KSR", {"train_neg_sample_args": {"sample_num": 10}}, "with loss_type CE"),
        ("KSR", {"train_neg_sample_args": {"dynamic": True}}, "with loss_type CE"),
        ("GRU", {"train_neg_sample_args": {"distribution": "popularity"}, "loss_type": "gBCE"},
         "with loss_type gBCE"),
        ("SASRec", {"train_neg_sample_args": {"distribution": "popularity"}}, "with loss_type CE"),
        ("KSR", {"train_neg_sample_args": {"sample_num": 10}, "loss_type": "BPR"}, None),
        ("KSR", {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}, None),
        ("KSR", {"train_neg_sample_args": None}, None),
        ("BPR", {"train_neg_sample_args": {"sample_num": 10}}, None),
        ("SASRec", {"train_neg_sample_args": {"sample_num": 3}, "loss_type": "BPR"}, None),
        ("KSR", {"train_neg_sample_args.alpha": 0.5, "loss_type": "BPR"}, "distribution uniform"),
        ("KSR", {"train_neg_sample_args.candidate_num": 3, "loss_type": "BPR"}, "no candidates"),
        ("KSR", {"train_rec_step": 5}, "with train_kg_step 0"),
        ("KSR", {"train_rec_step": 1}, None),
        ("KSR", {"sampled_items": 2000}, "and at most 20,000 items: only sampled_CE and gBCE read"),
        ("KSR", {"sampled_popularity": 0.3}, "and at most 20,000 items: only sampled_CE reads it"),
        ("KSR", {"gbce_calibration": 0.3}, "with loss_type CE: only gBCE reads it."),
        ("KSR", {"sampled_items": 9, "loss_type": "CE"}, "with loss_type CE: only sampled_CE and"),
        ("KSR", {"sampled_popularity": 0.3, "loss_type": "BPR"}, "only sampled_CE reads it"),
        ("KSR", {"sampled_popularity": 0.3, "loss_type": "gBCE"}, "only sampled_CE reads it"),
        ("KSR", {"sampled_popularity": 0.3, "loss_type": "sampled_CE"}, None),
        ("KSR", {"gbce_calibration": 0.3, "loss_type": "sampled_CE"}, "only gBCE reads it"),
        ("BPR", {"sampled_items": 2000}, "it is no option of it"),
        ("SASRec", {"sampled_items": 2000}, "it is no option of it"),
        ("KSR", {"sampled_items": 2000, "loss_type": "gBCE"}, None),
        ("KSR", {"gbce_calibration": 0.3, "loss_type": "gBCE"}, None),
        ("KSR", {"sampled_items": None}, None),
        ("NeuMF", {"loss_type": "BPR"}, "it is no option of it"),
        ("BPR", {"loss_type": "CE"}, "it is no option of it"),
        ("GRU", {"kge_method": "TransR"}, "it starts from no vectors of a knowledge graph"),
        ("GRU++", {"kge_method": "TransR"}, "it starts from no vectors of a knowledge graph"),
        ("CKE", {"kge_method": "TransH"}, "it starts from no vectors of a knowledge graph"),
        ("GRU", {"bpr_epochs": 3}, "it starts from no vectors of BPR"),
        ("SASRec", {"bpr_epochs": 3}, "it starts from no vectors of BPR"),
        ("SASRec", {"kge_epochs": 3}, "it starts from no vectors of a knowledge graph"),
        ("BPR", {"pretrain_path": "x"}, "it starts from no vectors that are pretrained"),
        ("GRU_F", {"kge_method": "TransR", "bpr_epochs": 3, "pretrain_path": "x"}, None),
        ("GRU++", {"bpr_epochs": 3, "pretrain_export_path": "x"}, None),
    ],
)  # fmt: skip
def test_what_the_loss_and_the_model_do_not_read_is_said(toy_folder, model, given, told):
    values = {"data_path": str(toy_folder), "gpu_id": "", **given}
    values |= {"protocol": "paper"} if model == "SASRec" else {}
    remarks = Config(model, "toy", None, values).remarks()
    if told is None:
        assert remarks == []
    else:
        [key] = given.keys() - {"loss_type"} or given.keys()
        [said] = [each for each in remarks if f"key {key} " in each]
        assert told in said and f"has no effect on {model}" in said


@pytest.mark.parametrize(
    "given",
    [{"results_dir": "x"}, {"pretrain_path": "x"}, {"pretrain_export_path": "x"},
     {"sampled_items": 9}],
)  # fmt: skip
@pytest.mark.parametrize("model", ["SASRec", "LightGCN"])
def test_what_only_our_run_reads_is_said_of_recboles(toy_folder, model, given):
    values = {"data_path": str(toy_folder), "gpu_id": "", **given}
    [said] = Config(model, "toy", None, values).remarks()
    assert f"Config key {next(iter(given))} has no effect on {model}" in said


def test_a_file_of_vectors_of_a_model_of_recboles_is_its_own_option(toy_folder):
    values = {"data_path": str(toy_folder), "gpu_id": "", "pretrain_path": "x"}
    assert Config("NAIS", "toy", None, values).remarks() == []
    assert Config("NAIS", "toy", None, {**values, "protocol": "paper"}).remarks() == []


@pytest.mark.parametrize("model", ["BPR", "NeuMF", "CKE"])
@pytest.mark.parametrize("loss", ["CE", "sampled_CE"])
def test_a_loss_that_a_model_does_not_have_leaves_it_its_negatives(toy_folder, model, loss):
    config = Config(model, "toy", None, toy_values(toy_folder, loss_type=loss))
    assert config["train_neg_sample_args"]["distribution"] != "none"


@pytest.mark.parametrize("key", [k for k, d in DECISIONS.items() if d.fate is Fate.REFUSED])
def test_what_cannot_be_had_is_refused(toy_folder, key):
    value = "x.pth" if key.endswith("_path") else 7 if key.isupper() else True
    with pytest.raises(UserError, match=f"Config key {key} is .*leave it out"):
        Config("KSR-paper", "toy", None, toy_values(toy_folder, **{key: value}))


def test_how_much_of_a_sequence_is_read_is_decided_by_model(toy_folder):
    """RecBole's models honour it, others say so, also of RecBole's default."""
    key = "MAX_ITEM_LIST_LENGTH"

    def said(model: str, **given: object) -> list[str]:
        config = Config(model, "toy", None, toy_values(toy_folder, **given))
        return [remark for remark in config.remarks() if key in remark]

    assert said("BPR", **{key: 7}) == [
        f"Config key {key} has no effect on BPR: it reads no sequences."
    ]
    assert said("GRU4Rec", protocol="paper", **{key: 7}) == []
    (of_graph,) = said("LightGCN", protocol="paper", **{key: 7})
    assert "has no effect on LightGCN: it reads no sequences" in of_graph
    assert said("GRU4Rec", protocol="paper", **{key: 50}) == []
    told = f"Config key {key} has no effect on KSR: it reads whole histories."
    assert said("KSR", **{key: 50}) == [told] and said("KSR") == []


def test_vectors_that_a_model_does_not_read_are_said(toy_folder):
    values = toy_values(toy_folder, preload_weight={"ent_id": "ent_emb"})
    remarks = Config("GRU", "toy", None, values).remarks()
    (said,) = [remark for remark in remarks if "preload_weight" in remark]
    assert "preload_weight has no effect on GRU" in said


@pytest.mark.parametrize(
    ("suffixes", "idle"),
    [
        (("ent", "rel"), {"kge_epochs", "kge_method", "preload_weight"}),
        (("bpr",), {"bpr_epochs"}),
        (("ent", "rel", "bpr"), {"kge_epochs", "kge_method", "preload_weight", "bpr_epochs"}),
        (("ent",), set()),
        ((), set()),
    ],
)
def test_options_of_vectors_that_are_given_are_said(toy_folder, suffixes, idle):
    for suffix in suffixes:
        (toy_folder / f"toy.{suffix}").write_text("")
    asked = {"kge_epochs": 3, "kge_method": "TransE", "bpr_epochs": 3}
    asked["preload_weight"] = {"ent_id": "ent_emb"}
    values = {"data_path": str(toy_folder), "gpu_id": "", "pretrain_path": str(toy_folder)}
    remarks = Config("KSR", "toy", None, values | asked).remarks()
    assert {key for key in asked if any(f"{key} has no effect: pre" in r for r in remarks)} == idle


VECTORS = {"preload_weight": {"ent_id": "ent_emb"}, "additional_feat_suffix": ["ent"]}


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("KSR", {"additional_feat_suffix": ["ent"]}, "has no effect without preload_weight"),
        ("KSR", {"alias_of_entity_id": ["x"]}, "says which ids a file of vectors holds"),
        ("GRU", {"alias_of_item_id": ["x"]}, "says which ids a file of vectors holds"),
        ("GRU", {"alias_of_relation_id": ["x"], **VECTORS}, "says which ids a file of vectors"),
        ("KSR", {"alias_of_item_id": ["x"], "pretrain_path": "x"}, None),
        ("KSR", {"alias_of_entity_id": ["x"], **VECTORS}, None),
        ("GRU", {"session_length": 100}, "only the task next-session has sessions"),
        ("GRU", {"session_length": 100, "task": "next-session"}, None),
        ("GRU", {"task": "next-session", "benchmark_filename": ["a", "b", "c"]}, "not sessions"),
        ("KSR", {"kge_norm": 2, "kge_method": "TransH"}, "kge_norm has no effect on TransH"),
        ("KSR", {"kge_norm": 2}, None),
        ("GRU", {"kg_reverse_r": True}, None),
        ("GRU", {"relation_kg_num_interval": "[3,inf)"}, None),
    ],
)
def test_files_of_vectors_and_sessions_that_are_not_read_are_said(toy_folder, model, given, told):
    values = {"data_path": str(toy_folder), "gpu_id": "", **given}
    said = [s for s in Config(model, "toy", None, values).remarks() if next(iter(given)) in s]
    assert (told in said[0] and len(said) == 1) if told else not said


def test_keys_of_a_graph_that_is_not_there_are_said(tmp_path):
    write_toy(tmp_path)
    given = {
        "kg_reverse_r": True, "relation_kg_num_interval": "[3,inf)", "HEAD_ENTITY_ID_FIELD": "h",
        "entity_kg_num_interval": "[3,inf)", "ENTITY_ID_FIELD": "e",
    }  # fmt: skip
    values = {"data_path": str(tmp_path), "gpu_id": "", **given}
    assert Config("GRU", "toy", None, values).remarks() == []
    for suffix in ("kg", "link"):
        (tmp_path / "toy" / f"toy.{suffix}").unlink()
    remarks = Config("GRU", "toy", None, values).remarks()
    told = "has no effect: there is no knowledge graph (toy.kg and toy.link)."
    assert sorted(remarks) == sorted(f"Config key {key} {told}" for key in given)


def test_filters_next_to_the_users_own_files_are_said(toy_folder):
    values = toy_values(
        toy_folder, benchmark_filename=["a", "b", "c"], user_inter_num_interval="[5,inf)"
    )
    (said,) = Config("KSR-paper", "toy", None, values).remarks()
    assert "user_inter_num_interval have no effect with benchmark_filename" in said


def test_keys_of_an_earlier_recbole_say_what_says_the_same_today(toy_folder):
    assert not FORMER_KEYS.keys() & known_keys()
    for key, now in FORMER_KEYS.items():
        with pytest.raises(UserError, match=f"'{key}' in .* of an earlier RecBole.*use {now[:9]}"):
            Config("GRU", "toy", None, toy_values(toy_folder, **{key: None}))
        assert now.partition(" ")[0].partition(".")[0].strip(",") in known_keys()


def test_recboles_own_defaults_run_as_they_are(toy_folder):
    """RecBole refuses two of its defaults with models of sequences."""
    values = {"data_path": str(toy_folder), "gpu_id": ""}
    assert Config("GRU", "toy", None, {**values, "repeatable": False}).remarks() == []
    stock = Config("SASRec", "toy", None, values)
    assert stock["train_neg_sample_args"]["distribution"] == "none"
    uniform = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    with pytest.raises(UserError, match="should be None when the loss_type is CE"):
        Config("SASRec", "toy", None, {**values, **uniform})


@pytest.mark.parametrize("group", GROUPS)
def test_the_defaults_of_every_model_of_recbole_are_taken(toy_folder, group):
    """RecBole's SINE says that it reads pairs, also with its default loss, which reads none."""
    values = {"data_path": str(toy_folder), "gpu_id": "", "protocol": "paper"}
    with keeping_anomaly_mode():  # importing SINE turns it on
        for name in group_of(group):
            assert Config(name, "toy", None, values)["model"] == name


@pytest.mark.parametrize("protocol", ["paper", "recbole"])
@pytest.mark.parametrize("none", [None, {"distribution": "none"}])
def test_a_loss_on_pairs_without_negatives_is_refused(toy_folder, protocol, none):
    values = {"data_path": str(toy_folder), "gpu_id": "", "protocol": protocol}
    values |= {"loss_type": "BPR", "train_neg_sample_args": none}
    with pytest.raises(UserError, match="but the loss of GRU4Rec needs negatives"):
        Config("GRU4Rec", "toy", None, values)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"load_col": {"intre": ["user_id"]}}, "load_col.intre has no effect; did you mean inter?"),
        ({"load_col": {"net": None}}, "load_col.net has no effect; the files that are read are"),
        ({"unload_col": {"user": ["age"]}}, "unload_col.user has no effect: there is no toy.user"),
        ({"load_col": {"item": ["item_id"], "kg": None}}, None),
        ({"benchmark_filename": ["a", "b", "c"], "eval_args": {"split": {"RS": [8, 1, 1]}}},
         "eval_args.split and eval_args.order have no effect with benchmark_filename"),
        ({"benchmark_filename": ["a", "b", "c"], "eval_args": {"order": "TO"}}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("model", ["GRU", "SASRec"])
def test_files_and_splits_that_no_one_reads_are_said(toy_folder, model, given, told):
    (toy_folder / "toy" / "toy.item").write_text("item_id:token\ni1\n")
    protocol = {"protocol": "paper"} if model == "SASRec" else {}
    values = {"data_path": str(toy_folder), "gpu_id": "", **protocol, **given}
    remarks = Config(model, "toy", None, values).remarks()
    assert remarks == [] if told is None else len(remarks) == 1 and told in remarks[0]


@pytest.mark.parametrize("model", ["KSR", "SASRec"])
def test_friends_are_said_not_to_be_read(toy_folder, model):
    (toy_folder / "toy" / "toy.net").write_text("source_id:token\ttarget_id:token\nu1\tu2\n")
    values = {"data_path": str(toy_folder), "gpu_id": ""}
    [remark] = Config(model, "toy", None, values).remarks()
    assert remark.startswith("toy.net is not read: ")


@pytest.mark.parametrize(("model", "can"), [("SASRec", True), ("FM", False)])
def test_the_protocol_is_recommended_to_models_that_can_run_under_it(toy_folder, model, can):
    values = {"data_path": str(toy_folder), "gpu_id": ""}
    if model == "FM":
        values |= {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}
    config = Config(model, "toy", None, values)
    assert is_usable(config) is can


@pytest.mark.parametrize("protocol", ["paper", "recbole"])
def test_a_package_that_is_missing_is_said_before_anything_is_read(
    toy_folder, monkeypatch, protocol
):
    monkeypatch.setattr(recbole_models, "is_installed", lambda name: name != "dgl")
    values = {"data_path": str(toy_folder), "gpu_id": "", "protocol": protocol}
    values |= {"checkpoint_dir": str(toy_folder), "results_dir": str(toy_folder)}
    with pytest.raises(UserError, match=r"RecBole's KGAT cannot run.*it imports dgl, which is not"):
        run("KGAT", "toy", None, values)


@pytest.mark.parametrize("model", ["KTUP", "GRU4Rec"])
def test_a_cell_of_a_model_that_scores_at_random_is_read_again(model):
    metrics = {"full": {"valid": {"mrr": 0.3}}}
    config = {"model": model, "valid_metric": "MRR"}
    result = {"best_valid_score": 0.2, "eval_mode": "full", "metrics": metrics, "config": config}
    refused = nullcontext() if model == "KTUP" else pytest.raises(DamagedFileError)
    with refused:
        store._check_score(result, n_users=943)


@pytest.mark.parametrize("name", ["config_dict", "file"])
def test_files_that_are_named_where_nothing_reads_them_are_refused(toy_folder, name):
    file = toy_folder / "mine.yaml"
    file.write_text("config_files: other.yaml\n")
    values = toy_values(toy_folder)
    given = ([str(file)], values) if name == "file" else (None, {**values, "config_files": "x"})
    with pytest.raises(UserError, match=r"config_files in .* has no effect there"):
        Config("KSR", "toy", *given)


@pytest.mark.parametrize("word", ["None", "none", None])
def test_no_negatives_can_be_written_as_a_word(toy_folder, word):
    file = toy_folder / "mine.yaml"
    file.write_text(f"train_neg_sample_args: {word or '~'}\n")
    config = Config("KSR", "toy", [str(file)], {"data_path": str(toy_folder)})
    assert config["train_neg_sample_args"]["distribution"] == "none"


@pytest.mark.parametrize("given", [{"norm_type": 1}, {"foreach": True}])
def test_clipping_without_its_bound_is_refused(toy_folder, given):
    with pytest.raises(UserError, match="a dict with max_norm"):
        Config("KSR", "toy", None, toy_values(toy_folder, clip_grad_norm=given))
    assert Config("KSR", "toy", None, toy_values(toy_folder, clip_grad_norm={}))


@pytest.mark.parametrize(
    ("given", "works"),
    [
        ({"topk": [5]}, False), ({"metrics": ["NDCG"]}, False), ({"valid_metric": "MRR"}, False),
        ({"topk": [5], "valid_metric": "Hit@5"}, True), ({"topk": [5], "eval_step": 0}, True),
        ({"valid_metric": "mrr@10"}, True),
    ],
)  # fmt: skip
def test_a_metric_that_recbole_would_miss_after_an_epoch_is_refused(toy_folder, given, works):
    values = {"data_path": str(toy_folder), "train_neg_sample_args": None, **given}
    if works:
        assert Config("SASRec", "toy", None, values)
        return
    with pytest.raises(UserError, match=r"valid_metric is .* must be one of"):
        Config("SASRec", "toy", None, values)


LABELED = {"eval_args": {"mode": "labeled"}}
OF_VALUES = {"metrics": ["LogLoss"], "valid_metric": "LogLoss"}


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        ("FM", LABELED | {"metrics": ["Hit"], "valid_metric": "Hit@10"}, "labeled ranks nothing"),
        ("LightGCN", {"eval_args": {"mode": {"test": "labeled"}}}, "labeled ranks nothing"),
        ("FM", LABELED | OF_VALUES, None),
        ("LightGCN", {"train_neg_sample_args": {"dynamic": True}}, "candidate_num of at least 1"),
        ("LightGCN", {"train_neg_sample_args": {"dynamic": True, "candidate_num": 1}}, None),
        ("GRU4Rec", {"loss_type": "bpr"}, "loss_type is bpr, .* it must be BPR or CE"),
        ("GRU4Rec", {"loss_type": "BPR"}, None),
        ("GRU4Rec", {"transform": "crop_itemseq"}, "give --eta=0.2"),
        ("GRU4Rec", {"transform": "reorder_itemseq"}, "give --beta=0.2"),
        ("GRU4Rec", {"transform": "mask_itemseq"}, "give --mask_ratio=0.2"),
        ("GRU4Rec", {"transform": "crop_itemseq", "eta": 0.5}, None),
        ("BERT4Rec", {"transform": "mask_itemseq"}, None),
        ("LightGCN", {"transform": "crop_itemseq", "eta": 0.5}, "LightGCN reads no sequences"),
    ],
)
def test_what_recbole_would_stop_on_in_training_is_refused(toy_folder, model, given, told):
    values = {"data_path": str(toy_folder), "gpu_id": "", **given}
    with nullcontext() if told is None else pytest.raises(UserError, match=told):
        Config(model, "toy", None, values)


@pytest.mark.parametrize(
    ("model", "transform", "idle"),
    [
        ("SASRec", "inverse_itemseq", True), ("SHAN", "inverse_itemseq", False),
        ("BERT4Rec", "mask_itemseq", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["paper", "recbole"])
def test_a_transform_that_a_model_does_not_read_is_said(
    toy_folder, model, transform, idle, protocol
):
    values = {"data_path": str(toy_folder), "transform": transform, "protocol": protocol}
    said = " ".join(Config(model, "toy", None, values).remarks())
    assert (f"transform has no effect on {model}" in said) == idle


@pytest.mark.parametrize("model", ["SASRec", "LightGCN"])
def test_a_transform_of_the_user_must_have_been_written(toy_folder, monkeypatch, model):
    values = {"data_path": str(toy_folder), "gpu_id": "", "transform": "user_defined"}
    with pytest.raises(UserError, match=r"UserDefinedTransform does nothing; write"):
        Config(model, "toy", None, values)
    written = lambda self, dataset, interaction: interaction  # noqa: E731
    monkeypatch.setattr("recbole.data.transform.UserDefinedTransform.__call__", written)
    assert Config(model, "toy", None, values).remarks() == []


def test_only_the_models_that_are_said_to_read_transformed_sequences():
    models = RECBOLE / "model" / "sequential_recommender"
    readers = {
        path.stem
        for path in models.glob("*.py")
        if re.search(r'config\["\w+_ITEM_SEQ"\]', path.read_text())
    }
    assert readers == {name.lower() for name in idle._TRANSFORMED.values()}


@pytest.mark.parametrize("given", [{}, LABELED | OF_VALUES])
@pytest.mark.parametrize("model", ["FM", "LightGCN"])
def test_labels_that_are_not_there_are_said_before_training(toy_folder, model, given):
    if model == "LightGCN" and not given:
        return  # it learns from negatives
    with pytest.raises(UserError, match=r"toy has no column label \(LABEL_FIELD\).*threshold"):
        toy_run(toy_folder, model, **{"eval_args": {"mode": "uni5"}, **given})


def test_a_key_of_numbers_is_named_where_recbole_stops_on_it(toy_folder):
    values = {"numerical_features": ["nope"], "train_neg_sample_args": {"sample_num": 1}}
    with pytest.raises(UserError, match=r"values of eval_args, numerical_features,.* \[nope\]"):
        toy_run(toy_folder, "LightGCN", **{"eval_args": {"mode": "uni5"}, **values})


def test_the_gpu_is_used_only_where_both_keys_allow_it(toy_folder):
    for given in ({"device": "cpu"}, {"use_gpu": False}):
        config = Config("KSR", "toy", None, {"data_path": str(toy_folder), **given})
        assert config["device"].type == "cpu" and config["use_gpu"] is False
    with pytest.raises(UserError, match=r"use_gpu|finds no GPU"):
        values = {"data_path": str(toy_folder), "device": "cuda", "use_gpu": False}
        Config("KSR", "toy", None, values)


def test_what_a_dataset_chooses_for_our_models_is_not_for_recboles():
    given = {"protocol": "paper", "train_neg_sample_args": None}
    recboles, ours = Config("GRU4Rec", "ml-1m", None, given), Config("GRU", "ml-1m")
    assert recboles["ema_decay"] is None and recboles["stopping_step"] == 5
    assert ours["ema_decay"] == 0.996 and ours["stopping_step"] == 2


def test_the_size_of_stock_ksrs_own_vectors_is_the_users(toy_folder):
    values = {"data_path": str(toy_folder), "protocol": "paper", "kg_embedding_size": 50}
    assert Config("StockKSR", "toy", None, values)["kg_embedding_size"] == 50
    values["embedding_size"] = 24
    assert Config("GRU4RecKG", "toy", None, values)["kg_embedding_size"] == 24


@pytest.mark.parametrize("flag", ["kb_score", "kb_input"])
@pytest.mark.parametrize("model", ["GRU", "GRU++", "GRU++-paper"])
def test_options_of_kb_embeddings_have_values_where_these_are_read(model, flag):
    of_kb = {"kg_embedding_size": 50, "kb_scale": 1.0, "freeze_kg": True}
    without, read = (Config(model, "toy", None, values) for values in ({}, {flag: True}))
    given = Config(model, "toy", None, {flag: True, "kg_embedding_size": 8, "freeze_kg": False})
    assert not of_kb.keys() & without.final_config_dict.keys()
    assert not of_kb.keys() & compared_keys(without)
    assert {key: read[key] for key in of_kb} == of_kb
    assert {key: given[key] for key in of_kb} == {
        **of_kb,
        "kg_embedding_size": 8,
        "freeze_kg": False,
    }
    for config in (read, given):
        assert config.remarks() == [] and of_kb.keys() <= compared_keys(config)
    [said] = Config(model, "toy", None, {"kb_scale": 2.0}).remarks()
    assert said.startswith(f"Config key kb_scale has no effect on {model}")


@pytest.mark.parametrize("key", ["train_rec_step", "train_kg_step"])
def test_both_parts_in_every_batch_are_refused_where_there_are_none(toy_folder, key):
    with pytest.raises(UserError, match=f"{key} is None, but KSR trains"):
        toy_run(toy_folder, "KSR", freeze_kg=False, **{"train_kg_step": 1, key: None})


def test_vectors_that_do_not_change_have_no_epochs_on_the_graph(toy_folder):
    with pytest.raises(UserError, match="train_kg_step is set, which needs freeze_kg: False"):
        toy_run(toy_folder, "KSR", train_kg_step=1)


def test_a_scaler_and_clipping_are_refused_together(toy_folder):
    with pytest.raises(UserError, match="enable_scaler and clip_grad_norm"):
        toy_run(toy_folder, "KSR", enable_scaler=True, clip_grad_norm={"max_norm": 5})


def test_a_checkpoint_holds_for_a_machine_without_its_gpu(toy_folder):
    given = {"device": "cuda", "gpu_id": "0", "use_gpu": True, "log_wandb": True}
    content = {"model": "KSR", "dataset": "toy", "settings": {}}
    content["given"] = {"data_path": str(toy_folder), "wandb_project": "mine", **given}
    for settings in ({}, given, {"nproc": 3, "ip": "10.0.0.1", "world_size": 2, "kg": "a.kg"}):
        config = restore.config_of({**content, "settings": settings})
        assert config["device"].type == "cpu" and not config["log_wandb"]
        assert (config["nproc"], config["world_size"]) == (1, -1)


def test_a_word_of_another_case_is_the_choice(toy_config):
    """RecBole takes ``learner: Adam``, so a user's YAML file may have it."""
    config = toy_config(learner="AdamW", loss_type="bpr", value_matrix="Shared")
    assert [config[key] for key in ("learner", "loss_type", "value_matrix")] == [
        "adamw", "BPR", "shared",
    ]  # fmt: skip
    with pytest.raises(UserError, match="learner is 'Adamm'; it must be one of"):
        toy_config(learner="Adamm")
