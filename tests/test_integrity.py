"""What the project reads back of its own is what was written, or it is refused or made again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from ksr_recbole import Recommender, digests, save_model
from ksr_recbole.__main__ import main
from ksr_recbole.cache import read_arrays, write_arrays
from ksr_recbole.comparison.cells import Cell
from ksr_recbole.comparison.store import Store
from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.errors import DamagedFileError, UnusableCheckpointError, UserError
from ksr_recbole.inference import saving
from ksr_recbole.inference.directory import FILES, MANIFEST, read_directory
from ksr_recbole.pretraining.pretrain import pretrained_vectors
from ksr_recbole.quick_start.prepare import make_trainer
from ksr_recbole.records import Number, check_shape, read_record, sealed, write_record
from ksr_recbole.trainer import checkpoint
from ksr_recbole.trainer.sequence_trainer import SequenceTrainer
from ksr_recbole.trainer.weights import no_larger_than
from tests.benchmark_fakes import run_result
from tests.mutations import (
    ODD_VALUES,
    bounded,
    damage,
    nested,
    odd_tensors,
    paths_in,
    with_other,
    without,
)
from tests.toy import toy_run, toy_values, write_toy

MANY = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Trained(NamedTuple):
    """A run's checkpoint, its content, and a trainer that can resume it."""

    data: Path
    path: Path
    content: dict[str, Any]
    trainer: SequenceTrainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        data = write_toy(folder / "data")
        path = Path(toy_run(data, ema_decay=0.5)["checkpoint"]).resolve()
        config = Config("KSR", "toy", None, toy_values(data, ema_decay=0.5))
        dataset = load_dataset(config)
        dataset.build()
        pretrained_vectors(config, dataset)
        yield Trained(data, path, checkpoint.load(path), make_trainer(config, dataset))
    finally:
        os.chdir(before)


# Bytes ----------------------------------------------------------------------------------------


@given(damaged=damage())
@MANY
def test_damaged_bytes_of_a_checkpoint_are_noticed(trained, tmp_path, damaged):
    path, data = tmp_path / "damaged.pth", trained.path.read_bytes()
    path.write_bytes(damaged(data))
    if path.read_bytes() == data:
        return
    with bounded(), pytest.raises(UnusableCheckpointError, match=r"damaged\.pth"):
        checkpoint.load(path)


@given(damaged=damage())
@MANY
def test_damaged_bytes_of_a_record_are_noticed(tmp_path, damaged):
    record = {"metrics": {"mrr": 0.25, "map": 1 / 3}, "epoch": 7, "name": "KSR"}
    path = tmp_path / "record.json"
    write_record(path, record)
    data = path.read_bytes()
    path.write_bytes(damaged(data))
    with bounded(), suppress(DamagedFileError):
        assert read_record(path) == record


@given(damaged=damage())
@MANY
def test_damaged_bytes_of_arrays_are_noticed(tmp_path, damaged):
    path, wanted = tmp_path / "cache.safetensors", {"a": np.arange(40.0), "b": np.arange(3)}
    write_arrays(path, "key", wanted, {})
    path.write_bytes(damaged(path.read_bytes()))
    with bounded(), suppress(DamagedFileError):
        found = read_arrays(path, "key")
        assert all(np.array_equal(found[name], array) for name, array in wanted.items())


@given(damaged=damage())
@MANY
def test_damaged_bytes_of_a_cell_are_noticed(tmp_path, damaged):
    store, cell = stored_cell(tmp_path)
    before = store.load(cell)
    for path in (store.result_file(cell), store.ranks_file(cell)):
        data = path.read_bytes()
        path.write_bytes(damaged(data))
        with bounded():
            found = store.load(cell)
        path.write_bytes(data)
        assert found is None or found.record == before.record
        for key in found.ranks if found else ():
            assert all(map(np.array_equal, found.ranks[key], before.ranks[key]))


@given(damaged=damage())
@MANY
def test_damaged_bytes_of_a_model_directory_are_noticed(directory, damaged):
    wanted = Recommender.load(directory).recommend("u1", 3)
    for name in (MANIFEST, *FILES):
        path = directory / name
        data = path.read_bytes()
        path.write_bytes(damaged(data))
        try:
            with bounded(), suppress(UserError):
                assert Recommender.load(directory).recommend("u1", 3) == wanted
        finally:
            path.write_bytes(data)


