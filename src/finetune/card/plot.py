"""Draw the losses of a run as one small picture beside the card."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune.card.facts import LogRow

_TRAINING_COLOUR = "#5b8fc7"
_VALIDATION_COLOUR = "#c2410c"
_INK = "#333333"
_FEW_POINTS = 40
"""Up to so many points each gets a mark, so that a single one is seen too."""


def plot_losses(log_history: Sequence[LogRow], path: Path) -> bool:
    """Write a PNG of the training and validation loss over optimizer steps to ``path``.

    Losses that are not finite leave a gap.  Returns False, and writes nothing, where no loss was logged.
    Raises OSError if ``path`` cannot be written.
    """
    training = _points(log_history, "loss")
    validation = _points(log_history, "eval_loss")
    if not training and not validation:
        return False
    # a Figure of our own: pyplot would keep global state and pick a screen backend
    figure = Figure(figsize=(6.4, 3.6), dpi=125, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_line(axes, training, "training", _TRAINING_COLOUR)
    _draw_line(axes, validation, "validation", _VALIDATION_COLOUR)
    _dress(axes)
    # no metadata: the same losses give the same file
    figure.savefig(path, format="png", metadata={"Software": None})
    return True


def _points(log_history: Sequence[LogRow], name: str) -> list[tuple[int, float]]:
    """Return (step, loss) in order of steps; the first value counts where a step was logged twice."""
    points: dict[int, float] = {}
    for row in log_history:
        if name in row and "step" in row:
            points.setdefault(int(row["step"]), float(row[name]))
    if not any(math.isfinite(loss) for loss in points.values()):
        return []
    return sorted((step, loss if math.isfinite(loss) else math.nan) for step, loss in points.items())


def _draw_line(axes: Axes, points: list[tuple[int, float]], label: str, colour: str) -> None:
    if not points:
        return
    steps, losses = zip(*points, strict=True)
    # a validation point is an event that one looks for; a training point only where they are few
    marker = "o" if label == "validation" or len(points) <= _FEW_POINTS else None
    axes.plot(steps, losses, color=colour, label=label, marker=marker, markersize=4, linewidth=1.6)


def _dress(axes: Axes) -> None:
    axes.set_xlabel("optimizer step", color=_INK)
    axes.set_ylabel("loss", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=10)
    axes.legend(frameon=False, labelcolor=_INK)
    axes.margins(x=0.03)
    first, last = axes.dataLim.intervalx
    if first == last:
        # around one point the axis would be cut into fractions of a step
        axes.set_xlim(first - 1, first + 1)
