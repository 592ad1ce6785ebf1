"""Small files that show whether this process can write and read in a folder of storage."""

from __future__ import annotations

import uuid

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError

from vgs_ray.data.parquet import arrow_file, retried
from vgs_ray.data.storage import AnyPath, is_local, object_store
from vgs_ray.errors import UserError

ATTEMPTS = 3
"""Attempts of a request, which are fewer than those of a stage: a wrong endpoint should be named soon."""
ERRORS = (BaseError, OSError, pa.ArrowException)
"""Errors of both clients."""
PYARROW = ("AWS Error", "google::cloud::Status")
"""In errors of pyarrow's clients."""
METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")
"""Where both clients look for an instance's role when there are no other credentials."""
LENGTH = 160


def check_access(folder: AnyPath) -> None:
    """Write, read and delete an object.

    Raises:
        UserError: one of these fails; the message has the reason.
    """
    path, content = folder / f"_probe-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    try:
        write_probe(path, content)
        read_probe(path)
        path.unlink()
    except ERRORS as error:
        raise UserError(
            f"{folder} can't be used ({reason(error)}); a run needs a bucket that it may write, read, list and delete in: "
            f"set {variables(folder)} in the environment (docs/storage.md)"
        ) from error


def variables(folder: AnyPath) -> str:
    """Variables of the environment that lead to an object store."""
    if str(folder).startswith("gs:"):
        return "GOOGLE_APPLICATION_CREDENTIALS"
    return "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for other servers, AWS_ENDPOINT_URL"


def write_probe(path: AnyPath, content: bytes) -> None:
    """Write a small file as the tables are written."""
    if is_local(path):
        path.write_bytes(content)
    else:
        obstore.put(*object_store(path, ATTEMPTS), content)


def read_probe(path: AnyPath) -> bytes:
    """Read it, on an object store with both clients."""
    if is_local(path):
        return path.read_bytes()
    content = bytes(obstore.get(*object_store(path, ATTEMPTS)).bytes())
    system, name = arrow_file(path, ATTEMPTS)
    with system.open_input_file(name) as file:
        if retried(lambda: file.read_at(len(content), 0)) != content:
            raise OSError("pyarrow and obstore read different objects")
    return content


def is_of_store(error: BaseException) -> bool:
    """Whether a client of an object store raised an error, after its last attempt."""
    return isinstance(error, BaseError) or (
        isinstance(error, OSError | pa.ArrowException) and any(each in str(error) for each in PYARROW)
    )


def reason(error: BaseException) -> str:
    """The message of a client, without its debug output."""
    text = str(error).partition("\n")[0].partition(" error_info=")[0].rpartition(" message was: ")[2]
    if any(server in text for server in METADATA_SERVERS):
        return "there are no credentials in the environment, and the machine has no role"
    if "NoSuchBucket" in str(error):
        return "the bucket does not exist"
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 3]}..."
