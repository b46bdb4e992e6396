import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from llamafactory_dids.core.trajectory import fit_decay
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.clusters import MAX_BARS
from llamafactory_dids.report.impact import MAX_ROWS
from llamafactory_dids.report.mixture import MAX_NAMED
from llamafactory_dids.report.pictures import FIGURES, draw_pictures
from llamafactory_dids.report.run import load_run
from tests.helpers import PATIENCE
from tests.report.made_up import write_run

SIZES = [(1, 1), (1, 5), (5, 2), (5, 26), (24, 26), (1152, 26)]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def pictures(request, tmp_path_factory):
    """A run of a size, its figures, and what was written."""
    folder = tmp_path_factory.mktemp("run")
    values = write_run(folder, *request.param)
    run = load_run(folder)
    return request.param, values, {name: make(run) for name, make in FIGURES.items()}, draw_pictures(folder)


def texts_of(figure: Figure) -> list:
    """All texts that are seen: of titles, axes, ticks, legends, notes."""
    figure.canvas.draw()
    found = [t for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_visible()]
    return [t for t in found if t.get_text().strip()]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()][::-1]


def test_each_picture_is_written_as_a_png_that_is_not_empty(pictures):
    (_, num_lines), _, figures, written = pictures
    assert {path.name for path in written} == {name for name, figure in figures.items() if figure is not None}
    assert ("impact.png" in {path.name for path in written}) == (num_lines > 1)
    for path in written:
        image = imread(path)[:, :, :3]
        assert image.shape[0] > 400 and image.shape[1] > 500
        assert (image.min(axis=2) < 0.9).mean() > 0.01
        assert path.stat().st_size < 400_000


def test_no_text_leaves_its_picture(pictures):
    for name, figure in pictures[2].items():
        if figure is None:
            continue
        width, height = figure.canvas.get_width_height()
        for text in texts_of(figure):
            box = text.get_window_extent()
            if any(tick.label1 is text or tick.label2 is text for axes in figure.axes for tick in _unseen_ticks(axes)):
                continue
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (name, text)


def _unseen_ticks(axes) -> list:
    """Ticks beyond the axes' limits, which are not drawn."""
    unseen = []
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        unseen += [t for t in axis.get_major_ticks() if not min(limits) <= t.get_loc() <= max(limits)]
    return unseen


def test_names_beside_an_axis_do_not_overlap(pictures):
    for name, figure in pictures[2].items():
        if figure is None:
            continue
        figure.canvas.draw()
        for axes in figure.axes:
            seen = [t.label1 for t in axes.yaxis.get_major_ticks() if t not in _unseen_ticks(axes)]
            boxes = sorted((t.get_window_extent() for t in seen if t.get_text()), key=lambda box: box.y0)
            assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False)), (name, axes)


def test_the_axes_say_what_they_count_and_in_what(pictures):
    _, _, figures, _ = pictures
    assert "training samples" in figures["clusters.png"].axes[0].get_xlabel() or "domains" in (
        figures["clusters.png"].axes[0].get_xlabel()
    )
    assert figures["mixture.png"].axes[0].get_ylabel() == "probability"
    assert figures["losses.png"].axes[0].get_ylabel() == "loss (nats/token)"


def test_few_domains_are_all_named_in_order(tmp_path):
    write_run(tmp_path, MAX_NAMED + 1)
    run = load_run(tmp_path)
    assert legend_of(FIGURES["mixture.png"](run)) == list(run.record.domain_names)


def test_of_many_domains_the_largest_movers_are_named_and_the_rest_counted(tmp_path):
    shares_UD = write_run(tmp_path, 100)["probabilities"]
    names = load_run(tmp_path).record.domain_names
    moved = {i: max(column) - min(column) for i, column in enumerate(shares_UD.T)}
    movers = sorted(sorted(moved, key=moved.get)[-MAX_NAMED:], key=lambda i: shares_UD[-1, i])
    rest = [i for i in range(100) if i not in movers]
    gained = sum(shares_UD[-1, i] > shares_UD[0, i] for i in rest)
    figure = FIGURES["mixture.png"](load_run(tmp_path))
    others = [f"{len(rest) - gained} others that did not", f"{gained} others that gained"]
    assert legend_of(figure) == [*(names[i] for i in movers), *others]
    ends = [line.get_ydata()[-1] for line in figure.axes[1].get_lines()[:MAX_NAMED]]
    assert ends == pytest.approx([100 * shares_UD[-1, i] for i in movers])


