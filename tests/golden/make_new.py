"""Write golden files that are not there yet; an existing one is never touched.

Run from the root of the repository: PYTHONPATH=src:. python tests/golden/make_new.py
"""

from __future__ import annotations

from pathlib import Path

from tests.golden.samples import BINARY, JSON

HERE = Path(__file__).parent


def main() -> None:
    for golden in [*BINARY, *JSON]:
        path = HERE / golden.file
        if not path.exists():
            with path.open("xb") as file:
                file.write(golden.make())


if __name__ == "__main__":
    main()
