"""Shapes of tensors, as jaxtyping aliases; checked in the tests only (pytest hook), never at run time."""

from jaxtyping import Bool, Float
from torch import Tensor

Frames = Float[Tensor, "batch time channel y x"]
"""A sequence of fields in model space. Point series are fields too: ``y`` counts stations, ``x`` is 1."""

Mask = Bool[Tensor, "batch horizon output y x"]
"""True where a value was observed."""

Field = Float[Tensor, "batch channel y x"]
"""One time of `Frames`."""

Target = Float[Tensor, "batch horizon output y x"]
"""What was observed, at the steps of `Forecast`."""

Forecast = Float[Tensor, "members horizon output y x"]
"""What a network makes of `Frames`: its output channels, ``horizon`` steps on. Without noise there is one for each
sample of the batch; with noise the members of the first sample come first, then those of the second."""

Noise = Float[Tensor, "members horizon noise rows columns"]
"""Standard normal noise for every `Forecast`, on the grid of the finest layer."""

Part = Float[Tensor, "members horizon output part_y part_x"]
"""A `Forecast` of a part of the grid."""

Sequence = Float[Tensor, "batch time channel *space"]
"""What runs through a recurrent layer: ``space`` is ``y x``, or nothing for a point series."""

Outputs = Float[Tensor, "batch time hidden *space"]
"""What comes out of a recurrent layer: its hidden state at every step."""

Instant = Float[Tensor, "batch channel *space"]
"""One time of a `Sequence`."""

Hidden = Float[Tensor, "batch hidden *space"]
"""One tensor of a recurrent layer's state."""

State = tuple[Hidden, ...]
"""The state of one recurrent layer: (hidden,) or (hidden, cell)."""

Motion = Float[Tensor, "batch 2 y x"]
"""Displacement in pixels a step, towards growing y (first) and growing x (second)."""

Observed = Bool[Tensor, "batch time channel y x"]
"""True where a value of `Frames` was observed."""

ObservedField = Bool[Tensor, "batch channel y x"]
"""One time of `Observed`."""

Displaced = Float[Tensor, "batch 2 to_y to_x"]
"""From each pixel to another place, (x, y) in pixels."""

Points = Float[Tensor, "batch time y x 2"]
"""Places on the grid, (x, y) from -1 (the middle of the first pixel) to 1 (the middle of the last one)."""

Elsewhere = Float[Tensor, "batch time to_y to_x 2"]
"""`Points` for the pixels of another grid."""

Carried = Float[Tensor, "batch time channel to_y to_x"]
"""`Frames` on that other grid."""

CarriedMask = Bool[Tensor, "batch time channel to_y to_x"]
"""`Observed` on that other grid."""
