"""Screenshots of the web page for the docs, English and Chinese, taken while a small run is made from it.

    python scripts/screenshots.py            # docs/images/board_*.png

Needs what tests/webui needs: the package installed with its test extra, and a Chromium; and a font with Chinese letters
(Debian: fonts-wqy-zenhei). Some minutes on two cores.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `tests` is no installed package

from tests.integration.support import World, make_world  # noqa: E402
from tests.webui.board import Board, browser, server, wait_until  # noqa: E402

WIDTH = 1300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        home, world = Path(place) / "home", World(Path(place) / "world")
        with server(world, home) as address, browser() as chromium:
            make_world(world.folder)
            board = Board(chromium.new_page(viewport={"width": WIDTH, "height": 1000}), address)
            take_all(board, world, home, folder)
    for path in sorted(folder.glob("board_*.png")):
        print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def take_all(board: Board, world: World, home: Path, folder: Path) -> None:
    """The section, the preview, a run as its domains are made and as it trains, the domains, and the report."""
    page = board.page
    board.open()
    board.fill_in(world, home, max_steps=48)
    board.fold("Extra configurations")
    page.wait_for_timeout(12_000)  # the host's notices go
    save(folder / "board_section.png", page, "accordion:Data mixing configurations")
    board.preview()
    save(folder / "board_preview.png", page, "text:--mix_strategy", height=260)
    board.start()
    board.says("Before training, gradients")  # may be missed where making them takes less than the page's two seconds
    save(folder / "board_making_domains.png", page, "text:Output dir", height=420)
    wait_until(lambda: num_updates(home) >= 16)
    page.wait_for_timeout(4_000)  # the page looks every two seconds
    save(folder / "board_training.png", page, "text:Output dir", height=900)
    board.says("Finished.")
    board.unfold("Domains")
    page.locator("table.dids-domains details").nth(1).click()
    save(folder / "board_domains.png", page, "accordion:Domains")
    board.fold("Domains")
    board.unfold("Report")
    page.wait_for_timeout(11_000)  # the frame is drawn, and the host's notice gone
    save(folder / "board_report.png", page, "accordion:Report")
    board.fold("Report")
    page.evaluate("document.body.classList.add('dark')")
    page.wait_for_timeout(1_000)
    save(folder / "board_training_dark.png", page, "text:Output dir", height=900)
    page.evaluate("document.body.classList.remove('dark')")
    board.choose("Language", "zh")
    board.unfold("报告")
    page.frame_locator(".dids-report iframe >> visible=true").get_by_text("配比的作用").first.wait_for()
    page.wait_for_timeout(11_000)
    save(folder / "board_report_zh.png", page, "accordion:报告")
    board.fold("报告")
    save(folder / "board_training_zh.png", page, "text:输出目录", height=900)
    save(folder / "board_section_zh.png", page, "accordion:数据混合参数设置")


def num_updates(home: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in home.glob("saves/*/*/*/dids/mixture.jsonl"))


def save(path: Path, page: Any, what: str, height: int | None = None) -> None:
    """An accordion, or a piece of the page from a text on, as a small file."""
    kind, _, name = what.partition(":")
    if kind == "accordion":
        target = page.locator(f".block:has(> button.label-wrap span:text-is('{name}')):visible").first
        raw = target.screenshot()
    else:
        top = (
            page.get_by_text(name)
            .locator("visible=true")
            .first.evaluate("element => element.getBoundingClientRect().top + window.scrollY")
        )
        raw = page.screenshot(full_page=True, clip={"x": 0, "y": top - 30, "width": WIDTH, "height": height})
    few = {"colors": 256, "method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}  # thin lines keep theirs
    Image.open(io.BytesIO(raw)).convert("RGB").quantize(**few).save(path, optimize=True)


if __name__ == "__main__":
    main()
