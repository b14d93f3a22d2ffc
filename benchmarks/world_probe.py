"""Does the synthetic world keep its secret?

Makes a world, reads it back as ``prepare`` does (decoded, 96 px, JPEG) and prints one JSON line:
how well siblings are distinguished on the decoded ``L`` alone (a linear probe and a small network),
what the two bounds are, and how fast the clips were made. ``--blind-steps N`` adds the proof that
counts: a U-Net that colours *without sound* for N steps must come out at the bound without sound.

    python benchmarks/world_probe.py --clips 1440 --seed 0 --blind-steps 600
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from aiaic.color import AB_SCALE, join, rgb_to_lab
from aiaic.evaluation.probes import sibling_probe_accuracy
from data_prep.catalog import read_vggsound
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Sample
from data_prep.synthetic import KINDS, World, WorldKind, synthesize

SIZE_PX = 96


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """All clips of a world as training sees them."""

    keys: list[str]
    rgb: Tensor
    """uint8 [n 3 h w]."""
    L: Tensor
    """[n 1 h w] in [0, 100]."""
    ab: Tensor
    """[n 2 h w], normalized."""
    class_: np.ndarray
    appearance: np.ndarray
    is_test: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=1440)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=tuple(KINDS), default="plain", help="kind of world")
    parser.add_argument("--out", type=Path, help="make the world here and keep it")
    parser.add_argument("--blind-steps", type=int, default=0, help="train the U-Net without sound")
    parser.add_argument("--width", type=int, default=16, help="of that U-Net")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        kind = KINDS[options.world]
        place = options.out or Path(scratch) / "world"
        made = synthesize(place, options.clips, options.seed, kind=kind)
        seconds = time.perf_counter() - began
        decoded = read_world(made)
        found = {
            "world": kind.name,
            "chance": 1 / len(kind.siblings(kind.classes[0].name)),
            "clips": options.clips,
            "seed": options.seed,
            "clips_per_s": None if made.reused else round(options.clips / seconds, 1),
            "linear_probe": sibling_probe_accuracy(
                decoded.L[:, 0].numpy(), decoded.appearance, decoded.class_
            ),
            "network_probe": network_probe(decoded, kind),
        }
        rendered = renderings(decoded, kind, made.folder / "renderings")
    found["bounds"] = bounds(decoded, rendered)
    if options.blind_steps:
        found["blind"] = blind(decoded, rendered, options.blind_steps, options.width)
    print(json.dumps(found))


def read_world(made: World) -> Decoded:
    """Decode every clip's middle frame exactly as ``prepare`` does."""
    clips = read_vggsound(str(made.annotations), str(made.clips_folder)).clips
    truth = {row["key"]: row for row in pq.read_table(made.truth).to_pylist()}
    settings = MediaSettings(size_px=SIZE_PX)
    with ThreadPoolExecutor(2) as pool:
        read = pool.map(lambda c: read_clip(Path(c.uri), c, settings), clips)
        samples = list(tqdm(read, total=len(clips), desc="decode", unit="clip"))
    rejected = [s for s in samples if not isinstance(s, Sample)]
    assert not rejected, rejected[:3]
    pictures = [np.asarray(Image.open(io.BytesIO(s.pictures[0])).convert("RGB")) for s in samples]
    rgb = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    L, ab = rgb_to_lab(rgb)
    rows = [truth[clip.key] for clip in clips]
    return Decoded(
        keys=[clip.key for clip in clips],
        rgb=rgb,
        L=L,
        ab=ab / AB_SCALE,
        class_=np.array([row["class"] for row in rows]),
        appearance=np.array([row["appearance"] for row in rows]),
        is_test=np.array([row["split"] == "test" for row in rows]),
    )


def renderings(decoded: Decoded, kind: WorldKind, folder: Path) -> list[dict[str, Tensor]]:
    """For each test clip the ``ab`` [2 h w] of its scene in each sibling's mean colours."""
    return [
        {
            c.name: _rendered_ab(folder / f"{decoded.keys[i]}.{c.name}.png")
            for c in kind.siblings(str(decoded.class_[i]))
        }
        for i in np.flatnonzero(decoded.is_test)
    ]


def bounds(decoded: Decoded, rendered: list[dict[str, Tensor]]) -> dict[str, dict[str, float]]:
    """The bounds without sound and with it, on the decoded test frames."""
    test = np.flatnonzero(decoded.is_test)
    blended = torch.stack([torch.stack(list(each.values())).mean(0) for each in rendered])
    own = torch.stack(
        [each[str(decoded.class_[i])] for i, each in zip(test, rendered, strict=True)]
    )
    return {
        "without_sound": _scores(decoded, test, blended),
        "with_sound": _scores(decoded, test, own),
    }


