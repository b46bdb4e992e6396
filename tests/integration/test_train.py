import pytest
pytestmark = pytest.mark.integration
def test_x(finished):
    print(finished.lines[0], finished.lines[-1])
    import os
    os.system(f"ls -R {finished.folder}; cat {finished.dids}/config.yaml")
