"""The interpretability study's report: how far the explanations of Sec. 5.4 are right."""
