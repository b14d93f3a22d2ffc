"""How fast are batches made, against a bare decoding loop and against other loaders?

Eight shards of 256 samples (frames 256 px high, ten seconds of 16 kHz sound; JPEG and WAV as `aiaic
prepare` writes them, from clips made on the spot or from real ones) lie on local disk. In turn, and
bound to one core or to two, they are read by

- a bare loop: pread of the picture and of a window of the sound, simplejpeg, crop, stack; no order,
  no threads;
- two bare loops in processes of their own, for what two cores of this machine give;
- ours, from the sampling plan to the batch;
- webdataset's WebLoader in this process and with two workers;
- `ray.data.read_webdataset` + `map_batches` + `iter_torch_batches`.

All give batches of the same size of the same squares and windows, decoded by the same libraries.
Start-up is not counted: time runs from a batch after the first ones, with every loader's read-ahead
filled, to a later one. Rates are medians over rounds, ratios are taken within each round. Memory is
that of this process after each of ten epochs, before the others start.

    python benchmarks/loader_speed.py [--clips FOLDER] [--quick]
"""

import argparse
import functools
import io
import itertools
import json
import logging
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
import torch
from clips import make_clips
from numpy.typing import NDArray

from aiaic.audio import AudioConfig
from aiaic.loading.loader import Loader
from aiaic.loading.sample_reader import ViewConfig
from aiaic.loading.sampler import SampleRef, SamplingConfig
from data_prep.catalog import Clip
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Sample
from data_prep.media.wav import samples_within
from data_prep.shards import manifest
from data_prep.shards import tar as shard
from workflows.artifacts.tar_cache import LocalTar

HEIGHT, WIDTH = 256, 456
SECONDS, RATE_HZ = 10, 16_000
BATCH, WARM_UP = 32, 8
AUDIO = AudioConfig()
PICTURES = 12
"""Of each clip; the samples show them in turn."""
EPOCHS = 10

Shown = tuple[NDArray[np.uint8], NDArray[np.int16] | None]


class Corpus:
    """Shards on disk; the same samples as pairs in one tar for each shard, as others want them."""

    def __init__(self, folder: Path, clips: Sequence[Path], shards: int, per_shard: int) -> None:
        self._tars: dict[tuple[str, str], LocalTar] = {}
        self.refs: list[SampleRef] = []
        self.joined: list[str] = []
        (folder / manifest.SHARDS_FOLDER).mkdir()
        jpegs, wavs = _decoded(clips)
        self.picture_kb = round(sum(map(len, jpegs)) / len(jpegs) / 1000, 1)
        for number in range(shards):
            first = number * per_shard
            samples = [
                _sample(i, jpegs[i % len(jpegs)], wavs[i % len(wavs)])
                for i in range(first, first + per_shard)
            ]
            self._add(folder, f"shard-{number:05d}", samples)

    def read(self, name: str, member: str, offset: int, size: int) -> bytes:
        """A range of a shard's tar, as the project reads local ones."""
        return self._tars[name, member].read(offset, size)

    def _add(self, folder: Path, name: str, samples: list[Sample]) -> None:
        written = shard.write_shard(samples, folder / manifest.SHARDS_FOLDER, name)
        for place, member in ((manifest.picture_place, "picture"), (manifest.sound_place, "sound")):
            self._tars[name, member] = LocalTar(Path(place(str(folder), name)))
        for key, at in written.ranges.items():
            picture = (at.picture_offsets[0], at.picture_sizes[0])
            sound = samples_within(at.sound_offset, at.sound_size)
            self.refs.append(
                SampleRef(
                    key=key, youtube_id=key, label="", shard=name, pictures=(picture,), sound=sound
                )
            )
        self.joined.append(str(folder / f"{name}.tar"))
        with tarfile.open(self.joined[-1], "w") as tar:
            for sample in samples:
                for kind, content in (("jpg", sample.pictures[0]), ("wav", sample.sound)):
                    info = tarfile.TarInfo(f"{sample.key}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small corpus, one round, no Ray")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=Path, help="folder of real clips to take frames from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))[-2:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = sorted(options.clips.glob("*.mp4")) if options.clips else None
        clips = clips or make_clips(folder / "clips", 2 if options.quick else 8)
        corpus = Corpus(folder, clips, *((2, 64) if options.quick else (8, 256)))
        batches = 8 if options.quick else 96
        resident_mb = _memory(corpus)
        contenders = _contenders(corpus, batches, ray=not options.quick)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(1 if options.quick else options.rounds):
            for name, (on_cores, rate) in contenders.items():
                os.sched_setaffinity(0, cores[-on_cores:])
                rates[name].append(rate())
    report = _report(rates) | {"resident_mb": resident_mb, "picture_kb": corpus.picture_kb}
    _print_table(rates)
    print(json.dumps(report))


