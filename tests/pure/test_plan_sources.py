"""What the estimated costs of a recipe take from its source of problems: rows, and lengths of prompts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planned_costs import SANDBOX_MODELS, costs_of

from vgs_ray.errors import UserError
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, prompt_tokens


@pytest.mark.parametrize("name", ["problems.jsonl", "problems.parquet", "problems.json", "."])
def test_the_rows_of_a_local_source_are_counted(tmp_path: Path, name: str) -> None:
    rows = [{"problem": f"{number}+1?", "answer": str(number + 1)} for number in range(7)]
    folder = tmp_path / "source"
    folder.mkdir()
    file = folder / name
    if name == "problems.parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=3)
    elif name == "problems.json":
        file.write_text(json.dumps(rows))
    else:
        lines = (folder / "problems.jsonl") if name == "." else file
        lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    shared = (
        "words",
        "--root",
        str(tmp_path),
        *SANDBOX_MODELS,
        "--clean.source",
        str(file),
        "--clean.validation",
        "1",
        "--roll-in.generators.0.model",
        "sandbox:ref",
    )
    for options, count in (
        ((), 7),
        (("--clean.limit", "5"), 5),
        (("--clean.limit", "9"), 7),
        (("--plan.problems", "3"), 3),
    ):
        costs, text = costs_of(*shared, *options)
        assert costs["clean"].rows == count
        assert (f"problems: {count} (default: rows of {file} before" in text) == (count != 3)


def test_rows_that_can_not_be_counted_are_told(tmp_path: Path) -> None:
    _, text = costs_of(
        "smollm",
        "--clean.limit",
        "0",
        "--root",
        str(tmp_path),
        *SANDBOX_MODELS,
        "--roll-in.generators.0.model",
        "sandbox:ref",
    )
    assert re.search(r"^problems: 49,397 .*those of openai/gsm8k\S+ are not counted\)$", text, re.MULTILINE)
    with pytest.raises(UserError, match=r"\./runs/no\.jsonl does not exist"):
        costs_of("sandbox", "--root", str(tmp_path), "--clean.source", "./runs/no.jsonl")


def test_prompts_of_a_local_source_are_measured_in_the_tokens_of_the_policy(tmp_path: Path) -> None:
    problems = [f"Work modulo 19. Start with {at}.\n1) add 1\nWhat is the last value?" for at in range(3)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps({"problem": each}) + "\n" for each in problems))
    asked = ("sandbox", "--root", str(tmp_path), "--clean.source", str(tmp_path / "problems.jsonl"))
    _, text = costs_of(*asked)
    tokenizer = load_tokenizer(model_path("sandbox:ref"))
    expected = np.mean([len(prompt_tokens(tokenizer, each)) for each in problems])
    assert f"prompt tokens: {expected:.0f} (of 3 problems of" in text
    assert "prompt tokens: 9 (given)" in costs_of(*asked, "--plan.prompt-tokens", "9")[1]
