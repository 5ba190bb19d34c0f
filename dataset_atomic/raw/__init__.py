"""Readers of the raw formats: one job each, block by block, every error with its line."""