@pytest.mark.parametrize("num_domains", [5, 100])
def test_the_bands_reach_from_zero_to_one_at_every_update(tmp_path, num_domains):
    write_run(tmp_path, num_domains, 6)
    figure = FIGURES["mixture.png"](load_run(tmp_path))
    bands = [band.get_paths()[0].vertices for band in figure.axes[0].collections]
    assert bands[0][:, 1].min() == 0
    top = bands[-1]
    for samples in range(0, 24_000, 4000):
        assert top[top[:, 0] == samples][:, 1].max() == pytest.approx(1.0)


@pytest.mark.parametrize("num_domains", [4, MAX_ROWS, 300])
def test_the_heat_map_shows_the_mean_impacts_from_helpful_to_harmful(tmp_path, num_domains):
    impact_UDT = write_run(tmp_path, num_domains)["impact"]
    figure = FIGURES["impact.png"](load_run(tmp_path))
    mean_DT = impact_UDT[1:].mean(axis=0)
    order = sorted(range(num_domains), key=lambda i: -mean_DT[i].mean())
    half = MAX_ROWS // 2
    shown = order if num_domains <= MAX_ROWS else order[:half] + order[-half:]
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array()) == pytest.approx(mean_DT[shown])
    low, high = image.get_clim()
    assert low == -high, "white is no impact"


def test_a_domain_that_was_never_measured_is_grey_and_does_not_spoil_the_rest(tmp_path):
    write_run(tmp_path, 4, 3)
    path = tmp_path / "mixture.jsonl"
    path.write_text(path.read_text().replace('"source_0/0": {"task_0_val": ', '"source_0/0": {"other": '))
    (image,) = FIGURES["impact.png"](load_run(tmp_path)).axes[0].images
    assert np.isnan(np.ma.filled(image.get_array(), np.nan)).sum() == 1


def test_the_losses_are_those_measured_with_the_fitted_decay_and_its_next_value(tmp_path):
    losses_UT = write_run(tmp_path, 3, 12, 2)["losses"]
    figure = FIGURES["losses.png"](load_run(tmp_path))
    for j, axes in enumerate(figure.axes[:2]):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines["measured"].get_ydata()) == pytest.approx(losses_UT[:, j].tolist())
        decay = fit_decay(losses_UT[:, j])
        assert lines["fitted decay"].get_ydata()[[0, -1]] == pytest.approx([decay.at(0), decay.at(11)])
        assert lines["predicted"].get_ydata()[-1] == pytest.approx(decay.at(12))
        assert lines["predicted"].get_xdata()[-1] == 48_000


def test_a_strategy_that_measures_nothing_has_no_pictures_of_tasks_and_old_ones_go(tmp_path):
    write_run(tmp_path, 3, 1, measured=False)
    (tmp_path / "losses.png").write_bytes(b"of an earlier run")
    assert [path.name for path in draw_pictures(tmp_path)] == ["mixture.png", "clusters.png"]
    assert not (tmp_path / "losses.png").exists()


@pytest.mark.parametrize("num_domains", [MAX_BARS, MAX_BARS + 1])
def test_the_composition_adds_up_to_the_sizes(tmp_path, num_domains):
    write_run(tmp_path, num_domains, 2, num_sources=12)
    run = load_run(tmp_path)
    axes = FIGURES["clusters.png"](run).axes[0]
    sizes = sorted(domain["size"] for domain in run.domains)
    if num_domains <= MAX_BARS:
        ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in zip(*axes.containers, strict=True)]
        assert sorted(ends) == sizes
    else:
        (image,) = axes.images
        assert sorted(np.ma.filled(image.get_array(), 0).sum(axis=0)) == sizes


def test_names_that_matplotlib_would_read_as_formulas_are_shown_as_they_are(tmp_path):
    write_run(tmp_path, 2, 3)
    for path in tmp_path.glob("*.json*"):
        path.write_text(path.read_text().replace("source_0", "a$b_{c$"))
    draw_pictures(tmp_path)
    assert any("a\\$b" in text for text in legend_of(FIGURES["mixture.png"](load_run(tmp_path))))


@pytest.mark.parametrize("empty", [True, False])
def test_without_a_log_there_is_nothing_to_draw(tmp_path, empty):
    if empty:
        (tmp_path / "mixture.jsonl").touch()
    with pytest.raises(DidsError, match=f"{tmp_path / 'mixture.jsonl'}: no updates to draw"):
        draw_pictures(tmp_path)
    assert not (tmp_path / "mixture.png").exists()


def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    write_run(tmp_path, 3, 2)
    code = f"""
import sys
sys.modules["matplotlib"] = None
from pathlib import Path
from llamafactory_dids.report.pictures import draw_pictures
try:
    draw_pictures(Path({str(tmp_path)!r}))
except ValueError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60 * PATIENCE)
    assert "pip install matplotlib" in process.stdout, process.stderr
