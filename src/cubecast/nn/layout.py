"""The order of a network's input channels, said once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.shapes import Frames


@dataclass(frozen=True, slots=True)
class Layout:
    """Input channels in order: output variables, other inputs, one mask (1 observed, 0 missing) for each of both
    when ``masks``, then ``static`` fields.

    Raises:
        UsageError: the numbers do not add up.
    """

    total: int
    outputs: int
    masks: bool
    static: int = 0

    def __post_init__(self) -> None:
        moving = self.total - self.static
        if self.outputs < 1 or self.static < 0 or moving < 1 or (self.masks and moving % 2):
            raise UsageError(
                "channels of the network",
                found=f"{self.total} in, {self.static} of them static, {self.outputs} out",
                allowed="1 or more out; without the static ones, as many masks as inputs" if self.masks else None,
            )
        if self.outputs > self.inputs:
            raise UsageError(
                "channels of the network",
                found=f"{self.outputs} out of {self.inputs} inputs",
                allowed="every output is an input too",
            )

    @property
    def inputs(self) -> int:
        """How many variables go in (outputs and others; without masks and static fields)."""
        return (self.total - self.static) // (2 if self.masks else 1)

    @property
    def output_masks(self) -> slice:
        """Where the masks of the output variables are; empty without masks."""
        return slice(self.inputs, self.inputs + self.outputs if self.masks else self.inputs)

    def last_observed(self, frames: Frames) -> Tensor:
        """The last observed value of each output variable and pixel ``(batch, 1, output, y, x)``.

        Without masks that is the last frame. Where nothing was observed it is what stands in for missing values.
        """
        values = frames[:, :, : self.outputs]
        if not self.masks:
            return values[:, -1:]
        place = torch.arange(frames.shape[1], device=frames.device).view(1, -1, 1, 1, 1)
        last = (place * (frames[:, :, self.output_masks] > 0.5)).amax(dim=1, keepdim=True)
        return values.gather(1, last)

    def mean_observed(self, frames: Frames) -> Tensor:
        """The mean of the observed values of each output variable and pixel ``(batch, 1, output, y, x)``.

        Where nothing was observed it is 0.
        """
        values = frames[:, :, : self.outputs]
        if not self.masks:
            return values.mean(dim=1, keepdim=True)
        seen = frames[:, :, self.output_masks]
        return (values * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1.0)
