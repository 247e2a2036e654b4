"""Secrets, TLS files and wp:// URLs: what is taken from where, and what is refused at once."""

from __future__ import annotations

import pytest

from woodpecker.access import make_access, nodes_of
from woodpecker.errors import InvalidRequest


def test_what_is_given_wins_over_the_environment(tmp_path) -> None:
    environ = {"WOODPECKER_SECRET": "from-env", "WOODPECKER_ZONE": "a"}
    assert make_access({}).secret == b""
    assert (make_access(environ).secret, make_access(environ).zone) == (b"from-env", "a")
    file = tmp_path / "secret"
    file.write_bytes(b"from-file\n")
    found = make_access(environ, secret_file=file, zone="b")
    assert (found.secret, found.zone) == (b"from-file", "b")
    assert make_access(environ, secret="given").secret == b"given"
    assert make_access(environ, zone="").zone == ""


def test_a_secret_is_not_shown() -> None:
    assert "geheim" not in repr(make_access({}, secret="geheim"))


def test_tls_is_on_with_any_file(tmp_path) -> None:
    file = tmp_path / "x.pem"
    file.write_bytes(b"x")
    assert not make_access({}).has_tls
    assert make_access({}, tls_ca=file).has_tls
    assert make_access({}, tls_cert=file, tls_key=str(file)).has_tls


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secret": "a", "secret_file": "b"}, "not both"),
        ({"secret": ""}, "the secret is empty"),
        ({"secret": b"x" * 5000}, "longer than"),
        ({"secret_file": "/none/such"}, "secret_file=/none/such: No such file"),
        ({"tls_ca": "/none/such"}, "tls_ca=/none/such: No such file"),
        ({"tls_ca": "/"}, "tls_ca=/: Is a directory"),
        ({"tls_cert": "/x"}, "tls_cert and tls_key belong together"),
        ({"tls_key": "/x"}, "tls_cert and tls_key belong together"),
    ],
)
def test_what_is_refused(given, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        make_access({}, **given)


def test_an_empty_secret_file_is_refused(tmp_path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\n")
    with pytest.raises(InvalidRequest, match="is empty"):
        make_access({}, secret_file=file)


def test_nodes_of_a_url() -> None:
    assert nodes_of("wp://a:1") == ["a:1"]
    assert nodes_of("wp://a:1,b.c:65535,[::1]:7/") == ["a:1", "b.c:65535", "[::1]:7"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("wp://", "use wp://host:port,host:port"),
        ("wp://host", "'host' is no node"),
        ("wp://host:1,other", "'other' is no node"),
        ("wp://host:0", "'host:0' is no node"),
        ("wp://host:99999", "no node"),
        ("wp://host:1/path", "only nodes can be named here"),
        ("wp://host:1?zone=a", "by keyword"),
        ("wp://secret@host:1", "a URL holds no secret"),
    ],
)
def test_what_is_no_url_of_nodes(url, said) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        nodes_of(url)
    assert "secret@" not in str(caught.value)


def test_the_environment_may_name_a_file_of_the_secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("hush\n")
    assert make_access({"WOODPECKER_SECRET_FILE": str(path)}).secret == b"hush"
    both = {"WOODPECKER_SECRET_FILE": str(path), "WOODPECKER_SECRET": "other"}
    assert make_access(both).secret == b"hush"  # as on the command line
    with pytest.raises(InvalidRequest, match="No such file"):
        make_access({"WOODPECKER_SECRET_FILE": str(tmp_path / "nowhere")})
