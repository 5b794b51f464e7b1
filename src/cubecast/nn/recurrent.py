"""A recurrent layer: one cell over a whole sequence. The one place that loops over time."""

from typing import final

import torch
from torch import nn

from cubecast.errors import UsageError
from cubecast.nn.cell import Cell
from cubecast.shapes import Outputs, Sequence, State


@final
class RecurrentLayer(nn.Module):
    """Runs a cell over a sequence: ``layer(frames, steps, state) -> (outputs, state)``.

    The whole sequence goes in and comes out at once, and the weights stay in the cell. How the steps are computed is
    this layer's business alone, so a faster engine for the same function belongs here and nowhere else.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, frames: Sequence | None, steps: int, state: State | None = None) -> tuple[Outputs, State]:
        """Run ``steps`` steps.

        Args:
            frames: the input ``(batch, time, channel, *space)`` with ``steps`` times, or None: no input (the cell
                was made with ``in_channels=0``).
            steps: how many steps to run, 1 or more.
            state: the state to start from; None: zeros (needs ``frames``, which say the size).

        Returns:
            The hidden state after each step ``(batch, time, hidden, *space)`` and the whole state after the last.

        Raises:
            UsageError: not as many times as steps, no step at all, or neither frames nor a state.
        """
        if steps < 1 or (frames is not None and frames.shape[1] != steps):
            given = "no frames" if frames is None else f"{frames.shape[1]} frames"
            raise UsageError("steps of a layer", found=f"{steps} with {given}", allowed="1 or more, one for each frame")
        if state is None:
            if frames is None:
                raise UsageError("a layer without input", found="no state", remedy="give it the state to start from")
            state = self.cell.zero_state(frames[:, 0])
        outputs = []
        for step in range(steps):
            output, state = self.cell(None if frames is None else frames[:, step], state)
            outputs.append(output)
        return torch.stack(outputs, dim=1), state
