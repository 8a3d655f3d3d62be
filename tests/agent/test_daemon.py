from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from stand_in import Refused, StandIn

from catena.agent import status
from catena.agent.config import AgentConfig
from catena.agent.daemon import FIRST_RETRY, LONGEST_RETRY, Backoff, Daemon, jittered
from catena.agent.events import json_lines
from catena.errors import ExitCode
from catena.formats.nodeapi import SealedSecret
from swtpm import needs_swtpm


def longest(interval: float) -> float:
    """What an interval is for the random number that the tests' daemons have."""
    return jittered(interval, lambda: 1.0)


class Node:
    """A daemon with a clock that tests can move, and the lines it printed."""

    def __init__(self, config: AgentConfig) -> None:
        self.shift = timedelta()
        self.output = StringIO()
        self.folder = config.runtime_dir
        self.daemon = Daemon(
            config, emit=json_lines(self.output, self.now), now=self.now, random=lambda: 1.0
        )
        self.daemon.prepare()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def step(self) -> float:
        return self.daemon.step()

    def events(self, name: str | None = None) -> list[dict]:
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if name in {None, line["event"]}]

    def held(self) -> set[str]:
        current = self.folder / "current"
        return {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}


@pytest.fixture
def node(config: AgentConfig) -> Node:
    return Node(config)


