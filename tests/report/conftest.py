import pytest

from llamafactory_dids.report import compare_page, html
from llamafactory_dids.report.pictures import Picture


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pages without drawing, which takes seconds. Fixtures of a module, made before this, have real pictures."""
    for module, name in ((html, "render"), (compare_page, "render_comparison")):
        monkeypatch.setattr(module, name, lambda _: {"shares": Picture(b"png", b"<svg/>")})
