"""What RecBole's ``Dataset`` gives to the classes that are mixed over it, for type checkers.

RecBole declares no types.  When the program runs, such a class derives from nothing, so that it
can stand before any of RecBole's datasets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureType

    from ksr_recbole.config_types import Configuration

    class DatasetMixin(Dataset):
        """The fields of a dataset that our mixins read or set."""

        of_sequences: bool
        config: Configuration
        dataset_name: str
        inter_feat: Any
        user_feat: Any
        item_feat: Any
        uid_field: str
        iid_field: str
        time_field: str
        user_num: int
        item_num: int
        feat_name_list: list[str]
        file_size_list: list[int]
        benchmark_filename_list: list[str] | None
        alias: dict[str, np.ndarray]
        field2id_token: dict[str, np.ndarray]
        field2type: dict[str, FeatureType]
        field2source: dict[str, Any]
        field2seqlen: dict[str, int]
        field2bucketnum: dict[str, int]
else:
    DatasetMixin = object
