"""An S3 server that keeps its objects when it is killed: python durable_s3.py PORT LOG HOST.

moto's server keeps objects in memory. Here each request that may change something is appended to a log before it is executed,
and a new process executes the log again, one request at a time and in the same order. So conditional writes have the same
results, and multipart uploads that were open continue.
"""

from __future__ import annotations

import io
import itertools
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import FakeMultipart
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder, run_wsgi_app

READS = ("GET", "HEAD", "OPTIONS")
PLAIN = (str, int, dict)
"""Types of the values of a WSGI environment that describe the request; the others belong to its connection."""

Environ = dict[str, Any]


def number_uploads() -> None:
    """Give multipart uploads ids that are the same when the log is executed again; moto's are random."""
    start, numbers = FakeMultipart.__init__, itertools.count()

    def numbered(upload: FakeMultipart, *arguments: Any, **options: Any) -> None:
        start(upload, *arguments, **options)
        upload.id = f"upload{next(numbers)}"

    FakeMultipart.__init__ = numbered


class DurableServer:
    """moto's WSGI application with a log of the requests that may change something.

    Args:
        log: file of the log, which is executed first if it exists.
    """

    def __init__(self, log: Path) -> None:
        number_uploads()
        self._app, self._lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
        self._log = log.open("ab+")
        self._log.seek(0)
        end = 0
        while record := self._next_record():
            self._execute(EnvironBuilder().get_environ() | record[0], record[1])
            end = self._log.tell()
        self._log.truncate(end)

    def _next_record(self) -> tuple[Environ, bytes] | None:
        try:
            return pickle.load(self._log)
        except (EOFError, pickle.UnpicklingError):  # the process was killed while it wrote the last one
            return None

    def _execute(self, environ: Environ, body: bytes) -> Any:
        return run_wsgi_app(self._app, environ | {"wsgi.input": io.BytesIO(body)}, buffered=True)

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] in READS:
            return self._app(environ, start_response)
        chunked = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read(*[] if chunked else [int(environ.get("CONTENT_LENGTH") or 0)])
        with self._lock:
            pickle.dump(({name: value for name, value in environ.items() if isinstance(value, PLAIN)}, body), self._log)
            self._log.flush()
            content, status, headers = self._execute(environ, body)
        start_response(status, headers.to_wsgi_list())
        return content


def main() -> None:
    port, log, host = sys.argv[1:]
    server = DurableServer(Path(log))
    make_server(host, int(port), server, threaded=True, request_handler=MotoRequestHandler).serve_forever()


if __name__ == "__main__":
    main()
