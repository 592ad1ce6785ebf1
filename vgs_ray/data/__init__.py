"""Data shared by the stages.

- `schemas`: the Arrow schema of each table.
- `ids`: ids and seeds, known before generation.
- `splits`: the train, validation and test split of a problem.
- `source_names`: how a recipe names a source of problems.
- `lists`: Arrow list columns and numpy arrays.
- `order`: an order of problems in which few files are open at a time.
- `openr1`: the layouts of OpenR1-VM and OpenR1-Cleaned.
- `cards`: the README of an exported data set.
- `files`: atomic writes.
"""
