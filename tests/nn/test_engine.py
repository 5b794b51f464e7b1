"""The fused engine is the reference: values, gradients, precision, copies, processes, saved weights."""

import copy
import itertools
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._dynamo.utils import counters

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import (
    Cell,
    ConvGRUCell,
    ConvLSTMCell,
    ElmanCell,
    GRUCell,
    LSTMCell,
    RecurrentLayer,
    build_network,
    choose_engine,
    count_multiply_adds,
)
from cubecast.nn.compiled import Kernel
from cubecast.nn.fused import FusedRun
from cubecast.nn.way import Way


@pytest.fixture(autouse=True)
def uncompiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiling takes seconds and is tested where it says so."""
    if "compiled" in request.keywords:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


CELLS: dict[str, Callable[[], Cell]] = {
    "lstm": lambda: LSTMCell(2, 3),
    "conv_lstm": lambda: ConvLSTMCell(2, 3),
    "conv_lstm channel": lambda: ConvLSTMCell(2, 3, peephole="channel"),
    "conv_lstm pixel": lambda: ConvLSTMCell(2, 3, peephole="pixel", grid=(4, 5)),
    "gru after": lambda: GRUCell(2, 3, reset="after"),
    "gru before": lambda: GRUCell(2, 3, reset="before"),
    "conv_gru after": lambda: ConvGRUCell(2, 3, reset="after"),
    "conv_gru before": lambda: ConvGRUCell(2, 3, reset="before"),
}
NO_INPUT: dict[str, Callable[[], Cell]] = {
    "conv_lstm no input": lambda: ConvLSTMCell(0, 3, peephole="channel"),
    "conv_gru after no input": lambda: ConvGRUCell(0, 3, reset="after"),
    "conv_gru before no input": lambda: ConvGRUCell(0, 3, reset="before"),
}
GRADIENTS = [
    (name, index)
    for name, make in (CELLS | NO_INPUT).items()
    for index in range(len(list(make().parameters())) + make().state_size + (name in CELLS))
]
"""A cell and the place of one of its parameters, states or its input."""


def cell_of(name: str) -> Cell:
    torch.manual_seed(3)
    cell = (CELLS | NO_INPUT)[name]()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.4)
    return cell.double()


def inputs_of(cell: Cell, steps: int = 4, batch: int = 2) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(4)
    space = () if isinstance(cell, LSTMCell | GRUCell) else (4, 5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, *space, dtype=torch.float64, generator=generator)

    x = draw(batch, steps, cell.in_channels) if cell.in_channels else None
    return x, tuple(draw(batch, 3) for _ in range(cell.state_size))


def weigh(*results: Tensor) -> Tensor:
    """A scalar in which every value has a weight of its own."""
    generator = torch.Generator().manual_seed(5)
    parts = [(r.double() * torch.randn(r.shape, dtype=torch.float64, generator=generator)).sum() for r in results]
    return torch.stack(parts).sum()


def run(layer: RecurrentLayer, x: Tensor | None, state: Any, steps: int = 4) -> tuple[Tensor, ...]:
    outputs, last = layer(x, steps if x is None else x.shape[1], state)
    return outputs, *last


def same(one: Any, other: Any, atol: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol, check_stride=False)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", CELLS | NO_INPUT)
def test_gradients_are_those_of_finite_differences(name: str, recompute: bool) -> None:
    cell = cell_of(name)
    layer = RecurrentLayer(cell, engine="fused", recompute=recompute)
    x, state = inputs_of(cell, steps=2, batch=1)
    names = [f"cell.{n}" for n, _ in cell.named_parameters()]
    start = 0 if x is None else 1

    def function(*values: Tensor) -> Any:
        inputs, weights = values[: start + len(state)], values[start + len(state) :]
        named = dict(zip(names, weights, strict=True))
        outputs, last = torch.func.functional_call(layer, named, (inputs[0] if start else None, 2, inputs[start:]))
        assert "FusedRun" in type(outputs.grad_fn).__name__
        return (outputs, *last)

    values = [v.detach().clone().requires_grad_() for v in (x, *state, *cell.parameters()) if v is not None]
    # Run twice, the second backward pass computes anew what the first gave back: another rounding.
    assert torch.autograd.gradcheck(function, values, atol=1e-6, fast_mode=True, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(function, values, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("hoist", [False, True])
@pytest.mark.parametrize("chunk", [1, 2**12, 2**30])
@pytest.mark.parametrize("name", ["conv_lstm pixel", "conv_gru after", "conv_gru before"])
def test_every_way_gives_the_same(name: str, hoist: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cubecast.nn.sequence.CHUNK", chunk)
    monkeypatch.setattr("cubecast.nn.sequence.TILE", 7)
    cell = cell_of(name)
    x, start = inputs_of(cell, steps=5)
    assert x is not None
    names, weights = zip(*cell.named_parameters(), strict=True)
    for recompute, state in itertools.product((False, True), (start, None)):
        found = []
        for fused in (False, True):
            asked = [t.detach().clone().requires_grad_() for t in (x, *(state or ()))]
            given = tuple(asked[1:]) or None
            if fused:
                way = Way(5, torch.float64, hoist=hoist, recompute=recompute)
                results = FusedRun.apply(way, cell, names, asked[0], *(given or (None,) * cell.state_size), *weights)
            else:
                outputs, last = cell.run(asked[0], 5, given)
                results = (outputs, *last)
            found.append([*results, *torch.autograd.grad(weigh(*results), [*asked, *weights])])
        same(*found)


@pytest.mark.parametrize(("name", "wanted"), GRADIENTS)
def test_one_gradient_alone(name: str, wanted: int) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    tensors = [*cell.parameters(), *state, *([] if x is None else [x])]
    for index, tensor in enumerate(tensors):
        tensor.requires_grad_(index == wanted)
    found = []
    for engine in ("reference", "fused"):
        results = run(RecurrentLayer(cell, engine=engine), x, state)
        found.append([torch.autograd.grad(weigh(r), tensors[wanted], retain_graph=True)[0] for r in results])
    same(*found)


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru after", "gru before"])
def test_no_gradients_are_recorded_where_none_are_wanted(name: str) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    layer = RecurrentLayer(cell, engine="fused")
    expected = run(layer, x, state)
    with torch.no_grad():
        silent = run(layer, x, state)
    with torch.inference_mode():
        frozen = run(layer, x, state)
    for results in (silent, frozen, run(RecurrentLayer(copy.deepcopy(cell), engine="fused"), x, state)):
        same(results, expected, atol=1e-14)
    assert not any(r.requires_grad for r in silent)
    for parameter in cell.parameters():
        parameter.requires_grad_(False)
    assert not any(r.requires_grad for r in run(layer, x, state))


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru after", "conv_gru before", "gru after"])
def test_used_twice_and_differentiated_twice(name: str) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    found = []
    for engine in ("reference", "fused"):
        layer = RecurrentLayer(cell, engine=engine)
        first, *after = run(layer, x, state)
        second, *_ = run(layer, first[:, :, :2] * x, tuple(after))
        loss = weigh(first, second)
        once = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
        again = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)  # buffers were given back
        same(once, again, atol=0 if engine == "reference" else 1e-13)
        steep = torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)
        penalty = torch.autograd.grad(sum(g.square().sum() for g in steep), list(cell.parameters()))
        found.append((once, penalty))
    same(found[0][0], found[1][0])
    same(found[0][1], found[1][1], atol=1e-10)


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru after"])
def test_states_may_be_changed_before_the_backward_pass(name: str) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    found = []
    for changed in (False, True):
        outputs, *last = run(RecurrentLayer(cell, engine="fused"), x, state)
        loss = weigh(outputs, *last)
        for tensor in last if changed else ():
            tensor.detach().fill_(7.0)
        found.append(torch.autograd.grad(loss, list(cell.parameters())))
    same(*found, atol=0)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru after", "conv_gru before"])
def test_memory_is_given_back_on_the_way(name: str, recompute: bool) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    outputs, *_ = run(RecurrentLayer(cell, engine="fused", recompute=recompute), x, state)
    assert outputs.grad_fn is not None
    kept = outputs.grad_fn.kept  # type: ignore[attr-defined]
    assert [k is None for k in kept] == [recompute] * 4
    outputs.sum().backward()
    assert kept == [None] * 4


@pytest.mark.parametrize("name", ["conv_lstm", "conv_gru after", "conv_gru before"])
def test_outputs_must_not_be_changed_before_the_backward_pass(name: str) -> None:
    cell = cell_of(name)
    x, state = inputs_of(cell)
    outputs, *_ = run(RecurrentLayer(cell, engine="fused"), x, state)
    with torch.no_grad():
        outputs.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize(
    ("space", "make"),
    [
        ((), lambda: LSTMCell(8, 16)),
        ((12, 12), lambda: ConvLSTMCell(8, 16)),
        ((12, 12), lambda: ConvLSTMCell(8, 16, peephole="channel")),
        ((), lambda: GRUCell(8, 16)),
        ((12, 12), lambda: ConvGRUCell(8, 16, reset="after")),
        ((12, 12), lambda: ConvGRUCell(8, 16, reset="before")),
    ],
    ids=["lstm", "conv_lstm", "channel", "gru", "conv_gru after", "conv_gru before"],
)
def test_autocast_is_as_near_to_the_truth_as_the_reference(space: tuple[int, ...], make: Callable[[], Cell]) -> None:
    torch.manual_seed(1)
    cell = make()
    x = torch.randn(4, 8, 8, *space)

    def errors(results: list[Tensor], truth: list[Tensor]) -> list[float]:
        return [
            float((r.detach().double() - t.detach()).norm() / t.detach().norm())
            for r, t in zip(results, truth, strict=True)
        ]

    def everything(layer: RecurrentLayer, x: Tensor) -> list[Tensor]:
        outputs, state = layer(x, 8)
        return [outputs, *state, *torch.autograd.grad(weigh(outputs, *state), list(layer.parameters()))]

    truth = everything(RecurrentLayer(copy.deepcopy(cell).double(), engine="reference"), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        plain = errors(everything(RecurrentLayer(cell, engine="reference"), x), truth)
        fused = errors(everything(RecurrentLayer(cell, engine="fused"), x), truth)
    assert all(f <= 1.5 * p for f, p in zip(fused, plain, strict=True)), (fused, plain)
    assert max(fused) > 1e-4  # it is bf16


def test_what_is_remembered_stays_in_float32_under_autocast() -> None:
    half, single = torch.bfloat16, torch.float32
    x = torch.randn(1, 2, 2, 4, 4)
    with torch.autocast("cpu", half):
        lstm = run(RecurrentLayer(ConvLSTMCell(2, 3), engine="fused"), x, None)
        gru = run(RecurrentLayer(ConvGRUCell(2, 3), engine="fused"), x, None)
        double = run(RecurrentLayer(cell_of("conv_lstm"), engine="fused"), x.double(), None)
    assert [t.dtype for t in lstm] == [half, half, single]
    assert [t.dtype for t in gru] == [half, single]
    assert {t.dtype for t in double} == {torch.float64}
    assert not torch.equal(gru[1], gru[1].to(half).float())  # not rounded on the way


def test_a_gru_does_not_forget_small_changes_under_autocast() -> None:
    """h moves by less than the spacing of bfloat16 a step; a state in bfloat16 would stand still."""
    cell = ConvGRUCell(0, 1, kernel_size=1)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        assert cell.gates.bias is not None
        cell.gates.bias[1] = 8.0  # z = 0.99966
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        _, last = run(RecurrentLayer(cell, engine="fused"), None, (torch.ones(1, 1, 2, 2),), steps=400)
    expected = float(torch.sigmoid(torch.tensor(8.0))) ** 400
    torch.testing.assert_close(last, torch.full((1, 1, 2, 2), expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("cell", ["conv_lstm", "lstm", "conv_gru", "gru"])
def test_a_whole_network_saved_with_one_engine_and_loaded_with_the_other(cell: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"cell": cell, "hidden_channels": [4, 3], "patch": 2 if "conv" in cell else 1}
    frames = torch.randn(2, 3, 2, 6, 8, dtype=torch.float64)
    found = []
    for engine in ("reference", "fused"):
        torch.manual_seed(0)
        network = build_network(ModelConfig(engine=engine, **settings), in_channels=2, out_channels=1).double()
        assert {m.engine for m in network.modules() if isinstance(m, RecurrentLayer)} == {engine}
        if engine == "fused":
            network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        else:
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.3)
            save_file(network.state_dict(), tmp_path / "weights.safetensors")
        forecast = network(frames, 3)
        found.append([forecast, *torch.autograd.grad(weigh(forecast), list(network.parameters()))])
    same(*found)
    assert count_multiply_adds(network.float(), (1, 3, 2, 6, 8), 3) > 0


@pytest.mark.parametrize("cell", [ConvLSTMCell, ConvGRUCell])
@pytest.mark.parametrize(("side", "half", "fused"), [(4, True, False), (112, False, False), (112, True, True)])
def test_auto_takes_the_fused_engine_for_large_steps_under_autocast(
    side: int, half: bool, fused: bool, cell: Callable[[int, int], Cell]
) -> None:
    layer = RecurrentLayer(cell(1, 8))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs, _ = layer(torch.zeros(1, 1, 1, side, side), 1)
    assert ("FusedRun" in type(outputs.grad_fn).__name__) is fused


def test_an_elman_cell_goes_to_the_reference() -> None:
    cell = ElmanCell(2, 3)
    outputs, *_ = run(RecurrentLayer(cell, engine="fused"), torch.randn(1, 2, 2), None)
    assert "FusedRun" not in type(outputs.grad_fn).__name__


def test_unknown_engines_and_wrong_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="allowed: auto, reference, fused"):
        RecurrentLayer(ConvLSTMCell(1, 2), engine="quick")
    layer = RecurrentLayer(ConvLSTMCell(1, 2, peephole="pixel", grid=(4, 5)))
    choose_engine(layer, "fused")
    with pytest.raises(UsageError, match="found 2 channels"):
        layer(torch.zeros(1, 1, 2, 4, 5), 1)
    with pytest.raises(UsageError, match=r"found grid \(5, 4\)"):
        layer(torch.zeros(1, 1, 1, 5, 4), 1)


def test_a_failing_compiler_is_reported_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> None:
            raise RuntimeError("no working C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(Kernel, "failed", False)
    kernel = Kernel(lambda x: x + 1)
    with caplog.at_level(logging.WARNING):
        assert kernel.compiled(torch.ones(2)).tolist() == [2.0, 2.0]
        assert kernel.compiled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert [r.message.count("no working C++ compiler") for r in caplog.records] == [1]


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch by torch
@pytest.mark.parametrize(("make", "kernels"), [(ConvLSTMCell, 2), (ConvGRUCell, 2)], ids=["conv_lstm", "conv_gru"])
def test_compiled_gates_of_many_shapes_stay_compiled(make: Callable[[int, int], Cell], kernels: int) -> None:
    """Dynamo's limit is 8 compilations; shapes, grids and widths vary more than that."""
    counters.clear()
    shapes = [(2, 3, 1), (3, 4, 2), (4, 5, 3), (5, 6, 1), (6, 4, 2), (7, 3, 3), (8, 9, 1), (3, 7, 1), (9, 8, 2)]
    for channels, side, batch in shapes:
        cell = make(1, channels).double()
        x = torch.randn(batch, 2, 1, side, side, dtype=torch.float64)
        found = []
        for engine in ("reference", "fused"):
            results = run(RecurrentLayer(cell, engine=engine), x, None)
            found.append([*results, *torch.autograd.grad(weigh(*results), list(cell.parameters()))])
        same(*found)
    assert not Kernel.failed
    assert counters["stats"]["unique_graphs"] == kernels  # forward and backward
    assert not counters["graph_break"]


