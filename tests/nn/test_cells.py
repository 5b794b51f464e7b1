"""What holds for every cell: gradients, independence, initial values, precision, saving."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cubecast.errors import UsageError
from cubecast.nn import Cell, ConvGRUCell, ConvLSTMCell, ElmanCell, GRUCell, LSTMCell, RecurrentLayer

PLAIN: dict[str, Callable[[], Cell]] = {
    "elman": lambda: ElmanCell(2, 3),
    "lstm": lambda: LSTMCell(2, 3),
    "gru before": lambda: GRUCell(2, 3, reset="before"),
    "gru after": lambda: GRUCell(2, 3, reset="after"),
}
CONV: dict[str, Callable[[], Cell]] = {
    "conv_lstm": lambda: ConvLSTMCell(2, 3),
    "conv_lstm channel": lambda: ConvLSTMCell(2, 3, peephole="channel"),
    "conv_gru before": lambda: ConvGRUCell(2, 3, reset="before"),
    "conv_gru after": lambda: ConvGRUCell(2, 3, reset="after"),
}
PIXEL: dict[str, Callable[[], Cell]] = {
    "conv_lstm pixel": lambda: ConvLSTMCell(2, 3, peephole="pixel", grid=(4, 5)),
}
NO_INPUT: dict[str, Callable[[], Cell]] = {
    "conv_lstm no input": lambda: ConvLSTMCell(0, 3, peephole="channel"),
    "conv_gru before no input": lambda: ConvGRUCell(0, 3, reset="before"),
    "conv_gru after no input": lambda: ConvGRUCell(0, 3, reset="after"),
}
EVERY = {**PLAIN, **CONV, **PIXEL, **NO_INPUT}


def build(name: str, device: str = "cpu") -> Cell:
    """The cell in float64 with all weights away from zero."""
    torch.manual_seed(5)
    cell = EVERY[name]().double().to(device)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return cell


def sequence(cell: Cell, batch: int = 2, steps: int = 3, device: str = "cpu") -> tuple[Tensor | None, tuple[Any, ...]]:
    """Random frames (None for a cell without input) and a random state."""
    generator = torch.Generator().manual_seed(6)
    space = () if any(isinstance(cell, c) for c in (ElmanCell, LSTMCell, GRUCell)) else (4, 5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, *space, dtype=torch.float64, generator=generator).to(device)

    frames = draw(batch, steps, cell.in_channels) if cell.in_channels else None
    return frames, tuple(draw(batch, cell.hidden_channels) for _ in range(cell.state_size))


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_finite_differences(name: str, device: str) -> None:
    cell = build(name, device)
    frames, state = sequence(cell, batch=1, steps=2, device=device)
    if frames is not None and frames.ndim == 5:
        space = (slice(None),) if name in PIXEL else (slice(0, 2), slice(0, 3))
        frames, state = frames[(..., *space)], tuple(s[(..., *space)] for s in state)
    names = list(cell.state_dict())

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip([f"cell.{n}" for n in names], values, strict=False))
        rest = values[len(names) :]
        inputs = (None, 2, rest) if frames is None else (rest[0], 2, rest[1:])
        outputs, last = torch.func.functional_call(RecurrentLayer(cell), given, inputs)
        return (outputs, *last)

    values = [*cell.parameters(), *([] if frames is None else [frames]), *state]
    values = [v.detach().clone().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(run, values, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_receives_a_gradient(name: str, device: str) -> None:
    torch.manual_seed(0)
    cell = EVERY[name]().double().to(device)  # as initialised: a peephole at zero must be able to leave it
    frames, state = sequence(cell, device=device)
    RecurrentLayer(cell)(frames, 3, state)[0].square().sum().backward()
    for key, parameter in cell.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).all(), key


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_does_not_depend_on_its_batch(name: str, device: str) -> None:
    layer = RecurrentLayer(build(name, device))
    frames, state = sequence(layer.cell, batch=3, device=device)
    together, _ = layer(frames, 3, state)
    alone, _ = layer(None if frames is None else frames[1:2], 3, tuple(s[1:2] for s in state))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CONV)
def test_the_interior_moves_with_the_input(name: str, device: str) -> None:
    cell = build(name, device)
    frames = torch.randn(1, 2, 2, 14, 15, dtype=torch.float64, device=device)
    moved = torch.roll(frames, (2, -3), (3, 4))
    one, _ = RecurrentLayer(cell)(frames, 2)
    two, _ = RecurrentLayer(cell)(moved, 2)
    far = 6  # further from the border than two steps of 3x3 kernels and the shift reach
    expected = torch.roll(one, (2, -3), (3, 4))[..., far:-far, far:-far]
    torch.testing.assert_close(two[..., far:-far, far:-far], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", CONV)
def test_the_interior_does_not_depend_on_the_size_of_the_grid(name: str, device: str) -> None:
    cell = build(name, device)
    frames = torch.randn(1, 2, 2, 13, 12, dtype=torch.float64, device=device)
    whole, _ = RecurrentLayer(cell)(frames, 2)
    part, _ = RecurrentLayer(cell)(frames[..., 1:10, 2:], 2)
    torch.testing.assert_close(part[..., 4:5, 4:6], whole[..., 5:6, 6:8], rtol=0, atol=1e-13)


def test_zeros_stand_outside_the_grid() -> None:
    cell = ConvLSTMCell(1, 2).double()
    frames = torch.randn(1, 1, 1, 5, 5, dtype=torch.float64)
    wider = torch.nn.functional.pad(frames, (2, 2, 2, 2))
    small, _ = RecurrentLayer(cell)(frames, 1)
    large, _ = RecurrentLayer(cell)(wider, 1)
    torch.testing.assert_close(small, large[..., 2:-2, 2:-2], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", EVERY)
def test_a_long_sequence_may_be_run_in_pieces(name: str, device: str) -> None:
    layer = RecurrentLayer(build(name, device))
    frames, state = sequence(layer.cell, steps=5, device=device)
    whole, last = layer(frames, 5, state)
    first, middle = layer(None if frames is None else frames[:, :2], 2, state)
    second, end = layer(None if frames is None else frames[:, 2:], 3, middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [*PLAIN, *CONV, *PIXEL])
def test_no_state_is_zeros(name: str) -> None:
    layer = RecurrentLayer(build(name))
    frames, _ = sequence(layer.cell)
    assert frames is not None
    zeros = layer.cell.zero_state(frames[:, 0])
    assert len(zeros) == layer.cell.state_size
    assert all(z.shape == (2, 3, *frames.shape[3:]) and z.dtype == frames.dtype and not z.any() for z in zeros)
    torch.testing.assert_close(layer(frames, 3)[0], layer(frames, 3, zeros)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_copies_and_saved_weights_compute_the_same(name: str) -> None:
    cell = build(name)
    frames, state = sequence(cell)
    expected = RecurrentLayer(cell)(frames, 3, state)[0]
    loaded = EVERY[name]().double()
    loaded.load_state_dict(cell.state_dict())
    for other in (copy.deepcopy(cell), loaded):
        torch.testing.assert_close(RecurrentLayer(other)(frames, 3, state)[0], expected, rtol=0, atol=0)
    with torch.no_grad():
        silent = RecurrentLayer(cell)(frames, 3, state)[0]
    assert not silent.requires_grad
    torch.testing.assert_close(silent, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_bf16_autocast_stays_near_float32(name: str, device: str) -> None:
    layer = RecurrentLayer(build(name, device).float())
    frames, state = sequence(layer.cell, device=device)
    frames, state = None if frames is None else frames.float(), tuple(s.float() for s in state)
    exact, _ = layer(frames, 3, state)
    with torch.autocast(device, torch.bfloat16):
        rough, _ = layer(frames, 3, state)
        rough.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.06)
    assert not torch.equal(rough.float(), exact)


def test_start_values_of_biases() -> None:
    for bias in (LSTMCell(2, 3).linear.bias, ConvLSTMCell(2, 3).conv.bias):
        assert bias is not None
        assert bias.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert LSTMCell(2, 3, forget_bias=0.0).linear.bias.abs().sum() == 0
    assert GRUCell(2, 3).input.bias.tolist() == [2, 2, 2, -2, -2, -2, 0, 0, 0]
    assert GRUCell(2, 3, gate_bias=0.0).input.bias.abs().sum() == 0


def test_recurrent_weights_start_orthogonal_gate_by_gate() -> None:
    for cell, gates in ((LSTMCell(2, 6).linear, 4), (GRUCell(2, 6).gates, 2), (ElmanCell(2, 6).linear, 1)):
        for gate in cell.weight[:, -6:].chunk(gates):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), rtol=0, atol=1e-5)


def test_peepholes_start_without_effect_and_are_learned() -> None:
    torch.manual_seed(0)
    plain, peep = ConvLSTMCell(2, 3), ConvLSTMCell(2, 3, peephole="pixel", grid=(4, 5))
    peep.load_state_dict({**plain.state_dict(), "peepholes": torch.zeros(3, 3, 4, 5)})
    x, state = torch.randn(2, 2, 4, 5), (torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5))
    torch.testing.assert_close(plain(x, state)[0], peep(x, state)[0], rtol=0, atol=1e-6)
    assert "peepholes" in dict(peep.named_parameters())
    with torch.no_grad():
        assert peep.peepholes is not None
        peep.peepholes.fill_(0.5)
    kept = peep.peepholes.clone()
    peep(x, state)
    peep(x[:1], tuple(s[:1] for s in state))  # another batch size changes nothing in the cell
    assert torch.equal(peep.peepholes, kept)


@pytest.mark.parametrize("name", EVERY)
def test_another_number_of_channels_is_refused(name: str) -> None:
    cell = build(name)
    _, state = sequence(cell)
    x = torch.zeros(2, cell.in_channels + 1, *state[0].shape[2:], dtype=torch.float64)
    with pytest.raises(UsageError, match=f"found {cell.in_channels + 1} channels; allowed: {cell.in_channels}"):
        cell(x, state)
    if cell.in_channels:
        with pytest.raises(UsageError, match="found 0 channels"):
            cell(None, state)


def test_pixel_peepholes_refuse_another_grid() -> None:
    cell = ConvLSTMCell(1, 2, peephole="pixel", grid=(4, 5))
    x = torch.zeros(1, 1, 5, 4)
    with pytest.raises(UsageError, match=r"found grid \(5, 4\); allowed: \(4, 5\)"):
        cell(x, cell.zero_state(x))
    with pytest.raises(UsageError, match="exactly when peephole is 'pixel'"):
        ConvLSTMCell(1, 2, peephole="pixel")
    with pytest.raises(UsageError, match="exactly when peephole is 'pixel'"):
        ConvLSTMCell(1, 2, grid=(4, 5))


def test_even_kernels_are_refused() -> None:
    for build_cell in (ConvLSTMCell, ConvGRUCell):
        with pytest.raises(UsageError, match="kernel_size: found 4"):
            build_cell(1, 2, kernel_size=4)


def test_a_layer_refuses_steps_that_its_frames_do_not_have() -> None:
    layer, alone = RecurrentLayer(ConvLSTMCell(1, 2)), RecurrentLayer(ConvLSTMCell(0, 2))
    frames = torch.zeros(1, 3, 1, 4, 4)
    with pytest.raises(UsageError, match="found 2 with 3 frames"):
        layer(frames, 2)
    with pytest.raises(UsageError, match="found 0 with no frames"):
        alone(None, 0, (torch.zeros(1, 2, 4, 4),) * 2)
    with pytest.raises(UsageError, match="no state"):
        alone(None, 2)