def _contenders(
    corpus: Corpus, batches: int, *, ray: bool
) -> dict[str, tuple[int, Callable[[], float]]]:
    """By name: on how many cores, and what gives samples per second."""

    def rate(make: Callable[[], Generator[int, None, None]]) -> Callable[[], float]:
        return lambda: _rate(make(), batches)

    found = {
        "bare, pictures, 1 core": (1, rate(lambda: _bare(corpus, sound=False))),
        "ours, pictures, 1 core": (1, rate(lambda: _ours(corpus, threads=1, sound=False))),
        "bare, 1 core": (1, rate(lambda: _bare(corpus, sound=True))),
        "ours, 1 core": (1, rate(lambda: _ours(corpus, threads=1, sound=True))),
        "ours, 2 cores": (2, rate(lambda: _ours(corpus, threads=2, sound=True))),
        "bare in 2 processes, 2 cores": (2, lambda: _bare_twice(corpus, batches)),
        "WebLoader in-process, 1 core": (1, rate(lambda: _webloader(corpus, workers=0))),
        "WebLoader 2 workers, 2 cores": (2, rate(lambda: _webloader(corpus, workers=2))),
    }
    if ray:
        found["ray.data, 2 cores"] = (2, lambda: _in_a_process(_ray, corpus.joined))
    return found


def _rate(sizes: Generator[int, None, None], batches: int) -> float:
    """Samples per second of an endless loader of batches, with its read-ahead filled."""
    for _ in itertools.islice(sizes, WARM_UP):
        pass
    started = time.perf_counter()
    samples = sum(itertools.islice(sizes, batches))
    seconds = time.perf_counter() - started
    sizes.close()
    return samples / seconds


def _ours(corpus: Corpus, *, threads: int, sound: bool) -> Generator[int, None, None]:
    loader = Loader(
        read=corpus.read,
        view=ViewConfig(size_px=HEIGHT),
        audio=AUDIO if sound else None,
        threads=threads,
    )
    for batch in loader.training(corpus.refs, SamplingConfig(batch_size=BATCH), 0, 1, 0):
        yield len(batch)


def _bare(corpus: Corpus, *, sound: bool) -> Generator[int, None, None]:
    shown: list[Shown] = []
    for ref in itertools.cycle(corpus.refs):
        jpeg = corpus.read(ref.shard, "picture", *ref.pictures[0])
        window = _read_window(corpus, ref) if sound else None
        shown.append((_square(jpeg), window))
        if len(shown) == BATCH:
            yield len(_stacked(shown)[0])
            shown = []


def _bare_twice(corpus: Corpus, batches: int) -> float:
    """What the machine gives two that share nothing, not even an interpreter."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        return sum(
            pool.map(functools.partial(_bare_on, corpus, batches), sorted(os.sched_getaffinity(0)))
        )


def _bare_on(corpus: Corpus, batches: int, core: int) -> float:
    os.sched_setaffinity(0, {core})
    return _rate(_bare(corpus, sound=True), batches)


def _read_window(corpus: Corpus, ref: SampleRef) -> NDArray[np.int16]:
    assert ref.sound is not None
    offset, size = ref.sound
    start = np.random.randint(size // 2 - AUDIO.samples + 1)
    pcm = corpus.read(ref.shard, "sound", offset + 2 * start, 2 * AUDIO.samples)
    return np.frombuffer(pcm, "<i2")


def _webloader(corpus: Corpus, *, workers: int) -> Generator[int, None, None]:
    import webdataset as wds

    shuffled = wds.WebDataset(
        corpus.joined, shardshuffle=100, workersplitter=wds.split_by_worker, seed=0
    ).repeat()
    pairs = shuffled.shuffle(256).map(lambda pair: _shown(pair["jpg"], pair["wav"]))
    batched = pairs.batched(BATCH, partial=False, collation_fn=_stacked)
    loader = wds.WebLoader(batched, batch_size=None, num_workers=workers)
    for pictures, _ in loader:
        yield len(pictures)


def _in_a_process(rate: Callable[[list[str]], float], tars: list[str]) -> float:
    """Ray leaves threads behind, which would take their share from the others of the next round."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(rate, tars).result()


def _ray(tars: list[str]) -> float:
    """Over an epoch, from its first batch on: what was read ahead of that counts in its favour."""
    import ray

    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    pairs = ray.data.read_webdataset(tars, decoder=None)
    shown = pairs.map_batches(_shown_rows, batch_size=BATCH)
    started, samples = 0.0, 0
    for batch in shown.iter_torch_batches(batch_size=BATCH, prefetch_batches=4):
        if started == 0.0:
            started = time.perf_counter()
        else:
            samples += len(batch["picture"])
    seconds = time.perf_counter() - started
    ray.shutdown()
    return samples / seconds


