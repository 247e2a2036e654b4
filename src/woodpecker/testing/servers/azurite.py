"""Azurite: Microsoft's Azure Blob Storage emulator, from npm, installed on first use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from woodpecker.errors import NotFound, Unavailable
from woodpecker.testing.servers.process import ServerProcess, free_port

PACKAGE = "azurite@3.35.0"  # 3.36 and later need Node 22
INSTALL_TIMEOUT_S = 300.0
API_VERSION = "2021-08-06"


async def install_azurite(cache_dir: Path | None = None) -> Path:
    """Path of Azurite's blob server, installed into ``cache_dir`` by npm if it is not there yet.

    Raises:
        NotFound: there is no npm; the text says how to get it.
        Unavailable: npm failed.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = cache_dir or Path(base) / "woodpecker-testing" / PACKAGE
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    npm = shutil.which("npm")
    if npm is None:
        raise NotFound(
            "Azurite needs Node.js and npm; install them (Debian: apt install nodejs npm)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), PACKAGE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), INSTALL_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        raise Unavailable(f"npm install {PACKAGE} took more than {INSTALL_TIMEOUT_S} s") from None
    if process.returncode != 0 or not program.exists():
        raise Unavailable(f"npm install {PACKAGE} failed: {output.decode(errors='replace')[-500:]}")
    return program


class AzuriteServer(ServerProcess):
    """Azurite's blob service on loopback. ``program`` comes from ``install_azurite``."""

    ACCOUNT = "devstoreaccount1"
    # the emulator's published account key, the same in every installation
    ACCOUNT_KEY = (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    )

    def __init__(self, data_dir: Path, program: Path, *, container: str = "bucket") -> None:
        self.port = free_port()
        self.container = container
        self.endpoint = f"http://127.0.0.1:{self.port}/{self.ACCOUNT}"
        argv = [
            str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
            "-l", str(data_dir / "blobs"), "--silent", "--skipApiVersionCheck",
        ]  # fmt: skip
        super().__init__(argv, ready_url=f"http://127.0.0.1:{self.port}", data_dir=data_dir)

    async def start(self) -> None:
        """Start it and make the container."""
        await super().start()
        await self._create_container()

    def url(self, prefix: str = "") -> str:
        """A URL for ``connect``; the account comes by keyword or environment."""
        return f"az://{self.container}/{prefix}?endpoint={self.endpoint}"

    async def _create_container(self) -> None:
        path = f"/{self.ACCOUNT}/{self.container}"
        headers = {
            "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "x-ms-version": API_VERSION,
        }
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        # Shared Key: the account stands twice in an emulator's path
        to_sign = f"PUT{chr(10) * 12}{canonical}/{self.ACCOUNT}{path}\nrestype:container"
        key = base64.b64decode(self.ACCOUNT_KEY)
        signature = base64.b64encode(hmac.digest(key, to_sign.encode(), hashlib.sha256)).decode()
        headers["Authorization"] = f"SharedKey {self.ACCOUNT}:{signature}"
        url = f"{self.endpoint}/{self.container}?restype=container"
        unsigned = ("Content-Type",)  # aiohttp would add one that the signature does not know
        async with (
            aiohttp.ClientSession(skip_auto_headers=unsigned) as session,
            session.put(url, headers=headers) as reply,
        ):
            if reply.status not in (201, 409):
                raise Unavailable(f"container not created: {reply.status} {await reply.text()}")
