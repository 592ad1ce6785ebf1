"""Cleaning of problems.

- `raw_rows`: rows of a source; `file_formats`: Parquet, Arrow and JSON files.
- `rules`: the rules for one row, and their order. The rules that read text: `proofs` and `gold_answers` (not_checkable),
  `multiple_choice`, `several_questions`; `figures` replaces figure code before they read a problem.
- `copies`: exact and near copies of problems.
- `contamination`: overlap with the problems of benchmarks.
"""
