"""Writes a planned clip as MP4 and, for a test clip, renderings in all siblings' colours."""

# pyright: reportUnknownMemberType=false
# (PyAV's types omit the dtype of NumPy arrays)

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image, ImageFilter

from data_prep.synthetic import world
from data_prep.synthetic.colors import Bytes, Floats, lab_to_rgb, lab_to_yuv420
from data_prep.synthetic.kinds import WorldKind
from data_prep.synthetic.scenes import DRIFT_PX, SIZE_PX, draw_scene
from data_prep.synthetic.sounds import CLIP_S, SAMPLE_RATE_HZ, SAMPLES, synthesize_sound
from data_prep.synthetic.world import Look, PlannedClip, RandomStream

FRAMES_PER_S = 10
FRAMES = int(CLIP_S * FRAMES_PER_S)
CHROMA_BLUR_PX = 7
"""Standard deviation of the blur that keeps colour edges smooth even where lightness is sharp."""

Planes = tuple[Bytes, Bytes, Bytes]


def write_clip(clip: PlannedClip, kind: WorldKind, seed: int, folder: Path) -> None:
    """Write ``clips/<key>.mp4`` and, for a test clip, ``renderings/<key>.<class>.png``."""
    look, L, regions = picture(clip, kind, seed)
    ab = colored(kind, clip.class_name, regions, look.hue_deg, look.saturation)
    sound = _sound(clip, kind, seed)
    _encode(folder / "clips" / f"{clip.key}.mp4", lab_to_yuv420(L, ab), look.drift_px, sound)
    if clip.split == "test":
        rest = (slice(DRIFT_PX, DRIFT_PX + SIZE_PX),) * 2
        for sibling in kind.siblings(clip.class_name):
            mean = colored(kind, sibling.name, regions, **world.MEAN_LOOK)
            image = Image.fromarray(lab_to_rgb(L[rest], mean[:, *rest]))
            name = f"{clip.key}.{sibling.name}.png"
            image.save(folder / "renderings" / name, compress_level=1)


def picture(clip: PlannedClip, kind: WorldKind, seed: int) -> tuple[Look, Floats, Floats]:
    """The look drawn for a clip, its ``L`` [h w] and its smooth regions [region h w] on the canvas.

    They do not depend on the clip's class.
    """
    appearance = kind.by_name[clip.class_name].appearance
    scene = draw_scene(appearance, world.generator(seed, clip.number, RandomStream.SCENE))
    rng = world.generator(seed, clip.number, RandomStream.LOOK)
    look = world.draw_look(rng)
    regions = np.stack([_blurred(region) for region in scene.regions])
    darkest, brightest = world.lightness_range(regions)
    exposed = look.darkest + (look.brightest - look.darkest) * scene.lightness
    smooth = darkest + (brightest - darkest) * exposed
    grainy = smooth + look.grain * rng.standard_normal(smooth.shape, np.float32)
    return look, np.clip(grainy, darkest, brightest), regions


def colored(
    kind: WorldKind, class_name: str, regions: Floats, hue_deg: float, saturation: float
) -> Floats:
    """The ``ab`` [2 h w] of smooth regions [region h w] in a class's colours."""
    colors = world.region_colors(kind, class_name, hue_deg, saturation)
    ab = np.zeros((2, *regions.shape[1:]), np.float32)
    for color, region in zip(colors, regions, strict=True):
        ab += color[:, None, None] * region
    return ab


def _blurred(region: Floats) -> Floats:
    image = Image.fromarray(np.rint(255 * region).astype(np.uint8))
    blurred = image.filter(ImageFilter.GaussianBlur(CHROMA_BLUR_PX))
    return np.asarray(blurred).astype(np.float32) / 255


def _sound(clip: PlannedClip, kind: WorldKind, seed: int) -> Floats | None:
    """The waveform [t]; zeros if it is silent, None if the file has no audio stream."""
    if not clip.has_stream:
        return None
    if clip.sound_class is None:
        return np.zeros(SAMPLES, np.float32)
    recipe = kind.by_name[clip.sound_class].sound
    rng = world.generator(seed, clip.number, RandomStream.SOUND)
    return synthesize_sound(recipe, rng, kind.snr_db)


def _encode(path: Path, planes: Planes, drift_px: tuple[int, int], sound: Floats | None) -> None:
    """Encodes H.264 and AAC with one thread, so that the bytes are reproducible."""
    with av.open(path, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = _video_stream(container)
        audio = _audio_stream(container) if sound is not None else None
        for number in range(FRAMES):
            frame = _frame(planes, _shift(drift_px, number))
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None, :], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def _video_stream(container: OutputContainer) -> VideoStream:
    stream = container.add_stream(
        "libx264",
        rate=FRAMES_PER_S,
        options={"preset": "ultrafast", "crf": "14", "threads": "1", "g": str(FRAMES_PER_S)},
    )
    stream.width, stream.height, stream.pix_fmt = SIZE_PX, SIZE_PX, "yuv420p"
    stream.codec_context.color_range = 1  # studio range
    stream.codec_context.colorspace = 6  # BT.601, which decoders assume at this size anyway
    stream.codec_context.color_primaries = 1  # those of sRGB
    stream.codec_context.color_trc = 13  # sRGB
    return stream


def _audio_stream(container: OutputContainer) -> AudioStream:
    stream = container.add_stream(
        "aac", rate=SAMPLE_RATE_HZ, layout="mono", options={"aac_coder": "fast"}
    )
    stream.bit_rate = 96_000
    return stream


def _shift(drift_px: tuple[int, int], number: int) -> tuple[int, int]:
    """The camera's position at a frame; it rests for half a second around the middle."""
    time = 2 * (number / FRAMES - 0.5)
    pace = np.sign(time) * max(abs(time) - 0.25, 0) / 0.75
    return tuple(2 * round(pace * drift / 2) for drift in drift_px)


def _frame(planes: Planes, shift: tuple[int, int]) -> av.VideoFrame:
    y, x = (DRIFT_PX + s for s in shift)
    half = SIZE_PX // 2
    luma = planes[0][y : y + SIZE_PX, x : x + SIZE_PX]
    chroma = [p[y // 2 : y // 2 + half, x // 2 : x // 2 + half] for p in planes[1:]]
    packed = np.concatenate([luma.ravel(), *(c.ravel() for c in chroma)])
    frame = av.VideoFrame.from_ndarray(packed.reshape(-1, SIZE_PX), format="yuv420p")
    return frame
