"""The parts of `python -m pipelines.plan`: assumptions, demands of a recipe, and whether they fit a cluster."""
