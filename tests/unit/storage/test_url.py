from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.errors import InvalidRequest
from woodpecker.storage.url import OPTIONS, StoreSettings, parse_store_url


def test_places_of_every_scheme():
    assert parse_store_url("file:///var/lib/wal/").path == "/var/lib/wal"
    assert parse_store_url("file:///with%20space").path == "/with space"
    assert parse_store_url("memory://").url == "memory://"
    assert parse_store_url("memory://shared").bucket == "shared"
    for scheme in ("s3", "gs", "az"):
        settings = parse_store_url(f"{scheme}://bucket/some/prefix/")
        assert (settings.scheme, settings.bucket, settings.path) == (
            scheme,
            "bucket",
            "some/prefix",
        )
        assert parse_store_url(f"{scheme}://bucket").url == f"{scheme}://bucket"


def test_options_from_query_and_keywords_keywords_win():
    settings = parse_store_url(
        "s3://b/p?endpoint=http://127.0.0.1:8333&region=eu-1&virtual_host=true&timeout_ms=10",
        region="eu-2",
        express=True,
    )
    assert settings.endpoint == "http://127.0.0.1:8333"
    assert settings.region == "eu-2"
    assert settings.virtual_host is True
    assert settings.express is True
    assert settings.timeout_ms == 10


def test_the_url_and_the_repr_show_no_secret():
    settings = parse_store_url(
        "s3://b/p?access_key_id=id&secret_access_key=SECRET&session_token=TOK"
    )
    assert settings.url == "s3://b/p"
    assert "SECRET" not in repr(settings)
    assert "TOK" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s4://b", "did you mean 's3'"),
        ("gcs://b", "did you mean 'gs'"),
        ("/var/lib", "unknown storage URL '/var/lib'"),
        ("s3://b?endpiont=x", "did you mean 'endpoint'"),
        ("gs://b?region=x", "unknown option 'region' of gs://"),
        ("file:///a?region=x", "Valid: none"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://b/a//b", "must not be empty"),
        ("file://host/a", "file:///absolute/directory"),
        ("file:relative", "file:///absolute/directory"),
        ("memory://a/b", "memory://name"),
        ("s3://b?virtual_host=maybe", "true or false"),
        ("s3://b?timeout_ms=0", "positive whole number"),
        ("s3://b?timeout_ms=soon", "positive whole number"),
        ("s3://b?region=a&region=b", "twice"),
        ("s3://b?region", "name=value"),
        ("s3://[", "not a URL"),
        ("s3://key:hidden@b", "not before '@'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(url, text):
    with pytest.raises(InvalidRequest) as caught:
        parse_store_url(url)
    assert text in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_keyword_of_the_wrong_kind_is_refused():
    with pytest.raises(InvalidRequest, match="text is needed"):
        parse_store_url("s3://b", region=3)


def test_every_option_is_a_field_of_the_settings():
    fields = set(StoreSettings.__dataclass_fields__)
    assert all(name in fields for names in OPTIONS.values() for name in names)
    named = {name for names in OPTIONS.values() for name in names}
    assert fields - named == {"scheme", "bucket", "path"}


@given(st.text())
def test_any_text_is_settings_or_invalid_request(text):
    try:
        parse_store_url(text)
    except InvalidRequest:
        return
