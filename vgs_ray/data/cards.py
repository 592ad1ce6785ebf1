"""The card (README.md) of an exported data set, generated from the manifests of its stages. Pure.

In: `_stage.json` of each stage. Out: the text of README.md with the YAML header that Hugging Face reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Manifests = Mapping[str, Mapping[str, Any]]

COLUMNS = {
    "OpenR1-VM": {
        "message_id": "id of the problem, a hash of its text",
        "problem, solution, answer": "as in the source",
        "roll_in_ids": "one list per response: the input tokens of the reference policy (prompt, roll-in up to the cut)",
        "roll_outs_ids": "one list per response: the tokens that the reference policy generated",
        "labels": "one per response: 0 finished and incorrect, 1 finished and correct, 2 unfinished",
        "reward": "one per response: 1 if the label is 1, else 0",
        "processed_answer": "one per response: the content of its last box, null without one",
    },
    "OpenR1-Cleaned": {
        "message_id": "id of the problem, a hash of its text",
        "problem, solution, answer, source": "as in the source",
    },
}
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def data_card(layout: str, run: str, manifests: Manifests, counts: Mapping[str, Any], license_id: str) -> str:
    """README.md of an exported data set.

    Args:
        layout: OpenR1-VM or OpenR1-Cleaned.
        run: the name of the run.
        manifests: the manifest of each stage.
        counts: for each split the number of rows, and for OpenR1-VM also of responses and tokens.
        license_id: the license identifier of Hugging Face.
    """
    sections = [
        _header(layout, run, counts, license_id),
        f"# {run}: problems in the layout of {layout}",
        _introduction(layout),
    ]
    sections += ["## Columns", _table(("column", "content"), COLUMNS[layout].items())]
    keys = sorted({key for split in counts.values() for key in split})
    rows = [(split, *(f"{sizes.get(key, 0):,}" for key in keys)) for split, sizes in counts.items()]
    sections += ["## Size", _table(("split", *keys), rows)]
    stages = ["clean"] if layout == "OpenR1-Cleaned" else [name for name in manifests if name != "export"]
    sections += ["## How the rows were made", _stages(manifests, stages)]
    sections += ["## Licences", _licences(manifests, stages, license_id)]
    return "\n\n".join(sections) + "\n"


def _header(layout: str, run: str, counts: Mapping[str, Any], license_id: str) -> str:
    """The YAML header. JSON values are valid YAML."""
    rows = sum(sizes["rows"] for sizes in counts.values())
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split, sizes in counts.items() if sizes["rows"]]
    fields = {
        "license": license_id,
        "pretty_name": f"{run} {layout}",
        "task_categories": ["text-generation"],
        "language": ["en"],
        "tags": ["math", "reasoning", "vgs_ray"] + (["value-model"] if layout == "OpenR1-VM" else []),
        "size_categories": [next((name for limit, name in SIZES if rows < limit), "10M<n<100M")],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _introduction(layout: str) -> str:
    if layout == "OpenR1-Cleaned":
        return "Problems with one answer that a program can check. Made by vgs_ray."
    return (
        "Responses of a reference policy that continue prefixes of sampled answers, with the outcome of each, for training value "
        "models (arXiv 2505.17373). Responses with an unknown outcome are not included. Made by vgs_ray."
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _stages(manifests: Manifests, stages: list[str]) -> str:
    """For each stage its counts, including reasons and outcomes, and its configuration; the versions of packages."""
    texts = []
    for name in stages:
        manifest = manifests[name]
        counts = [(key, _shown(value)) for key, value in _flat(manifest["counts"])]
        config = [(key, _shown(value)) for key, value in settings(manifest).items()]
        texts += [f"### {name}", _table(("count", "value"), counts), _table(("setting", "value"), config)]
    versions = {package: version for name in stages for package, version in manifests[name]["versions"].items()}
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    return "\n\n".join([*texts, f"Versions: {listed}."])


def settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that determine the rows of a stage, with its models by name, and without those of engines."""
    fields = {
        **manifest["identity"],
        **{key: value for key, value in manifest["operation"].items() if key in manifest["identity"]},
    }
    return {name: value for name, value in fields.items() if "engine" not in name}


def _flat(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in counts.items():
        flat += (
            [(f"{key}: {name}", each) for name, each in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    return flat


def _shown(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def models(manifests: Manifests) -> list[str]:
    """The policies that generated the responses."""
    settings = [manifests.get(stage, {}).get("operation", {}) for stage in ("roll_in", "roll_out")]
    return list(dict.fromkeys(value for each in settings for name, value in each.items() if name.endswith(".model")))


def _licences(manifests: Manifests, stages: list[str], license_id: str) -> str:
    source = manifests["clean"]["identity"]["clean.source"]
    text = f"This data set: `{license_id}`. The problems are from `{source}`, whose licence applies to them."
    if stages == ["clean"]:
        return text
    return (
        f"{text} The responses were sampled from these models, whose licences apply to their output: "
        + ", ".join(f"`{model}`" for model in models(manifests))
        + "."
    )