def network_probe(decoded: Decoded, kind: WorldKind, steps: int = 250) -> float:
    """Accuracy among siblings, on test clips, of a small convolutional classifier on ``L``."""
    names, target = np.unique(decoded.class_, return_inverse=True)
    widths = (1, 16, 32, 64, 64)
    layers = [_block(a, b, 2) for a, b in pairwise(widths)]
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], len(names))
    )

    def loss(rows: Tensor, L: Tensor, _ab: Tensor) -> Tensor:
        return F.cross_entropy(network(L), torch.from_numpy(target)[rows])

    _fit(network, loss, decoded, steps, "network probe")
    test = np.flatnonzero(decoded.is_test)
    with torch.no_grad():
        score = network(decoded.L[test] / 50 - 1).numpy()
    siblings = [{c.name for c in kind.siblings(str(own))} for own in decoded.class_]
    is_sibling = np.array([[c in each for c in names] for each in siblings])
    guess = names[np.where(is_sibling[test], score, -np.inf).argmax(1)]
    return float((guess == decoded.class_[test]).mean())


def blind(
    decoded: Decoded, rendered: list[dict[str, Tensor]], steps: int, width: int
) -> dict[str, float]:
    """Test scores of a U-Net that learned to colour from ``L`` alone.

    ``tells_siblings``: how often its colours are nearest to those of the clip's own class.
    """
    network = BlindUNet(width).to(memory_format=torch.channels_last)

    def loss(_rows: Tensor, L: Tensor, ab: Tensor) -> Tensor:
        return F.mse_loss(network(L), ab)

    began = time.perf_counter()
    _fit(network, loss, decoded, steps, "without sound")
    seconds = time.perf_counter() - began
    test = np.flatnonzero(decoded.is_test)
    with torch.no_grad():
        ab = torch.cat([network(L) for L in (decoded.L[test] / 50 - 1).split(64)]) * AB_SCALE
    distinguished = [
        min(each, key=lambda name: float((each[name] - guess).square().mean())) == decoded.class_[i]
        for i, each, guess in zip(test, rendered, ab, strict=True)
    ]
    scores = _scores(decoded, test, ab)
    return {
        "steps": steps,
        "seconds": round(seconds),
        **scores,
        "over_bound_db": scores["psnr"] - bounds(decoded, rendered)["without_sound"]["psnr"],
        "tells_siblings": float(np.mean(distinguished)),
    }


class BlindUNet(nn.Module):
    """A U-Net of three halvings behind a stem of stride two, with GroupNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = _block(1, width, 2)
        self.down = nn.ModuleList(_block(width << k, width << (k + 1), 2) for k in range(3))
        self.up = nn.ModuleList(_block(3 * width << k, width << k) for k in (2, 1, 0))
        self.head = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, L: Tensor) -> Tensor:
        skips = [self.stem(L)]
        for block in self.down:
            skips.append(block(skips[-1]))
        x = skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat((F.interpolate(x, scale_factor=2), skip), 1))
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear")


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def _fit(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    decoded: Decoded,
    steps: int,
    title: str,
) -> None:
    """AdamW with a one-cycle rate on batches of 32 training clips, half of them mirrored."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    train = torch.from_numpy(np.flatnonzero(~decoded.is_test))
    grey = decoded.L / 50 - 1
    for _ in tqdm(range(steps), desc=title, unit="step"):
        rows = train[torch.randint(len(train), (32,), generator=generator)]
        mirrored = (torch.rand(32, generator=generator) < 0.5)[:, None, None, None]
        L, ab = (torch.where(mirrored, x[rows].flip(3), x[rows]) for x in (grey, decoded.ab))
        optimizer.zero_grad()
        loss(rows, L, ab).backward()
        optimizer.step()
        rate.step()


def _scores(decoded: Decoded, rows: np.ndarray, ab: Tensor) -> dict[str, float]:
    """Per picture, then averaged: PSNR of the 8-bit result, squared error of normalized ``ab``."""
    result = join(decoded.L[rows], ab).float()
    error = (result - decoded.rgb[rows].float()).square().mean((1, 2, 3))
    mse_ab = (ab / AB_SCALE - decoded.ab[rows]).square().mean()
    return {"psnr": float((10 * (255**2 / error).log10()).mean()), "mse_ab": float(mse_ab)}


def _rendered_ab(path: Path) -> Tensor:
    """The ``ab`` of a rendering at the evaluated size."""
    image = Image.open(path).convert("RGB").resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    return rgb_to_lab(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])[1][0]


if __name__ == "__main__":
    main()
