"""Every cell against its equations in plain NumPy, in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cubecast.nn import Cell, ConvGRUCell, ConvLSTMCell, ElmanCell, GRUCell, LSTMCell, RecurrentLayer

Array = np.ndarray[Any, Any]
BATCH, STEPS, INPUT, HIDDEN, NY, NX = 2, 4, 3, 5, 6, 4


def sigmoid(a: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-a))


def dense(weight: Array, x: Array) -> Array:
    """W x for each row of a batch."""
    return np.einsum("oi,bi->bo", weight, x)


def convolve(weight: Array, x: Array) -> Array:
    """W * x: at every pixel the sum over the kernel, zero outside the grid."""
    half = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    out = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    for j in range(weight.shape[2]):
        for i in range(weight.shape[3]):
            window = padded[:, :, j : j + x.shape[2], i : i + x.shape[3]]
            out += np.einsum("oc,bcyx->boyx", weight[:, :, j, i], window)
    return out


def column(bias: Array, ndim: int) -> Array:
    return bias.reshape(1, -1, *[1] * (ndim - 2))


def elman(w: dict[str, Array], x: Array, state: list[Array]) -> list[Array]:
    n = x.shape[1]
    wx, wh = w["linear.weight"][:, :n], w["linear.weight"][:, n:]
    return [np.tanh(dense(wx, x) + dense(wh, state[0]) + w["linear.bias"])]


def lstm(w: dict[str, Array], x: Array | None, state: list[Array]) -> list[Array]:
    """LSTM and ConvLSTM with peepholes: the gates one after the other, each from its own rows."""
    h, c = state
    name, product = ("conv", convolve) if h.ndim == 4 else ("linear", dense)
    n, size = 0 if x is None else x.shape[1], h.shape[1]
    peep = w.get("peepholes", np.zeros((3, *[1] * (h.ndim - 1))))

    def gate(k: int) -> Array:
        rows = w[f"{name}.weight"][k * size : (k + 1) * size]
        bias = column(w[f"{name}.bias"][k * size : (k + 1) * size], h.ndim)
        from_input = 0.0 if x is None else product(rows[:, :n], x)
        return from_input + product(rows[:, n:], h) + bias

    i = sigmoid(gate(0) + peep[0] * c)
    f = sigmoid(gate(1) + peep[1] * c)
    c = f * c + i * np.tanh(gate(2))
    o = sigmoid(gate(3) + peep[2] * c)
    return [o * np.tanh(c), c]


def gru(reset: str) -> Callable[..., list[Array]]:
    """GRU and ConvGRU, each gate by itself."""

    def step(w: dict[str, Array], x: Array | None, state: list[Array]) -> list[Array]:
        (h,) = state
        product, size = (convolve if h.ndim == 4 else dense), h.shape[1]
        zero = np.zeros(3 * size)
        bias_x, bias_g = w.get("input.bias", zero), w.get("gates.bias", zero)
        bias_n = column(w.get("candidate.bias", zero[:size]), h.ndim)

        def from_input(k: int) -> Array | float:
            if x is None:
                return 0.0
            rows = slice(k * size, (k + 1) * size)
            return product(w["input.weight"][rows], x) + column(bias_x[rows], h.ndim)

        def from_hidden(k: int) -> Array:
            rows = slice(k * size, (k + 1) * size)
            return product(w["gates.weight"][rows], h) + column(bias_g[rows], h.ndim)

        r = sigmoid(from_input(0) + from_hidden(0))
        z = sigmoid(from_input(1) + from_hidden(1))
        u = w["candidate.weight"]
        inner = product(u, r * h) + bias_n if reset == "before" else r * (product(u, h) + bias_n)
        return [(1 - z) * np.tanh(from_input(2) + inner) + z * h]

    return step


CASES: dict[str, tuple[Callable[[], Cell], Callable[..., list[Array]]]] = {
    "elman": (lambda: ElmanCell(INPUT, HIDDEN), elman),
    "lstm": (lambda: LSTMCell(INPUT, HIDDEN), lstm),
    "gru before": (lambda: GRUCell(INPUT, HIDDEN, reset="before"), gru("before")),
    "gru after": (lambda: GRUCell(INPUT, HIDDEN, reset="after"), gru("after")),
    "conv_lstm": (lambda: ConvLSTMCell(INPUT, HIDDEN), lstm),
    "conv_lstm 5x5": (lambda: ConvLSTMCell(INPUT, HIDDEN, kernel_size=5), lstm),
    "conv_lstm channel": (lambda: ConvLSTMCell(INPUT, HIDDEN, peephole="channel"), lstm),
    "conv_lstm pixel": (lambda: ConvLSTMCell(INPUT, HIDDEN, peephole="pixel", grid=(NY, NX)), lstm),
    "conv_lstm no input": (lambda: ConvLSTMCell(0, HIDDEN, peephole="channel"), lstm),
    "conv_gru before": (lambda: ConvGRUCell(INPUT, HIDDEN, reset="before"), gru("before")),
    "conv_gru after": (lambda: ConvGRUCell(INPUT, HIDDEN, reset="after"), gru("after")),
    "conv_gru before no input": (lambda: ConvGRUCell(0, HIDDEN, reset="before"), gru("before")),
    "conv_gru after no input": (lambda: ConvGRUCell(0, HIDDEN, reset="after"), gru("after")),
}


@pytest.mark.parametrize("case", CASES)
def test_cell_is_its_equations(case: str, device: str) -> None:
    make, step = CASES[case]
    torch.manual_seed(3)
    cell = make().double()
    for parameter in cell.parameters():  # biases and peepholes too: zeros would prove nothing
        torch.nn.init.normal_(parameter, std=0.4)
    weights = {name: p.detach().numpy() for name, p in cell.state_dict().items()}
    space = (NY, NX) if case.startswith("conv") else ()
    rng = np.random.default_rng(7)
    frames = rng.standard_normal((BATCH, STEPS, INPUT, *space)) if cell.in_channels else None
    state = [rng.standard_normal((BATCH, HIDDEN, *space)) for _ in range(cell.state_size)]

    outputs, last = RecurrentLayer(cell.to(device))(
        None if frames is None else torch.tensor(frames, device=device),
        STEPS,
        tuple(torch.tensor(s, device=device) for s in state),
    )

    for t in range(STEPS):
        state = step(weights, None if frames is None else frames[:, t], state)
        np.testing.assert_allclose(outputs[:, t].detach().cpu().numpy(), state[0], rtol=0, atol=1e-12)
    for ours, theirs in zip(last, state, strict=True):
        np.testing.assert_allclose(ours.detach().cpu().numpy(), theirs, rtol=0, atol=1e-12)
