"""The token losses of an earlier run. A run keeps its own for later runs; a later run measures its excess over them.

Both runs use the same rows. Shapes: `R` names of tasks or of domains.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..artifacts.token_losses import save_token_losses
from ..stages import ranks
from ..stages.meter import Meter, Rows, TokenLosses


def excess_losses(
    meter: Meter, rows: Mapping[str, Rows], reference: Mapping[str, tuple[Tensor, Tensor]]
) -> NDArray[np.float64]:
    """Excess of the model's losses over those of an earlier run, for the rows of each name, shape R."""
    earlier = {name: TokenLosses(*reference[name]) for name in rows}
    return np.array([meter.token_losses(rows[name]).excess_over(earlier[name]) for name in rows])


def keep_losses(folder: Path, meter: Meter, rows: Mapping[str, Rows]) -> None:
    """Save the model's losses on the rows of each name for later runs. All ranks measure, the first rank writes."""
    tables = {name: meter.token_losses(some) for name, some in rows.items()}
    if ranks.world()[0] == 0:
        save_token_losses(folder, tables)
