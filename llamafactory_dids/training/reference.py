"""The token losses of an earlier run. A run keeps its own for later runs; a later run measures its excess over them.

Both runs use the same rows. Shapes: `R` names of tasks or of domains.
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
        """Raises DidsError if the folder has no complete losses."""
        assert folder is not None, "a mixer that needs excess losses comes after a run that kept its own"
        self.losses = {name: TokenLosses(*table) for name, table in load_token_losses(folder).items()}

    def excess(self, meter: Meter, rows: Mapping[str, Rows]) -> NDArray[np.float64]:
        """Excess of the model's losses over the reference, for the rows of each name, shape R (see `TokenLosses`)."""
        return np.array([meter.token_losses(rows[name]).excess_over(self.losses[name]) for name in rows])


def keep_losses(folder: Path, meter: Meter, rows: Mapping[str, Rows]) -> None:
    """Save the model's losses on the rows of each name for later runs. All ranks measure, the first rank writes."""
    tables = {name: meter.token_losses(some) for name, some in rows.items()}
    if ranks.world()[0] == 0:
        save_token_losses(folder, tables)
