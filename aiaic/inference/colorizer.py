"""Coloured pictures of any resolution from a checkpoint.

>>> from aiaic.inference.colorizer import Colorizer
>>> colorizer = Colorizer.load("runs/first/stage3/step-...")
>>> coloured = colorizer.colorize(picture, waveform, sample_rate_hz=44_100)
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchaudio.functional import resample

from aiaic import config
from aiaic.audio import fit_length
from aiaic.checkpointing import checkpoint
from aiaic.color import AB_SCALE, lightness
from aiaic.inference.upsampling import join_large, to_8_bit, unit_rgb
from aiaic.networks import model as networks
from aiaic.networks.model import Model, ModelConfig

_MULTIPLE = 32  # pictures are padded to a multiple of the deepest stride of the backbones
_MAX_ASPECT = 8
_WINDOWS_PER_LENGTH = 4
_DEAF = (
    "{} is of stage 1, whose audio encoder is untrained: give one of stage 3 (or 2), or no sound"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorized:
    """A coloured picture."""

    rgb: NDArray[Any]
    """sRGB, [h w 3], as large and as deep as the input."""
    relevance: float | None
    """How well the sound fits, in [0, 1], the mean over levels; None where no sound took part."""
    relevance_by_level: tuple[float, ...] = ()
    """The same at each guided level, the deepest first; empty where no sound took part."""


def load(folder: Path, *, with_sound: bool = False) -> Model:
    """The model of a checkpoint, in eval mode, on the CPU.

    Args:
        folder: the checkpoint.
        with_sound: whether it is to be guided by sound.

    Raises:
        FileNotFoundError: ``folder`` is no checkpoint.
        ValueError: it is damaged, of another architecture than it says, or of stage 1, which knows
            no sound, although sound is wanted.
    """
    record = checkpoint.read_record(folder)
    if with_sound and record.stage == 1:
        raise ValueError(_DEAF.format(f"checkpoint '{folder}'"))
    model = networks.build(config.from_json(ModelConfig, _part(folder, record, "model")), seed=0)
    try:
        model.load_state_dict(checkpoint.read_model(folder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"checkpoint '{folder}' is not what its recipe says: {reason}") from None
    if record.stage < 3 and _part(folder, record, "stage1").get("p_mismatch") == 0:
        model.colorizer.always_relevant = True  # as stage 1 was trained: nothing taught the score
    return model.eval().requires_grad_(requires_grad=False)


def view_size_px(folder: Path) -> int:
    """The size of pictures that a checkpoint was trained on."""
    record = checkpoint.read_record(folder)
    return int(_part(folder, record, "view")["size_px"])


class Colorizer:
    """Colours pictures by a checkpoint: arrays in, arrays out."""

    def __init__(self, model: Model, *, size_px: int, hears: bool = True) -> None:
        """Args:
        model: in eval mode; pictures are coloured where its weights lie.
        size_px: short side at which chroma is predicted; best the one trained on.
        hears: whether its audio encoder is trained.
        """
        self.model = model
        self.size_px = size_px
        self.hears = hears

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "auto", *, with_sound: bool = False
    ) -> "Colorizer":
        """The colorizer of a checkpoint.

        Args:
            folder: the checkpoint.
            device: where to compute; auto: on a GPU where there is one.
            with_sound: refuse a checkpoint that knows no sound at once.

        Raises:
            FileNotFoundError, ValueError: see :func:`load`.
        """
        folder = Path(folder)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load(folder, with_sound=with_sound).to(device)
        hears = checkpoint.read_record(folder).stage > 1
        return cls(model, size_px=view_size_px(folder), hears=hears)

    @torch.inference_mode()
    def colorize(
        self,
        picture: NDArray[Any],
        waveform: NDArray[Any] | None = None,
        *,
        sample_rate_hz: int | None = None,
    ) -> Colorized:
        """Colour a picture: predict small, enlarge ``ab``, join the original lightness.

        Args:
            picture: grey [h w] or sRGB [h w 3], uint8 or uint16; of a colour picture the lightness
                alone is used.
            waveform: mono sound [t], float in [-1, 1]; its loudest window is heard. Sound
                under -60 dBFS counts as none.
            sample_rate_hz: of the sound; the model's if absent.

        Raises:
            ValueError: the picture or the sound is empty, or not of such a shape or type; or there
                is a sound, and the checkpoint is of stage 1, which knows none.
        """
        rgb = _as_rgb(picture)
        semantics, present = self._hear(waveform, sample_rate_hz)
        ab, logits = predict(self.model, small_picture(rgb, self.size_px), semantics, present)
        by_level = tuple(logits[0].double().sigmoid().tolist()) if bool(present) else ()
        return Colorized(
            rgb=join_large(rgb, ab),
            relevance=sum(by_level) / len(by_level) if by_level else None,
            relevance_by_level=by_level,
        )

    def _hear(
        self, waveform: NDArray[Any] | None, sample_rate_hz: int | None
    ) -> tuple[Tensor, Tensor]:
        audio = self.model.config.audio
        if waveform is None:
            semantics = torch.zeros(1, self.model.config.semantics, device=self.device)
            return semantics, torch.zeros(1, dtype=torch.bool, device=self.device)
        if not self.hears:
            raise ValueError(_DEAF.format("this checkpoint"))
        sound = as_sound(waveform)
        if sample_rate_hz is not None and sample_rate_hz != audio.sample_rate_hz:
            sound = resample(sound, sample_rate_hz, audio.sample_rate_hz)
        return self.model.hear(loudest_window(sound, audio.samples)[None].to(self.device))


def colorize(
    model: Model,
    picture: NDArray[Any],
    waveform: NDArray[Any] | None = None,
    *,
    size_px: int,
) -> Colorized:
    """Colour a picture by a model at hand: see :meth:`Colorizer.colorize`."""
    return Colorizer(model, size_px=size_px).colorize(picture, waveform)


def predict(
    model: Model,
    small: NDArray[np.uint8],
    semantics: Float[Tensor, "b d"],
    present: Bool[Tensor, " b"],
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b levels"]]:
    """Chroma, in Lab units, of one small picture [h w 3] under one or several semantics.

    Returns:
        ``ab``, and the relevance logits at each guided level.
    """
    height, width = small.shape[:2]
    padding = ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0))
    padded = np.pad(small, padding, mode="symmetric")
    L = lightness(unit_rgb(padded, semantics.device))
    ab, logits = model.colorizer(L.expand(len(semantics), -1, -1, -1), semantics, present)
    return ab.float()[..., :height, :width] * AB_SCALE, logits


def small_picture(
    rgb: NDArray[Any], size_px: int, *, pixel_aspect: float = 1.0
) -> NDArray[np.uint8]:
    """A picture [h w 3] at the size of prediction, 8-bit: the short side at ``size_px``.

    Args:
        rgb: uint8 or uint16.
        size_px: short side; the long one is in proportion, at most eight times as long.
        pixel_aspect: width of a pixel over its height.
    """
    rgb = to_8_bit(rgb)
    height, width = rgb.shape[0], rgb.shape[1] * pixel_aspect
    scale, limit = size_px / min(height, width), _MAX_ASPECT * size_px
    size = min(limit, round(width * scale)), min(limit, round(height * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def as_sound(waveform: NDArray[Any]) -> Float[Tensor, " t"]:
    """A mono sound [t] in [-1, 1] as the networks take it.

    Raises:
        ValueError: it is empty, not mono, not floating, or holds what is no number.
    """
    values = np.asarray(waveform)
    if values.ndim != 1:
        raise ValueError(f"the sound must be mono, [t], but has shape {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"the sound must be float in [-1, 1], not {values.dtype}")
    if not len(values):
        raise ValueError("the sound has no samples")
    if not np.isfinite(values).all():
        raise ValueError("the sound holds samples that are no numbers")
    return torch.tensor(np.ascontiguousarray(values, np.float32))


def loudest_window(waveform: Tensor, samples: int) -> Float[Tensor, " samples"]:
    """The loudest part of that length of mono sound [t]; shorter sound is repeated.

    Raises:
        ValueError: the sound is empty or not mono.
    """
    if waveform.dim() != 1:
        raise ValueError(f"the sound must be mono, [t], but has shape {tuple(waveform.shape)}")
    if len(waveform) <= samples:
        return fit_length(waveform.float(), samples)
    windows = waveform.float().unfold(0, samples, max(1, samples // _WINDOWS_PER_LENGTH))
    return windows[int(windows.square().mean(1).argmax())]


def _as_rgb(picture: NDArray[Any]) -> NDArray[Any]:
    if picture.dtype not in (np.uint8, np.uint16) or picture.size == 0:
        raise ValueError(f"a picture must be 8-bit or 16-bit and not empty, not {picture.dtype}")
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture must be [h w] or [h w 3], not {picture.shape}")
    return picture


def _part(folder: Path, record: checkpoint.Record, name: str) -> dict[str, Any]:
    part = record.recipe.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"checkpoint '{folder}': its recipe has no '{name}'")
    return part
