"""Configuration: one small model per room, all values in a YAML file or as keyword arguments.

Lengths are in steps of the cube, sizes in grid cells. A wrong value or an unknown name raises `UsageError`.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cubecast.errors import UsageError
from cubecast.presets import preset_settings

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

_SHORT = reprlib.Repr()
"""Names a wrong value, whatever its size: aliases in YAML can make a small file a long list of lists."""
_SHORT.maxlevel, _SHORT.maxstring = 2, 100


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskConfig(_Strict):
    """What is forecast from what."""

    history: Positive = 6
    """Frames that the model sees."""
    horizon: Positive = 12
    """Frames that it is trained to forecast (any number can be asked for at prediction time)."""
    outputs: list[str] | None = None
    """Channels to forecast; None: all that go in."""


class DataConfig(_Strict):
    """How windows are cut out of cubes and put into batches."""

    crop: Positive | None = 128
    """Side of the square crops used in training; None: whole fields. Larger than the grid: whole fields."""
    crops_per_window: Positive = 1
    """Crops drawn from each time window in an epoch."""
    wet_bias: Annotated[float, Field(ge=0, le=1)] = 0.8
    """0: crops anywhere with equal chance; 1: chance proportional to their share of wet pixels."""
    wet_threshold: float = 0.1
    """A pixel is wet at or above this value (in the cube's units)."""
    stride: Positive = 1
    """Steps between the starts of neighbouring windows."""
    validation: Fraction = 0.2
    """Share of the time axis, at its end, kept for validation."""
    validate_whole: bool = False
    """Validate on whole fields also when training is on crops: slower, and nearer to what forecasts are made of."""
    batch_size: Positive = 4
    flips: bool = False
    """Mirror and transpose training samples at random (rain does not know left from right; weather at large does)."""
    negate: bool = False
    """Change the sign of training samples in model space at random: warm anomalies are as likely as cold ones."""
    shuffle_blocks: Positive = 16
    """How many places of the data are mixed in a shuffle (fewer where memory says so)."""
    prefetch: Annotated[int, Field(ge=0)] = 2
    """Batches read ahead in a thread."""


class ScalingConfig(_Strict):
    """How values are brought into model space."""

    kind: Literal["auto", "log", "dbr", "standardise", "monthly_anomaly", "identity"] = "auto"
    """auto: log for rain, monthly_anomaly for monthly temperature, else standardise."""
    harmonics: Annotated[int, Field(ge=1, le=5)] | None = None
    """monthly_anomaly: waves a year that are kept of the climatology, against the noise of few years; None: all."""


class ModelConfig(_Strict):
    """The network. Fields are forecast by an encoder-forecaster, point series by a plain recurrent stack."""

    cell: Literal["conv_lstm", "conv_gru", "traj_gru", "elman", "lstm", "gru"] = "conv_lstm"
    """conv_lstm, conv_gru, traj_gru: fields; elman, lstm and gru: point series (or every pixel for itself)."""
    hidden_channels: list[Positive] = [32, 32]
    """One number a layer, from the finest layer on."""
    kernel_size: Positive = 3
    strides: list[Positive] | None = None
    """Downscaling before each layer (1: same grid); None: 1 for the first and 2 for the others."""
    patch: Positive = 4
    """Side of the patches that are folded into channels before the first layer (1: none)."""
    peephole: Literal["none", "channel", "pixel"] = "none"
    grid: tuple[Positive, Positive] | None = None
    """The y and x size that per-pixel peepholes are made for; needed by peephole='pixel' only."""
    reset: Literal["after", "before"] = "after"
    """GRU convention: reset gate applied after (cuDNN, torch) or before (Cho 2014) the recurrent product."""
    links: Positive = 5
    """traj_gru: how many places its state sees from each point, along flow fields that it learns."""
    coordinates: Literal["eulerian", "lagrangian"] = "eulerian"
    """lagrangian: fields are brought to the reference time along the motion of the history (2 frames or more), forecast
    there, and brought on to their valid times."""
    motion_window: Annotated[float, Field(ge=1)] = 24.0
    """lagrangian: motion is about the same within this many pixels (a standard deviation)."""
    residual: bool = True
    """Forecast what is kept of the last observed frame, and the change since."""
    bands: Positive = 1
    """residual: fields are kept in this many bands of scale, each for itself (1: as a whole)."""
    noise_channels: Annotated[int, Field(ge=0)] = 0
    """Planes of white noise given to each layer of the forecaster: it then forecasts members. 0: none."""
    renewal: bool = False
    """bands above 1: members from noise that takes the place of what fades; the network runs once for all."""
    mask_channel: bool = True
    """Give the network the mask of observed values as further channels."""
    position: bool = False
    """Give the network the place of every pixel on the globe as further channels (latitude/longitude grids)."""
    season: bool = False
    """Give the network the time of year of every frame as further channels."""
    engine: Literal["auto", "reference", "fused"] = "auto"
    """What computes the recurrent layers, with the same result: auto takes the fused engine where that gains."""
    recompute: bool = False
    """The fused engine trains in less memory and more time."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, found {self.kernel_size}")
        if self.strides is not None and len(self.strides) != len(self.hidden_channels):
            raise ValueError(
                f"strides needs {len(self.hidden_channels)} numbers, one a layer, found {len(self.strides)}"
            )
        if (self.peephole == "pixel") != (self.grid is not None):
            raise ValueError("grid is given exactly when peephole is 'pixel'")
        if self.cell != "conv_lstm" and self.peephole != "none":
            raise ValueError(f"peephole belongs to cell conv_lstm, found cell {self.cell}")
        if self.cell == "traj_gru" and self.reset != "after":
            raise ValueError(f"cell traj_gru has the convention reset 'after', found '{self.reset}'")
        if self.coordinates == "lagrangian" and self.is_series:
            raise ValueError(f"coordinates lagrangian are for fields, found cell {self.cell}")
        if self.renewal and not (self.residual and self.bands > 1):
            raise ValueError("renewal needs residual and bands of 2 or more")
        if self.has_members and self.is_series:
            raise ValueError(f"noise_channels and renewal are for fields, found cell {self.cell}")
        return self

    @property
    def has_members(self) -> bool:
        """Whether it forecasts members of an ensemble."""
        return self.renewal or self.noise_channels > 0

    @property
    def is_series(self) -> bool:
        """Whether the cell is a plain recurrent one."""
        return self.cell in ("elman", "lstm", "gru")


class LossConfig(_Strict):
    """The training loss, over observed pixels, in model space."""

    kind: Literal["mse", "mae", "huber", "balanced", "crps"] = "mse"
    """balanced: weighted MSE + MAE of Shi et al. 2017; crps: of ensembles, for networks with members."""
    thresholds: list[float] = [2.0, 5.0, 10.0, 30.0]
    """balanced, crps: rain rates (cube units) at which the weight rises."""
    weights: list[float] = [1.0, 2.0, 5.0, 10.0, 30.0]
    """balanced, crps: the weight below the first threshold, between the first and the second, and so on."""
    delta: Annotated[float, Field(gt=0)] = 1.0
    """huber: where the square turns into a line, in model space."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.weights) != len(self.thresholds) + 1:
            raise ValueError(f"weights needs {len(self.thresholds) + 1} numbers, found {len(self.weights)}")
        return self


class TrainingConfig(_Strict):
    """The training loop."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd: with Nesterov momentum 0.9; slower, and overfits short noisy series less."""
    epochs: Positive = 20
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop (and keep the best) after this time; a run that it cuts short, or nearly, is not reproducible from
    its seed: its learning rate then follows the clock."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all steps in which the learning rate rises; it falls as a cosine afterwards."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    members: Annotated[int, Field(ge=2)] = 2
    """Of each sample in training, for networks with members."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average of the weights; 0: none."""
    patience: Positive | None = 10
    """Epochs without a better validation loss before it stops; None: never."""
    refit: bool = False
    """For short records: after the validated training train anew on all data for all epochs, and keep these weights."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where the hardware multiplies it (CUDA, AMX, AVX512-BF16), else fp32. Forecasts take it, too,
    unless they are asked for in another."""
    device: str = "auto"
    """auto: CUDA when present."""
    tensorboard: bool = False
    """Write TensorBoard events beside the CSV log (needs the extra cubecast[tensorboard])."""
    deterministic: bool = False
    """For CUDA: only algorithms that give the same bits each time, at a cost. On a CPU training is so anyway."""
    seed: Annotated[int, Field(ge=0)] = 0


class Config(_Strict):
    """Everything that makes a model, saved beside its weights."""

    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    scaling: ScalingConfig = ScalingConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.task.history < 2 and (self.model.coordinates == "lagrangian" or self.model.bands > 1):
            raise ValueError("coordinates lagrangian and bands above 1 need a history of 2 frames or more")
        if (self.loss.kind == "crps") != self.model.has_members:
            raise ValueError("the loss crps and renewal (or noise_channels) go together: set both, or none")
        return self

    @classmethod
    def build(cls, values: dict[str, Any] | None = None, /, **overrides: Any) -> Config:
        """A configuration from nested ``values`` (as in YAML) with single ``overrides`` by field name.

        ``Config.build(history=10, hidden_channels=[64])`` finds the room that each name belongs to; a name that two
        rooms have is given with its room, ``**{"loss.kind": "mae"}``.

        Raises:
            UsageError: an unknown name or a value that is not allowed.
        """
        merged: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in (values or {}).items()}
        known = [(room, n) for room, f in cls.model_fields.items() for n in type(f.default).model_fields]
        for name, value in overrides.items():
            places = [(room, n) for room, n in known if name in (n, f"{room}.{n}")]
            if len(places) > 1:
                raise UsageError("setting of several rooms", found=name, allowed=", ".join(map(".".join, places)))
            if not places:
                raise UsageError("unknown setting", found=name, allowed=", ".join(n for _, n in known))
            ((room, n),) = places
            merged.setdefault(room, {})[n] = value
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            raise UsageError(
                f"setting {where or 'configuration'}", found=_SHORT.repr(first.get("input")), remedy=first["msg"]
            ) from None

    @classmethod
    def preset(cls, name: str, /, **overrides: Any) -> Config:
        """The settings for a kind of data (the keys of `cubecast.presets.PRESETS`), with overrides as in `build`.

        Raises:
            UsageError: an unknown preset, an unknown name or a value that is not allowed.
        """
        return cls.build(preset_settings(name), **overrides)

    @classmethod
    def read(cls, path: str | Path, preset: str = "rain", /, **overrides: Any) -> Config:
        """A configuration from a YAML file over a preset, with overrides as in `build`.

        Raises:
            UsageError: no readable YAML mapping; else as `preset`.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            raise UsageError(f"configuration file {path}", found=str(error), allowed="a readable YAML file") from None
        if not isinstance(values, dict):
            allowed = "a YAML mapping such as 'task: {history: 6}'"
            raise UsageError(f"configuration file {path}", found=type(values).__name__, allowed=allowed)
        for room, settings in preset_settings(preset).items():
            if isinstance(values.get(room, {}), dict):
                values[room] = {**settings, **values.get(room, {})}
        return cls.build(values, **overrides)

    def continued(self, preset: str, /, **overrides: Any) -> Config:
        """Settings of a training that starts from a model of this configuration: its task, scaling, network and loss.

        Data and training are those of the preset, at a quarter of its learning rate: the weights are good already, and
        shall not be forgotten. Overrides as in `build`.

        Raises:
            UsageError: as `preset`.
        """
        fresh = Config.preset(preset)
        kept = {room: getattr(self, room) for room in ("task", "scaling", "model", "loss")}
        quarter = fresh.training.model_copy(update={"learning_rate": fresh.training.learning_rate / 4})
        return Config.build(fresh.model_copy(update={**kept, "training": quarter}).model_dump(), **overrides)

    def to_yaml(self) -> str:
        """The whole configuration as YAML; `read` is the inverse."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
