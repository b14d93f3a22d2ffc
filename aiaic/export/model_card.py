"""What an exported model says of itself to a person."""

from aiaic.audio import AudioConfig
from aiaic.checkpointing.checkpoint import MODEL, RECORD, Record
from aiaic.networks.model import Model

CARD = "MODEL.md"
COLORIZER = "colorizer.onnx"
AUDIO = "audio.onnx"

_LEARNED = {
    1: "colorization with the semantics of colour pictures; it knows no sound",
    2: "audio scene semantics; its colorizer is that of stage 1",
    3: "audio-infused colorization",
}


def shortest_sound(audio: AudioConfig) -> int:
    """Samples of an analysis window, the fewest for which an exported encoder is right."""
    return round(audio.window_ms * audio.sample_rate_hz / 1000)


def model_card(record: Record, model: Model) -> str:
    """The card of a checkpoint as Markdown."""
    audio = model.config.audio
    name = record.recipe.get("name", "of its own")
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
whole configuration, where the weights come from, and the SHA-256 of each file.

    aiaic colorize photo.jpg --checkpoint FOLDER --out coloured.png""",
        f"""`{COLORIZER}` (axes b, h and w are free):

- `L` [b 1 h w]: CIE Lab lightness (D65) in [0, 100]; sides that are multiples of 32, the short
  one best {size_px} px
- `semantics` [b {model.config.semantics}]: unit vectors; anything where no sound is present
- `present` [b]: whether there is a sound; count one under -60 dBFS (RMS) as none
- gives `ab` [b 2 h w] in Lab units, to be joined with the original lightness
- gives `relevance` [b {len(model.colorizer.levels)}]: how well the sound fits, in [0, 1], at
  each guided level; it tells nothing where no sound is present""",
        f"""`{AUDIO}` (both axes are free):

- `waveform` [b t]: mono sound in [-1, 1] at {audio.sample_rate_hz} Hz, best
  {audio.clip_s:g} s and at least {shortest_sound(audio)} samples: repeat shorter sound
- gives `semantics` [b {model.config.semantics}]"""
        if record.stage > 1
        else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
