"""A local service for a model directory: a JSON API and a page to try it on."""
