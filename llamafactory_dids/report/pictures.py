"""The pictures of a run, each as PNG and as SVG."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..artifacts.files import write_bytes
from .canvas import png, svg
from .clusters import clusters_figure
from .fonts import drawable_language
from .impact import impact_figure
from .losses import losses_figure
from .mixture import mixture_figure
from .run import Run
from .training_losses import training_figure

FIGURES = {
    "mixture": mixture_figure,
    "impact": impact_figure,
    "losses": losses_figure,
    "training": training_figure,
    "clusters": clusters_figure,
}


class Picture(NamedTuple):
    png: bytes
    svg: bytes


@drawable_language()
def render(run: Run) -> dict[str, Picture]:
    """The pictures of a run, by name."""
    return files_of({name: make(run) for name, make in FIGURES.items()})


def files_of(figures: Mapping[str, Any]) -> dict[str, Picture]:
    """The pictures of those figures that there are, by name."""
    return {name: Picture(png(figure), svg(figure)) for name, figure in figures.items() if figure is not None}


def save_pictures(pictures: Mapping[str, Picture], folder: Path) -> list[Path]:
    """Write pictures into a folder. Pictures of an earlier run that this one does not have are deleted."""
    written = []
    for name in {**FIGURES, **pictures}:
        for kind in Picture._fields:
            path = folder / f"{name}.{kind}"
            if name in pictures:
                write_bytes(path, getattr(pictures[name], kind))
                written.append(path)
            else:
                path.unlink(missing_ok=True)
    return written
