"""The tests' S3 server: what a killed one had answered is there after its restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from s3_server import BUCKET, S3Server, reach, s3_server

from vgs_ray.data.storage import list_files, object_store, storage_path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path) as started, reach(started.endpoint):
        yield started


def test_objects_conditions_and_open_uploads_outlive_a_killed_server(server: S3Server) -> None:
    root = storage_path(f"s3://{BUCKET}/durable")
    (root / "kept").write_bytes(b"1")
    (root / "removed").write_bytes(b"2")
    (root / "removed").unlink()
    tag = obstore.put(*object_store(root / "lease"), b"a", mode="create")["e_tag"]
    large = f"{server.endpoint}/{BUCKET}/durable/large"
    [upload] = re.findall("<UploadId>(.*)</UploadId>", httpx.post(f"{large}?uploads").text)
    content = [bytes([number]) * 5 * 2**20 for number in (1, 2)]
    tags = [put_part(large, upload, 1, content[0])]
    server.kill()
    with (server.folder / "log").open("ab") as log:
        log.write(b"\x80\x04\x95")  # the start of a record, as if it had been killed while it wrote
    server.start()
    assert list_files(root) == {"kept": 1, "lease": 1}
    with pytest.raises(AlreadyExistsError):
        obstore.put(*object_store(root / "lease"), b"b", mode="create")
    obstore.put(*object_store(root / "lease"), b"c", mode={"e_tag": tag})
    tags.append(put_part(large, upload, 2, content[1]))
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in enumerate(tags, 1)
    )
    done = httpx.post(
        f"{large}?uploadId={upload}", content=f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
    )
    assert done.status_code == 200, done.text
    server.kill()
    server.start()
    assert (root / "large").read_bytes() == b"".join(content)
    assert (root / "lease").read_bytes() == b"c"


def put_part(url: str, upload: str, number: int, content: bytes) -> str:
    return httpx.put(f"{url}?partNumber={number}&uploadId={upload}", content=content).raise_for_status().headers["etag"]
