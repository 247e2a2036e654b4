"""localbucket, the quickest S3 server that pip installs, with deletion of several objects added.

Run as ``python -m woodpecker.bench.fast_server DIRECTORY --port PORT``. Objects are files, nothing is
synced, conditions of overwriting are ignored: good for measuring clients, for nothing else.
"""

from __future__ import annotations

from http import HTTPStatus
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import localbucket


class Handler(localbucket.S3Handler):  # type: ignore[misc]  # it comes without types
    """As the original, and ``POST /bucket?delete``."""

    disable_nagle_algorithm = True  # else a body waits up to 40 ms for the ACK of its headers

    def _post_request(self, bucket: str, key: str) -> None:
        if key or "delete" not in self.query:
            super()._post_request(bucket, key)
            return
        root = self._bucket_dir(bucket).resolve()
        keys = [
            element.text
            for element in ET.fromstring(self._read_body()).iter()  # noqa: S314  our own client's
            if element.tag.rpartition("}")[2] == "Key" and element.text
        ]
        for name in keys:
            (root / name).unlink(missing_ok=True)
        deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in keys)
        body = f"<DeleteResult>{deleted}</DeleteResult>".encode()
        self._send(HTTPStatus.OK, body, {"Content-Type": "application/xml"})

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """A line for each request would cost more than the request."""


if __name__ == "__main__":
    localbucket.S3Handler = Handler
    localbucket.main()
