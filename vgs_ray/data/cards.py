"""The card of an exported data set, made from the manifests of the stages that made its rows. Pure.

In: `_stage.json` of each stage. Out: the text of README.md, whose header Hugging Face reads.
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
        "roll_in_ids": "one list a response: tokens that the reference policy was given (prompt, roll-in up to the cut)",
        "roll_outs_ids": "one list a response: tokens that the reference policy added",
        "labels": "one a response: 0 finished and incorrect, 1 finished and correct, 2 unfinished",
        "reward": "one a response: 1 where the label is 1, else 0",
        "processed_answer": "one a response: the content of its last box, null without one",
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
    """README.md of one exported data set.

    Args:
        layout: OpenR1-VM or OpenR1-Cleaned.
        run: the run's name.
        manifests: by stage.
        counts: by split: rows, and for OpenR1-VM also responses and tokens.
        license_id: as Hugging Face spells it.
    """
    sections = [
        _header(layout, run, counts, license_id),
        f"# {run}: problems in the layout of {layout}",
        _introduction(layout),
    ]
    sections += ["## Columns", _table(("column", "content"), COLUMNS[layout].items())]
    keys = sorted({key for split in counts.values() for key in split})
    rows = [(split, *(f"{found.get(key, 0):,}" for key in keys)) for split, found in counts.items()]
    sections += ["## Size", _table(("split", *keys), rows)]
    stages = ["clean"] if layout == "OpenR1-Cleaned" else [name for name in manifests if name != "export"]
    sections += ["## How the rows came to be", _stages(manifests, stages)]
    sections += ["## Licences", _licences(manifests, stages, license_id)]
    return "\n\n".join(sections) + "\n"


def _header(layout: str, run: str, counts: Mapping[str, Any], license_id: str) -> str:
    """YAML; JSON values are valid YAML."""
    rows = sum(found["rows"] for found in counts.values())
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split, found in counts.items() if found["rows"]]
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
        return "Problems with one answer that can be checked by a program. Made by vgs_ray."
    return (
        "Responses of a reference policy from beginnings of sampled answers, with the outcome of each, for the training of "
        "value models (arXiv 2505.17373). Responses whose outcome is unknown are left out. Made by vgs_ray."
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _stages(manifests: Manifests, stages: list[str]) -> str:
    """Each stage: its counts (reasons and outcomes among them), its configuration, its versions."""
    texts = []
    for name in stages:
        manifest = manifests[name]
        counts = [(key, _shown(value)) for key, value in _flat(manifest["counts"])]
        config = [(key, _shown(value)) for key, value in settings(manifest).items()]
        texts += [f"### {name}", _table(("count", "value"), counts), _table(("setting", "value"), config)]
    versions = {package: found for name in stages for package, found in manifests[name]["versions"].items()}
    return "\n\n".join(
        [*texts, "Versions: " + ", ".join(f"{package} {found}" for package, found in versions.items()) + "."]
    )


def settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that determine the rows of a stage, with its models by name, and without those of engines."""
    fields = {
        **manifest["identity"],
        **{key: value for key, value in manifest["operation"].items() if key in manifest["identity"]},
    }
    return {name: value for name, value in fields.items() if "engine" not in name}


def _flat(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in counts.items():
        found += (
            [(f"{key}: {name}", each) for name, each in value.items()] if isinstance(value, dict) else [(key, value)]
        )
    return found


def _shown(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def models(manifests: Manifests) -> list[str]:
    """The policies whose words are in the rows."""
    settings = [manifests.get(stage, {}).get("operation", {}) for stage in ("roll_in", "roll_out")]
    return list(dict.fromkeys(value for each in settings for name, value in each.items() if name.endswith(".model")))


def _licences(manifests: Manifests, stages: list[str], license_id: str) -> str:
    source = manifests["clean"]["identity"]["clean.source"]
    text = f"This data set: `{license_id}`. The problems come from `{source}`, whose licence applies to them."
    if stages == ["clean"]:
        return text
    return (
        f"{text} The responses were sampled from these models, whose licences apply to what they write: "
        + ", ".join(f"`{model}`" for model in models(manifests))
        + "."
    )
