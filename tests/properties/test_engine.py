"""The fused engine is the reference, whatever the shapes, memory layouts and settings."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cubecast.nn import Cell, ConvGRUCell, ConvLSTMCell, GRUCell, LSTMCell, RecurrentLayer

VECTORS = {"lstm": LSTMCell, "gru": GRUCell}


@pytest.fixture(autouse=True, scope="module")
def uncompiled() -> Iterator[None]:
    """Compiling takes seconds; tests/nn/test_engine.py does it."""
    with torch.compiler.set_stance("force_eager"):
        yield


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A cell, and everything about a call of it."""
    size = st.integers(1, 5)
    case = {name: draw(size) for name in ("batch", "hidden", "steps")}
    case["channels"], case["space"] = draw(st.integers(0, 3)), (draw(size), draw(size))
    case["kernel"] = draw(st.sampled_from([1, 3, 5]))
    case["kind"] = draw(st.sampled_from(["lstm", "none", "channel", "pixel", "gru", "conv_gru"]))
    case["reset"] = draw(st.sampled_from(["after", "before"]))
    if case["kind"] in VECTORS:
        case["space"], case["channels"] = (), max(1, case["channels"])
    case["state"] = draw(st.booleans()) or not case["channels"]
    case["layout"] = draw(st.sampled_from(["plain", "time first", "every second", "channels last", "expanded"]))
    case["recompute"], case["seed"] = draw(st.booleans()), draw(st.integers(0, 2**31))
    return case


def cell_of(case: dict[str, Any]) -> Cell:
    sizes, reset = (case["channels"], case["hidden"]), case["reset"]
    if case["kind"] == "lstm":
        return LSTMCell(*sizes)
    if case["kind"] == "gru":
        return GRUCell(*sizes, reset=reset)
    if case["kind"] == "conv_gru":
        return ConvGRUCell(*sizes, kernel_size=case["kernel"], reset=reset)
    return ConvLSTMCell(
        *sizes,
        kernel_size=case["kernel"],
        peephole=case["kind"],
        grid=case["space"] if case["kind"] == "pixel" else None,
    )


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of ``x`` (expanded: those of the first time) in another order in memory."""
    if layout == "time first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "every second":
        return torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2]
    if layout == "channels last":
        return x.movedim(2, -1).contiguous().movedim(-1, 2)
    return x[:, :1].expand_as(x) if layout == "expanded" else x


@settings(max_examples=60)
@given(cases())
def test_fused_is_the_reference(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    cell = cell_of(case).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.5)
    shape = (case["batch"], case["steps"], case["channels"], *case["space"])
    x = laid_out(torch.randn(shape, dtype=torch.float64), case["layout"]) if case["channels"] else None
    state = None
    if case["state"]:
        shape = (case["batch"], case["hidden"], *case["space"])
        state = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(cell.state_size))
    leaves = [*cell.parameters(), *(state or ()), *([] if x is None else [x.requires_grad_()])]
    found = []
    for engine in ("reference", "fused"):
        outputs, last = RecurrentLayer(cell, engine=engine, recompute=case["recompute"])(x, case["steps"], state)
        assert ("FusedRun" in type(outputs.grad_fn).__name__) == (engine == "fused")
        results = (outputs, *last)
        torch.manual_seed(case["seed"])
        given = [torch.randn(r.shape, dtype=torch.float64) for r in results]
        found.append([*results, *torch.autograd.grad(results, leaves, given)])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12, check_stride=False)
