"""The fused engine: a whole sequence of LSTM steps as one differentiable operation.

The same function as the reference (`cubecast.nn.cell.Cell.run`), computed otherwise; `cubecast.nn.lstm_sequence`
does the work:

- fields are channels-last, and time is the outermost axis of every buffer;
- the gates of one step and their gradients are one compiled kernel each (`cubecast.nn.gates`);
- of the forward pass are kept what went into the gates, c_t and h_t; with ``recompute`` only the last two;
- going back, one map a step takes the gradient to h_{t-1}; the gradients of weights and input are taken over several
  steps at once;
- under autocast the maps run in its dtype, the cell state and all gates in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cubecast.nn.cell import Cell
from cubecast.nn.conv_lstm import ConvLSTMCell
from cubecast.nn.lstm import LSTMCell
from cubecast.nn.lstm_sequence import LSTMSequence, Way
from cubecast.shapes import Outputs, Sequence, State

LARGE = 2**18
"""Gate values a step from which on ``auto`` takes the fused engine: training then lasts longer than compiling."""
WORTH_COMPILING = 2**29
"""Without gradients, gate values a call from which on ``auto`` compiles: seconds that a short forecast has not got."""


def fits(cell: Cell, frames: Sequence | None, state: State | None) -> bool:
    """Whether the engine computes this: a (Conv)LSTM in float32 or float64 on real memory, outside of any tracing."""
    if not isinstance(cell, ConvLSTMCell | LSTMCell):
        return False
    weight, like = _weights(cell)[0], frames if frames is not None else (state or (None,))[0]
    if like is None or like.device.type == "meta" or like.device != weight.device or like.numel() == 0:
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    cast = torch.is_autocast_enabled(like.device.type)
    return weight.dtype in (torch.float32, torch.float64) and (cast or like.dtype == weight.dtype)


def is_worthwhile(cell: Cell, frames: Sequence | None, state: State | None) -> bool:
    """Whether ``engine="auto"`` takes the fused engine: where a step is large, and on a CPU under autocast alone.

    In float32 a CPU spends nearly all its time in convolutions, and the plain cell was not slower (docs/engine.md).
    """
    device = _weights(cell)[0].device.type if isinstance(cell, ConvLSTMCell | LSTMCell) else "cpu"
    gains = device != "cpu" or torch.is_autocast_enabled("cpu")
    return gains and _gate_values(cell, frames, state) >= LARGE


def run_fused(
    cell: Cell, frames: Sequence | None, steps: int, state: State | None, *, compiled: bool, recompute: bool
) -> tuple[Outputs, State]:
    """`cubecast.nn.cell.Cell.run`, fused.

    Args:
        cell, frames, steps, state: as there; `fits` said yes.
        compiled: compile the gates in any case; else only where gradients are taken or the call is long.
        recompute: less memory in training, for a second pass through the maps.
    """
    cell.check(None if frames is None else frames[:, 0])
    weight, bias, peepholes = _weights(cell)
    hidden, old = state or (None, None)
    like = frames if frames is not None else hidden
    if isinstance(cell, ConvLSTMCell) and like is not None:
        cell.check_grid(like.shape[-2:])
    inputs = (frames, hidden, old, weight, bias, peepholes)
    device = weight.device.type
    dtype = weight.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    way = Way(
        steps,
        dtype,
        compiled=compiled or training or steps * _gate_values(cell, frames, state) >= WORTH_COMPILING,
        hoist=device != "cpu",
        recompute=recompute,
        differentiable=training,
    )
    with torch.autocast(device, enabled=False):
        outputs, hidden, last = FusedLSTM.apply(way, cell, *inputs)
    return outputs, (hidden, last)


class FusedLSTM(torch.autograd.Function):
    """``apply(way, cell, x, h_0, c_0, weight, bias, peepholes) -> (outputs, h_T, c_T)``; states None: zeros."""

    @staticmethod
    def forward(ctx: Any, way: Way, cell: Cell, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, hidden, old, *weights = inputs
        keep = way.differentiable and any(ctx.needs_input_grad)
        run = LSTMSequence(way, x, hidden, *weights)
        outputs, cells, ctx.before = run.forward(old, keep=keep)
        last = run.field(cells[-1])
        result = _no_view(outputs.transpose(0, 1))
        ctx.way, ctx.cell = way, cell
        ctx.set_materialize_grads(False)
        if keep:
            ctx.save_for_backward(*inputs, result, *cells)
            last = last.clone()
        return result, outputs[-1].clone(), last

    @staticmethod
    def backward(ctx: Any, *d: Any) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: gradients that can be differentiated once more
            return None, None, *_plain_gradients(ctx, d)
        return None, None, *_fused_gradients(ctx, *d)


@once_differentiable
def _fused_gradients(ctx: Any, *d: Any) -> list[Tensor | None]:
    x, hidden, _, weight, bias, peepholes, outputs, *cells = ctx.saved_tensors
    run = LSTMSequence(ctx.way, x, hidden, weight, bias, peepholes)
    with torch.autocast(weight.device.type, enabled=False):  # the caller's may be on
        return run.backward(outputs.transpose(0, 1), cells, ctx.before, d, ctx.needs_input_grad[2:])


def _plain_gradients(ctx: Any, d: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Those of the reference."""
    # Aliases, because one input may have come from another (a layer that is used twice).
    inputs: list[Any] = [None if t is None else t.view_as(t) for t in ctx.saved_tensors[:6]]
    x, hidden, old, *weights = inputs
    named = {n: w for n, w in zip(_names(ctx.cell), weights, strict=True) if w is not None}
    if old is None:
        like = x[:, 0].to(ctx.way.state_dtype)
        hidden, old = ctx.cell.zero_state(like)
    device = weights[0].device.type
    with torch.enable_grad(), torch.autocast(device, ctx.way.dtype, enabled=ctx.way.dtype != weights[0].dtype):
        outputs, state = torch.func.functional_call(_Loop(ctx.cell), named, (x, ctx.way.steps, (hidden, old)))
        pairs = [(r, g.to(r.dtype)) for r, g in zip((outputs, *state), d, strict=True) if g is not None]
        asked = [t for t, wanted in zip(inputs, ctx.needs_input_grad[2:], strict=True) if wanted]
        results, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(results, asked, given, create_graph=True, allow_unused=True))
    return [next(found) if wanted else None for wanted in ctx.needs_input_grad[2:]]


class _Loop(torch.nn.Module):
    """The reference as a module, to be called with other weights."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, frames: Tensor | None, steps: int, state: tuple[Tensor, ...]) -> Any:
        return self.cell.run(frames, steps, state)


def _no_view(tensor: Tensor) -> Tensor:
    """The same memory. Views that come out of a function must not be changed in place, tensors may."""
    return tensor.new_empty(0).set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _names(cell: Cell) -> list[str]:
    map_ = "conv" if isinstance(cell, ConvLSTMCell) else "linear"
    return [f"cell.{map_}.weight", f"cell.{map_}.bias", "cell.peepholes"]


def _weights(cell: Cell) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(weight, bias, peepholes)."""
    if isinstance(cell, ConvLSTMCell):
        return cell.conv.weight, cell.conv.bias, cell.peepholes
    assert isinstance(cell, LSTMCell)
    return cell.linear.weight, cell.linear.bias, None


def _gate_values(cell: Cell, frames: Tensor | None, state: tuple[Tensor, ...] | None) -> int:
    """How many values the gates of one step have."""
    like = frames[:, 0] if frames is not None else (state or (None,))[0]
    return 0 if like is None else 4 * cell.hidden_channels * like.shape[0] * like.shape[2:].numel()
