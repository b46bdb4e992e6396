import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.pictures import MAX_NAMED, draw_mixture


def write_log(folder, num_domains: int, num_lines: int) -> np.ndarray:
    """A log whose last domains move most; its probabilities (lines, domains)."""
    rng = np.random.default_rng(0)
    weights_UD = 1 + 0.5 * rng.random((num_lines, num_domains)) * np.linspace(0.1, 1, num_domains)
    shares_UD = weights_UD / weights_UD.sum(axis=1, keepdims=True)
    log = MixtureLog(folder / "mixture.jsonl")
    for step, shares_D in enumerate(shares_UD):
        shares = {f"domain/{i}": p for i, p in enumerate(shares_D.tolist())}
        log.append({"step": step, "samples_seen": 100 * step, "probabilities": shares})
    return shares_UD


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved."""
    figures, save = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def names_in(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()][::-1]


@pytest.mark.parametrize(("num_domains", "num_lines"), [(5, 1), (1, 1), (5, 4), (13, 4), (14, 4), (100, 26)])
def test_a_png_is_drawn_that_fills_the_axes(tmp_path, num_domains, num_lines):
    write_log(tmp_path, num_domains, num_lines)
    path = draw_mixture(tmp_path)
    assert path == tmp_path / "mixture.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    image = imread(path)[:, :, :3]
    assert image.shape[0] > 400 and image.shape[1] > 800
    centre = image[image.shape[0] // 2 - 150 : image.shape[0] // 2 + 150, 300:500]
    assert (centre.min(axis=2) < 0.95).mean() > 0.5, "white where the shares of the domains should be"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["mixture.jsonl", "mixture.png"]


def test_few_domains_are_all_named_in_order(tmp_path, drawn):
    write_log(tmp_path, MAX_NAMED + 1, 4)
    draw_mixture(tmp_path)
    assert names_in(drawn[0]) == [f"domain/{i}" for i in range(MAX_NAMED + 1)]


def test_of_many_domains_the_largest_movers_are_named_and_the_rest_counted(tmp_path, drawn):
    shares_UD = write_log(tmp_path, 100, 26)
    draw_mixture(tmp_path)
    moved = {i: max(column) - min(column) for i, column in enumerate(shares_UD.T)}
    movers = sorted(sorted(moved, key=moved.get)[-MAX_NAMED:])
    assert names_in(drawn[0]) == [*(f"domain/{i}" for i in movers), f"{100 - MAX_NAMED} others"]


@pytest.mark.parametrize("num_domains", [5, 100])
def test_the_bands_reach_from_zero_to_one_at_every_update(tmp_path, drawn, num_domains):
    write_log(tmp_path, num_domains, 6)
    draw_mixture(tmp_path)
    bands = [band.get_paths()[0].vertices for band in drawn[0].axes[0].collections]
    assert bands[0][:, 1].min() == 0
    top = bands[-1]
    for samples in range(0, 600, 100):
        assert top[top[:, 0] == samples][:, 1].max() == pytest.approx(1.0)


@pytest.mark.parametrize("empty", [True, False])
def test_without_a_log_there_is_nothing_to_draw(tmp_path, empty):
    if empty:
        (tmp_path / "mixture.jsonl").touch()
    with pytest.raises(DidsError, match=f"{tmp_path / 'mixture.jsonl'}: no updates to draw"):
        draw_mixture(tmp_path)
    assert not (tmp_path / "mixture.png").exists()


def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    write_log(tmp_path, 3, 2)
    code = f"""
import sys
sys.modules["matplotlib"] = None
from pathlib import Path
from llamafactory_dids.report.pictures import draw_mixture
try:
    draw_mixture(Path({str(tmp_path)!r}))
except ValueError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install matplotlib" in process.stdout, process.stderr
