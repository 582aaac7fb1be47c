"""REDIS_URL in every form that hosts hand out, and what is wrong with it said without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.redis_url import Credentials, RedisUrl, Tls, parse_redis_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://cache", RedisUrl((("cache", 6379),))),
        ("redis://cache:6380/3", RedisUrl((("cache", 6380),), database=3)),
        ("redis://cache?db=3", RedisUrl((("cache", 6379),), database=3)),
        ("redis://cache/", RedisUrl((("cache", 6379),))),
        (" redis://cache:1/\n", RedisUrl((("cache", 1),))),
        ("redis://:word@cache", RedisUrl((("cache", 6379),), credentials=Credentials("", "word"))),
        ("redis://default:word@cache:1", RedisUrl((("cache", 1),), credentials=Credentials("default", "word"))),
        (
            "redis://us%3Aer:%2F%3F%23%40%25%20@cache",
            RedisUrl((("cache", 6379),), credentials=Credentials("us:er", "/?#@% ")),
        ),
        ("redis://u:a:b@c@cache", RedisUrl((("cache", 6379),), credentials=Credentials("u", "a:b@c"))),
        ("redis://cache?username=u&password=%25", RedisUrl((("cache", 6379),), credentials=Credentials("u", "%"))),
        ("redis://[2001:db8::1]:1/0", RedisUrl((("2001:db8::1", 1),))),
        ("redis://[::1]", RedisUrl((("::1", 6379),))),
        ("rediss://cache:6380", RedisUrl((("cache", 6380),), tls=Tls())),
        ("rediss://cache?ssl_cert_reqs=none", RedisUrl((("cache", 6379),), tls=Tls(verifies=False))),
        ("rediss://cache?ssl_cert_reqs=CERT_REQUIRED", RedisUrl((("cache", 6379),), tls=Tls())),
        ("rediss://cache?ssl_check_hostname=false", RedisUrl((("cache", 6379),), tls=Tls(checks_hostname=False))),
        ("unix:///run/redis.sock", RedisUrl(socket="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=2", RedisUrl(socket="/run/a b.sock", database=2)),
        ("unix://u:p@/run/redis.sock", RedisUrl(socket="/run/redis.sock", credentials=Credentials("u", "p"))),
        ("redis+sentinel://a/main", RedisUrl((("a", 26379),), service="main")),
        (
            "redis+sentinel://u:p@a:1,b,[::1]:3/main?db=2&sentinel_username=s&sentinel_password=q",
            RedisUrl(
                (("a", 1), ("b", 26379), ("::1", 3)),
                service="main",
                database=2,
                credentials=Credentials("u", "p"),
                sentinel_credentials=Credentials("s", "q"),
            ),
        ),
        ("redis+sentinel://a/main/2", RedisUrl((("a", 26379),), service="main", database=2)),
        ("rediss+sentinel://a/main", RedisUrl((("a", 26379),), service="main", tls=Tls())),
    ],
)
def test_is_read(text: str, url: RedisUrl) -> None:
    assert parse_redis_url(text) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hunter2", "must be a URL that starts with redis://"),
        ("http://:hunter2@cache", "must be a URL that starts with redis://"),
        ("redis:hunter2", "must be a URL that starts with redis://"),
        ("redis://:hunter2@", "must have a host"),
        ("redis://:hunt/er2@cache", "a password has of / ? # @ must be percent-encoded"),
        ("redis://:hunt#er2@cache", "a password has of / ? # @ must be percent-encoded"),
        ("redis://:hunter2@cache:port", "a port that is a number"),
        ("redis://:hunter2@cache:65536", "a port from 1 to 65535"),
        ("redis://:hunter2@cache:0", "a port from 1 to 65535"),
        ("redis://[hunter2", "must have a host"),
        ("redis://:hunter2@a,b", "several hosts: only redis+sentinel://"),
        ("redis://:hunter2@cache/hunter2", "a number as its database"),
        ("redis://:hunter2@cache?db=-1", "a number as its database"),
        ("redis://:hunter2@cache?decode_responses=hunter2", "not supported here: decode_responses; known are db"),
        ("redis://:hunter2@cache?hunter2@=1", "a name that is not shown"),
        ("redis://:hunter2@cache?ssl_ca_certs=hunter2", "not supported here: ssl_ca_certs"),
        ("redis://:hunter2@cache?sentinel_password=hunter2", "not supported here: sentinel_password"),
        ("rediss://:hunter2@cache?ssl_ca_certs=/hunter2", "a file with ssl_ca_certs that cannot be read: No such file"),
        ("rediss://:hunter2@cache?ssl_cert_reqs=hunter2", "required or none as ssl_cert_reqs"),
        ("rediss://:hunter2@cache?ssl_check_hostname=hunter2", "true or false as ssl_check_hostname"),
        ("unix://:hunter2@cache/run/redis.sock", "the socket by its whole path"),
        ("unix://", "the socket by its whole path"),
        ("redis+sentinel://:hunter2@a,b", "the service that the Sentinels watch"),
        ("redis+sentinel://:hunter2@a,,b/main", "must have a host"),
        ("redis+sentinel://:hunter2@a/main/hunter2", "a number as its database"),
        ("redis+cluster://:hunter2@a", "must be a URL that starts with redis://"),
    ],
)
def test_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|has|names)") as caught:
        parse_redis_url(text)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_files_of_tls_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.touch()
    parsed = parse_redis_url(f"rediss://cache?ssl_ca_certs={file}&ssl_certfile={file}&ssl_keyfile={file}")
    assert parsed.tls == Tls(str(file), str(file), str(file))
    with pytest.raises(ValueError, match="ssl_keyfile without ssl_certfile"):
        parse_redis_url(f"rediss://cache?ssl_keyfile={file}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("redis://u:hunter2@cache:1/2", "cache:1"),
        ("rediss://u:hunter2@[::1]", "[::1]:6379"),
        ("unix://u:hunter2@/run/redis.sock", "/run/redis.sock"),
        ("redis+sentinel://u:hunter2@a,b:1/main", "the service main of the Sentinels a:26379, b:1"),
    ],
)
def test_its_place_and_its_text_have_no_secret(text: str, place: str) -> None:
    parsed = parse_redis_url(text)
    assert parsed.place == place
    assert "hunter2" not in repr(parsed)
