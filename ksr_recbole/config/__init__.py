"""RecBole's ``Config`` with this project's YAML files, checked keys and checked values."""

from ksr_recbole.config.config import Config
from ksr_recbole.config.options import Options

__all__ = ["Config", "Options"]
