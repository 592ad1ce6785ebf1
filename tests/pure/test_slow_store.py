"""An object store that needs longer for an answer than the default of Amazon's library."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa

from tests.support.s3_server import reach
from vgs_ray.data.parquet import arrow_file
from vgs_ray.data.storage import storage_path

DEFAULT_S = 3.0


class SlowServer(BaseHTTPRequestHandler):
    """A store that has one object, and is slow."""

    def do_HEAD(self) -> None:
        time.sleep(DEFAULT_S + 1)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_an_answer_after_four_seconds_is_read() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with reach(f"http://127.0.0.1:{server.server_port}"):
            system, name = arrow_file(storage_path("s3://bucket/object"), attempts=1)
            file: pa.NativeFile = system.open_input_file(name)
            assert file.size() == 5
        server.shutdown()
