import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from llamafactory_dids.artifacts.domain_map import DomainMap, View, save_map
from llamafactory_dids.core.trajectory import fit_decay
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.canvas import png, svg
from llamafactory_dids.report.clusters import MAX_BARS
from llamafactory_dids.report.colours import COLOURS, domain_colours
from llamafactory_dids.report.impact import MAX_ROWS, measured_impact
from llamafactory_dids.report.mixture import MAX_NAMED
from llamafactory_dids.report.pictures import FIGURES, render, save_pictures
from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.shares import named_domains
from tests.helpers import edit
from tests.report.made_up import write_run

SIZES = [(1, 1), (5, 2), (5, 26), (24, 26), (1152, 26)]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def pictures(request, tmp_path_factory):
    """A run of a size, what it was made of, and its figures."""
    folder = tmp_path_factory.mktemp("run")
    values = write_run(folder, *request.param)
    run = load_run(folder)
    return request.param, values, {name: make(run) for name, make in FIGURES.items()}


def texts_of(figure: Figure) -> list:
    """All texts that are seen: of titles, axes, ticks, legends, notes."""
    figure.canvas.draw()
    found = [t for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_visible()]
    return [t for t in found if t.get_text().strip()]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()][::-1]


def test_each_picture_is_a_png_that_is_not_empty_and_an_svg_of_the_same_size(pictures):
    (_, num_lines), _, figures = pictures
    assert (figures["impact"] is not None) == (num_lines > 1)
    for figure in filter(None, figures.values()):
        content = png(figure)
        image = imread(io.BytesIO(content))[:, :, :3]
        assert image.shape[0] > 400 and image.shape[1] > 500
        assert (image.min(axis=2) < 0.9).mean() > 0.01
        assert len(content) < 400_000
        root = ElementTree.fromstring(svg(figure))
        width, height = (float(root.attrib[side].removesuffix("pt")) / 72 for side in ("width", "height"))
        assert (width, height) == pytest.approx(figure.get_size_inches(), rel=1e-3)


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
    figures = pictures[2]
    assert "training samples" in figures["clusters"].axes[0].get_xlabel()
    assert figures["mixture"].axes[0].get_ylabel() == "share in %"
    assert figures["losses"].axes[0].get_ylabel() == "loss (nats/token)"


def test_each_domain_has_one_colour_on_all_pictures_and_each_source_a_hue(tmp_path):
    write_run(tmp_path, 24, 9)
    run = load_run(tmp_path)
    names, figure = run.record.domain_names, FIGURES["mixture"](run)
    colours = dict(zip(names, domain_colours(names), strict=True))
    handles = figure.legends[0].get_patches()
    texts = zip(legend_of(figure)[::-1], handles, strict=True)
    shown = {text: to_hex(patch.get_facecolor()).upper() for text, patch in texts}
    named = [name for name in shown if name in colours]
    assert len(named) == MAX_NAMED and all(shown[name] == colours[name] for name in named)
    assert [to_hex(line.get_color()).upper() for line in figure.axes[2].get_lines()[:MAX_NAMED]] == [
        colours[name] for name in legend_of(figure)[:MAX_NAMED]
    ]
    assert len(set(colours.values())) == 24
    few = domain_colours(["a", "b", "c"])
    assert few == list(COLOURS[:3]) and domain_colours(["a", "b", "c", "d"])[:3] == few


def test_few_domains_are_all_named_in_order(tmp_path):
    write_run(tmp_path, MAX_NAMED + 1)
    run = load_run(tmp_path)
    assert legend_of(FIGURES["mixture"](run)) == list(run.record.domain_names)


