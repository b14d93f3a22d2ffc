"""The sounds of the classes: two seconds of mono float32 in [-1, 1].

Each recipe draws its own pitch and tempo; ``synthesize_sound`` then adds background noise and sets
the loudness, so that only the kind of sound distinguishes classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SAMPLE_RATE_HZ = 32_000
CLIP_S = 2.0
SAMPLES = int(SAMPLE_RATE_HZ * CLIP_S)
_TIME_S: Floats = (np.arange(SAMPLES) / SAMPLE_RATE_HZ).astype(np.float32)
_FREQUENCY_HZ: Floats = np.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE_HZ).astype(np.float32)


def synthesize_sound(name: str, rng: Generator, snr_db: tuple[float, float]) -> Floats:
    """A sound of ``name`` (a key of ``SOUNDS``): float32 [64000], RMS level -26 to -12 dBFS.

    The signal-to-noise ratio is drawn uniformly from the range ``snr_db``.
    """
    signal = _unit(SOUNDS[name](rng))
    slope = rng.uniform(0, 1.2)
    noise = _unit(_noise(rng, lambda hz: (hz + 40) ** -slope))
    mixed = _unit(signal + 10 ** (-rng.uniform(*snr_db) / 20) * noise)
    return np.clip(mixed * 10 ** (rng.uniform(-26, -12) / 20), -1, 1).astype(np.float32)


def surf(rng: Generator) -> Floats:
    """Breaking waves: low noise that swells, with hiss on the crest."""
    period = rng.uniform(0.8, 1.7)
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * (_TIME_S / period + rng.random()))
    cut = rng.uniform(350, 800)
    rumble = _unit(_noise(rng, lambda hz: 1 / (1 + (hz / cut) ** 2)))
    hiss = _unit(_noise(rng, lambda hz: np.exp(-(((hz - 2500) / 1500) ** 2))))
    return (0.15 + swell**1.5) * rumble + 0.35 * swell**4 * hiss


def crickets(rng: Generator) -> Floats:
    """Crickets over a dry field: chirps of a few fast pulses of one high tone."""
    tone_hz = rng.uniform(3800, 5200)
    out = np.zeros_like(_TIME_S)
    for _ in range(2):
        chirp_hz, pulse_hz = rng.uniform(2.5, 4.5), rng.uniform(28, 45)
        breath = np.sin(2 * np.pi * (_TIME_S * chirp_hz + rng.random())) - rng.uniform(-0.3, 0.3)
        on = np.clip(4 * breath, 0, 1)
        pulses = np.maximum(np.sin(2 * np.pi * pulse_hz * _TIME_S), 0)
        out += on * pulses * np.sin(2 * np.pi * tone_hz * rng.uniform(0.94, 1.06) * _TIME_S)
    wind = _unit(_noise(rng, lambda hz: np.exp(-(((hz - 500) / 300) ** 2))))
    return out + 0.06 * wind


def cuckoo(rng: Generator) -> Floats:
    """A cuckoo: two soft flute tones, the second a third lower."""
    high_hz, low_hz = (h := rng.uniform(600, 760)), h / rng.uniform(1.18, 1.27)
    period = rng.uniform(0.85, 1.15)
    phase_s = (_TIME_S + rng.uniform(0, period)) % period
    first = _bump(phase_s, 0.03, 0.18 * period)
    second = _bump(phase_s, 0.03 + 0.3 * period, 0.28 * period)
    out = np.zeros_like(_TIME_S)
    for hz, envelope in ((high_hz, first), (low_hz, second)):
        angle = 2 * np.pi * hz * _TIME_S
        out += envelope * (np.sin(angle) + 0.12 * np.sin(2 * angle))
    return out


def dry_leaves(rng: Generator) -> Floats:
    """Steps through dry leaves: a crackle of short clicks, denser with each step."""
    step = 0.5 - 0.5 * np.cos(2 * np.pi * (_TIME_S * rng.uniform(1.5, 2.6) + rng.random()))
    rate = rng.uniform(150, 350) * step**2 + 15
    clicks = (rng.random(SAMPLES) < rate / SAMPLE_RATE_HZ) * rng.exponential(1.0, SAMPLES)
    cut = rng.uniform(1500, 2600)
    decay = np.exp(-_TIME_S / rng.uniform(0.001, 0.003)) * rng.standard_normal(SAMPLES)
    spectrum = np.fft.rfft(clicks) * np.fft.rfft(decay)
    spectrum *= _FREQUENCY_HZ**2 / (_FREQUENCY_HZ**2 + cut**2)
    return np.fft.irfft(spectrum, SAMPLES).astype(np.float32)


def siren(rng: Generator) -> Floats:
    """A two-tone fire siren: two alternating horn notes, a fourth apart."""
    low_hz = rng.uniform(400, 480)
    turn_hz = rng.uniform(1.6, 2.6)
    is_high = ((_TIME_S * turn_hz + rng.random()) % 1) < 0.5
    hz = np.where(is_high, low_hz * rng.uniform(1.30, 1.37), low_hz)
    angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    partials = [np.sin(k * angle) / k**0.8 for k in range(1, 9)]
    return np.sum(partials, axis=0).astype(np.float32)


def diesel(rng: Generator) -> Floats:
    """A chugging diesel engine: low thumps that ring briefly, with a clatter on each."""
    chug_hz = rng.uniform(9, 15)
    ring_hz = rng.uniform(70, 110)
    wobble = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * _TIME_S + rng.uniform(0, 6))
    beat = np.cumsum(chug_hz * wobble) / SAMPLE_RATE_HZ + rng.random()
    since_s = (beat % 1) / chug_hz
    thump = np.exp(-since_s * 35) * np.sin(2 * np.pi * ring_hz * since_s)
    for ratio, strength in ((2.7, 0.6), (5.3, 0.4)):
        thump += strength * np.exp(-since_s * 50) * np.sin(2 * np.pi * ratio * ring_hz * since_s)
    clatter = _unit(_noise(rng, lambda hz: np.exp(-(((hz - 1100) / 500) ** 2))))
    return (thump + 0.1 * np.exp(-since_s * 60) * clatter).astype(np.float32)


def trill(rng: Generator) -> Floats:
    """A canary: quick runs of whistled chirps, each sweeping up to a kilohertz."""
    out = np.zeros_like(_TIME_S)
    start_s = 0.0
    while start_s < CLIP_S:
        tempo_hz, middle_hz = rng.uniform(11, 22), rng.uniform(2600, 3800)
        length = round(tempo_hz * rng.uniform(0.35, 0.7)) / tempo_hz
        inside = (start_s <= _TIME_S) & (start_s + length > _TIME_S)
        position = ((_TIME_S - start_s) * tempo_hz) % 1
        hz = middle_hz + rng.choice([-1, 1]) * rng.uniform(500, 1100) * (position - 0.5)
        angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
        out += inside * np.sin(np.pi * position) ** 1.5 * np.sin(angle)
        start_s += length + rng.uniform(0.03, 0.15)
    return out


def squawk(rng: Generator) -> Floats:
    """A parrot: hoarse falling cries, rich in overtones and roughened."""
    period = rng.uniform(0.45, 0.75)
    phase_s = (_TIME_S + rng.uniform(0, period)) % period
    length = period * rng.uniform(0.45, 0.65)
    envelope = _bump(phase_s, 0.02, length)
    hz = rng.uniform(650, 950) * (1.15 - 0.4 * phase_s / period)
    hz = hz + 60 * np.sin(2 * np.pi * rng.uniform(60, 90) * _TIME_S)
    angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    voice = np.sum([np.sin(k * angle) / k**0.5 for k in range(1, 7)], axis=0)
    breath = _unit(_noise(rng, lambda f: np.exp(-(((f - 2200) / 900) ** 2))))
    return (envelope * (voice + 0.8 * breath)).astype(np.float32)


def frogs(rng: Generator) -> Floats:
    """A chorus of frogs: croaks of a few slow, rounded pulses, each frog at its own pitch."""
    out = np.zeros_like(_TIME_S)
    for _ in range(2):
        pitch_hz, pulse_hz = rng.uniform(900, 1500), rng.uniform(18, 26)
        croak_hz = rng.uniform(1.2, 2.2)
        on = np.sin(2 * np.pi * (_TIME_S * croak_hz + rng.random())) > 0.1
        since_s = (_TIME_S % (1 / pulse_hz)).astype(np.float32)
        pulse = np.exp(-since_s * 90) * np.sin(2 * np.pi * pitch_hz * since_s)
        out += on * (pulse + 0.5 * np.exp(-since_s * 90) * np.sin(np.pi * pitch_hz * since_s))
    return out


def bees(rng: Generator) -> Floats:
    """Bees among flowers: steady low buzzes, rich in overtones, whose pitch wanders."""
    out = np.zeros_like(_TIME_S)
    for _ in range(2):
        wander = np.sin(2 * np.pi * (rng.uniform(0.4, 1.5) * _TIME_S + rng.random()))
        hz = rng.uniform(150, 230) * (1 + 0.06 * wander)
        angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
        near = 0.6 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.9) * _TIME_S + rng.random()))
        out += near * np.sum([np.sin(k * angle) / k**0.6 for k in range(1, 16)], axis=0)
    return out


def wind_chimes(rng: Generator) -> Floats:
    """Wind chimes: bars struck at random that ring long, with inharmonic overtones."""
    bars_hz = rng.uniform(1500, 3200, 5)
    out = np.zeros_like(_TIME_S)
    for start_s in np.cumsum(rng.exponential(0.2, 16)) - 0.3:
        hz = rng.choice(bars_hz)
        _strike(out, start_s, ((hz, 1.0), (2.76 * hz, 0.4)), decay_per_s=6)
    return out


def woodpecker(rng: Generator) -> Floats:
    """A woodpecker: rolls of quick hollow knocks, with silence between them."""
    knock_hz, wood_hz = rng.uniform(18, 24), rng.uniform(700, 1100)
    period = rng.uniform(0.8, 1.1)
    phase_s = (_TIME_S + rng.uniform(0, period)) % period
    since_s = phase_s % (1 / knock_hz)
    roll = (phase_s < 0.55 * period) * (1 - 0.8 * phase_s / period)
    crack = _unit(_noise(rng, lambda hz: np.exp(-(((hz - 5000) / 3000) ** 2))))
    hollow = np.sin(2 * np.pi * wood_hz * since_s) + 0.6 * np.sin(4.6 * np.pi * wood_hz * since_s)
    return roll * (np.exp(-since_s * 160) * hollow + np.exp(-since_s * 500) * crack)


def reversing_beeps(rng: Generator) -> Floats:
    """A reversing vehicle: one piercing tone, on and off."""
    tone_hz, beat_hz = rng.uniform(1150, 1400), rng.uniform(1.4, 2.2)
    on = (_TIME_S * beat_hz + rng.random()) % 1 < rng.uniform(0.45, 0.6)
    angle = 2 * np.pi * tone_hz * _TIME_S
    return on * (np.sin(angle) + 0.3 * np.sin(3 * angle) + 0.15 * np.sin(5 * angle))


def music_box(rng: Generator) -> Floats:
    """An ice-cream van's jingle: quick plucked notes of a major pentatonic scale."""
    tonic_hz, note_s = rng.uniform(480, 620), 1 / rng.uniform(5, 7)
    scale = tonic_hz * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16]) / 12)
    out = np.zeros_like(_TIME_S)
    for start_s in np.arange(-rng.random() * note_s, CLIP_S, note_s):
        hz = rng.choice(scale)
        _strike(out, start_s, ((hz, 1.0), (2 * hz, 0.4), (4 * hz, 0.5)), decay_per_s=8)
    return out


