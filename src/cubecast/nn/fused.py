"""The fused engine: a whole sequence of steps of a cell as one differentiable operation.

The same function as the reference (`cubecast.nn.cell.Cell.run`), computed otherwise. What all cells share is in
`cubecast.nn.sequence`, the mathematics of each in `cubecast.nn.lstm_sequence` and `cubecast.nn.gru_sequence`:

- fields are channels-last, and time is the outermost axis of every buffer;
- the gates of one step and their gradients are compiled kernels (`cubecast.nn.gates`);
- of the forward pass are kept h_t, c_t of an LSTM, and what the gradient of the gates takes; with ``recompute`` not
  the last;
- going back, maps take the gradient from step to step; the gradients of weights and input are taken over several
  steps at once;
- under autocast the maps run in its dtype, what is remembered (c_t, and h_t of a GRU) and all gates in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cubecast.nn.cell import Cell
from cubecast.nn.conv_gru import ConvGRUCell
from cubecast.nn.conv_lstm import ConvLSTMCell
from cubecast.nn.gru import GRUCell
from cubecast.nn.gru_sequence import GRUSequence
from cubecast.nn.lstm import LSTMCell
from cubecast.nn.lstm_sequence import LSTMSequence
from cubecast.nn.sequence import FusedSequence, Saved
from cubecast.nn.way import Way
from cubecast.shapes import Outputs, Sequence, State

SEQUENCES: dict[type[Cell], type[FusedSequence]] = {
    ConvLSTMCell: LSTMSequence,
    LSTMCell: LSTMSequence,
    ConvGRUCell: GRUSequence,
    GRUCell: GRUSequence,
}
"""The cells that the engine computes."""
LARGE = 2**18
"""Gate values a step from which on ``auto`` takes the fused engine: training then lasts longer than compiling."""
WORTH_COMPILING = 2**29
"""Without gradients, gate values a call from which on ``auto`` compiles: seconds that a short forecast has not got."""


def fits(cell: Cell, frames: Sequence | None, state: State | None) -> bool:
    """Whether the engine computes this: one of `SEQUENCES` in float32 or float64 on real memory, and no tracing."""
    if type(cell) not in SEQUENCES or (frames is None and isinstance(cell, GRUCell)):
        return False
    weight, like = next(iter(_weights(cell).values())), _first(frames, state)
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
    like = _first(frames, state)
    gains = like is not None and (like.device.type != "cpu" or torch.is_autocast_enabled("cpu"))
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
    like = _first(frames, state)
    if isinstance(cell, ConvLSTMCell) and like is not None:
        cell.check_grid(like.shape[-2:])
    weights = _weights(cell)
    inputs = (frames, *(state or (None,) * cell.state_size), *weights.values())
    first = next(iter(weights.values()))
    device, dtype = first.device.type, first.dtype
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
        outputs, *last = FusedRun.apply(way, cell, tuple(weights), *inputs)
    return outputs, tuple(last)


class FusedRun(torch.autograd.Function):
    """``apply(way, cell, names, x, *states, *weights) -> (outputs, *states)``; states None: zeros."""

    @staticmethod
    def forward(ctx: Any, way: Way, cell: Cell, names: tuple[str, ...], *inputs: Any) -> tuple[Tensor, ...]:
        ctx.way, ctx.cell, ctx.names = way, cell, names
        keep = way.differentiable and any(ctx.needs_input_grad)
        run = _sequence(ctx, inputs)
        saved, memory = run.forward(keep=keep)
        result, last = _no_view(saved.outputs.transpose(0, 1)), run.field(memory)
        ctx.kept = saved.kept
        ctx.set_materialize_grads(False)
        if keep:
            ctx.save_for_backward(*inputs, result, *saved.memories)
            last = last.clone()
        return result, *(saved.outputs[-1].clone() for _ in range(cell.state_size - 1)), last

    @staticmethod
    def backward(ctx: Any, *d: Any) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: gradients that can be differentiated once more
            return None, None, None, *_plain_gradients(ctx, d)
        return None, None, None, *_fused_gradients(ctx, *d)


@once_differentiable
def _fused_gradients(ctx: Any, *d: Any) -> list[Tensor | None]:
    size = 1 + ctx.cell.state_size + len(ctx.names)
    inputs, (outputs, *memories) = ctx.saved_tensors[:size], ctx.saved_tensors[size:]
    names = ("x", *("states",) * ctx.cell.state_size, *ctx.names)
    wanted = {name for name, asked in zip(names, ctx.needs_input_grad[3:], strict=True) if asked}
    run = _sequence(ctx, inputs)
    with torch.autocast(outputs.device.type, enabled=False):  # the caller's may be on
        d_x, d_states = run.backward(Saved(outputs.transpose(0, 1), memories, ctx.kept), d[0], d[1:], wanted)
    found = [d_x, *d_states, *(run.d_weights.get(name) for name in ctx.names)]
    return [d if asked else None for d, asked in zip(found, ctx.needs_input_grad[3:], strict=True)]


def _plain_gradients(ctx: Any, d: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Those of the reference."""
    # Aliases, because one input may have come from another (a layer that is used twice).
    size = 1 + ctx.cell.state_size
    inputs: list[Any] = [None if t is None else t.view_as(t) for t in ctx.saved_tensors[: size + len(ctx.names)]]
    (x, *states), weights = inputs[:size], inputs[size:]
    named = {f"cell.{name}": weight for name, weight in zip(ctx.names, weights, strict=True)}
    state = ctx.cell.zero_state(x[:, 0].to(ctx.way.state_dtype)) if states[0] is None else tuple(states)
    first = weights[0]
    with torch.enable_grad(), torch.autocast(first.device.type, ctx.way.dtype, enabled=ctx.way.dtype != first.dtype):
        outputs, last = torch.func.functional_call(_Loop(ctx.cell), named, (x, ctx.way.steps, state))
        pairs = [(r, g.to(r.dtype)) for r, g in zip((outputs, *last), d, strict=True) if g is not None]
        asked = [t for t, wanted in zip(inputs, ctx.needs_input_grad[3:], strict=True) if wanted]
        results, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(results, asked, given, create_graph=True, allow_unused=True))
    return [next(found) if wanted else None for wanted in ctx.needs_input_grad[3:]]