def test_of_many_domains_the_largest_and_the_largest_moves_are_named_and_the_rest_counted(tmp_path):
    made = write_run(tmp_path, 100)
    shares_UD, data_D = made["probabilities"], made["data"]
    run = load_run(tmp_path)
    names = run.record.domain_names
    named = sorted(named_domains(data_D, shares_UD, MAX_NAMED), key=lambda i: shares_UD[-1, i])
    assert set(np.argsort(-shares_UD[-1])[: MAX_NAMED // 2]) < set(named), "the largest of all are named"
    rest = [i for i in range(100) if i not in named]
    gained = sum(shares_UD[-1, i] > data_D[i] for i in rest)
    figure = FIGURES["mixture"](run)
    others = [f"others ({len(rest) - gained}), fed less", f"others ({gained}), fed more"]
    assert legend_of(figure) == [*(names[i] for i in named), *others]
    ends = [line.get_ydata()[-1] for line in figure.axes[2].get_lines()[:MAX_NAMED]]
    assert ends == pytest.approx([shares_UD[-1, i] for i in named])


def test_the_largest_domain_is_named_though_it_never_moved():
    shares_UD = np.array([[0.31, *[0.69 / 23] * 23], [0.31, *np.linspace(0.001, 0.059, 23)]])
    assert 0 in named_domains(shares_UD[0], shares_UD, 8)


@pytest.mark.parametrize("num_domains", [5, 100])
def test_the_bands_reach_from_zero_to_one_at_every_update_and_in_the_data(tmp_path, num_domains):
    data_D = write_run(tmp_path, num_domains, 6)["data"]
    figure = FIGURES["mixture"](load_run(tmp_path))
    bands = [band.get_paths()[0].vertices for band in figure.axes[1].collections]
    assert bands[0][:, 1].min() == 0
    top = bands[-1]
    for samples in range(0, 24_000, 4000):
        assert top[top[:, 0] == samples][:, 1].max() == pytest.approx(1.0)
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    assert sum(bars) == pytest.approx(1) and len(bars) == len(bands)
    if num_domains == 5:
        assert bars == pytest.approx(data_D.tolist())


@pytest.mark.parametrize("num_domains", [4, MAX_ROWS, 300])
def test_the_heat_map_shows_the_mean_impacts_beside_the_largest_shares(tmp_path, num_domains):
    made = write_run(tmp_path, num_domains)
    figure = FIGURES["impact"](load_run(tmp_path))
    mean_DT, last_D = made["impact"][1:].mean(axis=0), made["probabilities"][-1]
    shown = sorted(named_domains(made["data"], made["probabilities"], MAX_ROWS), key=lambda i: -last_D[i])
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array()) == pytest.approx(mean_DT[shown])
    low, high = image.get_clim()
    assert low == -high, "white is no impact"
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label.endswith(f"→ {100 * last_D[shown[0]]:.{1 if last_D[shown[0]] >= 0.01 else 2}f}%")


def test_an_impact_has_its_spread_over_the_updates_and_is_pale_where_it_may_be_chance(tmp_path):
    impact_UDT = write_run(tmp_path, 4, 10)["impact"][1:]
    run = load_run(tmp_path)
    found = measured_impact(run)
    error_DT = impact_UDT.std(axis=0, ddof=1) / 3
    assert found.error_DT == pytest.approx(error_DT) and found.num_updates == 9
    assert found.weight_T == pytest.approx([1 / 3] * 3)
    figure = FIGURES["impact"](run)
    rows = np.argsort(-run.record.probabilities_UD[-1])
    pale = np.abs(found.mean_DT[rows]) < 2 * error_DT[rows]
    assert (figure.axes[0].images[0].get_alpha() < 1).tolist() == pale.tolist()
    texts = [text.get_text() for text in figure.axes[0].texts]
    mean, error = found.mean_DT[rows[0], 0], error_DT[rows[0], 0]
    assert texts[0] == f"{mean:+.2f} ±{error:.2f}"
    assert "weight 33.3%" in figure.axes[0].get_xticklabels()[0].get_text()


def test_a_domain_that_was_never_measured_is_grey_and_does_not_spoil_the_rest(tmp_path):
    write_run(tmp_path, 4, 3)
    path = tmp_path / "mixture.jsonl"
    edit(path, **{'"source_0/0": {"task_0_val": ': '"source_0/0": {"other": '})
    (image,) = FIGURES["impact"](load_run(tmp_path)).axes[0].images
    assert np.isnan(np.ma.filled(image.get_array(), np.nan)).sum() == 1


def test_the_losses_are_those_measured_with_the_fitted_decay_and_its_next_value(tmp_path):
    losses_UT = write_run(tmp_path, 3, 12, 2)["losses"]
    figure = FIGURES["losses"](load_run(tmp_path))
    for j, axes in enumerate(figure.axes[:2]):
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert list(lines["measured"].get_ydata()) == pytest.approx(losses_UT[:, j].tolist())
        decay = fit_decay(losses_UT[:, j])
        assert lines["fitted decay"].get_ydata()[[0, -1]] == pytest.approx([decay.at(0), decay.at(11)])
        assert lines["predicted"].get_ydata()[-1] == pytest.approx(decay.at(12))
        assert lines["predicted"].get_xdata()[-1] == 48_000


def test_training_losses_are_those_of_the_log_in_the_domains_colours(tmp_path):
    write_run(tmp_path, 3, 5)
    run = load_run(tmp_path)
    axes = FIGURES["training"](run).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    for name, shade in zip(run.record.domain_names, domain_colours(run.record.domain_names), strict=True):
        assert list(lines[name].get_ydata()) == [line["domain_loss"][name] for line in run.lines[1:]]
        assert list(lines[name].get_xdata()) == [4000, 8000, 12000, 16000] and lines[name].get_color() == shade
    write_run(tmp_path / "once", 3, 1)
    assert FIGURES["training"](load_run(tmp_path / "once")) is None


def test_a_strategy_that_measures_nothing_has_no_pictures_of_tasks_and_old_ones_go(tmp_path):
    write_run(tmp_path, 3, 1, measured=False)
    (tmp_path / "losses.png").write_bytes(b"of an earlier run")
    written = [path.name for path in save_pictures(render(load_run(tmp_path)), tmp_path)]
    assert written == ["mixture.png", "mixture.svg", "clusters.png", "clusters.svg"]
    assert not (tmp_path / "losses.png").exists()


@pytest.mark.parametrize("num_domains", [MAX_BARS, MAX_BARS + 1])
def test_the_composition_adds_up_to_the_sizes(tmp_path, num_domains):
    write_run(tmp_path, num_domains, 2, num_sources=12)
    run = load_run(tmp_path)
    axes = FIGURES["clusters"](run).axes[0]
    sizes = sorted(domain["size"] for domain in run.domains)
    if num_domains <= MAX_BARS:
        ends = [max(bar.get_x() + bar.get_width() for bar in bars) for bars in zip(*axes.containers, strict=True)]
        assert sorted(ends) == sizes
    else:
        assert sorted(bar.get_width() for bar in axes.patches) == sizes


def test_of_many_domains_each_is_a_cell_of_its_source_coloured_by_what_it_was_fed(tmp_path):
    made = write_run(tmp_path, MAX_BARS + 8, 9, num_sources=4)
    run = load_run(tmp_path)
    axes = FIGURES["clusters"](run).axes[0]
    ratios = made["drawn"] / made["data"]
    rows = {}
    for cell in axes.patches:
        rows.setdefault(round(cell.get_y() + cell.get_height() / 2), []).append(cell)
    assert len(rows) == 4
    sizes = [domain["size"] for domain in run.domains]
    for cells in rows.values():
        found = [ratios[sizes.index(cell.get_width())] for cell in sorted(cells, key=lambda cell: cell.get_x())]
        assert found == sorted(found, reverse=True), "what was fed most stands first"
        red, _, blue, _ = cells[0].get_facecolor()
        assert blue > red if found[0] > 1.5 else True
    told = [text.get_text() for text in axes.texts]
    assert len(told) == 4 and all(re.fullmatch(r"  \d+\.\d% → \d+\.\d%", text) for text in told)


def test_names_that_matplotlib_would_read_as_formulas_are_shown_as_they_are(tmp_path):
    write_run(tmp_path, 2, 3)
    for path in tmp_path.glob("*.json*"):
        edit(path, source_0="a$b_{c$")
    assert any("a\\$b" in text for text in legend_of(FIGURES["mixture"](load_run(tmp_path))))


@pytest.mark.parametrize("empty", [True, False])
def test_without_a_log_there_is_nothing_to_draw(tmp_path, empty):
    if empty:
        (tmp_path / "mixture.jsonl").touch()
    with pytest.raises(DidsError, match=f"{tmp_path / 'mixture.jsonl'}: no updates to draw"):
        load_run(tmp_path)


@pytest.mark.parametrize("num_drawn", [40, 60])
def test_samples_are_drawn_where_the_map_says_in_the_colour_of_their_source(tmp_path, num_drawn):
    write_run(tmp_path, 6, num_sources=3)
    run = load_run(tmp_path)
    domains_N = np.arange(60) % 6
    sources = [run.record.domain_names[d].split("/")[0] for d in domains_N]
    points_N2 = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    points_N2[num_drawn:] = np.nan
    keys = [str(i) for i in range(60)]
    domain_map = DomainMap(run.record.domain_names, keys, sources, domains_N, view=View(points_N2, (0.5, 0.25)))
    domains = (tmp_path / "domains.json").read_bytes()
    save_map(domain_map, tmp_path)
    (tmp_path / "domains.json").write_bytes(domains.replace(b'"domains"', b'"explained": [0.5, 0.25], "domains"', 1))
    edit(tmp_path / "domains.json")
    bars, points = FIGURES["clusters"](load_run(tmp_path)).axes
    drawn = {tuple(xy) for dots in points.collections for xy in np.asarray(dots.get_offsets(), np.float32).tolist()}
    assert drawn == {tuple(xy) for xy in points_N2[:num_drawn].tolist()} and len(points.collections) == 3
    assert ("(40 of 60)" if num_drawn < 60 else "(60)") in points.get_title() and "50%" in points.get_xlabel()
    assert [to_hex(dots.get_facecolor()[0]) for dots in points.collections] == [
        to_hex(patches[0].get_facecolor()) for patches in bars.containers
    ]
    save_map(DomainMap(run.record.domain_names, keys, sources, domains_N), tmp_path)
    assert len(FIGURES["clusters"](load_run(tmp_path)).axes) == 1, "a map that was made before says nothing of it"