# Content with the right digest ---------------------------------------------------------------


def values_in(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def accepts(trained: Trained, path: Path) -> bool:
    """Whether a checkpoint is resumed; a refusal must be a sentence that names it."""
    try:
        with bounded():
            trained.trainer.resume_checkpoint(path)
    except UnusableCheckpointError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    return True


def test_a_checkpoint_that_lacks_any_part_is_refused(trained, tmp_path):
    path = tmp_path / "without.pth"
    optional = {("last", "average"), ("given",), ("best_valid_result",)}
    tried = 0
    for place in paths_in(trained.content, depth=5):
        if place[:2] == ("last", "optimizer") or any(place[: len(o)] == o for o in optional):
            continue
        checkpoint.save(path, without(trained.content, place))
        assert not accepts(trained, path), place
        tried += 1
    assert tried > 60


MAY_BE_OTHERS = {
    *("given", "epoch", "best_epoch", "cur_step", "finished"),
    *("best_valid_score", "best_valid_result"),
}
"""Parts with other values that a run could have left."""


def test_a_checkpoint_with_another_value_anywhere_is_refused(trained, tmp_path):
    path = tmp_path / "other.pth"
    refused = tried = 0
    for place in paths_in(trained.content, depth=5):
        some = ODD_VALUES[:: 3 if len(place) == 1 or place[0] == "last" else 13]
        for value in some:
            checkpoint.save(path, with_other(trained.content, place, value))
            accepted = accepts(trained, path)
            refused, tried = refused + (not accepted), tried + 1
            if not accepted or place[0] in MAY_BE_OTHERS or place[:2] == ("last", "numpy_rng"):
                continue
            # An average and moments there are none of before the first step, nor GPUs here.
            empty = place[0] == "last" and value in ({}, [])
            assert empty or value == values_in(trained.content, place), (place, value)
    assert refused > 300 and tried > 400


def test_a_checkpoint_with_another_tensor_is_refused(trained, tmp_path):
    path, tried = tmp_path / "tensor.pth", 0
    content = trained.content
    for place in paths_in(content, depth=5):
        value = content
        for key in place:
            value = value[key]
        if not isinstance(value, torch.Tensor):
            continue
        for odd in odd_tensors(value):
            same = odd.shape == value.shape and odd.dtype == value.dtype
            if same and (place[:2] == ("last", "optimizer") or not value.is_floating_point()):
                continue  # no number is wrong there
            checkpoint.save(path, with_other(content, place, odd))
            assert not accepts(trained, path), (place, odd.dtype, odd.shape)
            tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    ("entry", "number"), [("step", -1.0), ("exp_avg_sq", -1.0), ("exp_avg", float("inf"))]
)
def test_an_optimizer_with_numbers_it_cannot_have_is_refused(trained, tmp_path, entry, number):
    state, path = trained.content["last"]["optimizer"], tmp_path / "numbers.pth"
    kept = next(k for k in state if entry in state[k])
    odd = torch.full_like(state[kept][entry], number)
    checkpoint.save(path, with_other(trained.content, ("last", "optimizer", kept, entry), odd))
    with pytest.raises(UnusableCheckpointError, match=f"{entry} has numbers"):
        trained.trainer.resume_checkpoint(path)


def test_rows_of_another_graph_are_one_sentence(trained, tmp_path, capsys):
    weights, path = dict(trained.content["state_dict"]), tmp_path / "rows.pth"
    weights[_KB[0]] = torch.cat([weights[_KB[0]]] * 2)
    checkpoint.save(path, {**trained.content, "state_dict": weights})
    assert main(["explain", "--user=u1", f"--checkpoint={path}"]) == 2
    assert "rows instead of" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["extra", "tensor", "best_epoch"])
def test_a_checkpoint_with_parts_that_do_not_agree_is_refused(trained, tmp_path, part):
    content, path = dict(trained.content), tmp_path / "odd.pth"
    if part == "extra":
        content["code"] = "x"
    elif part == "tensor":
        content["state_dict"] = {**content["state_dict"], "more": torch.zeros(1)}
    else:
        content["best_epoch"] = content["epoch"] + 1
    checkpoint.save(path, content)
    assert not accepts(trained, path)


