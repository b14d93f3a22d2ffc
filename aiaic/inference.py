"""Coloured pictures of any resolution from a checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from aiaic import checkpoint, config
from aiaic.audio import fit_length
from aiaic.color import AB_SCALE, join, lab_to_rgb, rgb_to_lab
from aiaic.encoding import hear
from aiaic.networks import model as networks
from aiaic.networks.model import Model, ModelConfig

_MULTIPLE = 32  # pictures are padded to a multiple of the deepest stride of the backbones
_MAX_ASPECT = 8
_L_TOLERANCE = 0.2
_HALVINGS = 7
_STRIP_PIXELS = 1 << 20
_WINDOWS_PER_LENGTH = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorized:
    """A coloured picture."""

    rgb: NDArray[np.uint8]
    """sRGB, [h w 3], as large as the input."""
    relevance: float | None
    """How well the sound fits, in [0, 1]; None where no sound took part."""


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
        raise ValueError(
            f"checkpoint '{folder}' is of stage 1, whose audio encoder is untrained: "
            "give one of stage 3 (or 2), or no sound"
        )
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


@torch.inference_mode()
def colorize(
    model: Model,
    picture: NDArray[Any],
    waveform: NDArray[np.float32] | None = None,
    *,
    size_px: int,
) -> Colorized:
    """Colour a picture: predict small, enlarge ``ab``, join the original lightness.

    Args:
        model: in eval mode.
        picture: 8-bit grey [h w] or sRGB [h w 3]; of a colour picture the lightness alone is used.
        waveform: mono sound [t] in [-1, 1] at the model's sample rate; its loudest window is
            heard. Sound under -60 dBFS counts as none.
        size_px: short side at which chroma is predicted; best the one trained on.

    Raises:
        ValueError: the picture or the sound is empty, or not of such a shape.
    """
    rgb = _as_rgb(picture)
    L = _small_lightness(rgb, size_px)
    semantics = torch.zeros(1, model.config.semantics)
    present = torch.zeros(1, dtype=torch.bool)
    if waveform is not None:
        sound = loudest_window(torch.tensor(waveform), model.config.audio.samples)
        semantics, present = hear(model, sound[None])
    height, width = rgb.shape[:2]
    small = _small_shape(height, width, size_px)
    predicted, logits = model.colorizer(L, semantics, present)
    ab = predicted.float()[..., : small[0], : small[1]] * AB_SCALE
    relevance = logits.double().sigmoid().mean().item() if bool(present) else None
    return Colorized(rgb=_join_large(rgb, ab), relevance=relevance)


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


def into_srgb(
    L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 2 h w"]:
    """Shrink chroma towards grey, its hue kept, where sRGB has no such colour of this lightness.

    Clipping channels instead, as ``lab_to_rgb`` does, would change the lightness.
    """
    lost = ~_keeps_lightness(L, ab)[:, 0]
    if not lost.any():
        return ab
    L_lost = L[:, 0][lost].view(1, 1, 1, -1)
    ab_lost = ab.permute(1, 0, 2, 3)[:, lost].view(1, 2, 1, -1)
    low, high = torch.zeros_like(L_lost), torch.ones_like(L_lost)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _keeps_lightness(L_lost, middle * ab_lost)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    result = ab.permute(1, 0, 2, 3).clone()
    result[:, lost] = (low * ab_lost)[0, :, 0]
    return result.permute(1, 0, 2, 3)


def _keeps_lightness(L: Tensor, ab: Tensor) -> Tensor:
    return (rgb_to_lab(lab_to_rgb(L, ab))[0] - L).abs() < _L_TOLERANCE


def _as_rgb(picture: NDArray[Any]) -> NDArray[np.uint8]:
    if picture.dtype != np.uint8 or picture.size == 0:
        raise ValueError(f"a picture must be 8-bit and not empty, not {picture.dtype}")
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture must be [h w] or [h w 3], not {picture.shape}")
    return picture


def _small_shape(height: int, width: int, size_px: int) -> tuple[int, int]:
    """Short side ``size_px``, the long one in proportion (at most eight times as long)."""
    scale = size_px / min(height, width)
    limit = _MAX_ASPECT * size_px
    return min(limit, round(height * scale)), min(limit, round(width * scale))


def _small_lightness(rgb: NDArray[np.uint8], size_px: int) -> Float[Tensor, "1 1 h w"]:
    """Lightness at the size of prediction, mirrored at right and bottom up to a multiple of 32."""
    height, width = _small_shape(rgb.shape[0], rgb.shape[1], size_px)
    small = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
    padding = ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0))
    return rgb_to_lab(_tensor(np.pad(small, padding, mode="symmetric")))[0]


def _join_large(rgb: NDArray[np.uint8], ab: Float[Tensor, "1 2 h w"]) -> NDArray[np.uint8]:
    """Enlarge chroma to the picture and join it with the picture's lightness, strip by strip."""
    height, width = rgb.shape[:2]
    ab = F.interpolate(ab, size=(height, width), mode="bilinear", align_corners=False)
    result = np.empty_like(rgb)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        L = rgb_to_lab(_tensor(rgb[strip]))[0]
        coloured = join(L, into_srgb(L, ab[:, :, strip]))
        result[strip] = coloured[0].permute(1, 2, 0).numpy()
    return result


def _tensor(rgb: NDArray[np.uint8]) -> UInt8[Tensor, "1 3 h w"]:
    return torch.tensor(rgb).permute(2, 0, 1)[None]  # a copy: decoded pictures may be read-only


def _part(folder: Path, record: checkpoint.Record, name: str) -> dict[str, Any]:
    part = record.recipe.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"checkpoint '{folder}': its recipe has no '{name}'")
    return part
