"""Benchmarks by name: their data sets on Hugging Face, each at a revision.

In: a name from `evaluate.benchmarks`. Out: a source that `vgs_ray.cleaning.raw_rows` reads. An unknown name is a source itself.
"""

from __future__ import annotations

from vgs_ray.data.source_names import HubId
from vgs_ray.data.storage import is_url, storage_path
from vgs_ray.errors import UserError

BENCHMARKS = {
    "aime-24": "HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "aime-25": "math-ai/aime25@563bb8404243c5f09de6ec262f2db674fe5bce9b:default/test",
    "hmmt-feb-24": "MathArena/hmmt_feb_2024",  # the revision is not known here; the stage records the one that it reads
    "hmmt-feb-25": "MathArena/hmmt_feb_2025",
    "math-500": "HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be:default/test",
    "gsm8k": "openai/gsm8k@cc7b047b6e5bb11b4f1af84efc572db110a51b3c:main/test",
}
ANSWER_MARK = "####"
"""An answer of GSM8K is a rationale, this mark and a number."""


def benchmark_source(name: str, folder: str = "") -> str:
    """The source of a benchmark: a copy in `folder`, a path or a URL, if it exists, else the data set on Hugging Face.

    Copies are named `{name}.jsonl`, `{name}-test.jsonl`, `{name}.parquet` or `{name}-test.parquet`.

    Raises:
        UserError: `folder` is not a folder.
    """
    if folder and not storage_path(folder).is_dir():
        raise UserError(
            f"evaluate.benchmark_folder is {folder!r}, which is not a folder; it must contain copies such as aime-24.jsonl: pass "
            "another --evaluate.benchmark-folder, or leave it out to download from Hugging Face"
        )
    if folder and name in BENCHMARKS:
        copies = [
            storage_path(folder) / f"{name}{part}{kind}" for kind in (".jsonl", ".parquet") for part in ("", "-test")
        ]
        if local := next((copy for copy in copies if copy.is_file()), None):
            return str(local)
    return BENCHMARKS.get(name, name)


def pin_revision(source: str) -> str:
    """Add the current revision to a data set id without one; return other sources unchanged.

    Raises:
        UserError: the file does not exist, or Hugging Face cannot be reached.
    """
    if source == "sandbox" or is_url(source) or storage_path(source).exists() or HubId.parse(source).revision:
        return source
    from huggingface_hub import HfApi

    name, _, place = source.partition(":")
    try:
        revision = HfApi().dataset_info(name).sha
    except Exception as error:  # its HTTP library differs between major releases, and so do the errors
        raise UserError(
            f"data set {name} cannot be found ({type(error).__name__}): check the id and the network, or read benchmarks from "
            "local copies with --evaluate.benchmark-folder"
        ) from error
    return f"{name}@{revision}" + (f":{place}" if place else "")


def final_answer(text: str | None) -> str:
    """The answer without the rationale before it; empty without an answer."""
    return (text or "").rpartition(ANSWER_MARK)[2].strip()
