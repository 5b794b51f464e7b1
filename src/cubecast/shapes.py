"""Shapes of tensors, as jaxtyping aliases; checked in the tests only (pytest hook), never at run time."""

from jaxtyping import Bool, Float
from torch import Tensor

Frames = Float[Tensor, "batch time channel y x"]
"""A sequence of fields in model space. Point series are fields too: ``y`` counts stations, ``x`` is 1."""

Mask = Bool[Tensor, "batch time channel y x"]
"""True where a value was observed."""

Field = Float[Tensor, "batch channel y x"]
"""One time of `Frames`."""

State = tuple[Field, ...]
"""The recurrent state of one convolutional layer: (hidden,) or (hidden, cell)."""

Vector = Float[Tensor, "batch feature"]
"""One time of a point series."""

VectorState = tuple[Vector, ...]
"""The recurrent state of one plain recurrent layer: (hidden,) or (hidden, cell)."""
