"""Our models are RecBole's kinds of model, with the attributes that RecBole's code asks for."""

from __future__ import annotations

import pytest
import torch
from recbole.model.abstract_recommender import KnowledgeRecommender, SequentialRecommender
from recbole.utils import ModelType

from ksr_recbole import Recommender, save_model
from ksr_recbole.config import Config
from ksr_recbole.dataset.sequence_datasets import load_dataset
from ksr_recbole.registry import model_class, own_models
from tests.models import random_vectors
from tests.toy import toy_run, toy_values


def recboles_attributes(base, config, dataset):
    """What RecBole's own base class sets, besides what every PyTorch module has."""
    bare = set(vars(torch.nn.Module())) | {"logger"}
    return {name: value for name, value in vars(base(config, dataset)).items() if name not in bare}


@pytest.mark.parametrize("name", own_models())
def test_our_models_are_recboles_kinds_of_model(name, toy_folder):
    changes = {
        "ITEM_LIST_LENGTH_FIELD": "n_before",
        "NEG_PREFIX": "not_",
    }
    config = Config(name, "toy", None, toy_values(toy_folder, **changes))
    dataset = load_dataset(config)
    dataset.build()
    dataset.pretrained = random_vectors({"kg_embedding_size": 4, "embedding_size": 8}, dataset)
    model = model_class(name)(config, dataset)
    knowledge = name.startswith(("KSR", "RUM"))
    bases = [SequentialRecommender] + [KnowledgeRecommender] * knowledge
    for base in bases:
        assert isinstance(model, base)
        for attribute, value in recboles_attributes(base, config, dataset).items():
            assert getattr(model, attribute) == value, attribute
    assert isinstance(model, KnowledgeRecommender) == knowledge
    assert model.type == (ModelType.KNOWLEDGE if knowledge else ModelType.SEQUENTIAL)
    assert model.n_users == dataset.user_num and model.POS_ITEM_ID == "item_id"
    assert model.max_seq_length == 50 and model.ITEM_SEQ_LEN == "n_before"
    if knowledge:
        assert model.n_entities == dataset.entity_num and model.n_relations == dataset.relation_num
        assert model.NEG_TAIL_ENTITY_ID == "not_tail_id" and model.ENTITY_ID == "entity_id"


def test_a_saved_model_answers_as_well(toy_folder, tmp_path):
    result = toy_run(toy_folder, "KSR", epochs=1)
    loaded = Recommender.load(save_model(result, tmp_path / "model")).model
    assert isinstance(loaded, KnowledgeRecommender)
    assert loaded.n_entities == len(loaded.entity_embedding.weight)
    assert loaded.n_relations == len(loaded.relation_embedding.weight)
    assert (loaded.ENTITY_ID, loaded.RELATION_ID) == ("entity_id", "relation_id")
