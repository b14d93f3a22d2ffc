"""The same build in simulated time: workers, cores, node networks, and a store that throttles.

Every request, decoded clip and upload is an event. Processes are generators that yield what they
wait for: a number of seconds, or an ``Event``. The same seed gives the same run.
"""

import heapq
import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

from scale_paper import Setup

Process: TypeAlias = "Generator[float | Event, Any, None]"
Step: TypeAlias = "Process | Callable[[], None]"


class Event:
    """Happens once; wakes all who wait."""

    __slots__ = ("_loop", "_waiting", "happened")

    def __init__(self, loop: "Loop") -> None:
        self._loop, self._waiting, self.happened = loop, list[Process](), False

    def wait(self, process: Process) -> None:
        if self.happened:
            self._loop.at(0.0, process)
        else:
            self._waiting.append(process)

    def happen(self) -> None:
        self.happened = True
        for process in self._waiting:
            self._loop.at(0.0, process)


class Loop:
    """Simulated time, in seconds."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.draw = random.Random(seed)
        self._due: list[tuple[float, int, Step]] = []
        self._number = itertools.count()

    def at(self, wait_s: float, what: Step) -> None:
        heapq.heappush(self._due, (self.now + wait_s, next(self._number), what))

    def run(self) -> None:
        while self._due:
            self.now, _, what = heapq.heappop(self._due)
            if callable(what):
                what()
                continue
            awaited = next(what, None)
            if isinstance(awaited, Event):
                awaited.wait(what)
            elif awaited is not None:
                self.at(awaited, what)


class Slots:
    """So many may hold one at the same time; first come, first served. Also a lock, and cores."""

    def __init__(self, loop: Loop, count: int) -> None:
        self._loop, self._free, self._waiting = loop, count, deque[Event]()

    def take(self) -> Generator[Event, Any, None]:
        if self._free:
            self._free -= 1
            return
        turn = Event(self._loop)
        self._waiting.append(turn)
        yield turn

    def give(self) -> None:
        if self._waiting:
            self._waiting.popleft().happen()
        else:
            self._free += 1

    def use(self, seconds: float) -> Process:
        yield from self.take()
        yield seconds
        self.give()


class Link:
    """One way of a node's network, shared evenly; a connection has a limit of its own.

    All transfers advance at the same rate, so one number tells how far all of them are.
    """

    def __init__(self, loop: Loop, bytes_per_s: float, connection_bytes_per_s: float) -> None:
        self._loop, self._rate, self._limit = loop, bytes_per_s, connection_bytes_per_s
        self._ends: list[tuple[float, int, Event]] = []
        self._done, self._since, self._version = 0.0, 0.0, 0
        self._number = itertools.count()

    def send(self, size: float) -> Generator[Event, Any, None]:
        self._advance()
        end = Event(self._loop)
        heapq.heappush(self._ends, (self._done + size, next(self._number), end))
        self._plan()
        yield end

    def _each(self) -> float:
        return min(self._limit, self._rate / max(1, len(self._ends)))

    def _advance(self) -> None:
        self._done += (self._loop.now - self._since) * self._each()
        self._since = self._loop.now

    def _plan(self) -> None:
        self._version += 1
        if self._ends:
            version, left = self._version, max(0.0, self._ends[0][0] - self._done)
            self._loop.at(left / self._each(), lambda: self._arrive(version))

    def _arrive(self, version: int) -> None:
        if version != self._version:
            return  # another transfer has started or ended
        self._advance()
        self._done = max(self._done, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self._done:
            heapq.heappop(self._ends)[2].happen()
        self._plan()


class Bucket:
    """Requests that a part of the key space takes: a token each, so many new ones per second."""

    def __init__(self, loop: Loop, per_s: float, burst_s: float) -> None:
        self._loop, self._rate, self._most = loop, per_s, max(1.0, per_s * burst_s)
        self._tokens, self._since = self._most, 0.0

    def admits(self) -> bool:
        gained = (self._loop.now - self._since) * self._rate
        self._tokens, self._since = min(self._most, self._tokens + gained), self._loop.now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Store:
    """Answers after a while, or with 503; asked again as ``s3_retry.retried`` does."""

    def __init__(self, loop: Loop, setup: Setup) -> None:
        self._loop, self._setup = loop, setup
        buckets = range(setup.prefixes + 1)  # the last one holds the shards
        self._gets = [Bucket(loop, setup.gets_per_s, setup.burst_s) for _ in buckets]
        self._puts = [Bucket(loop, setup.puts_per_s, setup.burst_s) for _ in buckets]
        self.tries = Counter[int]()
        """Requests by the number of tries that they took."""
        self.given_up = 0
        self.refused = 0

    def get(self, prefix: int, link: Link, size: float) -> Process:
        yield from self._request(self._gets[prefix])
        if size:
            yield from link.send(size)

    def put(self, link: Link, size: float) -> Process:
        """Asked before, written, and looked at afterwards, as the build does."""
        yield from self._request(self._gets[-1])
        yield from self._request(self._puts[-1])
        yield from link.send(size)
        yield from self._request(self._gets[-1])

    def _request(self, bucket: Bucket) -> Process:
        s = self._setup
        for attempt in range(s.attempts):
            spread = self._loop.draw.gauss(0.0, s.first_byte_spread)
            yield s.first_byte_s * math.exp(spread)
            if bucket.admits():
                self.tries[attempt + 1] += 1
                return
            self.refused += 1
            if attempt + 1 < s.attempts:
                longest = min(s.first_wait_s * 2**attempt, s.longest_wait_s)
                yield longest * self._loop.draw.uniform(0.5, 1.0)
        self.given_up += 1  # a real build ends here, and is run again


@dataclass(frozen=True, kw_only=True)
class Node:
    cores: Slots
    inward: Link
    outward: Link


class Worker:
    """A decoder that the shards of a worker share, one at a time."""

    def __init__(self, loop: Loop, setup: Setup, store: Store, node: Node) -> None:
        self._loop, self._setup, self._store, self._node = loop, setup, store, node
        self._turn, self._decoder = Slots(loop, 1), Slots(loop, 1)
        self._interpreter = Slots(loop, 1)

    def build(self, shards: "deque[int]", scheduler: Slots, finished: list[float]) -> Process:
        """Shards one after another, as long as there are any."""
        s = self._setup
        while shards:
            first_clip, count = shards.popleft()
            yield from scheduler.use(s.dispatch_s)
            yield from self._store.get(-1, self._node.inward, 0.0)  # its record, not there yet
            yield from self._turn.take()
            yield from self._decode(first_clip, count)
            self._turn.give()
            yield from self._work(s.publish_s)
            for size in (*s.shard_bytes, s.record_bytes):
                yield from self._store.put(self._node.outward, size)
            finished.append(self._loop.now)

    def _decode(self, first_clip: int, count: int) -> Process:
        """``build._sources`` and ``Decoder.decode``."""
        s, readers = self._setup, Slots(self._loop, self._setup.readers)
        ahead = min(s.ahead_clips, max(1, int(s.ahead_bytes / s.source_bytes)))
        reading, decoding = deque[Event](), deque[Event]()

        def hand_over() -> Process:
            yield reading.popleft()
            decoding.append(self._start(self._decode_one()))
            if len(decoding) > 2:
                yield decoding.popleft()

        for clip in range(first_clip, first_clip + count):
            reading.append(self._start(self._read(clip % s.prefixes, readers)))
            if len(reading) > ahead:
                yield from hand_over()
        while reading:
            yield from hand_over()
        yield from decoding

    def _read(self, prefix: int, readers: Slots) -> Process:
        yield from readers.take()
        yield from self._store.get(prefix, self._node.inward, self._setup.source_bytes)
        yield from self._work(self._setup.handle_s)
        readers.give()

    def _work(self, seconds: float) -> Process:
        """In the worker's own process, one thread at a time."""
        yield from self._interpreter.take()
        yield from self._node.cores.use(seconds)
        self._interpreter.give()

    def _decode_one(self) -> Process:
        s = self._setup
        yield from self._decoder.take()
        mean_shift = s.decode_spread**2 / 2
        took = math.exp(self._loop.draw.gauss(-mean_shift, s.decode_spread))
        yield from self._node.cores.use(s.decode_s * took)
        self._decoder.give()

    def _start(self, process: Process) -> Event:
        ended = Event(self._loop)

        def whole() -> Process:
            yield from process
            ended.happen()

        self._loop.at(0.0, whole())
        return ended


