"""A fault-injecting proxy in front of each S3 server, with short timeouts."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from data_prep.storage import s3, s3_client, s3_retry
from fault_injection.s3_proxy import S3Proxy
from fault_injection.s3_servers import S3_ENVIRONMENT, S3Server


@pytest.fixture(scope="session")
def proxies() -> Iterator[dict[str, S3Proxy]]:
    """Proxies by their server's endpoint; kept, since each new endpoint needs a new client."""
    with ExitStack() as stack:
        yield _Proxies(stack)


class _Proxies(dict[str, S3Proxy]):
    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __missing__(self, endpoint: str) -> S3Proxy:
        self[endpoint] = self._stack.enter_context(S3Proxy(endpoint).running())
        return self[endpoint]


@pytest.fixture(params=["rclone", "moto"])
def proxy(
    request: pytest.FixtureRequest,
    proxies: dict[str, S3Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> S3Proxy:
    """A proxy in front of each server in turn; injects no faults until a plan is set."""
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    proxy = proxies[server.endpoint]
    proxy.reset()
    server.use(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    monkeypatch.setattr(s3_client, "REQUEST_S", 1.0)
    monkeypatch.setattr(s3_retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(s3_retry, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(s3, "SETTLE_S", 0.5)
    return proxy


@pytest.fixture
def bucket(proxy: S3Proxy) -> str:
    """URI of a new bucket behind the proxy; created directly, since a server's first response may
    take longer than the short timeouts here."""
    return S3Server(endpoint=proxy.server, env=S3_ENVIRONMENT).new_place()
