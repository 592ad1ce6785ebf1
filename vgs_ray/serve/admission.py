"""Admission control: a limit on concurrent beams, with a bounded first-in-first-out queue.

In: the beams of a search or the sequences of a score request. Out: a `Place`, or a 429 error with a Retry-After header.
Several search replicas share one `Admission` (`pipelines/serving/shared_admission.py`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from vgs_ray.serve.errors import ApiError

DEFAULT_RETRY_S = 5.0
"""Retry-After until the first search has ended and its duration is known."""
MAX_RETRY_S = 600.0
SMOOTHING = 0.2
"""Weight of the latest search in the moving average of search durations."""


Take = Callable[[int], Awaitable["Place"]]
"""Takes a place for a number of beams. Raises ApiError: 429 if the queue is full."""


class Admission:
    """Limits the beams of all searches that take a place here.

    Args:
        max_beams: concurrent beams of all searches. A single search is always admitted.
        max_waiting: searches in the queue.
    """

    def __init__(self, max_beams: int, max_waiting: int) -> None:
        self.max_beams, self.max_waiting = max_beams, max_waiting
        self.running = 0
        self._queue: deque[Place] = deque()
        self._mean_s: float | None = None

    @property
    def waiting(self) -> int:
        """Number of searches in the queue."""
        return len(self._queue)

    def take(self, beams: int) -> Place:
        """Admit a search or put it into the queue.

        The check and the reservation are one step, because concurrent requests would otherwise see the same free capacity.

        Raises:
            ApiError: 429 if the queue is full.
        """
        place = Place(self.release, beams)
        if not self._queue and self._fits(beams):
            self._admit(place)
        elif self.waiting < self.max_waiting:
            self._queue.append(place)
            place.position = self.waiting
        else:
            raise overloaded(
                f"the server is busy: {self.running} beams are running (at most {self.max_beams}) and {self.waiting} "
                f"searches are waiting (at most {self.max_waiting}); try again later",
                self.retry_s(),
            )
        return place

    def admit(self, beams: int) -> Place:
        """A place for a search that runs already, whatever the limit."""
        place = Place(self.release, beams)
        self._admit(place)
        return place

    def retry_s(self) -> int:
        """Estimated seconds until all searches that wait now have ended, from the mean duration of past searches."""
        if self._mean_s is None:
            return math.ceil(DEFAULT_RETRY_S)
        beams_ahead = self.running + sum(place.beams for place in self._queue)
        return math.ceil(min(max(self._mean_s * beams_ahead / self.max_beams, 1.0), MAX_RETRY_S))

    def _fits(self, beams: int) -> bool:
        return not self.running or self.running + beams <= self.max_beams

    def _admit(self, place: Place) -> None:
        self.running += place.beams
        place.admitted_at = time.monotonic()
        place.admitted.set()

    def release(self, place: Place) -> None:
        """Release a place, or remove it from the queue."""
        if place.admitted_at is None:
            self._queue.remove(place)
        else:
            self.running -= place.beams
            seconds = time.monotonic() - place.admitted_at
            self._mean_s = seconds if self._mean_s is None else (1 - SMOOTHING) * self._mean_s + SMOOTHING * seconds
        # Strictly in order: otherwise small searches could delay a large one forever.
        while self._queue and self._fits(self._queue[0].beams):
            self._admit(self._queue.popleft())


class Place:
    """A search's place among the running ones or in the queue, until the end of a `with` block.

    Attributes:
        beams: number of beams it reserves.
        position: in the queue on arrival, from 1; 0 if it was admitted at once.
        admitted: set when the search may run.
        admitted_at: when that was (`time.monotonic`); None before.
    """

    def __init__(self, release: Callable[[Place], None], beams: int) -> None:
        self._release, self.beams = release, beams
        self.position = 0
        self.admitted = asyncio.Event()
        self.admitted_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release(self)


def overloaded(message: str, retry_s: int) -> ApiError:
    """The error of a request for which the queue has no room."""
    return ApiError(429, message, None, "overloaded", headers={"Retry-After": str(retry_s)})
