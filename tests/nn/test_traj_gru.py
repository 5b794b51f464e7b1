"""The TrajGRU against its equations point by point, and what holds for it as for the other cells."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cubecast.config import Config, ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import ConvGRUCell, RecurrentLayer, TrajGRUCell, build_network, count_parameters
from cubecast.nn.traj_gru import warp
from cubecast.nowcaster import Nowcaster

Array = np.ndarray[Any, Any]


def build(inputs: int = 2, hidden: int = 3, links: int = 2, *, kernel_size: int = 3) -> TrajGRUCell:
    """A cell in float64 with all weights away from zero, and flows of a pixel or so."""
    torch.manual_seed(5)
    cell = TrajGRUCell(inputs, hidden, kernel_size=kernel_size, links=links).double()
    for name, parameter in cell.named_parameters():
        torch.nn.init.normal_(parameter, std=0.12 if name.startswith("flow") else 0.4)
    return cell


def drawn(*shape: int, seed: int = 6) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolve(weight: Array, bias: Array, x: Array) -> Array:
    """At every pixel of (channel, y, x) the sum over the kernel, zero outside the grid."""
    half = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half)))
    out = np.zeros((len(weight), *x.shape[1:])) + bias[:, None, None]
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, i, j] += np.einsum("ocmn,cmn->o", weight, padded[:, i : i + 2 * half + 1, j : j + 2 * half + 1])
    return out


def warped(field: Array, v: Array, u: Array) -> Array:
    """Equation 2, as the paper has it: a sum over all points of the field."""
    out = np.zeros_like(field)
    ny, nx = field.shape[1:]
    for i in range(ny):
        for j in range(nx):
            for m in range(ny):
                for n in range(nx):
                    weight = max(0, 1 - abs(i + v[i, j] - m)) * max(0, 1 - abs(j + u[i, j] - n))
                    out[:, i, j] += weight * field[:, m, n]
    return out


def step(w: dict[str, Array], x: Array | None, h: Array, links: int) -> tuple[Array, Array]:
    """Equation 1 for one sample: the new state, and the flows."""
    size = len(h)
    both = h if x is None else np.concatenate([x, h])
    hidden = convolve(w["flow.weight"], w["flow.bias"], both)
    flows = convolve(w["flows.weight"], w["flows.bias"], np.where(hidden > 0, hidden, 0.2 * hidden))
    flows = flows.reshape(links, 2, *h.shape[1:])
    summed = w["project.bias"][:, None, None] + np.zeros((3 * size, *h.shape[1:]))
    for link, (v, u) in enumerate(flows):
        part = w["project.weight"][:, link * size : (link + 1) * size, 0, 0]
        summed += np.einsum("oc,cyx->oyx", part, warped(h, v, u))
    given = np.zeros_like(summed) if x is None else convolve(w["input.weight"], w["input.bias"], x)
    r, z = (1 / (1 + np.exp(-(summed + given)[k * size : (k + 1) * size])) for k in (0, 1))
    n = np.tanh(given[2 * size :] + r * summed[2 * size :])
    return (1 - z) * n + z * h, flows


@pytest.mark.parametrize(("inputs", "kernel_size"), [(2, 3), (2, 1), (0, 3)])
def test_cell_is_its_equations(inputs: int, kernel_size: int, device: str) -> None:
    cell = build(inputs, kernel_size=kernel_size)
    w = {name: p.detach().numpy() for name, p in cell.state_dict().items()}
    frames, state = (drawn(2, 3, inputs, 5, 4) if inputs else None), drawn(2, 3, 5, 4, seed=7)
    outputs, (last,) = RecurrentLayer(cell.to(device))(
        None if frames is None else frames.to(device), 3, (state.to(device),)
    )
    for sample in range(2):
        h = state[sample].numpy()
        for t in range(3):
            h, flows = step(w, None if frames is None else frames[sample, t].numpy(), h, links=2)
            assert 0.2 < np.abs(flows).mean() < 4  # neither nothing nor out of the grid
            np.testing.assert_allclose(outputs[sample, t].detach().cpu().numpy(), h, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(last[sample].detach().cpu().numpy(), outputs[sample, -1].detach().cpu().numpy())


def test_without_flow_it_is_a_conv_gru_of_single_points() -> None:
    cell, plain = build(links=3), ConvGRUCell(2, 3, reset="after").double()
    with torch.no_grad():
        cell.flows.weight.zero_()
        cell.flows.bias.zero_()
        plain.input.load_state_dict(cell.input.state_dict())
        plain.input.bias[:6] += cell.project.bias[:6]
        summed = cell.project.weight.unflatten(1, (3, 3)).sum(dim=1)
        for conv, rows in ((plain.gates, summed[:6]), (plain.candidate, summed[6:])):
            conv.weight.zero_()
            conv.weight[:, :, 1, 1] = rows[:, :, 0, 0]
        plain.candidate.bias.copy_(cell.project.bias[6:])
    frames = drawn(2, 4, 2, 6, 7)
    torch.testing.assert_close(RecurrentLayer(cell)(frames, 4)[0], RecurrentLayer(plain)(frames, 4)[0])


def test_a_flow_of_whole_points_shifts_and_zeros_come_from_outside() -> None:
    field = drawn(2, 3, 6, 7)
    flows = torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)[None, :, :, None, None].expand(2, 2, 2, 6, 7)
    moved, same = warp(field, flows).chunk(2, dim=1)
    expected = torch.zeros_like(field)
    expected[:, :, :5, 2:] = field[:, :, 1:, :5]  # one row below, two columns to the left
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(same, field)
    point = warp(field[..., :1, :1], flows[:, 1:, :, :1, :1] + 0.25)  # a series has one point, and zeros round it
    torch.testing.assert_close(point, field[..., :1, :1] * 0.75**2)


@pytest.mark.parametrize("inputs", [2, 0])
def test_gradients_are_those_of_finite_differences(inputs: int) -> None:
    cell = build(inputs, hidden=2)
    names = list(cell.state_dict())

    def run(*values: Tensor) -> Tensor:
        given = dict(zip([f"cell.{n}" for n in names], values, strict=False))
        state, *frames = values[len(names) :]
        call = (frames[0] if frames else None, 2, (state,))
        return torch.func.functional_call(RecurrentLayer(cell), given, call)[0]

    inputs_given = [drawn(1, 2, inputs, 3, 4)] if inputs else []
    values = [*cell.parameters(), drawn(1, 2, 3, 4, seed=7), *inputs_given]
    assert torch.autograd.gradcheck(run, [v.detach().clone().requires_grad_() for v in values], fast_mode=True)


@pytest.mark.parametrize("inputs", [2, 0])
def test_every_parameter_receives_a_gradient_at_its_start(inputs: int, device: str) -> None:
    torch.manual_seed(0)
    cell = TrajGRUCell(inputs, 3).double().to(device)
    frames = drawn(2, 3, inputs, 6, 7).to(device) if inputs else None
    RecurrentLayer(cell)(frames, 3, (drawn(2, 3, 6, 7, seed=7).to(device),))[0].square().sum().backward()
    for key, parameter in cell.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).all(), key


def test_another_engine_leaves_it_to_the_reference() -> None:
    cell, frames = build(), drawn(1, 3, 2, 6, 7)
    expected = RecurrentLayer(cell, engine="reference")(frames, 3)[0]
    for engine in ("fused", "auto"):
        assert torch.equal(RecurrentLayer(cell, engine=engine)(frames, 3)[0], expected)


def test_positions_are_not_rounded_under_autocast(device: str) -> None:
    """On 300 points bf16 knows places to a point or two."""
    torch.manual_seed(0)
    cell = TrajGRUCell(1, 2).to(device)
    frames = torch.linspace(0, 9, 300, device=device).sin().expand(1, 3, 1, 2, 300)
    exact = RecurrentLayer(cell)(frames, 3)[0]
    with torch.autocast(device, torch.bfloat16):
        rough = RecurrentLayer(cell)(frames, 3)[0]
    assert (rough.float() - exact).abs().max() < 0.03 < exact.std()
    half = warp(torch.arange(300.0, device=device).expand(1, 1, 1, 300), rough.new_zeros(1, 1, 2, 1, 300).bfloat16())
    torch.testing.assert_close(half.flatten(), torch.arange(300.0, device=device), rtol=0, atol=1e-3)


def test_its_configuration_reaches_it() -> None:
    config = ModelConfig(cell="traj_gru", hidden_channels=[4, 5], kernel_size=5, links=3)
    cells = [m for m in build_network(config, in_channels=2, out_channels=1).modules() if isinstance(m, TrajGRUCell)]
    assert [(c.in_channels, c.hidden_channels) for c in cells] == [(32, 4), (5, 5), (5, 4), (0, 5)]
    assert {c.links for c in cells} == {3}
    assert cells[0].input is not None
    assert cells[0].input.kernel_size == (5, 5)
    gamma = 25 * (3 + 5) * 32 + 32 + 25 * 32 * 4 + 4
    assert count_parameters(TrajGRUCell(3, 5, links=2)) == 9 * 3 * 15 + 15 + gamma + 2 * 5 * 15 + 15
    with pytest.raises(UsageError, match="convention reset 'after', found 'before'"):
        Config.build(cell="traj_gru", reset="before")
    with pytest.raises(UsageError, match="links: found 0"):
        Config.build(cell="traj_gru", links=0)


@pytest.mark.parametrize("coordinates", ["eulerian", "lagrangian"])
def test_it_trains_is_saved_and_loaded(coordinates: str, tmp_path, rain) -> None:
    cube = rain(40)
    settings = {"hidden_channels": [4], "patch": 2, "crop": 24, "epochs": 1, "links": 2, "motion_window": 10.0}
    settings |= {"residual": False, "coordinates": coordinates}  # untrained it is no persistence, which might be best
    model = Nowcaster(history=3, horizon=2, cell="traj_gru", **settings).fit(cube)
    torch.manual_seed(model.config.training.seed)
    fresh = build_network(model.config.model, in_channels=2, out_channels=1)
    trained = dict(model.network.named_parameters())
    assert all((trained[name] != p).any() for name, p in fresh.named_parameters())
    model.save(tmp_path / "model")
    again = Nowcaster.load(tmp_path / "model")
    assert (again.config.model.cell, again.config.model.links) == ("traj_gru", 2)
    one, other = (m.predict(cube, at=cube.time.values[20])["rainfall_rate"] for m in (model, again))
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