@pytest.mark.tpm
@needs_swtpm
class TestRounds:
    def test_unknown_node_enrols_attests_and_holds_identity_and_secrets(
        self, node: Node, service: StandIn
    ):
        service.secrets = {"disk": (1, b"passphrase")}
        assert node.step() == longest(service.interval)
        assert [event["event"] for event in node.events()] == ["enrolled", "attested"]
        assert node.held() == {"node.crt", "node.key", "secrets/disk"}
        assert (node.folder / "current/secrets/disk").read_bytes() == b"passphrase"

    def test_known_node_does_not_enrol_again(self, node: Node, service: StandIn, config):
        node.step()
        service.requests.clear()
        Node(config).step()
        assert service.requests == ["/v1/nonce", "/v1/attest"]

    def test_no_event_carries_a_secret_or_a_key(self, node: Node, service: StandIn):
        service.secrets = {"disk": (1, b"passphrase")}
        node.step()
        text = node.output.getvalue() + (node.folder / "status.json").read_text()
        assert "passphrase" not in text
        assert "BEGIN" not in text

    def test_tokens_lie_where_their_audience_says_and_go_with_the_identity(
        self, config: AgentConfig, service: StandIn
    ):
        audiences = ("vault", "https://bank.example/../x", "nobody")
        node = Node(msgspec.structs.replace(config, audiences=audiences))
        node.step()
        assert (node.folder / "tokens/vault.jwt").read_text() == "svid vault"
        assert (node.folder / "tokens/vault.result.jwt").read_text() == "result"
        assert {path.name for path in (node.folder / "tokens").iterdir()} == {
            "vault.jwt",
            "vault.result.jwt",
            "https%3A%2F%2Fbank%2Eexample%2F%2E%2E%2Fx.jwt",
            "https%3A%2F%2Fbank%2Eexample%2F%2E%2E%2Fx.result.jwt",
        }
        assert [one["audience"] for one in node.events("token-withheld")] == ["nobody"]
        service.verdict = "untrusted"
        node.step()
        assert not (node.folder / "tokens").exists()
        assert not node.held()

    def test_every_round_replaces_the_identity(self, node: Node, service: StandIn):
        node.step()
        first = (node.folder / "current/node.crt").read_bytes()
        node.step()
        assert (node.folder / "current/node.crt").read_bytes() != first

    def test_secret_is_opened_once_per_version(self, node: Node, service: StandIn):
        seen = []
        service.seal = lambda sealed: seen.append(sealed.version) or sealed
        service.secrets = {"disk": (1, b"one")}
        node.step()
        # A second copy that would not open shows that it is not tried.
        service.seal = lambda sealed: msgspec.structs.replace(sealed, ciphertext=bytes(40))
        node.step()
        assert node.events("secret-unopened") == []
        assert (node.folder / "current/secrets/disk").read_bytes() == b"one"
        service.seal = lambda sealed: sealed
        service.secrets = {"disk": (2, b"two")}
        node.step()
        assert (node.folder / "current/secrets/disk").read_bytes() == b"two"

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"ciphertext": bytes(40)}, "altered-secret"),
            ({"seed": b"\x00\x02xx"}, "sealed-elsewhere"),
            ({"pcrs": (0, 1)}, "wrong-boot-state"),
            ({"name": "../../etc/passwd"}, "unsafe-secret-name"),
        ],
        ids=str,
    )
    def test_secret_that_does_not_open_stops_no_other(
        self, node: Node, service: StandIn, change, code
    ):
        def damage(sealed: SealedSecret) -> SealedSecret:
            broken = sealed.name == "broken"
            return msgspec.structs.replace(sealed, **change) if broken else sealed

        service.secrets = {"broken": (1, b"x"), "disk": (1, b"passphrase")}
        service.seal = damage
        node.step()
        assert node.held() == {"node.crt", "node.key", "secrets/disk"}
        assert [event["code"] for event in node.events("secret-unopened")] == [code]

    def test_untrusted_verdict_takes_everything_back(self, node: Node, service: StandIn):
        service.secrets = {"disk": (1, b"passphrase")}
        node.step()
        service.verdict = service.state = "untrusted"
        assert node.step() == longest(service.interval)
        assert {path.name for path in node.folder.iterdir()} == {"receipts", "status.json"}
        assert len(node.events("withdrawn")) == 1
        assert status.read(node.folder).exit_code(node.now()) is ExitCode.UNTRUSTED

    def test_pending_node_keeps_attesting_and_is_admitted_later(self, node: Node, service: StandIn):
        service.state = "pending"
        node.step()
        assert node.held() == set()
        assert status.read(node.folder).exit_code(node.now()) is ExitCode.UNKNOWN_NODE
        service.state = "trusted"
        node.step()
        assert "node.crt" in node.held()
        assert status.read(node.folder).exit_code(node.now()) is ExitCode.OK

    def test_node_that_the_server_forgot_enrols_again(self, node: Node, service: StandIn):
        node.step()
        service.enrolled.clear()
        node.step()
        assert len(node.events("enrolled")) == 2
        assert len(node.events("withdrawn")) == 1
        assert "node.crt" in node.held()

    def test_failing_server_changes_nothing_and_is_tried_less_and_less(
        self, node: Node, service: StandIn
    ):
        node.step()
        held = node.held()
        service.faults = [Refused(503, "log-unwritable") for _ in range(3)]
        assert [node.step() for _ in range(3)] == [1.0, 2.0, 4.0]
        assert node.held() == held
        assert {event["code"] for event in node.events("failed")} == {"server-failing"}
        assert node.step() == longest(service.interval)
        service.faults = [Refused(503, "log-unwritable")]
        assert node.step() == FIRST_RETRY

    def test_failure_is_in_the_status_until_the_next_success(self, node: Node, service: StandIn):
        service.faults = [Refused(403, "stale-nonce")]
        node.step()
        failure = status.read(node.folder).failure
        assert failure is not None
        assert failure.code == "request-refused"
        node.step()
        assert status.read(node.folder).failure is None

    def test_interval_of_the_configuration_wins(self, config: AgentConfig):
        assert Node(msgspec.structs.replace(config, interval=5)).step() == longest(5)

    @pytest.mark.parametrize(("asked", "kept"), [(0, 1), (-5, 1), (10**9, 3600)])
    def test_senseless_interval_of_the_server_is_bounded(
        self, node: Node, service: StandIn, asked: int, kept: int
    ):
        service.interval = asked
        assert node.step() == longest(kept)

    def test_sealed_copy_is_still_sealed(
        self, config: AgentConfig, service: StandIn, tmp_path: Path
    ):
        service.secrets = {"disk": (1, b"passphrase")}
        copy = tmp_path / "copy"
        node = Node(msgspec.structs.replace(config, sealed_copy=copy))
        node.step()
        node.step()
        (line,) = copy.read_bytes().splitlines()
        assert msgspec.json.decode(line, type=SealedSecret).name == "disk"
        assert b"passphrase" not in line

    def test_sealed_copy_that_fails_is_told_and_stops_nothing(
        self, config: AgentConfig, service: StandIn
    ):
        service.secrets = {"disk": (1, b"passphrase")}
        node = Node(msgspec.structs.replace(config, sealed_copy=Path("/proc/nowhere")))
        node.step()
        assert [event["code"] for event in node.events("copy-failed")] == ["delivery-failed"]
        assert "secrets/disk" in node.held()

    def test_clock_that_is_wrong_is_told_and_no_certificate_is_kept(
        self, node: Node, service: StandIn
    ):
        node.shift = timedelta(days=365)
        node.step()
        assert [event["code"] for event in node.events("failed")] == ["wrong-time"]
        assert node.held() == set()

    def test_expired_certificate_goes_while_the_daemon_waits(self, node: Node, service: StandIn):
        node.step()
        node.shift = timedelta(minutes=9, seconds=59, milliseconds=900)
        node.daemon._wait(0.3)
        assert node.held() == set()
        assert [event["why"] for event in node.events("withdrawn")] == ["the certificate expired"]
        assert status.read(node.folder).exit_code(node.now()) is ExitCode.STALE

    def test_a_demand_ends_the_waiting(self, node: Node, service: StandIn):
        service.poll = 1
        node.step()
        node.daemon._poll = 0.01
        service.faults = [Refused(503, "busy")]  # a question that fails is asked again
        service.demanded = True
        service.requests.clear()
        node.daemon._wait(20)
        assert service.requests == ["/v1/demand", "/v1/demand"]
        assert len(node.events("demanded")) == 1
        assert "node.crt" in node.held()

    def test_without_a_demand_the_interval_is_kept(self, node: Node, service: StandIn):
        node.step()
        assert node.daemon._poll == 0
        node.daemon._poll = 0.01
        node.daemon._wait(0.1)
        assert set(service.requests[-2:]) == {"/v1/demand"}
        assert node.events("demanded") == []

    def test_a_retired_node_loses_everything_at_once(self, node: Node, service: StandIn):
        node.step()
        service.faults = [Refused(403, "retired-node")]
        node.step()
        assert node.held() == set()
        assert [event["code"] for event in node.events("failed")] == ["retired-node"]

    def test_run_ends_when_told_and_leaves_no_identity(self, node: Node, service: StandIn):
        service.before_attest = node.daemon.stop.set
        thread = threading.Thread(target=node.daemon.run)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        names = [event["event"] for event in node.events()]
        assert names == ["started", "enrolled", "attested", "withdrawn", "stopped"]
        assert {path.name for path in node.folder.iterdir()} == {"receipts", "status.json"}