def simulate(setup: Setup, seed: int = 0) -> dict[str, Any]:
    """Building alone: from the first shard that is handed out to the last that is stored."""
    loop = Loop(seed)
    store = Store(loop, setup)
    finished: list[float] = []
    ends = [round(n * setup.clips / setup.shards) for n in range(setup.shards + 1)]
    shards = deque((a, b - a) for a, b in itertools.pairwise(ends))
    scheduler = Slots(loop, 1)
    nodes = [
        Node(
            cores=Slots(loop, setup.cores_per_node),
            inward=Link(loop, setup.node_bytes_per_s, setup.connection_bytes_per_s),
            outward=Link(loop, setup.node_bytes_per_s, setup.connection_bytes_per_s),
        )
        for _ in range(setup.nodes)
    ]
    workers = [Worker(loop, setup, store, nodes[n % setup.nodes]) for n in range(setup.workers)]
    for _ in range(setup.shards_at_once):
        for worker in workers:
            loop.at(0.0, worker.build(shards, scheduler, finished))
    loop.run()
    assert len(finished) == setup.shards
    return {
        "building_s": round(loop.now, 2),
        "clips_per_s": round(setup.clips / loop.now),
        "half_done_s": round(sorted(finished)[len(finished) // 2], 2),
        "refused": store.refused,
        "most_tries": max(store.tries),
        "given_up": store.given_up,
    }