class _Loop(torch.nn.Module):
    """The reference as a module, to be called with other weights."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, frames: Tensor | None, steps: int, state: tuple[Tensor, ...]) -> Any:
        return self.cell.run(frames, steps, state)


def _sequence(ctx: Any, inputs: Any) -> FusedSequence:
    """The pass over ``(x, *states, *weights)``."""
    size = 1 + ctx.cell.state_size
    weights = dict(zip(ctx.names, inputs[size:], strict=True))
    return SEQUENCES[type(ctx.cell)](ctx.way, ctx.cell, inputs[0], tuple(inputs[1:size]), weights)


def _no_view(tensor: Tensor) -> Tensor:
    """The same memory. Views that come out of a function must not be changed in place, tensors may."""
    return tensor.new_empty(0).set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _weights(cell: Cell) -> dict[str, Tensor]:
    """What is there of weights, biases and peepholes, by the names in the cell."""
    found = {
        f"{name}.{kind}": getattr(map_, kind) for name, map_ in cell.named_children() for kind in ("weight", "bias")
    }
    found["peepholes"] = getattr(cell, "peepholes", None)
    return {name: weight for name, weight in found.items() if weight is not None}


def _first(frames: Tensor | None, state: tuple[Tensor, ...] | None) -> Tensor | None:
    """A tensor that says how large a step is: x_1, or h_0."""
    return frames[:, 0] if frames is not None else (state or (None,))[0]


def _gate_values(cell: Cell, frames: Tensor | None, state: tuple[Tensor, ...] | None) -> int:
    """How many values the gates of one step have."""
    like, gates = _first(frames, state), 4 if cell.state_size == 2 else 3
    return 0 if like is None else gates * cell.hidden_channels * like.shape[0] * like.shape[2:].numel()
