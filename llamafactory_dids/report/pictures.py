"""The pictures of a run, drawn beside its log: `mixture.png`, `impact.png`, `losses.png`, `clusters.png`."""

from collections.abc import Mapping
from pathlib import Path

from ..artifacts.files import write_bytes
from .canvas import png
from .clusters import clusters_figure
from .impact import impact_figure
from .losses import losses_figure
from .mixture import mixture_figure
from .run import Run, load_run

FIGURES = {
    "mixture.png": mixture_figure,
    "impact.png": impact_figure,
    "losses.png": losses_figure,
    "clusters.png": clusters_figure,
}


def draw_pictures(folder: Path) -> list[Path]:
    """Draw what the run in this `dids/` folder has data for, and give the files; a strategy may measure no impact.

    Raises DidsError where there is no log, or matplotlib is not installed.
    """
    return save_pictures(render(load_run(folder)), folder)


def render(run: Run) -> dict[str, bytes]:
    """The PNGs of a run, by their file names."""
    figures = {name: make(run) for name, make in FIGURES.items()}
    return {name: png(figure) for name, figure in figures.items() if figure is not None}


def save_pictures(pictures: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write pictures into a folder; those that an earlier run left, and this one has none of, go."""
    for name in FIGURES:
        if name in pictures:
            write_bytes(folder / name, pictures[name])
        else:
            (folder / name).unlink(missing_ok=True)
    return [folder / name for name in pictures]
