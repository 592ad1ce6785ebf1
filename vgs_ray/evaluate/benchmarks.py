"""Benchmarks by name: where each lies on Hugging Face, at which revision.

In: what `evaluate.benchmarks` says. Out: a source that `vgs_ray.cleaning.raw_rows` reads. A name that is not known is a
source itself.
"""

from __future__ import annotations

from pathlib import Path

from vgs_ray.data.source_names import HubId, SourceError

BENCHMARKS = {
    "aime-24": "HuggingFaceH4/aime_2024@2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "aime-25": "math-ai/aime25@563bb8404243c5f09de6ec262f2db674fe5bce9b:default/test",
    "hmmt-feb-24": "MathArena/hmmt_feb_2024",  # no revision is known to us: the stage notes the one that it read
    "hmmt-feb-25": "MathArena/hmmt_feb_2025",
    "math-500": "HuggingFaceH4/MATH-500@6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be:default/test",
    "gsm8k": "openai/gsm8k@cc7b047b6e5bb11b4f1af84efc572db110a51b3c:main/test",
}
RATIONALE_ENDS = "####"
"""GSM8K's answers are rationales that end in this and the number."""


def source_of(name: str, folder: str = "") -> str:
    """The source of a benchmark: a local copy `{name}.jsonl`, `{name}-test.jsonl` or `.parquet` in `folder`, else the hub's.

    Raises:
        SourceError: the folder is not there.
    """
    if folder and not Path(folder).is_dir():
        raise SourceError(
            f"evaluate.benchmark_folder is {folder!r}, which is no folder; it holds copies such as aime-24.jsonl: pass another "
            "--evaluate.benchmark-folder, or leave it out to ask Hugging Face"
        )
    if folder and name in BENCHMARKS:
        copies = [Path(folder) / f"{name}{part}{kind}" for kind in (".jsonl", ".parquet") for part in ("", "-test")]
        if found := next((copy for copy in copies if copy.is_file()), None):
            return str(found)
    return BENCHMARKS.get(name, name)


def pinned(source: str) -> str:
    """A hub source at the revision that it has now, where it names none; any other source as it is.

    Raises:
        SourceError: there is no such file, or the hub can't be asked.
    """
    if source == "sandbox" or Path(source).exists() or HubId.parse(source).revision:
        return source
    from huggingface_hub import HfApi

    name, _, place = source.partition(":")
    try:
        revision = HfApi().dataset_info(name).sha
    except Exception as error:  # besides its own errors, those of its HTTP library, another one in each major release
        raise SourceError(
            f"data set {name} can't be found ({type(error).__name__}): check the id and the network, or read named benchmarks "
            "from local copies by --evaluate.benchmark-folder"
        ) from error
    return f"{name}@{revision}" + (f":{place}" if place else "")


def answer_of(text: str | None) -> str:
    """The answer alone, without a rationale before it; empty where there is none."""
    return (text or "").rpartition(RATIONALE_ENDS)[2].strip()
