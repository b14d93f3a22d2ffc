"""The model card of an exported model."""

from aiaic.audio import AudioConfig
from aiaic.checkpointing.checkpoint import MODEL, RECORD, Record
from aiaic.networks.model import Model

CARD = "MODEL.md"
COLORIZER = "colorizer.onnx"
AUDIO = "audio.onnx"

_LEARNED = {
    1: "colorization with colour-image semantics, without sound",
    2: "audio scene semantics; the colorizer is that of stage 1",
    3: "audio-infused colorization",
}


def shortest_sound(audio: AudioConfig) -> int:
    """Samples of one analysis window: the shortest sound that an exported encoder handles."""
    return round(audio.window_ms * audio.sample_rate_hz / 1000)


def model_card(record: Record, model: Model) -> str:
    """The card of a checkpoint as Markdown."""
    audio = model.config.audio
    name = record.recipe.get("name", "custom")
    size_px = record.recipe["view"]["size_px"]
    metrics = "\n".join(f"| {key} | {value:.4g} |" for key, value in sorted(record.metrics.items()))
    parts = [
        f"""# Audio-infused automatic image colorization

Stage {record.stage} ({_LEARNED[record.stage]}), step {record.step}, after arXiv 2401.13270.
Recipe `{name}`, backbone `{model.config.backbone.name}`, pictures of {size_px} px.
Trained on split `{record.split}` of the shards whose manifest has the SHA-256
`{record.manifest_digest}`.""",
        f"| validation | |\n|---|---|\n{metrics}" if metrics else "",
        f"""`{MODEL}` and `{RECORD}` are a checkpoint without training state. The record holds the
configuration, the origin of the weights, and the SHA-256 of each file.

    aiaic colorize photo.jpg --checkpoint FOLDER --out colorized.png""",
        f"""`{COLORIZER}` (axes b, h and w are dynamic):

- input `L` [b 1 h w]: CIE Lab lightness (D65) in [0, 100]; both sides multiples of 32, the short
  side ideally {size_px} px
- input `semantics` [b {model.config.semantics}]: unit vectors; ignored where no sound is present
- input `present` [b]: whether there is a sound; treat sound under -60 dBFS (RMS) as missing
- output `ab` [b 2 h w]: chroma in Lab units, to be joined with the original lightness
- output `relevance` [b {len(model.colorizer.levels)}]: how well the sound fits, in [0, 1], at
  each guided level; meaningless where no sound is present""",
        f"""`{AUDIO}` (both axes are dynamic):

- input `waveform` [b t]: mono sound in [-1, 1] at {audio.sample_rate_hz} Hz, ideally
  {audio.clip_s:g} s and at least {shortest_sound(audio)} samples; repeat shorter sound
- output `semantics` [b {model.config.semantics}]"""
        if record.stage > 1
        else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
