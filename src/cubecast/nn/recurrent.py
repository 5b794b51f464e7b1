"""A recurrent layer: one cell over a whole sequence, computed by one engine or another."""

from typing import final

from torch import nn

from cubecast.errors import UsageError
from cubecast.nn.cell import Cell
from cubecast.nn.fused import fits, is_worthwhile, run_fused
from cubecast.shapes import Outputs, Sequence, State


@final
class RecurrentLayer(nn.Module):
    """Runs a cell over a sequence: ``layer(frames, steps, state) -> (outputs, state)``.

    The whole sequence goes in and comes out at once, and the weights stay in the cell. How the steps are computed is
    this layer's business alone: engines differ in speed and memory, never in the function or in what is saved.

    Args:
        cell: the cell, with its weights.
        engine: ``reference`` loops over the cell; ``fused`` is `cubecast.nn.fused`, for LSTM and GRU cells (others and
            what it cannot compute, such as a meta device, go to the reference); ``auto`` takes it where it gained
            (`cubecast.nn.fused.is_worthwhile`).
        recompute: let the fused engine keep less for the backward pass, for more time.

    Raises:
        UsageError: another engine.
    """

    def __init__(self, cell: Cell, *, engine: str = "auto", recompute: bool = False) -> None:
        super().__init__()
        self.cell, self.engine, self.recompute = cell, _known(engine), recompute

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
        if state is None and frames is None:
            raise UsageError("a layer without input", found="no state", remedy="give it the state to start from")
        fused = self.engine == "fused" or (self.engine == "auto" and is_worthwhile(self.cell, frames, state))
        if fused and fits(self.cell, frames, state):
            return run_fused(self.cell, frames, steps, state, compiled=self.engine == "fused", recompute=self.recompute)
        return self.cell.run(frames, steps, state)


def choose_engine(network: nn.Module, engine: str, *, recompute: bool = False) -> None:
    """Let all recurrent layers of a network be computed by ``engine`` (see `RecurrentLayer`); weights stay as they are.

    Raises:
        UsageError: another engine.
    """
    for module in network.modules():
        if isinstance(module, RecurrentLayer):
            module.engine, module.recompute = _known(engine), recompute


def _known(engine: str) -> str:
    if engine not in ("auto", "reference", "fused"):
        raise UsageError("engine", found=engine, allowed="auto, reference, fused")
    return engine
