"""KSR, the Knowledge-enhanced Sequential Recommender, for RecBole."""
