"""A trained model in one directory without pickle, and what can be asked of it."""

from ksr_recbole.inference.recommender import Recommender, UserState
from ksr_recbole.inference.saving import save_model

__all__ = ["Recommender", "UserState", "save_model"]
