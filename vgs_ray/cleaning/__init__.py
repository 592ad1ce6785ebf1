"""Cleaning of problems. `raw_rows` reads sources, `rules` checks one row, `copies` and `contamination` compare rows."""
