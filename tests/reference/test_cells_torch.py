"""The plain cells against torch.nn given the same weights, and the convolutional cells against the plain ones."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from cubecast.nn import Cell, ConvGRUCell, ConvLSTMCell, ElmanCell, GRUCell, LSTMCell, RecurrentLayer

BATCH, STEPS, INPUT, HIDDEN = 3, 6, 4, 5


def take_over(cell: Cell, theirs: nn.RNNBase) -> None:
    """The mapping that the cells' docstrings state."""
    w: dict[str, Tensor] = {n.removesuffix("_l0"): p for n, p in theirs.named_parameters()}
    n = cell.hidden_channels
    if isinstance(cell, GRUCell):
        gates, last = w["bias_hh"][: 2 * n], w["bias_hh"][2 * n :]
        state = {
            "input.weight": w["weight_ih"],
            "input.bias": w["bias_ih"] + torch.cat([gates, torch.zeros_like(last)]),
            "gates.weight": w["weight_hh"][: 2 * n],
            "candidate.weight": w["weight_hh"][2 * n :],
            "candidate.bias": last,
        }
    else:
        state = {
            "linear.weight": torch.cat([w["weight_ih"], w["weight_hh"]], 1),
            "linear.bias": w["bias_ih"] + w["bias_hh"],
        }
    cell.load_state_dict(state)


@pytest.mark.parametrize(("ours", "theirs"), [(ElmanCell, nn.RNN), (LSTMCell, nn.LSTM), (GRUCell, nn.GRU)])
def test_equals_torch_nn(ours: Any, theirs: Any, device: str) -> None:
    torch.manual_seed(0)
    peer = theirs(INPUT, HIDDEN, batch_first=True).double().to(device)
    cell = ours(INPUT, HIDDEN).double().to(device)
    take_over(cell, peer)
    x = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64, device=device)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()

    outputs, state = RecurrentLayer(cell)(one, STEPS)
    expected, last = peer(two)
    outputs.square().sum().backward()
    expected.square().sum().backward()

    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)
    for a, b in zip(state, last if isinstance(last, tuple) else (last,), strict=True):
        torch.testing.assert_close(a, b[0], rtol=0, atol=1e-12)
    assert one.grad is not None
    torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("grid", "kernel_size"), [((1, 1), 1), ((2, 3), 1), ((1, 1), 3)])
def test_conv_lstm_is_an_lstm_at_each_pixel(grid: tuple[int, int], kernel_size: int, device: str) -> None:
    torch.manual_seed(1)
    plain = LSTMCell(INPUT, HIDDEN).double().to(device)
    conv = ConvLSTMCell(INPUT, HIDDEN, kernel_size=kernel_size).double().to(device)
    middle = kernel_size // 2
    with torch.no_grad():
        conv.conv.weight[:, :, middle, middle] = plain.linear.weight
    frames = torch.randn(BATCH, STEPS, INPUT, *grid, dtype=torch.float64, device=device)

    outputs, state = RecurrentLayer(conv)(frames, STEPS)

    for y in range(grid[0]):
        for x in range(grid[1]):
            expected, last = RecurrentLayer(plain)(frames[..., y, x], STEPS)
            torch.testing.assert_close(outputs[..., y, x], expected, rtol=0, atol=1e-12)
            for ours, theirs in zip(state, last, strict=True):
                torch.testing.assert_close(ours[..., y, x], theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_conv_gru_is_a_gru_on_one_pixel(reset: Literal["before", "after"], device: str) -> None:
    torch.manual_seed(1)
    plain = GRUCell(INPUT, HIDDEN, reset=reset).double().to(device)
    conv = ConvGRUCell(INPUT, HIDDEN, kernel_size=1, reset=reset).double().to(device)
    conv.load_state_dict({n: p[..., None, None] if p.ndim == 2 else p for n, p in plain.state_dict().items()})
    frames = torch.randn(BATCH, STEPS, INPUT, 1, 1, dtype=torch.float64, device=device)

    outputs, _ = RecurrentLayer(conv)(frames, STEPS)

    expected, _ = RecurrentLayer(plain)(frames[..., 0, 0], STEPS)
    torch.testing.assert_close(outputs[..., 0, 0], expected, rtol=0, atol=1e-12)


def test_the_two_reset_conventions_differ() -> None:
    torch.manual_seed(2)
    before, after = GRUCell(INPUT, HIDDEN, reset="before"), GRUCell(INPUT, HIDDEN, reset="after")
    after.load_state_dict({**before.state_dict(), "candidate.bias": torch.zeros(HIDDEN)})
    x, state = torch.randn(BATCH, INPUT), (torch.randn(BATCH, HIDDEN),)
    assert (before(x, state)[0] - after(x, state)[0]).abs().max() > 1e-3
