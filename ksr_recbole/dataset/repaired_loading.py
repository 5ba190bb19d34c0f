"""RecBole's loading of atomic files, right on pandas 3 too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from recbole.utils import FeatureType

from ksr_recbole.compat import silent_loading
from ksr_recbole.dataset.mixin import DatasetMixin

_FILLED_IN_PLACE = (FeatureType.TOKEN, FeatureType.FLOAT)


@contextmanager
def strings_as_objects() -> Iterator[None]:
    """Inside the block, pandas keeps tokens as Python strings, as it did before version 3.

    RecBole compares, joins and maps them as NumPy arrays of objects.
    """
    with warnings.catch_warnings():
        # The option exists until pandas 4, which versions.WANTED excludes.
        warnings.filterwarnings("ignore", message=r"(?s).*future\.infer_string")
        with pd.option_context("future.infer_string", False):
            yield


class RepairedLoading(DatasetMixin):
    """Mixin over a RecBole dataset that fills missing values whatever pandas is installed.

    RecBole fills them by ``feat[field].fillna(..., inplace=True)``, which pandas 3 carries out
    on a copy: nothing is filled, and there is no error.
    """

    def _from_scratch(self) -> None:
        with strings_as_objects():
            super()._from_scratch()

    def _fill_nan(self) -> None:
        fill_missing(self)
        with silent_loading():
            super()._fill_nan()

    def _dataframe_to_interaction(self, data: Any) -> Any:
        with silent_loading():
            return super()._dataframe_to_interaction(data)


def fill_missing(dataset: Any) -> None:
    """What RecBole's ``Dataset._fill_nan`` means to do with tokens and numbers."""
    for name in dataset.feat_name_list:
        feat = getattr(dataset, name)
        for field in feat:
            kind = dataset.field2type[field]
            if kind in _FILLED_IN_PLACE and feat[field].isna().any():
                fill = 0 if kind == FeatureType.TOKEN else feat[field].mean()
                feat[field] = feat[field].fillna(fill)
