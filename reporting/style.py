"""How figures look: for a column of print (3.25 inches), readable without color too."""

from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.files import write_atomically

WIDTH = 3.25  # inches
TEXTS = ("font.", "legend.font", "axes.title", "axes.label", "xtick.label", "ytick.label")
STYLE = {f"{text}size": 7 for text in TEXTS} | {
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # fonts that publishers accept
}
# The colors of Okabe and Ito and two more, each with its own marker and line.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#000000", "#CC79A7")
COLORS += ("#E69F00", "#56B4E9", "#6F6F6F", "#882255")
LOOKS = list(zip(COLORS, "os^DvPX*h", cycle(("-", "--", "-.", ":"))))  # noqa: B905  endless


def save(make: Callable[[], Figure], name: str, folder: Path) -> list[Path]:
    """Write NAME.png and NAME.pdf of the figure that `make` draws in this style; their paths.

    Neither file holds a date or a version, so the same numbers give the same bytes.
    """
    with matplotlib.rc_context(STYLE):
        drawn = make()
        paths = []
        for kind, stamp in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = folder / f"{name}.{kind}"
            write_atomically(
                path, lambda p, k=kind, s=stamp: drawn.savefig(p, format=k, dpi=300, metadata=s)
            )
            paths.append(path)
    return paths


def new_figure(height: float) -> Figure:
    """A figure one column wide; `height` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def looks(names: Iterable[str]) -> dict[str, dict]:
    """Color, marker and line of each curve, by its name."""
    keys = ("color", "marker", "linestyle")
    return {n: dict(zip(keys, look, strict=True)) for n, look in zip(names, cycle(LOOKS))}  # noqa: B905


def legend(
    figure: Figure, names: Iterable[str], columns: int = 4, handlelength: float = 2.4
) -> None:
    """One legend above all panels: those of `names` that any panel shows, in this order."""
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        shown,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=handlelength,
        columnspacing=1.0,
    )


def without_frame(axes: Axes) -> None:
    """Axes of a heat map: neither grid nor frame."""
    axes.grid(False)
    axes.spines[:].set_visible(False)


def class_letters(classes: list[str]) -> dict[str, str]:
    """A marker per class: its initial, or its number if two classes share one."""
    initials = [name[0] for name in classes]
    unique = len(set(initials)) == len(classes)
    marks = initials if unique else map(str, range(1, len(classes) + 1))
    return dict(zip(classes, marks, strict=True))
