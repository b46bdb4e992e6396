"""The pictures of a run, drawn beside its log: `mixture.png`, `impact.png`, `losses.png`, `clusters.png`."""

from pathlib import Path

from .canvas import save
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
    return draw_run(load_run(folder), folder)


def draw_run(run: Run, folder: Path) -> list[Path]:
    """Draw the pictures of a run that was read into a folder; what an earlier run left of them goes."""
    drawn = []
    for name, make in FIGURES.items():
        figure = make(run)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            drawn.append(save(figure, folder / name))
    return drawn