def falling_whistles(rng: Generator) -> Floats:
    """A cardinal: loud slurred whistles, each falling by more than an octave."""
    period = rng.uniform(0.3, 0.5)
    phase_s = (_TIME_S + rng.uniform(0, period)) % period
    length = 0.8 * period
    hz = rng.uniform(4200, 5200) * 2 ** (-rng.uniform(1.2, 1.6) * np.clip(phase_s / length, 0, 1))
    angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    return _bump(phase_s, 0.01, length) * (np.sin(angle) + 0.1 * np.sin(2 * angle))


def shrieks(rng: Generator) -> Floats:
    """A ring-necked parakeet: short harsh rising screams in pairs."""
    period = rng.uniform(0.5, 0.7)
    phase_s = (_TIME_S + rng.uniform(0, period)) % period
    envelope = _bump(phase_s, 0.01, 0.14) + _bump(phase_s, 0.2, 0.14)
    hz = rng.uniform(1700, 2200) * (1 + 0.25 * np.sin(np.pi * (phase_s % 0.19) / 0.19))
    angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    voice = np.sum([np.sin(k * angle) / k**0.3 for k in range(1, 5)], axis=0)
    return envelope * voice


SOUNDS: dict[str, Callable[[Generator], Floats]] = {
    recipe.__name__: recipe
    for recipe in (
        *(surf, crickets, cuckoo, dry_leaves, siren, diesel, trill, squawk),
        *(frogs, bees, wind_chimes, woodpecker),
        *(reversing_beeps, music_box, falling_whistles, shrieks),
    )
}


