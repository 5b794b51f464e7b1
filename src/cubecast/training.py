"""The training loop, in plain torch, to be read from top to bottom.

Each epoch: every batch once (forward, masked loss, backward, clipped optimiser step, learning rate, averaged weights);
then the validation loss of the averaged weights; then a checkpoint. The best weights are chosen on validation only, and
the untrained ones take part: a residual network that has learned nothing useful stays persistence. A run that is killed
and resumed from its checkpoint ends with the same bits as one that was not, on the same machine and number of threads.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cubecast.ahead import Waiting
from cubecast.batches import Batch, Batches
from cubecast.checkpoint import CHECKPOINT, REFIT, Run, load_checkpoint, save_checkpoint
from cubecast.config import TrainingConfig
from cubecast.errors import FailedError, InputError
from cubecast.nn.members import draw_noise, forecast_members
from cubecast.precision import choose_autocast, repeatable
from cubecast.ranks import Ranks
from cubecast.training_log import progress_bar, tensorboard

log = logging.getLogger(__name__)

ALONE = Ranks()
_EARLY = 0.05
"""Share of the time limit before which the clock does not count: the learning rate of a run that ends well within the
limit then follows from its steps alone, and the run from its seed."""


def choose_device(name: str) -> torch.device:
    """The device of a configuration: ``auto`` is CUDA when present."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r}", found=str(error).splitlines()[0], allowed="cpu, or cuda if present"
        ) from None


