"""From a model's and a dataset's name to a trained, evaluated model and its result file."""

from ksr_recbole.quick_start.run import run

__all__ = ["run"]
