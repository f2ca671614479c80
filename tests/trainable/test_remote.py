"""Addresses in a bucket."""

import pytest

from trainable.config_file import read_mapping
from trainable.errors import ConfigError
from trainable.remote import Remote


def test_an_address_takes_the_server_along_to_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    uri = Remote("s3://bucket/some folder/x/").child("trial_0000").uri
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_REGION")
    remote = Remote(uri)
    assert remote.uri == uri
    assert str(remote) == "s3://bucket/some folder/x/trial_0000"
    assert "127.0.0.1%3A9000" in uri
    assert "scheme=http" in uri
    assert "region=eu-west-3" in uri


def test_a_configuration_can_lie_in_a_bucket(bucket: str) -> None:
    Remote(bucket).write("best_config.json", b'{"epochs": 3}')
    assert read_mapping(f"{bucket}/best_config.json") == {"epochs": 3}
    with pytest.raises(ConfigError, match="none.json: no such file"):
        read_mapping(f"{bucket}/none.json")
    with pytest.raises(ConfigError, match="there is no bucket nobucket"):
        read_mapping("s3://nobucket/best_config.json")
