"""The simulation beside reality: real builds from a real S3 server, through a slow proxy.

The proxy adds a wait to each call, has so many bytes per second, and answers 503 SlowDown to the
calls that come faster than a token bucket admits. What goes into the simulation is measured apart,
before and after each build: decoding from local files, reading and publishing through the proxy
without a wait. Clips are short and small, so that the proxy and not the processor is waited for.
"""

import contextlib
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import clips
from scale_paper import Setup
from scale_simulation import simulate

from data_prep import catalog, storage
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from data_prep.shards.plan import BuildSettings, plan
from fault_injection.s3_proxy import S3Proxy
from fault_injection.s3_servers import serve_s3

MEDIA = MediaSettings(size_px=256)
FAST = 1e12
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the proxy does, in seconds and bytes."""

    wait_s: float = 0.0
    bytes_per_s: float = FAST
    gets_per_s: float = FAST


CASES = {
    "wait_10_ms": Network(wait_s=0.010),
    "wait_100_ms": Network(wait_s=0.100),
    "wait_300_ms": Network(wait_s=0.300),
    "throttled_15_per_s": Network(wait_s=0.010, gets_per_s=15.0),
    "narrow_2_mb_per_s": Network(wait_s=0.010, bytes_per_s=2e6),
}


def check(count: int, shards: int) -> dict[str, Any]:
    """Measured and simulated seconds of each case, and their ratio."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        links = scratch / "root" / "bucket" / "clips"
        sources = _short_clips(scratch / "sources")
        clips.link_clips(sources, links, count)
        server = stack.enter_context(serve_s3(scratch / "root"))
        proxy = SlowProxy(server.endpoint)
        proxy.become(Network())
        stack.enter_context(proxy.running())
        os.environ.update(server.env | {"AWS_ENDPOINT_URL_S3": proxy.endpoint})
        found = catalog.read_folder("s3://bucket/clips")
        bench = _Bench(scratch=scratch, links=links, found=found, proxy=proxy, shards=shards)
        rounds: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
        for _ in range(ROUNDS):
            for case, network in CASES.items():
                rounds[case].append(bench.one(network))
                print(case, rounds[case][-1], file=sys.stderr, flush=True)
    results = {case: _medians(runs) for case, runs in rounds.items()}
    return {"clips": count, "shards": shards, "rounds": ROUNDS, **results}


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure; the ratio is taken within each round."""
    ratios = [run["simulated_over_real"] for run in runs]
    return {name: median(run[name] for run in runs) for name in runs[0]} | {
        "lowest_and_highest": [min(ratios), max(ratios)]
    }


def _short_clips(folder: Path) -> list[Path]:
    clips.SECONDS = 2
    return clips.make_clips(folder, 12, width=96, height=54, key_interval=25)


def _mean(before: Setup, after: Setup) -> Setup:
    costs = ("decode_s", "publish_s", "first_byte_s", "start_s")
    return replace(before, **{c: (getattr(before, c) + getattr(after, c)) / 2 for c in costs})


def _beside(real_s: float, refused: int, setup: Setup) -> dict[str, Any]:
    simulated = [simulate(setup, seed) for seed in range(5)]
    simulated_s = setup.start_s + median(run["building_s"] for run in simulated)
    return {
        "decode_ms": round(1e3 * setup.decode_s, 1),
        "request_ms": round(1e3 * setup.first_byte_s, 1),
        "real_s": round(real_s, 2),
        "simulated_s": round(simulated_s, 2),
        "simulated_over_real": round(simulated_s / real_s, 3),
        "real_refused": refused,
        "simulated_refused": round(median(run["refused"] for run in simulated)),
        "load": round(os.getloadavg()[0], 1),
    }


@dataclass(frozen=True, kw_only=True)
class _Bench:
    scratch: Path
    links: Path
    """The clips, in a bucket's folder."""
    found: catalog.Catalog
    """The same in the bucket."""
    proxy: "SlowProxy"
    shards: int

    def one(self, network: Network) -> dict[str, Any]:
        """A real build and the same simulated, with the costs of this machine as they are now."""
        before = self._measured(network)
        self.proxy.become(network)
        real_s = _build_s(self.found, self.shards, f"s3://bucket/{uuid.uuid4().hex}")
        refused = self.proxy.refused
        setup = _mean(before, self._measured(network))
        return _beside(real_s, refused, setup)

    def _measured(self, network: Network) -> Setup:
        self.proxy.become(Network())
        some = self.found.clips[:40]
        read_s = _seconds(lambda: [storage.read_bytes(clip.uri) for clip in some]) / len(some)
        local = catalog.read_folder(str(self.links))
        local = replace(local, clips=local.clips[: len(local.clips) // 3])
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            # The decoder's process takes a while to start, once per build.
            start_s = _build_s(replace(local, clips=local.clips[:1]), 1, out)
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            decode_s = _build_s(local, 1, out) - start_s
            tars = sorted(Path(out, "shards").iterdir())
            places = [f"s3://bucket/try/{tar.name}" for tar in tars]
            upload_s = _seconds(lambda: list(map(storage.publish, tars, places)))
            sizes = [float(tar.stat().st_size) for tar in tars]
        return Setup(
            clips=len(self.found.clips),
            clips_per_shard=len(self.found.clips) // self.shards,
            nodes=1,
            cores_per_node=1,
            source_bytes=sum(path.stat().st_size for path in self.links.iterdir())
            / len(self.found.clips),
            picture_bytes=sizes[0] / len(local.clips) - 1e3,
            sound_bytes=sizes[1] / len(local.clips) - 1e3,
            decode_s=decode_s / (len(local.clips) - 1),
            decode_spread=0.1,
            handle_s=0.0,
            publish_s=upload_s / len(local.clips) * len(self.found.clips) / self.shards,
            node_bytes_per_s=network.bytes_per_s,
            connection_bytes_per_s=network.bytes_per_s,
            first_byte_s=network.wait_s + read_s,
            first_byte_spread=0.0,
            gets_per_s=network.gets_per_s,
            dispatch_s=0.0,
            list_page_s=0.0,
            start_s=start_s,
        )


def _build_s(found: catalog.Catalog, shards: int, out: str) -> float:
    """All shards, without plan and manifest."""
    settings = BuildSettings(media=MEDIA, shards=shards)
    planned = plan(found.clips, shards)
    return _seconds(lambda: list(build.build_shards(planned, settings, out)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class SlowProxy(S3Proxy):
    """Makes each call wait, limits bandwidth, and refuses calls over a rate."""

    def become(self, network: Network) -> None:
        """Takes the properties of another network."""
        with self._lock:
            self.network, self.refused = network, 0
            self._free_at = {"to": 0.0, "from": 0.0}
            most = max(1.0, 0.1 * network.gets_per_s)
            self._tokens = {kind: (most, time.monotonic()) for kind in ("clips", "shards")}

    def next_fault(self, method: str, path: str) -> str:
        """Waits; then ``slow_down`` if calls for clips, or for shards, come too fast."""
        time.sleep(self.network.wait_s)
        if method not in ("GET", "HEAD"):
            return ""
        kind = "clips" if path.startswith("/bucket/clips/") else "shards"
        with self._lock:
            rate, now = self.network.gets_per_s, time.monotonic()
            tokens, since = self._tokens[kind]
            tokens = min(max(1.0, 0.1 * rate), tokens + (now - since) * rate)
            refused = tokens < 1.0
            self._tokens[kind] = (tokens if refused else tokens - 1.0, now)
            self.refused += refused
        return "slow_down" if refused else ""

    def transfer(self, direction: str, size: int) -> None:
        """Waits until these bytes and those queued before them have been sent."""
        if not size:
            return
        with self._lock:
            starts = max(time.monotonic(), self._free_at[direction])
            arrived = starts + size / self.network.bytes_per_s
            self._free_at[direction] = arrived
        time.sleep(max(0.0, arrived - time.monotonic()))
