"""Model folders and checkpoints that somebody made to do harm: refused, and nothing in them is executed."""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from cubecast.checkpoint import CHECKPOINT
from cubecast.config import Config
from cubecast.errors import InputError, UsageError
from cubecast.model_folder import MODEL, SETTINGS, WEIGHTS, seal
from cubecast.nowcaster import Nowcaster


def test_malicious_folders(tally, model, copy, memory_disk, monkeypatch):
    fault, canary = tally("malicious model folders", short=len(PAYLOADS), full=len(PAYLOADS)), memory_disk / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    for seed, payload in enumerate(PAYLOADS):
        folder = copy()
        payload(folder, model)
        before = peak()
        try:
            loaded = Nowcaster.load(folder)
            Config.read(folder / SETTINGS)
            if payload.__name__ not in HARMLESS:
                fault.lost(seed, f"{payload.__name__}: loaded {loaded}")
        except (InputError, UsageError):
            pass
        except Exception as error:
            fault.lost(seed, f"{payload.__name__}: {type(error).__name__}: {error}")
        if peak() - before > 2**29:
            fault.lost(seed, f"{payload.__name__}: {(peak() - before) / 2**20:.0f} MiB")
        if canary.exists():
            fault.lost(seed, f"{payload.__name__}: executed")
            canary.unlink()
    assert fault.tries >= 20


def test_malicious_checkpoints(tally, model, copy, rain, memory_disk, monkeypatch):
    canary = memory_disk / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    fault = tally("malicious checkpoints", short=3, full=3)
    bad = [pickle.dumps(Bomb()), zipped(pickle.dumps(Bomb())), struct.pack("<Q", 2**60) + b"{}"]
    for seed, content in enumerate(bad):
        folder = copy()
        (folder / CHECKPOINT).write_bytes(content)
        try:
            Nowcaster(Nowcaster.load(model).config).fit(rain(40), directory=folder, resume=True)
            fault.lost(seed, "resumed")
        except InputError:
            pass
        if canary.exists():
            fault.lost(seed, "executed")


def peak() -> int:
    """The most bytes of memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------------------------------------- what could be in them


PAYLOADS: list[Callable[[Path, Path], None]] = []
HARMLESS = {"pickles_under_every_usual_name"}


def payload(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    PAYLOADS.append(function)
    return function


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ('touch "$CANARY"',)


def zipped(data: bytes) -> bytes:
    """The zip file of a ``torch.save``, with this pickle in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def vouched(folder: Path, weights: bytes) -> None:
    """Weights with the hashes that belong to them: as by somebody who can write both files."""
    (folder / WEIGHTS).write_bytes(weights)
    changed(folder, weights_sha256=sha256(weights).hexdigest())


def changed(folder: Path, **values: Any) -> None:
    about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    del about["sha256"]
    (folder / MODEL).write_text(seal(about | values), encoding="utf-8")


def header(text: str | bytes, size: int | None = None) -> bytes:
    """A safetensors file with this header."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if size is None else size) + data + bytes(64)


def tensor(start: int, end: int, shape: str = "[4]") -> bytes:
    return header(f'{{"network.a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{start}, {end}]}}}}')


@payload
def a_pickle_as_weights(folder, model):
    vouched(folder, pickle.dumps(Bomb()))


@payload
def a_torch_save_as_weights(folder, model):
    vouched(folder, zipped(pickle.dumps(Bomb())))


@payload
def a_pickle_as_model_json(folder, model):
    (folder / MODEL).write_bytes(pickle.dumps(Bomb(), protocol=0))


@payload
def pickles_under_every_usual_name(folder, model):
    for name in ("model.pkl", "model.pt", "pytorch_model.bin", "weights.pth", "data.pkl", "__init__.py", "model.py"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))


@payload
def a_gzip_as_weights(folder, model):
    vouched(folder, gzip.compress(bytes(2**20)))


@payload
def a_tar_that_climbs_out_as_weights(folder, model):
    with tarfile.open(folder / "w.tar", "w") as archive:
        archive.add(model / MODEL, "../../canary")
    vouched(folder, (folder / "w.tar").read_bytes())


@payload
def a_huge_header(folder, model):
    vouched(folder, header("{}", size=2**62))


@payload
def a_header_of_100_MB(folder, model):
    vouched(folder, header("{" + " " * 100_000_001))


@payload
def a_deep_header(folder, model):
    vouched(folder, header('{"a":' * 200_000))


@payload
def a_tensor_beyond_the_file(folder, model):
    vouched(folder, tensor(0, 2**40, "[274877906944]"))


@payload
def a_tensor_of_negative_length(folder, model):
    vouched(folder, tensor(16, 0))


@payload
def a_shape_that_overflows(folder, model):
    vouched(folder, tensor(0, 16, "[4294967296, 4294967296, 4]"))


@payload
def other_tensors(folder, model):
    vouched(folder, tensor(0, 16))


@payload
def no_tensors(folder, model):
    vouched(folder, struct.pack("<Q", 2) + b"{}")


@payload
def a_deep_json(folder, model):
    (folder / MODEL).write_text("[" * 200_000, encoding="utf-8")


@payload
def a_number_of_a_million_digits(folder, model):
    (folder / MODEL).write_text('{"format": ' + "9" * 1_000_000 + "}", encoding="utf-8")


@payload
def a_network_of_a_terabyte(folder, model):
    about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    about["config"]["model"]["hidden_channels"] = [200_000]
    changed(folder, config=about["config"])


@payload
def a_setting_that_is_code(folder, model):
    about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    about["config"]["model"]["cell"] = "__import__('os').system('touch $CANARY')"
    changed(folder, config=about["config"])


@payload
def a_setting_that_nobody_knows(folder, model):
    about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    about["config"]["model"]["__class__"] = "os.system"
    changed(folder, config=about["config"])


@payload
def a_yaml_tag(folder, model):
    text = "!!python/object/apply:os.system ['touch \"$CANARY\"']"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


@payload
def a_yaml_bomb(folder, model):
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{o}'] * 9)}]" for o, n in zip("abcdefgh", "bcdefghi", strict=True)]
    (folder / SETTINGS).write_text("\n".join([*lines, "model: {hidden_channels: *i}"]), encoding="utf-8")


@payload
def a_deep_yaml(folder, model):
    (folder / SETTINGS).write_text("[" * 20_000, encoding="utf-8")


@payload
def weights_that_link_to_a_device(folder, model):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/dev/zero")


@payload
def weights_that_link_out(folder, model):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/passwd")


@payload
def weights_that_are_a_pipe(folder, model):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


@payload
def a_model_json_that_links_to_itself(folder, model):
    (folder / MODEL).unlink()
    (folder / MODEL).symlink_to(MODEL)
