"""Files of a validation: metrics and bins in `validation.json`, and their plot in `reliability.png`."""

from __future__ import annotations

from pathlib import Path

from vgs_ray.calibration import Bin, reliability
from vgs_ray.data.files import atomic_file, write_json
from vgs_ray.value.training.metrics import Predictions, by_position, summarize


def write_validation(predictions: Predictions, step: int, position_bin: int, folder: Path) -> None:
    """Write the metrics, the bins by value and the bins by position as JSON, and a plot of the bins.

    Args:
        predictions: predictions on the held-out examples.
        step: finished training steps.
        position_bin: tokens in a bin by position.
        folder: folder of the files.
    """
    values = reliability(predictions.value, predictions.correct, predictions.weight)
    positions = by_position(predictions, position_bin)
    report = {
        "step": step,
        **summarize(predictions),
        "reliability": [each._asdict() for each in values],
        "by_position": [each._asdict() for each in positions],
    }
    write_json(folder / "validation.json", report)
    with atomic_file(folder / "reliability.png") as temporary:
        plot(values, positions, position_bin, temporary)


def plot(values: list[Bin], positions: list[Bin], position_bin: int, path: Path) -> None:
    """Left: reliability diagram with each bin's share of the tokens. Right: accuracy and AUC by position."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color="grey", label="calibrated")
    left.bar(
        [each.value for each in values], [each.share for each in values], width=0.04, alpha=0.3, label="share of tokens"
    )
    left.plot([each.value for each in values], [each.correct for each in values], "o-", label="value model")
    left.set(xlabel="mean P(correct) of the bin", ylabel="share correct", xlim=(0, 1), ylim=(0, 1))
    left.legend()
    middles = [each.low + position_bin / 2 for each in positions]
    for name in ("accuracy", "auc"):
        right.plot(middles, [getattr(each, name) for each in positions], "o-", label=name)
    right.bar(middles, [each.share for each in positions], width=0.8 * position_bin, alpha=0.3, label="share of tokens")
    right.set(xlabel=f"position in the sequence (bins of {position_bin:,})", ylim=(0, 1))
    right.legend()
    figure.savefig(path, dpi=120, format="png")