def train(
    network: nn.Module,
    loss: nn.Module,
    training: Batches,
    validation: Batches | None,
    config: TrainingConfig,
    *,
    ranks: Ranks = ALONE,
    directory: Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
    progress: bool = False,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train ``network`` and give the weights with the best validation loss, and one log row an epoch.

    Args:
        network: called as ``network(frames, horizon)``; trained in place.
        loss: called as ``loss(prediction, target, observed)``.
        training, validation: batches; validation decides on the best weights (the untrained ones take part) and on
            early stopping. None: the averaged weights after the last epoch are given.
        config: learning rate, epochs and so on.
        ranks: the processes that train together, each on batches of its own, with the steps of one process on all.
        directory: where checkpoint and CSV log go after every epoch; None: nowhere.
        resume: go on from the checkpoint in ``directory`` when there is one.
        fingerprint: text that must be equal in a checkpoint that is resumed (the whole configuration).
        progress: show a bar with loss, samples per second and time left when stderr is a terminal.

    Raises:
        FailedError: the loss is no longer finite.
        InputError: a checkpoint that does not belong to this run.
    """
    device = choose_device(config.device)
    network.to(device)
    loss.to(device)
    run = Run(network, copy.deepcopy(network), copy.deepcopy(network), _optimizer(network, config))
    if directory is not None:
        _go_on(run, directory, fingerprint, resume=resume, ranks=ranks)
    autocast = choose_autocast(config.precision, device)
    judge = functools.partial(
        evaluate, loss=loss, batches=validation, device=device, members=config.members, autocast=autocast, ranks=ranks
    )
    model = ranks.parallel(run.network)
    step = functools.partial(_step, run, model, loss, config=config, autocast=autocast, ranks=ranks)
    clock = functools.partial(_time_share, config, time.monotonic(), ranks)
    if run.epoch == 0 and validation is not None:
        run.best_loss = judge(run.average)
    total = config.epochs * len(training)
    written = directory if ranks.first else None
    with (
        repeatable(config.deterministic),
        progress_bar(progress and ranks.first, total, run.step) as show,
        tensorboard(config, written) as record,
    ):
        while run.epoch < config.epochs and not _spent(run, config, clock()):
            found = _train_epoch(
                run, training.epoch(run.epoch, device=device), step, total=total, clock=clock, show=show
            )
            loss_now = {"training_loss": found.pop("training_loss"), "validation_loss": judge(run.average)}
            row = {"epoch": run.epoch, **loss_now, **found}
            _judge(run, row, validated=validation is not None)
            record(row)
            if written is not None:
                save_checkpoint(run, written, fingerprint)
    _conclude(run)
    return run.best, run.rows


def _go_on(run: Run, directory: Path, fingerprint: str, *, resume: bool, ranks: Ranks) -> None:
    """Bring the run to where its checkpoint is; without, those of runs before it are removed."""
    if resume and (directory / CHECKPOINT).exists():
        load_checkpoint(run, directory / CHECKPOINT, fingerprint)
        log.info("resumed after epoch %d", run.epoch)
    elif ranks.first:
        for old in (directory / CHECKPOINT, directory / REFIT / CHECKPOINT):
            old.unlink(missing_ok=True)


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)


def evaluate(
    network: nn.Module,
    loss: nn.Module,
    batches: Batches | None,
    *,
    device: torch.device,
    members: int = 2,
    autocast: torch.dtype | None = None,
    ranks: Ranks = ALONE,
) -> float:
    """Mean loss over the batches of all ranks, each weighted by its observed pixels; NaN without batches.

    A network with noise makes so many ``members`` of each sample, with the same noise at every call.
    """
    if batches is None:
        return math.nan
    network.eval()
    summed = pixels = 0.0
    with torch.no_grad():
        for number, batch in enumerate(batches.epoch(0, device=device)):
            with _autocast(device, autocast):
                seed, horizon = number * ranks.count + ranks.rank, batch.targets.shape[1]
                prediction = forecast_members(network, batch.inputs, horizon, members=members, seed=seed)
            count = float(batch.observed.sum())
            summed += float(loss(prediction.float(), batch.targets, batch.observed)) * count
            pixels += count
    summed, pixels = ranks.sums(summed, pixels)
    if not pixels:
        raise InputError("the validation part is all missing", remedy="keep another period for validation")
    return summed / pixels


def _train_epoch(
    run: Run,
    batches: Iterator[Batch],
    step: Callable[..., tuple[float, int]],
    *,
    total: int,
    clock: Callable[[], float],
    show: Callable[[float, int], None],
) -> dict[str, float]:
    """Every batch once, or until the time is over: loss, learning rate and speed of the epoch."""
    waiting, samples, summed = Waiting(batches), 0, 0.0
    for batch in waiting:
        spent = clock()
        value, count = step(batch, share=max(run.step / total, spent if spent > _EARLY else 0.0))
        samples += count
        summed += value * count
        show(value, count)
        if spent >= 1:
            break
    if not samples:
        raise InputError("no batch to train on", found="fewer windows than processes", remedy="take fewer processes")
    run.epoch += 1
    return {
        "training_loss": summed / samples,
        "learning_rate": run.optimizer.param_groups[0]["lr"],
        "samples_per_second": samples / (time.monotonic() - waiting.start),
        "waiting_share": waiting.share,
    }


def _step(
    run: Run,
    model: nn.Module,
    loss: nn.Module,
    batch: Batch,
    *,
    config: TrainingConfig,
    share: float,
    autocast: torch.dtype | None,
    ranks: Ranks,
) -> tuple[float, int]:
    """One optimiser step; the loss of the batches of all ranks, and how many samples they have."""
    run.network.train()
    for group in run.optimizer.param_groups:
        group["lr"] = config.learning_rate * _rate(share, config.warmup)
    seed = int(np.random.SeedSequence([config.seed, run.step, ranks.rank]).generate_state(1)[0])
    horizon = batch.targets.shape[1]
    noise = draw_noise(run.network, batch.inputs, horizon, members=config.members, seed=seed)
    with _autocast(batch.inputs.device, autocast):
        prediction = model(batch.inputs, horizon) if noise is None else model(batch.inputs, horizon, noise)
    own = loss(prediction.float(), batch.targets, batch.observed)
    pixels = float(batch.observed.sum())
    total, samples, everywhere = ranks.sums(pixels, len(batch.inputs), float(own.detach()) * pixels)
    value = everywhere / max(total, 1.0)
    run.optimizer.zero_grad(set_to_none=True)
    # Gradients are the mean over the ranks: each loss counts as its share of all pixels does.
    (own * (pixels * ranks.count / max(total, 1.0))).backward()
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), config.clip)
    if not torch.isfinite(norm) or not math.isfinite(value):
        raise FailedError(
            f"the training loss is no longer finite at step {run.step}",
            found=f"loss {value:g}, gradient norm {float(norm):g}",
            remedy="lower learning_rate, or look for wrong values in the data with cubecast info",
        )
    run.optimizer.step()
    run.step += 1
    decay = min(config.average, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for average, current in zip(run.average.state_dict().values(), run.network.state_dict().values(), strict=True):
            average.lerp_(current, 1 - decay) if average.is_floating_point() else average.copy_(current)
    return value, int(samples)


def _rate(share: float, warmup: float) -> float:
    """Share of the full learning rate: a linear rise over ``warmup``, then half a cosine down to 1 %."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - warmup) / (1 - warmup))))


def _judge(run: Run, row: dict[str, float], *, validated: bool) -> None:
    """Keep the averaged weights when they are the best so far (without validation: always), and log the epoch."""
    run.rows.append(row)
    if validated and not math.isfinite(row["validation_loss"]):
        raise FailedError("the validation loss is not finite", found=row["validation_loss"])
    if not validated or row["validation_loss"] < run.best_loss:
        run.best_loss, run.best_epoch = row["validation_loss"], run.epoch
        run.best.load_state_dict(run.average.state_dict())
    log.info(
        "epoch %d: training loss %.5g, validation loss %.5g%s",
        run.epoch,
        row["training_loss"],
        row["validation_loss"],
        " (best)" if run.best_epoch == run.epoch else "",
    )


def _conclude(run: Run) -> None:
    """Say, and note in the log, the weights of which epoch are kept."""
    for row in run.rows:
        row["kept"] = float(row["epoch"] == run.best_epoch)
    if run.best_epoch:
        log.info("kept the weights after epoch %d, validation loss %.5g", run.best_epoch, run.best_loss)
    elif not run.rows:
        log.warning("max_minutes passed before the first epoch: the untrained network is kept; give more time")
    else:
        log.warning(
            "no epoch came below the validation loss of the untrained network, %.5g, which is kept: it forecasts what "
            "it starts with (persistence, when residual); give more data, or validation data of the same kind",
            run.best_loss,
        )


def _time_share(config: TrainingConfig, start: float, ranks: Ranks) -> float:
    """How much of the time has passed, by the clock of the first rank."""
    if config.max_minutes is None:
        return 0.0
    return ranks.sums((time.monotonic() - start) / (60 * config.max_minutes) if ranks.first else 0.0)[0]


def _spent(run: Run, config: TrainingConfig, share: float) -> bool:
    """Whether the time is over or the validation loss has stopped falling."""
    late = config.patience is not None and run.epoch - run.best_epoch >= config.patience
    return late or share >= 1


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
