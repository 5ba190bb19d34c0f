"""Converters from public raw data to RecBole atomic files, and (not in git) the files they write.

:mod:`dataset_atomic.sources` says what each dataset is made of and what its owners ask for.
MovieLens-100k comes inside the ``recbole`` package; its terms of use ask to cite Harper and
Konstan 2015 and forbid redistribution, so that only the crosswalk of ids is kept here.
"""
