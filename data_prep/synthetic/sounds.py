"""Two seconds of what a class sounds like: mono float32 in [-1, 1].

Each recipe draws its own pitch and tempo; ``synthesize_sound`` then adds background noise and sets
the loudness, so that nothing but the kind of sound tells classes apart.
"""

from collections.abc import Callable
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


def synthesize_sound(name: str, rng: Generator) -> Floats:
    """The sound of ``name`` (a key of ``SOUNDS``), [64000]: signal-to-noise ratio 12 to 30 dB,
    -26 to -12 dBFS RMS."""
    signal = _unit(SOUNDS[name](rng))
    slope = rng.uniform(0, 1.2)
    noise = _unit(_noise(rng, lambda hz: (hz + 40) ** -slope))
    mixed = _unit(signal + 10 ** (-rng.uniform(12, 30) / 20) * noise)
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
    """Steps through dry leaves: dense crackle of short clicks, thicker with each step."""
    step = 0.5 - 0.5 * np.cos(2 * np.pi * (_TIME_S * rng.uniform(1.5, 2.6) + rng.random()))
    rate = rng.uniform(150, 350) * step**2 + 15
    clicks = (rng.random(SAMPLES) < rate / SAMPLE_RATE_HZ) * rng.exponential(1.0, SAMPLES)
    cut = rng.uniform(1500, 2600)
    decay = np.exp(-_TIME_S / rng.uniform(0.001, 0.003)) * rng.standard_normal(SAMPLES)
    spectrum = np.fft.rfft(clicks) * np.fft.rfft(decay)
    spectrum *= _FREQUENCY_HZ**2 / (_FREQUENCY_HZ**2 + cut**2)
    return np.fft.irfft(spectrum, SAMPLES).astype(np.float32)


def siren(rng: Generator) -> Floats:
    """A two-tone fire siren: two horn notes, a fourth apart, taking turns."""
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
    begin = 0.0
    while begin < CLIP_S:
        tempo_hz, middle_hz = rng.uniform(11, 22), rng.uniform(2600, 3800)
        length = round(tempo_hz * rng.uniform(0.35, 0.7)) / tempo_hz
        inside = (begin <= _TIME_S) & (begin + length > _TIME_S)
        position = ((_TIME_S - begin) * tempo_hz) % 1
        hz = middle_hz + rng.choice([-1, 1]) * rng.uniform(500, 1100) * (position - 0.5)
        angle = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
        out += inside * np.sin(np.pi * position) ** 1.5 * np.sin(angle)
        begin += length + rng.uniform(0.03, 0.15)
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


SOUNDS: dict[str, Callable[[Generator], Floats]] = {
    recipe.__name__: recipe
    for recipe in (surf, crickets, cuckoo, dry_leaves, siren, diesel, trill, squawk)
}


def _bump(phase_s: Floats, begin_s: float, length_s: float) -> Floats:
    """A note's envelope: quick rise, soft end, zero outside."""
    position = np.clip((phase_s - begin_s) / length_s, 0, 1)
    return (np.sin(np.pi * position**0.6).clip(0) ** 1.2).astype(np.float32)


def _noise(rng: Generator, gain: Callable[[Floats], Floats]) -> Floats:
    """Gaussian noise with the spectrum ``gain(hz)``."""
    size = _FREQUENCY_HZ.size
    spectrum = rng.standard_normal(size, np.float32) + 1j * rng.standard_normal(size, np.float32)
    return np.fft.irfft(spectrum * gain(_FREQUENCY_HZ), SAMPLES).astype(np.float32)


def _unit(signal: Floats) -> Floats:
    """Scaled to an RMS of one."""
    return (signal / np.sqrt(np.mean(signal**2) + 1e-12)).astype(np.float32)
