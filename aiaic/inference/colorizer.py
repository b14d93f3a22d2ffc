"""Colorizes pictures of any resolution by a checkpoint.

>>> from aiaic.inference import Colorizer
>>> colorizer = Colorizer.load("runs/first/stage3/step-...")
>>> colorized = colorizer.colorize(picture, waveform, sample_rate_hz=44_100)
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
from aiaic.color import AB_SCALE, lightness, picture_to_rgb, to_8_bit
from aiaic.inference.upsampling import upsample_and_join
from aiaic.networks.model import Model, ModelConfig, build_model

_MULTIPLE = 32  # pictures are padded to a multiple of the deepest stride of the backbones
_MAX_ASPECT = 8
_WINDOWS_PER_LENGTH = 4
_NO_AUDIO_ENCODER = (
    "{} is from stage 1, before the audio encoder is trained: use a stage-3 checkpoint, or no sound"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorized:
    """A colorized picture."""

    rgb: NDArray[Any]
    """sRGB [h w 3], of the input's size and type."""
    relevance: float | None
    """How well the sound fits, in [0, 1], the mean over guided levels; None without a sound."""
    relevance_by_level: tuple[float, ...] = ()
    """The same for each guided level, the deepest first; empty without a sound."""


def load(folder: Path, *, with_sound: bool = False) -> Model:
    """The model of a checkpoint, in eval mode, on the CPU.

    Args:
        folder: the checkpoint.
        with_sound: whether the model will be guided by sound.

    Raises:
        FileNotFoundError: ``folder`` is not a checkpoint.
        ValueError: it is damaged, its weights do not match its recipe, or it is from stage 1 and
            sound is required.
    """
    record = checkpoint.read_record(folder)
    if with_sound and record.stage == 1:
        raise ValueError(_NO_AUDIO_ENCODER.format(f"checkpoint '{folder}'"))
    model = build_model(config.from_json(ModelConfig, _part(folder, record, "model")), seed=0)
    try:
        model.load_state_dict(checkpoint.read_model(folder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the weights of checkpoint '{folder}' do not match its recipe: {reason}"
        ) from None
    if record.stage < 3 and _part(folder, record, "stage1").get("p_mismatch") == 0:
        model.colorizer.always_relevant = True  # as in training, which did not learn relevance
    return model.eval().requires_grad_(requires_grad=False)


def view_size_px(folder: Path) -> int:
    """Size of the pictures that a checkpoint was trained on."""
    record = checkpoint.read_record(folder)
    return int(_part(folder, record, "view")["size_px"])


class Colorizer:
    """Colorizes pictures: arrays in, arrays out."""

    def __init__(self, model: Model, *, size_px: int, audio_trained: bool = True) -> None:
        """Args:
        model: a model in eval mode; its device is used.
        size_px: short side at which chroma is predicted, ideally that of the training pictures.
        audio_trained: whether the audio encoder is trained: after stage 1.
        """
        self.model = model
        self.size_px = size_px
        self.audio_trained = audio_trained

    @property
    def device(self) -> torch.device:
        """Device to compute on."""
        return next(self.model.parameters()).device

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "auto", *, with_sound: bool = False
    ) -> "Colorizer":
        """The colorizer of a checkpoint.

        Args:
            folder: the checkpoint.
            device: device to compute on; "auto": a GPU if there is one.
            with_sound: reject a checkpoint without a trained audio encoder now, not at the first
                sound.

        Raises:
            FileNotFoundError, ValueError: see :func:`load`.
        """
        folder = Path(folder)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load(folder, with_sound=with_sound).to(device)
        audio_trained = checkpoint.read_record(folder).stage > 1
        return cls(model, size_px=view_size_px(folder), audio_trained=audio_trained)

    @torch.inference_mode()
    def colorize(
        self,
        picture: NDArray[Any],
        waveform: NDArray[Any] | None = None,
        *,
        sample_rate_hz: int | None = None,
    ) -> Colorized:
        """Colorize a picture: predict ``ab`` at a small size, upsample it, join the original ``L``.

        Args:
            picture: grey [h w] or sRGB [h w 3], uint8 or uint16; only its lightness is used.
            waveform: mono sound [t], float in [-1, 1], of which the loudest window is used. Sound
                under -60 dBFS counts as missing.
            sample_rate_hz: sample rate of the sound; None: that of the model.

        Raises:
            ValueError: the picture or the sound is empty or has another shape or type; or there is
                a sound, and the audio encoder is not trained.
        """
        rgb = _as_rgb(picture)
        semantics, present = self._encode_sound(waveform, sample_rate_hz)
        ab, logits = predict(self.model, small_picture(rgb, self.size_px), semantics, present)
        by_level = tuple(logits[0].double().sigmoid().tolist()) if bool(present) else ()
        return Colorized(
            rgb=upsample_and_join(rgb, ab),
            relevance=sum(by_level) / len(by_level) if by_level else None,
            relevance_by_level=by_level,
        )

    def _encode_sound(
        self, waveform: NDArray[Any] | None, sample_rate_hz: int | None
    ) -> tuple[Tensor, Tensor]:
        audio = self.model.config.audio
        if waveform is None:
            semantics = torch.zeros(1, self.model.config.semantics, device=self.device)
            return semantics, torch.zeros(1, dtype=torch.bool, device=self.device)
        if not self.audio_trained:
            raise ValueError(_NO_AUDIO_ENCODER.format("this checkpoint"))
        sound = as_sound(waveform)
        if sample_rate_hz is not None and sample_rate_hz != audio.sample_rate_hz:
            sound = resample(sound, sample_rate_hz, audio.sample_rate_hz)
        return self.model.encode_sound(loudest_window(sound, audio.samples)[None].to(self.device))