@pytest.mark.parametrize(
    "values",
    [
        *({key: 10**9} for key in ("embedding_size", "hidden_size", "kg_embedding_size")),
        *({key: 10**9} for key in ("num_layers", "score_mlp_layers", "query_mlp_layers")),
        {"hidden_size": None},
        {"embedding_size": "8"},
        {"gamma": [1]},
        {"item_init": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["explain", "export"])
def test_options_that_do_not_fit_the_weights_build_nothing(
    trained, tmp_path, capsys, command, values
):
    content = {**trained.content, "settings": {**trained.content["settings"], **values}}
    path = tmp_path / "settings.pth"
    checkpoint.save(path, content)
    own = {"explain": "--user=u1", "export": f"--output={tmp_path / 'model'}"}
    with bounded():
        assert main([command, f"--checkpoint={path}", own[command]]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("command", ["explain", "export"])
def test_a_setting_that_is_missing_is_no_default(trained, tmp_path, capsys, command):
    settings, path = trained.content["settings"], tmp_path / "less.pth"
    own = {"explain": "--user=u1", "export": f"--output={tmp_path / 'model'}"}
    for key in ("gamma", "task", "seed", "kge_method"):
        less = {k: v for k, v in settings.items() if k != key}
        checkpoint.save(path, {**trained.content, "settings": less, "given": {}})
        words = [f"--{k}={trained.content['given'][k]}" for k in ("data_path", "data_cache_dir")]
        assert main([command, f"--checkpoint={path}", own[command], *words]) == 2
        assert f"does not say with which {key} it was trained" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["state_dict", "attributes", "item_entities"])
def test_ids_among_the_weights_are_ids_of_something(trained, tmp_path, capsys, place):
    weights = dict(trained.content["state_dict"])
    if place == "state_dict":
        del weights["item_embedding.weight"]
    else:
        weights[place] = torch.full_like(weights[place], 10**6)
    path = tmp_path / "ids.pth"
    checkpoint.save(path, {**trained.content, "state_dict": weights})
    for arguments in (["explain", "--user=u1"], ["export", f"--output={tmp_path / 'model'}"]):
        with bounded():
            assert main([*arguments, f"--checkpoint={path}"]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_files_of_pytorch_are_named_as_such(trained, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"format": 1, "state_dict": {}}, path)
    with pytest.raises(UnusableCheckpointError, match="it is a file of PyTorch"):
        checkpoint.load(path)


# Model directories ----------------------------------------------------------------------------


@pytest.fixture
def directory(trained: Trained, tmp_path: Path) -> Path:
    return save_model(trained.path, tmp_path / "model")


def resigned(directory: Path) -> None:
    """Give the manifest the digests of the files as they are now, as someone else could."""
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    for name in FILES:
        content = (directory / name).read_bytes()
        manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps({**manifest, "digest": digests.of_values(manifest)}))


def answers(directory: Path) -> bool:
    """Whether a model directory can be used; a refusal must be one sentence."""
    try:
        with bounded():
            found = Recommender.load(directory)
            assert len(found.recommend("u1", 3)) == len(found.recommend(["i1", "i2"], 3)) == 3
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return False
    return True


@pytest.mark.parametrize("name", ["config.json", "tokens.json"])
def test_odd_json_in_a_model_directory_is_refused_or_right(directory, name):
    path = directory / name
    content = json.loads(path.read_text())
    tried = 0
    for place in paths_in(content, depth=2):
        texts = [json.dumps(without(content, place))]
        texts += [json.dumps(with_other(content, place, value)) for value in ODD_VALUES[::3]]
        for text in texts:
            path.write_text(text)
            resigned(directory)
            answers(directory)
            tried += 1
    for text in ("[" * 10**5, "{}", "[]", "1", '{"user": ' + "[" * 10**5, json.dumps(nested(99))):
        path.write_text(text)
        resigned(directory)
        assert not answers(directory)
    assert tried > 100


@pytest.mark.parametrize("name", ["weights.safetensors", "histories.safetensors"])
def test_odd_tensors_in_a_model_directory_are_refused(directory, name):
    path = directory / name
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    tried = 0
    for key, tensor in tensors.items():
        for odd in (None, *odd_tensors(tensor)):
            like = odd is not None and odd.shape == tensor.shape and odd.dtype == tensor.dtype
            if like and torch.equal(odd, tensor):
                continue
            ids = odd is not None and odd.ndim == 1 and odd.dtype == torch.int64 and len(odd)
            if key == "attributes" and ids and odd.min() >= 0:
                continue  # fewer attributes are another model, which is whole too
            rest = {k: v for k, v in tensors.items() if k != key}
            changed = rest if odd is None else {**rest, key: odd.contiguous()}
            save_file({k: v.clone() for k, v in changed.items()}, path)
            resigned(directory)
            assert not answers(directory), (key, None if odd is None else (odd.dtype, odd.shape))
            tried += 1
    assert tried > 20


def test_large_sizes_in_a_model_directory_build_nothing(directory):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    whole = [k for k, v in config.items() if isinstance(v, int) and not isinstance(v, bool)]
    assert {"hidden_size", "num_layers", "embedding_size"} <= set(whole)
    for key in whole:
        for value in (10**9, 2**62, 2**70):
            path.write_text(json.dumps({**config, key: value}))
            resigned(directory)
            answers(directory)


def test_crafted_weights_are_refused_before_a_model_is_made(directory):
    """Sizes that agree with the options, though no model has such tensors."""
    path, settings = directory / "weights.safetensors", directory / "config.json"
    tensors, config = load_file(path), json.loads(settings.read_text())
    wide = {k: torch.zeros(len(v), 30_000) for k, v in tensors.items() if k in _KB}
    cases: list[tuple[dict[str, torch.Tensor], dict[str, Any]]] = [
        ({"gru.weight_hh_l0": torch.zeros(0, 40_000)}, {"hidden_size": 40_000}),
        (wide, {"kg_embedding_size": 30_000}),
        ({"an_embedding": torch.tensor(1.0)}, {}),
        ({"an_embedding": torch.zeros(2**40, 0)}, {}),
        ({"item_mlp.0.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)}, {}),
    ]
    assert len(wide) == 2
    for changed, values in cases:
        save_file({**tensors, **changed}, path)
        settings.write_text(json.dumps({**config, **values}))
        resigned(directory)
        assert not answers(directory), (list(changed), values)


_KB = ("entity_embedding.weight", "relation_embedding.weight")


def test_a_model_larger_than_its_weights_is_not_filled():
    with pytest.raises(UserError, match="describe a larger model"), no_larger_than({}):
        torch.nn.Linear(2000, 2000)
    with no_larger_than({"weight": torch.empty(2000, 2000)}):
        torch.nn.Linear(2000, 2000)
    torch.nn.Linear(2000, 2000)


@pytest.mark.parametrize("name", ["tokens.json", "names.json"])
def test_half_of_a_letter_and_no_entities_are_refused(directory, name):
    path = directory / name
    content = json.loads(path.read_text())
    odd = {**content, "item": [*content["item"][:-1], "\ud800"]}
    less = {k: v for k, v in content.items() if k != "entity"}
    for changed, said in ((odd, f"{name} has an incomplete character"), (less, "entity")):
        path.write_text(json.dumps(changed))
        resigned(directory)
        with pytest.raises(UserError, match=said):
            read_directory(directory)


def test_numbers_that_overflow_are_no_recommendations(directory):
    path = directory / "weights.safetensors"
    tensors = load_file(path)
    save_file({k: v * 1e30 if v.is_floating_point() else v for k, v in tensors.items()}, path)
    resigned(directory)
    found = Recommender.load(directory)
    for ask in (found.recommend, found.explain, lambda who: found.explain(who, items=["i1"])):
        with pytest.raises(UserError, match="numbers are not finite"):
            ask("u1")


def test_a_dataset_that_could_not_be_loaded_again_is_not_written(trained, tmp_path, monkeypatch):
    known = saving._tokens
    monkeypatch.setattr(saving, "_tokens", lambda *of: {**known(*of), "user": ["", *["u"] * 9]})
    with pytest.raises(UserError, match="is not saved"):
        save_model(trained.path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_numbers_of_no_float_are_no_numbers():
    for finite in (False, True):
        with pytest.raises(DamagedFileError):
            check_shape(10**400, Number(finite))
        check_shape(10**200, Number(finite))
    check_shape(float("inf"), Number(finite=False))


# Cells ----------------------------------------------------------------------------------------


def stored_cell(folder: Path) -> tuple[Store, Cell]:
    store = Store(folder / "benchmark")
    cell = Cell("KSR", "toy", "next-item", 1, {}, "ab" * 32)
    store.save(cell, run_result({"test": [1, 3, 2], "valid": [2, 4, 9]}), 3.0, False)
    return store, cell


def test_a_cell_without_a_digest_or_with_other_content_is_run_again(tmp_path, caplog):
    store, cell = stored_cell(tmp_path)
    path = store.result_file(cell)
    record = read_record(path)
    path.write_text(json.dumps(record))
    assert store.load(cell) is None and "no sha256" in caplog.text
    tried = 0
    for place in paths_in(record, depth=5):
        if place[0] in ("model", "dataset", "task", "seed", "overrides", "measure"):
            continue
        for value in ODD_VALUES:
            path.write_text(json.dumps(sealed(with_other(record, place, value))))
            with bounded():
                found = store.load(cell)
            if found is not None:
                assert found.result["metrics"] == record["result"]["metrics"], (place, value)
            tried += 1
    assert tried > 500
    metrics = record["result"]["metrics"]["full"]["test"]
    for other in ({**metrics, "mrr": metrics["mrr"] + 0.01}, {}):
        path.write_text(
            json.dumps(sealed(with_other(record, ("result", "metrics", "full", "test"), other)))
        )
        assert store.load(cell) is None


def test_ranks_that_are_none_are_run_again(tmp_path):
    store, cell = stored_cell(tmp_path)
    arrays = load_arrays(store.ranks_file(cell))
    for name, array in arrays.items():
        for odd in (None, array.astype(float), array[:-1], array[None], array * 0, array + 1):
            if odd is not None and name.endswith("users") and odd.dtype == array.dtype:
                continue  # other users may have the same metrics
            rest = {k: v for k, v in arrays.items() if k != name}
            changed = rest if odd is None else {**rest, name: odd}
            write_arrays(store.ranks_file(cell), cell.key, changed, {})
            assert store.load(cell) is None, (name, odd)


# What stands where a file is expected ----------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def _itself(path: Path) -> None:
    path.symlink_to(path)


SPECIALS: tuple[Callable[[Path], None], ...] = (_fifo, _folder, _device, _nothing, _itself)


@pytest.mark.parametrize("special", SPECIALS)
def test_what_is_no_file_is_answered(directory, trained, tmp_path, special, capsys):
    path = tmp_path / "special.pth"
    special(path)
    for arguments in (
        ["explain", "--user=u1", f"--checkpoint={path}"],
        ["export", f"--output={tmp_path / 'other'}", f"--checkpoint={path}"],
    ):
        with bounded():
            assert main(arguments) == 2
        assert "special.pth" in capsys.readouterr().err
    with bounded(), pytest.raises(DamagedFileError):
        read_arrays(path, "key")
    store, cell = stored_cell(tmp_path)
    for file in (store.result_file(cell), store.ranks_file(cell)):
        data = file.read_bytes()
        file.unlink()
        special(file)
        with bounded():
            assert store.load(cell) is None
        file.rmdir() if special is _folder else file.unlink()
        file.write_bytes(data)
    for name in (MANIFEST, *FILES):
        data = (directory / name).read_bytes()
        (directory / name).unlink()
        special(directory / name)
        assert not answers(directory)
        file = directory / name
        file.rmdir() if special is _folder else file.unlink()
        file.write_bytes(data)
    assert answers(directory)


def test_a_number_that_json_has_no_word_for_is_null(tmp_path):
    write_record(tmp_path / "record.json", {"of": [1.5, np.inf], "loss": np.float64("nan")})
    assert "NaN" not in (tmp_path / "record.json").read_text()
    assert read_record(tmp_path / "record.json") == {"of": [1.5, None], "loss": None}
