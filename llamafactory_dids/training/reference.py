"""The losses of an earlier run: what a run keeps of its own for later ones, and how far a later one's are above them.

Both runs look at the same rows. Shapes: `R` names of tasks or of domains.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..artifacts.token_losses import load_token_losses, save_token_losses
from ..stages import ranks
from ..stages.meter import Meter, Rows, TokenLosses


class Reference:
    """The token losses that an earlier run kept in a folder, by task or by domain."""

    def __init__(self, folder: Path | None) -> None:
        """Raise DidsError where the folder has none that are whole."""
        assert folder is not None, "a mixer that needs excess losses comes after a run that kept its own"
        self.losses = {name: TokenLosses(*table) for name, table in load_token_losses(folder).items()}

    def excess(self, meter: Meter, rows: Mapping[str, Rows]) -> NDArray[np.float64]:
        """How far the model's losses on the rows of each name are above these, shape R (see `TokenLosses`)."""
        return np.array([meter.token_losses(rows[name]).excess_over(self.losses[name]) for name in rows])


def keep_losses(folder: Path, meter: Meter, rows: Mapping[str, Rows]) -> None:
    """Leave the model's losses on the rows of each name for later runs. All ranks measure, the first one writes."""
    tables = {name: meter.token_losses(some) for name, some in rows.items()}
    if ranks.world()[0] == 0:
        save_token_losses(folder, tables)
