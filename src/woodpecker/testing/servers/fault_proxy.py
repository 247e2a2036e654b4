"""A proxy before an object store that injects faults of HTTP, by rules and from a seed.

Requests go on as they came, ``Host`` and raw path included, so signatures hold. Bodies are held in
memory.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections import Counter
from dataclasses import dataclass
from enum import Enum

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from woodpecker.testing.servers.process import free_port

BODY_MAX_BYTES = 256 * 1024 * 1024
_HOP_HEADERS = ("connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect")
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Fault(Enum):
    """What happens to a request."""

    COMMIT_500 = "carried out, answered with 500"
    COMMIT_CUT = "carried out, the connection cut before the answer"
    CUT_COMMIT = "the connection cut at once, carried out later"
    REFUSE_409 = "not carried out, 409 ConditionalRequestConflict"
    REFUSE_503 = "not carried out, 503 SlowDown"
    DELAY = "carried out later, answered normally"
    TRUNCATE = "carried out, half of the answer's body sent, then cut"
    DROP = "not carried out, no answer until the time is over, then cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """Inject ``fault`` into requests that match; the first rule that fires decides."""

    fault: Fault
    methods: tuple[str, ...] = ()  # empty: all
    path_contains: str = ""  # in the raw path with query
    probability: float = 1.0
    times: int | None = None  # fire so often, then never again; None: always
    delay_ms: int = 100  # DELAY, CUT_COMMIT: before it is carried out; DROP: until the cut


class FaultProxy:
    """Listens on loopback, forwards to ``target`` (an endpoint URL).

    ``injected`` counts what was done, ``requests`` and ``methods`` what came in. Start and stop on one event loop.
    """

    def __init__(self, target: str, *, seed: int = 0) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.injected: Counter[Fault] = Counter()
        self.requests = 0
        self.methods: Counter[str] = Counter()
        self.target = target.rstrip("/")
        self._rules: list[FaultRule] = []
        self._fired: Counter[int] = Counter()
        self._rng = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._late: set[asyncio.Task[object]] = set()

    def add(self, rule: FaultRule) -> None:
        """Apply ``rule`` from now on, after those added before."""
        self._rules.append(rule)

    def clear(self) -> None:
        """Forward everything untouched from now on."""
        self._rules.clear()
        self._fired.clear()

    async def start(self) -> None:
        """Listen."""
        self._session = aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=_AUTO_HEADERS,
            timeout=aiohttp.ClientTimeout(total=120),
        )  # fmt: skip
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """Stop listening; late commits are still carried out."""
        runner, self._runner = self._runner, None
        session, self._session = self._session, None
        if runner is not None:
            await runner.cleanup()
        await self.settle()
        if session is not None:
            await session.close()

    async def settle(self) -> None:
        """Wait until every late commit has been carried out."""
        await asyncio.gather(*self._late, return_exceptions=True)

    def _choose(self, request: web.Request) -> FaultRule | None:
        for index, rule in enumerate(self._rules):
            if rule.methods and request.method not in rule.methods:
                continue
            if rule.path_contains not in request.raw_path:
                continue
            if rule.times is not None and self._fired[index] >= rule.times:
                continue
            if self._rng.random() < rule.probability:
                self._fired[index] += 1
                self.injected[rule.fault] += 1
                return rule
        return None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.methods[request.method] += 1
        body = await request.read()
        rule = self._choose(request)
        if rule is None:
            return await self._forward(request, body)
        match rule.fault:
            case Fault.COMMIT_500:
                await self._forward(request, body)
                return _error(500, "InternalError")
            case Fault.COMMIT_CUT:
                await self._forward(request, body)
                return _cut(request)
            case Fault.CUT_COMMIT:
                self._commit_later(request, body, rule.delay_ms)
                return _cut(request)
            case Fault.REFUSE_409:
                return _error(409, "ConditionalRequestConflict")
            case Fault.REFUSE_503:
                return _error(503, "SlowDown")
            case Fault.TRUNCATE:
                return await _truncate(request, await self._forward(request, body))
            case Fault.DELAY | Fault.DROP:
                await asyncio.sleep(rule.delay_ms / 1000)
        return _cut(request) if rule.fault is Fault.DROP else await self._forward(request, body)

    def _commit_later(self, request: web.Request, body: bytes, delay_ms: int) -> None:
        async def commit() -> None:
            await asyncio.sleep(delay_ms / 1000)
            await self._forward(request, body)

        task: asyncio.Task[object] = asyncio.ensure_future(commit())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _HOP_HEADERS
        )
        url = URL(self.target + request.raw_path, encoded=True)
        try:
            async with self._session.request(
                request.method,
                url,
                headers=headers,
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as reply:
                return _copy(request, reply, await reply.read())
        except aiohttp.ClientError:
            return _error(502, "BadGateway")


def _copy(request: web.Request, reply: aiohttp.ClientResponse, body: bytes) -> web.Response:
    headers = CIMultiDict(
        (name, value)
        for name, value in reply.headers.items()
        if name.lower() not in (*_HOP_HEADERS, "content-length")
    )
    if request.method == "HEAD" and "Content-Length" in reply.headers:
        headers["Content-Length"] = reply.headers["Content-Length"]
    return web.Response(status=reply.status, headers=headers, body=body)


def _error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # nobody gets it


async def _truncate(request: web.Request, whole: web.Response) -> web.StreamResponse:
    body = bytes(whole.body) if isinstance(whole.body, bytes) else b""
    headers = CIMultiDict(whole.headers)
    headers.setdefault("Content-Length", str(len(body)))  # the answer to a HEAD has its own
    partial = web.StreamResponse(status=whole.status, headers=headers)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return partial
