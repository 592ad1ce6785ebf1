"""Google's storage-testbench, with the requests of the XML API that obstore sends and the testbench does not have.

The testbench is not on PyPI, and its pins do not fit those of this project. Install it in an environment of its own:

    python3.11 -m venv gcs && gcs/bin/pip install git+https://github.com/googleapis/storage-testbench
    gcs/bin/python tests/support/gcs_server.py 9000

Then the tests that use the fixture `any_root` run on it too: VGS_GCS_SERVER=http://127.0.0.1:9000 pytest tests/pure
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from urllib.parse import unquote
from xml.sax.saxutils import escape

import waitress
from testbench import common, error, rest_server
from werkzeug import Request, Response

STATUS = {"GET": 200, "HEAD": 200, "PUT": 200, "DELETE": 204}
BUCKET_LENGTH = 2
"""Parts of the path /bucket."""


def application(environ, start_response):  # type: ignore[no-untyped-def]
    """The XML API for paths that are not those of the JSON API."""
    request = Request(environ)
    if request.path == "/token":
        token = json.dumps({"access_token": "test", "token_type": "Bearer", "expires_in": 3600})
        return Response(token, content_type="application/json")(environ, start_response)
    if request.path.split("/")[1] in ("storage", "upload", "download", "resumable", "batch", "_ping", ""):
        return rest_server.server(environ, start_response)
    try:
        response = answer(request)
    except error.RestException as failed:
        response = Response(failed.msg, status=failed.code)
    return response(environ, start_response)


def answer(request: Request) -> Response:
    """List a bucket, or write, read or delete an object."""
    rest_server.db.insert_test_bucket()
    parts = unquote(request.path).split("/", BUCKET_LENGTH)
    if len(parts) == BUCKET_LENGTH or not parts[-1]:
        return listing(request, parts[1])
    bucket, name = parts[1], parts[2]
    conditions = common.make_xml_preconditions(request)
    if request.method == "PUT":
        holder = rest_server.db.get_bucket(bucket, None).metadata
        blob, _ = rest_server.gcs_type.object.Object.init_xml(request, holder, name)
        rest_server.db.insert_object(bucket, blob, context=None, preconditions=conditions)
    elif request.method == "DELETE":
        rest_server.db.delete_object(bucket, name, preconditions=conditions)
        return Response(status=STATUS["DELETE"])
    else:
        blob = rest_server.db.get_object(bucket, name, preconditions=conditions)
    content = b"" if request.method == "PUT" else blob.media
    response = Response(content, status=STATUS[request.method], headers=headers(blob.metadata))
    return response.make_conditional(request, accept_ranges=True, complete_length=len(content))


def headers(metadata: SimpleNamespace) -> dict[str, str]:
    return {
        "ETag": f'"{metadata.generation}"',
        "x-goog-generation": str(metadata.generation),
        "Last-Modified": metadata.update_time.ToDatetime().strftime("%a, %d %b %Y %H:%M:%S GMT"),
    }


def listing(request: Request, bucket: str) -> Response:
    """The whole listing in one page."""
    query = SimpleNamespace(args=request.args)
    items, prefixes = rest_server.db.list_object(query, bucket, None)
    contents = "".join(
        f"<Contents><Key>{escape(each.name)}</Key><Size>{each.size}</Size><ETag>&quot;{each.generation}&quot;</ETag>"
        f"<LastModified>{each.update_time.ToDatetime().isoformat()}Z</LastModified></Contents>"
        for each in items
    )
    folders = "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in prefixes)
    text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>"
    return Response(text, content_type="application/xml")


if __name__ == "__main__":
    os.environ["GOOGLE_CLOUD_CPP_STORAGE_TEST_BUCKET_NAME"] = "vgs-test"  # the testbench makes this bucket
    waitress.serve(application, host="127.0.0.1", port=int(sys.argv[1]), threads=16)
