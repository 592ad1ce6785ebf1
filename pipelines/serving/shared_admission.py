"""One admission for all search replicas: a Ray Serve replica that holds it, and its client in each search replica.

In: the beams of a search. Out: a `Place`, or a 429 error. Taking a place is one call to the admission replica; giving it back
is another one, for which nobody waits. Each search replica repeats which places it holds. So the admission forgets those of a
search replica that died, and a new admission replica learns about the searches that run. While none answers, searches are
admitted without limit.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from vgs_ray.config import Serve
from vgs_ray.serve.admission import Admission, Place, overloaded
from vgs_ray.serve.errors import ApiError

RENEW_S = 3.0
"""Seconds between two reports of the places that a search replica holds."""
FORGET_S = 15.0
"""Seconds without a report after which a search replica counts as dead, and its places are free."""
CALL_S = 2.0
"""Seconds that a request waits for an answer of the admission before it is admitted without one."""
SPARE_CALLS = 1000
"""Calls that the admission replica accepts in addition to those that wait in the queue."""
UNAVAILABLE = (TimeoutError, RayError, RayServeException)

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The position in the queue, 0 if admitted; or why there is no place, and when to try again."""

    position: int = 0
    refusal: str = ""
    retry_s: int = 0


class AdmissionReplica:
    """Holds the admission of the whole deployment. Places are named by their search replica."""

    def __init__(self, max_beams: int, max_waiting: int) -> None:
        self.admission = Admission(max_beams, max_waiting)
        self._places: dict[str, dict[str, Place]] = defaultdict(dict)
        self._seen: dict[str, float] = {}

    async def take(self, replica: str, name: str, beams: int) -> Answer:
        """Admit a search of a search replica, or put it into the queue."""
        self._seen[replica] = time.monotonic()
        try:
            place = self._places[replica][name] = self.admission.take(beams)
        except ApiError as error:
            return Answer(0, error.body["error"]["message"], self.admission.retry_s())
        return Answer(place.position)

    async def wait(self, replica: str, name: str) -> None:
        """Return when a search has left the queue, also if it was given up or is not known."""
        if place := self._places[replica].get(name):
            await place.admitted.wait()

    async def release(self, replica: str, name: str) -> None:
        """Give a place back."""
        if place := self._places[replica].pop(name, None):
            self.admission.release(place)
            place.admitted.set()  # ends `wait`

    async def renew(self, replica: str, running: dict[str, int], waiting: list[str]) -> None:
        """Make the places of a search replica those that it reports.

        Args:
            replica: its name.
            running: beams of its searches that run.
            waiting: its searches that wait in the queue.
        """
        self._seen[replica] = time.monotonic()
        held = self._places[replica]
        for name, place in list(held.items()):
            was_admitted_without_us = name in running and not place.admitted.is_set()
            if was_admitted_without_us or not (name in running or name in waiting):
                await self.release(replica, name)
        for name in running.keys() - held.keys():
            held[name] = self.admission.admit(running[name])
        for dead in [each for each, seen in self._seen.items() if time.monotonic() - seen > FORGET_S]:
            log.warning("search replica %s is gone with %d searches", dead, len(self._places[dead]))
            for name in list(self._places[dead]):
                await self.release(dead, name)
            del self._places[dead], self._seen[dead]


class SharedAdmission:
    """Takes places of an admission replica for one search replica.

    Args:
        admission: handle of its deployment.
        replica: name of the search replica.
    """

    def __init__(self, admission: DeploymentHandle[AdmissionReplica], replica: str) -> None:
        self._admission, self._replica = admission, replica
        self._names: dict[Place, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start to report, on the running event loop. The first report also connects to the admission replica."""
        if not self._tasks:
            self._start(self._renew())

    async def take(self, beams: int) -> Place:
        """A place for a search.

        Raises:
            ApiError: 429 if the queue is full.
        """
        place, name = Place(self._release, beams), secrets.token_hex(8)
        self._names[place] = name
        try:
            answer = Answer(*await self._call("take", name, beams))
        except UNAVAILABLE as error:
            log.warning("no admission replica answers (%s): a search is admitted without it", type(error).__name__)
            answer = Answer()
        except asyncio.CancelledError:
            self._release(place)
            raise
        if answer.refusal:
            del self._names[place]
            raise overloaded(answer.refusal, answer.retry_s)
        place.position = answer.position
        if place.position:
            self._start(self._wait(place, name))
        else:
            place.admitted.set()
        return place

    async def _wait(self, place: Place, name: str) -> None:
        """Wait in the queue. If the admission replica died, the search is admitted by the next one, which does not know it."""
        while not place.admitted.is_set() and place in self._names:
            try:
                await self._call("wait", name, limit_s=None)
                place.admitted.set()
            except UNAVAILABLE:
                await asyncio.sleep(CALL_S)

    def _release(self, place: Place) -> None:
        if name := self._names.pop(place, None):
            self._start(self._give_back(name))

    async def _give_back(self, name: str) -> None:
        with suppress(*UNAVAILABLE):  # the next report is without this place
            await self._call("release", name)

    async def _renew(self) -> None:
        while True:
            running = {name: place.beams for place, name in self._names.items() if place.admitted.is_set()}
            waiting = [name for place, name in self._names.items() if not place.admitted.is_set()]
            try:
                await self._call("renew", running, waiting)
            except UNAVAILABLE as error:
                log.warning("no admission replica answers (%s)", type(error).__name__)
            await asyncio.sleep(RENEW_S)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _call(self, method: str, *args: object, limit_s: float | None = CALL_S) -> Any:
        handle: Any = self._admission.options(method_name=method, _by_reference=False)
        # In an empty context, as in remote_engines.py.
        response = Context().run(handle.remote, self._replica, *args)
        try:
            return await asyncio.wait_for(response, limit_s)
        except (asyncio.CancelledError, TimeoutError):
            response.cancel()
            raise


def admission_application(settings: Serve) -> serve.Application:
    """The admission replica of an endpoint."""
    deployment = serve.deployment(
        AdmissionReplica,
        name="admission",
        num_replicas=1,
        max_ongoing_requests=settings.max_waiting + SPARE_CALLS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.5,
    )
    return deployment.bind(settings.max_beams, settings.max_waiting)