def _shown_rows(rows: dict[str, Any]) -> dict[str, NDArray[Any]]:
    shown = [_shown(jpeg, wav) for jpeg, wav in zip(rows["jpg"], rows["wav"], strict=True)]
    return {
        "picture": np.stack([picture for picture, _ in shown]),
        "waveform": np.stack([sound for _, sound in shown if sound is not None]),
    }


def _shown(jpeg: bytes, wav: bytes) -> Shown:
    """What every loader makes of a sample: a random square and a random window."""
    sound = np.frombuffer(wav, "<i2", offset=44)
    start = np.random.randint(len(sound) - AUDIO.samples + 1)
    return _square(jpeg), sound[start : start + AUDIO.samples]


def _square(jpeg: bytes) -> NDArray[np.uint8]:
    rgb = simplejpeg.decode_jpeg(jpeg, "RGB")
    top, left = (np.random.randint(side - HEIGHT + 1) for side in rgb.shape[:2])
    return rgb[top : top + HEIGHT, left : left + HEIGHT]


def _stacked(shown: Sequence[Shown]) -> tuple[torch.Tensor, torch.Tensor | None]:
    pictures = torch.from_numpy(np.stack([picture for picture, _ in shown]))
    sounds = [sound for _, sound in shown if sound is not None]
    return pictures, torch.from_numpy(np.stack(sounds)) if sounds else None


def _memory(corpus: Corpus) -> list[float]:
    """MB of this process after each epoch."""
    per_epoch = len(corpus.refs) // BATCH
    sizes = _ours(corpus, threads=2, sound=True)
    resident = []
    for _ in range(EPOCHS):
        for _ in itertools.islice(sizes, per_epoch):
            pass
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1))
    sizes.close()
    return resident


def _report(rates: dict[str, list[float]]) -> dict[str, Any]:
    def ratio(name: str, other: str) -> float | None:
        if not (name in rates and other in rates):
            return None
        pairs = zip(rates[name], rates[other], strict=True)
        return round(median(one / two for one, two in pairs), 3)

    return {
        "samples_per_s": {name: round(median(values), 1) for name, values in rates.items()},
        "ours_over_bare": ratio("ours, 1 core", "bare, 1 core"),
        "ours_over_bare_pictures": ratio("ours, pictures, 1 core", "bare, pictures, 1 core"),
        "two_cores_over_one": ratio("ours, 2 cores", "ours, 1 core"),
        "two_bare_over_one": ratio("bare in 2 processes, 2 cores", "bare, 1 core"),
        "ours_over_webloader_1_core": ratio("ours, 1 core", "WebLoader in-process, 1 core"),
        "ours_over_webloader_2_cores": ratio("ours, 2 cores", "WebLoader 2 workers, 2 cores"),
        "ours_over_ray_data": ratio("ours, 2 cores", "ray.data, 2 cores"),
    }


def _print_table(rates: dict[str, list[float]]) -> None:
    for name, values in rates.items():
        found = sorted(values)
        print(f"{name:32s} {median(found):7.0f}/s   ({found[0]:.0f} to {found[-1]:.0f})")


def _decoded(clips: Sequence[Path]) -> tuple[list[bytes], list[bytes]]:
    """Pictures and sounds of clips, as they are put into shards."""
    settings = MediaSettings(size_px=HEIGHT, pictures=PICTURES)
    samples = []
    for path in clips:
        clip = Clip(key=path.stem, youtube_id="", start_s=0, label="", split="", uri=str(path))
        sample = read_clip(path, clip, settings)
        assert isinstance(sample, Sample), sample
        samples.append(sample)
    return [jpeg for s in samples for jpeg in s.pictures], [s.sound for s in samples if s.sound]


def _sample(number: int, jpeg: bytes, wav: bytes) -> Sample:
    return Sample(
        key=f"clip{number:07d}_000000",
        pictures=(jpeg,),
        requested_s=(5.0,),
        actual_s=(5.0,),
        width=WIDTH,
        height=HEIGHT,
        source_width=WIDTH,
        source_height=HEIGHT,
        source_s=SECONDS,
        crop=(),
        colorfulness=1.0,
        motion=None,
        picture_hash=("0" * 16,),
        sound=wav,
        sound_fate="kept",
        sound_start_s=0.0,
        sound_s=SECONDS,
        rms_dbfs=-20.0,
        peak_dbfs=-3.0,
    )


if __name__ == "__main__":
    main()