WORKER = """
import sys
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from cubecast.nn import ConvGRUCell, ConvLSTMCell, RecurrentLayer

class Stack(torch.nn.ModuleList):
    def forward(self, x):
        for layer in self:
            x, _ = layer(x, x.shape[1])
        return x

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{folder}/meeting{world}", rank=rank, world_size=world)
stack = Stack(RecurrentLayer(cell.double(), engine="fused") for cell in (ConvLSTMCell(2, 3), ConvGRUCell(3, 3)))
tensors = load_file(f"{folder}/start.safetensors")
x = tensors.pop("x").chunk(world)[rank]
stack.load_state_dict(tensors)
model = torch.nn.parallel.DistributedDataParallel(stack)
optimizer = torch.optim.SGD(stack.parameters(), lr=0.1)
with torch.compiler.set_stance("force_eager"):
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
save_file(stack.state_dict(), f"{folder}/{rank}_of_{world}.safetensors")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    torch.manual_seed(2)
    stack = nn.ModuleList(RecurrentLayer(cell.double()) for cell in (ConvLSTMCell(2, 3), ConvGRUCell(3, 3)))
    x, _ = inputs_of(cell_of("conv_lstm"), batch=4)
    save_file({**stack.state_dict(), "x": x}, tmp_path / "start.safetensors")
    ranks = [(0, 1), (0, 2), (1, 2)]
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(r), str(w)], stderr=subprocess.PIPE)
        for r, w in ranks
    ]
    for process in started:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
    alone, first, second = (load_file(tmp_path / f"{r}_of_{w}.safetensors") for r, w in ranks)
    for name, before in stack.state_dict().items():
        same(first[name], alone[name])
        assert torch.equal(first[name], second[name])
        assert not torch.equal(alone[name], before)
