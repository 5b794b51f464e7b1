"""The order of input channels, and the last observed value."""

import pytest
import torch

from cubecast.errors import UsageError
from cubecast.nn import Layout


def test_places_of_the_channels() -> None:
    layout = Layout(9, 2, masks=True, static=3)  # outputs a b, other input c, masks of a b c, three static
    assert layout.inputs == 3
    assert layout.output_masks == slice(3, 5)
    bare = Layout(4, 2, masks=False, static=1)
    assert bare.inputs == 3
    assert torch.arange(4)[bare.output_masks].numel() == 0


@pytest.mark.parametrize(
    ("total", "outputs", "masks", "static"),
    [(3, 1, True, 0), (4, 1, True, 1), (2, 0, False, 0), (2, 3, False, 0), (4, 3, True, 0), (2, 1, False, 2)],
)
def test_numbers_that_do_not_add_up_are_refused(total: int, outputs: int, masks: bool, static: int) -> None:
    with pytest.raises(UsageError, match="channels of the network"):
        Layout(total, outputs, masks=masks, static=static)


def test_last_and_mean_observed_value_of_each_pixel() -> None:
    values = torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0], [7.0, 8.0, 0.0], [0.0, 9.0, 0.0]])  # time, x
    seen = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    frames = torch.stack([values, seen], 1)[None, :, :, None, :]
    assert Layout(2, 1, masks=True).last_observed(frames).flatten().tolist() == [7.0, 9.0, 0.0]
    assert Layout(2, 1, masks=False).last_observed(frames).flatten().tolist() == [0.0, 9.0, 0.0]
    assert Layout(2, 1, masks=True).mean_observed(frames).flatten().tolist() == pytest.approx([4.0, 19 / 3, 0.0])
    assert Layout(2, 1, masks=False).mean_observed(frames).flatten().tolist() == [3.0, 4.75, 0.0]
