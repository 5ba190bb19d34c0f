"""Vectors the models start from: KB embeddings (Sec. 4.2.2) and item embeddings (Sec. 4.3)."""
