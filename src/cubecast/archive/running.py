"""A run over an archive: references are chosen, histories go to the workers of a cluster, and a report is kept."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from dask.system import CPU_COUNT
from distributed import CancelledError, Client, Future, LocalCluster, as_completed
from distributed.comm import CommClosedError

from cubecast.archive.histories import Archive, Fingerprints, History, open_archive
from cubecast.archive.references import choose_references
from cubecast.archive.report import Report
from cubecast.archive.targets import choose_target
from cubecast.archive.work import FAILED, Forecaster, Job, forecast_one, model_digest
from cubecast.channels import Array
from cubecast.cube import locate
from cubecast.errors import CubecastError, FailedError, UsageError, one_line
from cubecast.nowcaster import Nowcaster
from cubecast.progress import Progress, follow
from cubecast.shipped import model_path
from cubecast.sources.files import absolute

NO_PROFILE = {"distributed.worker.profile.enabled": False}
"""What workers of this machine are told: dask keeps an hour of statistics of what they did, hundreds of MB."""
THREADS = 2
"""Of a worker: one forecasts, one reads and writes."""
AHEAD = 2
"""Histories that wait at a worker for each of its threads."""
CONNECT_SECONDS = 20
"""How long a scheduler is looked for."""


def run_archive(
    source: Sequence[str],
    model: str | Path,
    output: str | Path,
    *,
    at: Sequence[Any] | None = None,
    start: str | None = None,
    end: str | None = None,
    every: int = 1,
    variable: Sequence[str] | None = None,
    static: str | None = None,
    matched: bool = False,
    maps: bool = False,
    memory: int | str | None = None,
    fit: Callable[[xr.DataArray, Nowcaster], xr.DataArray] = lambda cube, model: cube,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> dict[str, Any]:
    """Forecast after many reference times of an archive, and go on where an earlier run ended.

    What is there, complete and of the same model, options and input, is left as it is; what fails is reported, and the
    others are made. Histories are read by the workers, a few ahead of the forecasts, so memory does not grow with the
    archive. A worker that is lost is replaced, and what it had in hand goes to another one.

    Args:
        source: files, a pattern, a Zarr store or a URL, as `cubecast.open_cube` takes them.
        model: the folder of a saved model, or the name of a shipped one; workers load it from there.
        output: a folder for one netCDF file a reference time, or a name in .zarr for one store.
        at: reference times; None: all from ``start`` to ``end`` (inclusive) that have a complete history.
        every: every how manieth of these.
        variable: names of variables, where there are several.
        static: file of static fields.
        matched: see `cubecast.matching.match_distribution`.
        maps: draw maps of each forecast too, where the output is a folder.
        memory: of a worker, see `Nowcaster.predict`.
        fit: makes the archive's cube one in the units that the model takes.
        scheduler: address of a dask scheduler, whose workers see the same files; None: a cluster on this machine.
        workers: of that cluster; None: one a core.
        progress: shows how many forecasts are done.
        say: told where the dashboard is.
        options: horizon, precision, members and seed of `Nowcaster.predict`.

    Returns:
        The report, which is also written as JSON: counts, and each forecast and file that failed with its reason.

    Raises:
        CubecastError: nothing could be begun (wrong times, no archive, another model's output), or the scheduler is
            lost.
    """
    folder, loaded = model_path(model).resolve(), Nowcaster.load(model)
    if matched and options.get("members"):
        raise UsageError(
            "a batch", found="matched and members", allowed="one of them: fields, not members, are matched"
        )
    archive = open_archive([absolute(one) for one in source], variable=variable, progress=progress)
    cube = fit(archive.cube, loaded)
    loaded.check(cube)
    times, failed = choose_references(cube, loaded, at=at, start=start, end=end, every=every)
    target = choose_target(Path(output).resolve(), maps=maps)
    target.prepare(
        loaded.blank(cube, at=times, memory=memory, **{k: options.get(k) for k in ("horizon", "members", "precision")})
    )
    units = None if cube is archive.cube else str(cube.attrs["units"])
    about: dict[str, Any] = {"matched": matched, "memory": memory, "units": units, "options": options}
    about["static"] = static and absolute(static)
    job = Job(_key(), folder, model_digest(folder), archive.templates, archive.names, target, **about)
    histories = _histories(archive, times, loaded.config.task.history, Fingerprints(job.about))
    with Report(target, archive, wanted=len(times) + len(failed), about={"folder": str(folder), **job.about}) as report:
        for reference, reason in failed:
            report.add(reference, FAILED, reason)
        with _connected(scheduler, workers, say) as client, _prepared(client, job):
            results = _results(client, job.key, histories)
            for reference, state, reason in follow(results, "forecasting", len(times), progress):
                report.add(reference, state, reason)
        if scheduler is None:  # processes of other machines are not known here
            target.clean()
    return report.values


def _key() -> str:
    return f"cubecast-{secrets.token_hex(8)}"


@contextmanager
def _connected(scheduler: str | None, workers: int | None, say: Callable[[str], None]) -> Iterator[Client]:
    """A client of a scheduler, or of a cluster on this machine, which ends with it."""
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise FailedError(f"no dask scheduler at {scheduler}", found=str(error)) from None
        with client:
            if "dashboard" in client.scheduler_info()["services"]:
                say(f"dashboard: {client.dashboard_link}")
            yield client
        return
    with local_cluster(workers or CPU_COUNT) as client:
        say(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def local_cluster(workers: int) -> Iterator[Client]:
    """A client of a cluster on this machine, which ends with it."""
    with (
        dask.config.set(NO_PROFILE),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=THREADS,
            memory_limit=1 / workers,
            dashboard_address="127.0.0.1:0",  # for this machine alone: it knows no passwords
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _prepared(client: Client, job: Job) -> Iterator[None]:
    """All workers have the model, those too that come later."""
    try:
        client.register_plugin(Forecaster(job))
    except CubecastError:
        raise
    except Exception as error:  # whatever a worker on another machine raised
        raise FailedError("a worker cannot be prepared", found=f"{type(error).__name__}: {error}") from error
    try:
        yield
    finally:
        if client.status == "running":
            with suppress(OSError):  # the scheduler is lost, and what it knew
                client.unregister_worker_plugin(job.key)


def _histories(
    archive: Archive, times: Array, length: int, fingerprints: Fingerprints
) -> Iterator[tuple[Any, History, int]]:
    """What goes to the workers: reference time, history and fingerprint, one after the other."""
    for reference, last in zip(times, locate(archive.cube, times).tolist(), strict=True):
        history = archive.history(last, length)
        yield reference, history, fingerprints.of(history)


def _results(client: Client, key: str, histories: Iterator[tuple[Any, History, int]]) -> Iterator[tuple[Any, str, str]]:
    """What became of each forecast, in the order in which they are done; only a few are on their way at one time.

    Raises:
        FailedError: the scheduler is lost.
    """
    running: dict[Future[tuple[str, str]], Any] = {}
    done, numbers = as_completed(loop=client.loop), count()

    def send() -> None:
        most = AHEAD * max(1, sum(client.nthreads().values()))
        while len(running) < most and (item := next(histories, None)) is not None:
            reference, history, fingerprint = item
            name = f"{key}-{next(numbers)}"
            future = client.submit(forecast_one, key, history, fingerprint, key=name, pure=False)
            running[future] = reference
            done.add(future)

    lost = FailedError("the dask scheduler is lost", remedy="start it, and run the same command to go on")
    try:
        send()
        while running:
            future = next(done)
            reference = running.pop(future)
            if future.status == "finished":
                yield (reference, *future.result())
            elif future.status == "error":  # a forecast that killed one worker after the other, say
                yield reference, FAILED, one_line(future.exception())
            else:
                raise lost
            future.release()
            send()
    except (CommClosedError, CancelledError):
        raise lost from None
