"""Searching a model's settings on validation, as RecBole's ``run_hyper.py``."""
