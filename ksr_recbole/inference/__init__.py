"""Using a trained model: model directories and the :class:`Recommender`."""