class TestWithoutTpm:
    def test_missing_tpm_is_a_failure_that_is_retried(self, memory_folder: Path, tmp_path: Path):
        node = Node(
            AgentConfig(
                server="https://127.0.0.1:1",
                ca=tmp_path / "ca.crt",
                tcti="swtpm:port=1",
                runtime_dir=memory_folder,
            )
        )
        assert node.step() == FIRST_RETRY
        assert [event["code"] for event in node.events("failed")] == ["tpm-unavailable"]
        assert status.read(node.folder).exit_code(node.now()) is ExitCode.STALE


def test_delays_double_up_to_a_limit():
    backoff = Backoff(random=lambda: 1.0)
    delays = [backoff.delay() for _ in range(10)]
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == LONGEST_RETRY
    backoff.reset()
    assert backoff.delay() == FIRST_RETRY


def test_a_server_that_asks_for_patience_gets_it_within_bounds():
    backoff = Backoff(random=lambda: 0.0)
    assert backoff.delay(30) == 30
    assert backoff.delay() == FIRST_RETRY  # the second of its own, at its shortest
    assert backoff.delay(10_000) == LONGEST_RETRY
    late = Backoff(random=lambda: 1.0)
    assert late.delay(30) == 45  # a fleet that was told the same does not come at once


def test_delays_are_scattered_over_the_upper_half():
    assert Backoff(random=lambda: 0.0).delay() == FIRST_RETRY / 2


def test_intervals_are_scattered_by_a_tenth_to_both_sides():
    assert [jittered(100, lambda r=r: r) for r in (0.0, 0.5, 1.0)] == pytest.approx([90, 100, 110])
