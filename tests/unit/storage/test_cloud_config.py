from __future__ import annotations

import pytest

from woodpecker.errors import InvalidRequest
from woodpecker.storage.cloud_config import is_express, is_loopback, open_store, sorts_listings
from woodpecker.storage.cloud_profile import read_profile
from woodpecker.storage.url import parse_store_url

NO_FILES = {"HOME": "/nonexistent"}


def config(url, env=NO_FILES, **options):
    return open_store(parse_store_url(url, **options), env, retries=0)


@pytest.fixture(autouse=True)
def no_aws_in_the_environment(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path):
    aws = tmp_path / ".aws"
    aws.mkdir()
    (aws / "credentials").write_text(
        "[default]\naws_access_key_id = DEF\naws_secret_access_key = defsecret%\n"
        "[team]\naws_access_key_id=TEAM\naws_secret_access_key=s\naws_session_token=t\n"
    )
    (aws / "config").write_text(
        "[default]\nregion = eu-central-1\n"
        "[profile team]\nregion = us-west-2\nendpoint_url = https://s3.example.org\n"
        "[profile sso]\nsso_session = x\n"
    )
    return {"HOME": str(tmp_path)}


def test_plain_http_is_for_loopback_alone():
    assert config("s3://b?endpoint=http://127.0.0.1:1").client_options["allow_http"]
    assert config("az://b?endpoint=http://localhost:1/a&account=a").client_options["allow_http"]
    with pytest.raises(InvalidRequest, match="not encrypted"):
        config("s3://b?endpoint=http://10.0.0.1:1")
    assert config("s3://b?endpoint=http://10.0.0.1:1&allow_http=true")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:8333", True), ("http://[::1]:1", True), ("http://localhost", True),
        ("http://s3.localhost:4566", True), ("http://10.1.2.3", False), ("http://example.org", False),
        ("http://127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_loopback(endpoint, expected):
    assert is_loopback(endpoint) is expected


def test_payloads_go_unsigned_where_nobody_can_change_them():
    assert config("s3://b").config["unsigned_payload"] == "true"
    assert config("s3://b?endpoint=http://127.0.0.1:1").config["unsigned_payload"] == "true"
    lan = config("s3://b?endpoint=http://10.0.0.1:1&allow_http=true")
    assert lan.config["unsigned_payload"] == "false"


def test_directory_buckets_are_known_by_name():
    assert is_express(parse_store_url("s3://logs--use1-az4--x-s3"))
    assert is_express(parse_store_url("s3://b?express=true"))
    assert not is_express(parse_store_url("s3://b"))
    assert config("s3://logs--use1-az4--x-s3").config["s3_express"] == "true"


def test_only_the_services_themselves_are_trusted_to_sort():
    def trusted(url, **env):
        return sorts_listings(parse_store_url(url), env)

    assert trusted("s3://b")
    assert trusted("gs://b")
    assert not trusted("s3://b?endpoint=http://127.0.0.1:1")
    assert not trusted("s3://b", AWS_ENDPOINT_URL="https://other")
    assert trusted("s3://b?endpoint=http://127.0.0.1:1&sorted_listing=true")
    assert not trusted("s3://b--x-s3?sorted_listing=true")


def test_endpoint_region_and_keys_come_from_the_environment():
    env = {**NO_FILES, "AWS_ENDPOINT_URL": "http://127.0.0.1:7", "AWS_REGION": "eu-9"}
    assert config("s3://b", env).config["endpoint"] == "http://127.0.0.1:7"
    assert config("s3://b", env).config["region"] == "eu-9"
    env["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:8"
    assert config("s3://b", env).config["endpoint"] == "http://127.0.0.1:8"
    assert config("s3://b?endpoint=http://127.0.0.1:9", env).config["endpoint"].endswith(":9")
    env = {**NO_FILES, "AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "s"}
    made = config("s3://b", {**env, "AWS_SESSION_TOKEN": "t"}).config
    assert (made["access_key_id"], made["secret_access_key"], made["session_token"]) == (
        "K",
        "s",
        "t",
    )


def test_virtual_host_puts_the_bucket_into_the_endpoint_once():
    made = config("s3://b?endpoint=https://s3.example.org&virtual_host=true")
    assert made.config["endpoint"] == "https://b.s3.example.org"
    made = config("s3://b?endpoint=https://b.s3.example.org&virtual_host=true")
    assert made.config["endpoint"] == "https://b.s3.example.org"


def test_kms_key_and_secrets_by_option():
    made = config("s3://b?kms_key_id=arn", access_key_id="K", secret_access_key="S")
    assert made.config["server_side_encryption"] == "aws:kms"
    assert made.config["sse_kms_key_id"] == "arn"
    assert made.config["access_key_id"] == "K"
    with pytest.raises(InvalidRequest, match="without its secret"):
        config("s3://b?access_key_id=K")


def test_bad_files_and_settings_are_invalid_requests(tmp_path):
    with pytest.raises(InvalidRequest, match="settings are refused"):
        config(f"s3://b?ca_file={tmp_path}/none.pem")
    (tmp_path / "not.json").write_text("no key")
    with pytest.raises(InvalidRequest, match="settings are refused"):
        config(f"gs://b?service_account={tmp_path}/not.json")


def test_profiles(home):
    assert read_profile("", home).access_key_id == "DEF"
    assert read_profile("", home).secret_access_key == "defsecret%"
    assert read_profile("", home).region == "eu-central-1"
    team = read_profile("team", home)
    assert (team.access_key_id, team.session_token) == ("TEAM", "t")
    assert (team.region, team.endpoint) == ("us-west-2", "https://s3.example.org")
    assert read_profile("", {**home, "AWS_PROFILE": "team"}) == team
    assert read_profile("", NO_FILES).access_key_id == ""
    assert "defsecret" not in repr(read_profile("", home))


def test_profiles_that_cannot_be_used_say_why(home):
    with pytest.raises(InvalidRequest, match="'nobody' is neither in"):
        read_profile("nobody", home)
    with pytest.raises(InvalidRequest, match="export-credentials"):
        read_profile("sso", home)


def test_order_of_sources_is_option_environment_files(home):
    keys = {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}
    assert config("s3://b", home).config["access_key_id"] == "DEF"
    assert config("s3://b", {**home, **keys}).config["access_key_id"] == "ENV"
    assert config("s3://b?profile=team", {**home, **keys}).config["access_key_id"] == "TEAM"
    made = config("s3://b?access_key_id=OPT&secret_access_key=s", {**home, **keys})
    assert made.config["access_key_id"] == "OPT"
    assert config("s3://b?anonymous=true", {**home, **keys}).config["skip_signature"] == "true"


def test_credentials_files_elsewhere(tmp_path):
    file = tmp_path / "keys"
    file.write_text("[default]\naws_access_key_id=ELSE\naws_secret_access_key=s\n")
    env = {**NO_FILES, "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    assert read_profile("", env).access_key_id == "ELSE"
    file.write_text("no section = wrong\n")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_profile("", env)
