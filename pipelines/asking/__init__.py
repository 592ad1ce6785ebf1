"""The parts of `python -m pipelines.ask`: requests, the tree of a search as text, and what a reply says."""