def _bump(phase_s: Floats, start_s: float, length_s: float) -> Floats:
    """A note's envelope: quick attack, soft release, zero outside."""
    position = np.clip((phase_s - start_s) / length_s, 0, 1)
    return (np.sin(np.pi * position**0.6).clip(0) ** 1.2).astype(np.float32)


def _strike(
    out: Floats, start_s: float, partials: Sequence[tuple[float, float]], decay_per_s: float
) -> None:
    """Adds a struck note that rings out; partials are (frequency in Hz, amplitude)."""
    first = round(max(start_s, 0) * SAMPLE_RATE_HZ)
    ringing = slice(first, first + round(5 / decay_per_s * SAMPLE_RATE_HZ))
    since_s = _TIME_S[ringing] - start_s
    for hz, strength in partials:
        out[ringing] += strength * np.exp(-decay_per_s * since_s) * np.sin(2 * np.pi * hz * since_s)


def _noise(rng: Generator, gain: Callable[[Floats], Floats]) -> Floats:
    """Gaussian noise with the magnitude spectrum ``gain(hz)``."""
    size = _FREQUENCY_HZ.size
    spectrum = rng.standard_normal(size, np.float32) + 1j * rng.standard_normal(size, np.float32)
    return np.fft.irfft(spectrum * gain(_FREQUENCY_HZ), SAMPLES).astype(np.float32)


def _unit(signal: Floats) -> Floats:
    """The signal scaled to an RMS of 1."""
    return (signal / np.sqrt(np.mean(signal**2) + 1e-12)).astype(np.float32)