def predict(
    model: Model,
    small: NDArray[np.uint8],
    semantics: Float[Tensor, "b d"],
    present: Bool[Tensor, " b"],
) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b levels"]]:
    """Predict the chroma of one small picture [h w 3] under each of several semantics.

    Returns:
        ``ab`` in Lab units, and the relevance logits of each guided level.
    """
    height, width = small.shape[:2]
    padding = ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0))
    padded = np.pad(small, padding, mode="symmetric")
    L = lightness(picture_to_rgb(padded, semantics.device))
    ab, logits = model.colorizer(L.expand(len(semantics), -1, -1, -1), semantics, present)
    return ab.float()[..., :height, :width] * AB_SCALE, logits


def small_picture(
    rgb: NDArray[Any], size_px: int, *, pixel_aspect: float = 1.0
) -> NDArray[np.uint8]:
    """Resize a picture [h w 3] to the size of prediction, as 8-bit.

    Args:
        rgb: uint8 or uint16.
        size_px: short side; the long side is in proportion, but at most eight times as long.
        pixel_aspect: width of a pixel divided by its height.
    """
    rgb = to_8_bit(rgb)
    height, width = rgb.shape[0], rgb.shape[1] * pixel_aspect
    scale, limit = size_px / min(height, width), _MAX_ASPECT * size_px
    size = min(limit, round(width * scale)), min(limit, round(height * scale))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def as_sound(waveform: NDArray[Any]) -> Float[Tensor, " t"]:
    """A mono sound [t] in [-1, 1] as a tensor.

    Raises:
        ValueError: it is empty, not mono, not floating-point, or has NaN or infinite samples.
    """
    values = np.asarray(waveform)
    if values.ndim != 1:
        raise ValueError(f"the sound must be mono, [t], but has shape {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"the sound must be float in [-1, 1], not {values.dtype}")
    if not len(values):
        raise ValueError("the sound has no samples")
    if not np.isfinite(values).all():
        raise ValueError("the sound has NaN or infinite samples")
    return torch.tensor(np.ascontiguousarray(values, np.float32))


def loudest_window(waveform: Tensor, samples: int) -> Float[Tensor, " samples"]:
    """The loudest window of mono sound [t]; shorter sound is repeated.

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
        raise ValueError(
            "the picture must be uint8 or uint16 and not empty, "
            f"but has type {picture.dtype} and shape {picture.shape}"
        )
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"the picture must be [h w] or [h w 3], but has shape {picture.shape}")
    return picture


def _part(folder: Path, record: checkpoint.Record, name: str) -> dict[str, Any]:
    part = record.recipe.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"checkpoint '{folder}': its recipe has no '{name}'")
    return part
