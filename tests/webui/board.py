"""LLaMA-Factory's web page in a real browser: the server as a user starts it, and short ways to click."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.integration import support
from tests.integration.support import World, environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 150 * support.PATIENCE  # seconds that a slow machine may take for one thing

# What makes a run small enough to watch, in the page's "Extra arguments".
SMALL = {
    "optim": "adamw_torch",
    "use_cpu": True,
    "bf16": False,
    "max_steps": 40,
    "logging_steps": 2,
    "save_strategy": "no",
    "preprocessing_num_workers": 1,
    "dids_min_domain_size": 5,
    "dids_projection_dim": 64,
}


@contextmanager
def server(world: World, home: Path, **changes: str) -> Iterator[str]:
    """`llamafactory-cli webui` in the folder `home`, the world's model chosen; its address, where it soon answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {"lang": "en", "hub_name": None, "last_model": "Custom", "cache_dir": None}
    (home / "llamaboard_cache").mkdir(parents=True)
    (home / "llamaboard_cache" / "user_config.yaml").write_text(
        yaml.safe_dump({**config, "path_dict": {"Custom": str(world.model)}})
    )
    place = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    variables = environment(BROWSER="true", **place, **changes)
    with (
        open(home / "server.log", "w") as log,
        subprocess.Popen(
            ["llamafactory-cli", "webui"], cwd=home, env=variables, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with the training that it may have started


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def wait_until(ready: Any, patience: float = PATIENCE) -> None:
    """Ask `ready` until it says yes."""
    end = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < end, f"still waiting after {patience} seconds"
        time.sleep(0.2)


class Board:
    """The Train tab in a browser's page; fields are named by their labels."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self) -> None:
        wait_until(lambda: answers(self.address))
        self.page.goto(self.address, wait_until="domcontentloaded")
        self.block("Output dir").locator("input").wait_for()
        wait_until(lambda: self.value("Output dir") != "" and self.value("Model path") != "")

    def block(self, label: str) -> Any:
        name = f"span[data-testid=block-info]:text-is('{label}')"
        return self.page.locator(f".block:has(> label {name}):visible, .block:has(> .container {name}):visible").first

    def value(self, label: str) -> str:
        return self.block(label).locator("input, textarea").first.input_value()

    def tokens(self, label: str) -> list[str]:
        """What is chosen in a multi-select."""
        return [text.strip() for text in self.block(label).locator(".token").all_inner_texts()]

    def shown(self, label: str) -> bool:
        return self.block(label).count() > 0

    def fill(self, label: str, text: str) -> None:
        field = self.block(label).locator("input, textarea").first
        field.fill(text)
        field.blur()

    def choose(self, label: str, *options: str) -> None:
        field = self.block(label).locator("input").first
        for option in options:
            field.click()
            escaped = re.escape(option).replace("/", r"\/")  # Playwright writes it between slashes
            name = re.compile(rf"^{escaped}( — .*)?$")  # a strategy has a line behind its name
            self.page.get_by_role("option", name=name).click()
        self.page.evaluate("document.activeElement.blur()")  # by its label it may be gone: the language has one too

    def type_choice(self, label: str, text: str) -> None:
        """An entry of one's own in a field that also has a list."""
        field = self.block(label).locator("input").first
        field.fill(text)
        field.press("Enter")
        field.blur()

    def switch(self, label: str, on: bool) -> None:
        self.page.get_by_label(label, exact=True).set_checked(on)

    def unfold(self, title: str, to: bool = True) -> None:
        button = self.page.locator(f"button.label-wrap:has(span:text-is('{title}')):visible").first
        if ("open" in (button.get_attribute("class") or "").split()) != to:
            button.click()

    def fold(self, title: str) -> None:
        self.unfold(title, to=False)

    def press(self, name: str) -> None:
        """Click a button, and wait for its answer; "Start" is answered by a stream, which `start` leaves running."""
        self.start(name)
        self.page.wait_for_timeout(200)  # a click while one of the same button is being answered would be lost
        self.page.locator(".wrap.full:not(.hide)").first.wait_for(state="detached")

    def start(self, name: str = "Start") -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def says(self, text: str) -> None:
        """Wait until the page shows this text."""
        self.page.get_by_text(text).first.wait_for()

    def preview(self) -> dict[str, str]:
        """The arguments of "Preview command", which is pressed."""
        self.press("Preview command")
        code = self.page.locator("code:has-text('llamafactory-cli train'):visible").first
        code.wait_for()
        words = (line.strip(" \\") for line in code.inner_text().splitlines() if "--" in line)
        return dict(word.removeprefix("--").split(" ", 1) for word in words)

    def fill_in(self, world: World, home: Path, **extra: Any) -> None:
        """A small run of `dids` over the world's data."""
        self.fill("Data dir", str(world.data))
        self.choose("Dataset", "sums", "pairs", "noise")
        self.unfold("Extra configurations")
        small = {**SMALL, "dids_cache_dir": str(home / "cache"), **extra}
        self.fill("Extra arguments", json.dumps(small))
        self.unfold("Data mixing configurations")
        self.choose("Strategy", "dids")
        self.block("Number of domains").wait_for()
        self.choose("Tasks", "task_sums", "task_pairs")
        for label, number in (
            ("Number of domains", 6),
            ("Samples between updates (τ)", 32),
            ("Samples per task", 12),
        ):
            self.fill(label, str(number))


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()
