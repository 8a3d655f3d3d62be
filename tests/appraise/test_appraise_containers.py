"""The gate's record, appraised with the boot: what it proves, and every way in which it can lie."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appraise.forged import (
    AK_PUBLIC,
    NODE,
    Exchange,
    codes,
    judge,
    measured,
    rebuilt,
    references_of,
    resign,
    spki,
)
from appraise.gatelog import (
    BANKS,
    BEGIN,
    IMAGE,
    POLICY,
    REPOSITORY,
    SHA256,
    SHA384,
    Recording,
    container_policy,
)
from catena.appraise import containers, recorded
from catena.appraise.containerclaims import MAX_IMAGES, MORE
from catena.appraise.containerpolicy import AmbiguousContainerPolicy, container_reference
from catena.appraise.logs import RepeatedLog, UnreadableLog
from catena.appraise.policy import compile_policy, default_policy_text
from catena.appraise.recorded import AlteredRecord, ForeignRecord, UnexplainedRecord
from catena.appraise.reference import build_references
from catena.appraise.replayed import UnexplainedPcr
from catena.appraise.verdict import KnownNode
from catena.evidence import log_entry, qualifying_data
from catena.formats import tcglog, tpm2
from catena.formats.cel import tlv_records
from catena.formats.containerpolicy import Publisher, Scope, policy_digest
from catena.formats.tcglog import EventType
from catena.measure.replay import replay
from changed import replace

EDGE = default_policy_text() + (
    "\n[edge] nodes of the edge run only what acme published\n"
    '  role != "edge" || container_publishers.all(p, p == "acme")\n'
)


@pytest.fixture(scope="session")
def accepting(boot):
    """References that describe the boot, with the container policy."""
    return references_of(boot, container_policies=(POLICY,))


def ran(boot, recording: Recording, data: bytes | None = None):
    """The boot, with this record and the PCR that it led to."""
    values = tuple(recording.values[bank] for bank in BANKS)
    return replace(
        boot,
        containers=recording.data if data is None else data,
        container_values=values,
    )


def appraised(boot, recording: Recording, references, data: bytes | None = None, **changes):
    return judge(Exchange(ran(boot, recording, data)).evidence(), references, **changes)


def node(role: str) -> KnownNode:
    return KnownNode(id=NODE, ak_public=AK_PUBLIC, clock=None, tpm_kind="software", role=role)


# What is accepted --------------------------------------------------------------------------


def test_containers_under_an_accepted_policy_leave_the_node_trusted(boot, accepting):
    recording = Recording().begun().create().exec().deny().exit()
    found = appraised(boot, recording, accepting)
    assert (found.verdict, found.reasons) == ("trusted", ())
    facts = found.facts
    assert facts.container_policy == "acme-containers@1"
    assert (facts.container_records, facts.containers_started) == (6, 1)
    assert (facts.containers_refused, facts.containers_unverified, facts.gate_restarts) == (1, 0, 0)
    assert (facts.container_publishers, facts.container_images) == (("acme",), (IMAGE,))
    (use,) = found.boot.contained.uses
    assert (use.use.count, use.claimed_by) == (2, "container-policy:acme-containers@1")


def test_a_record_is_judged_in_any_bank(boot, accepting):
    changed = replace(ran(boot, Recording().begun().create()), values=None, ima=None)
    attest = replace(Exchange(changed).attest, selection=_selection(SHA384))
    exchange = Exchange(changed, bank=SHA384, attest=attest)
    assert judge(exchange.evidence(), accepting).facts.containers_started == 1


def _selection(bank):
    return tpm2.encode_pcr_selection(bank, range(16))


def test_a_node_without_a_record_ran_no_container(boot, accepting):
    found = judge(Exchange(boot).evidence(), accepting)
    assert found.verdict == "trusted"
    assert (found.boot.record, found.facts.containers_started) == (None, 0)


def test_an_empty_record_explains_a_pcr_that_nobody_extended(boot, accepting):
    assert appraised(boot, Recording(), accepting).verdict == "trusted"


def test_a_record_may_run_ahead_of_the_quote_and_the_rest_waits(boot, accepting):
    recording = Recording().begun().create()
    ahead = Recording().begun().create().create("web-2").deny()
    found = appraised(boot, recording, accepting, ahead.data)
    assert (found.verdict, found.facts.container_records) == ("trusted", 3)
    torn = ahead.data[: recording.places[-1] + 7]
    assert appraised(boot, recording, accepting, torn).facts == found.facts


def test_the_record_of_an_earlier_boot_waits_while_this_boots_gate_has_not_started(boot, accepting):
    earlier = Recording().begun().create()
    found = appraised(boot, Recording(), accepting, earlier.data)
    assert (found.verdict, found.facts.container_records) == ("trusted", 0)


def test_what_the_boot_measured_into_the_pcr_is_claimed_by_the_boots_references(boot):
    text = b"machine-id"
    other = rebuilt(boot, lambda events: [*events, measured(15, EventType.EV_IPL, text)])
    base = {bank: replay(tcglog.parse(other.log), bank).pcrs[15] for bank in BANKS}
    recording = Recording(base=base).begun().create()
    claimed = references_of(other, container_policies=(POLICY,))
    assert appraised(other, recording, claimed).verdict == "trusted"
    unclaimed = references_of(boot, container_policies=(POLICY,))
    assert "unclaimed-event" in codes(appraised(other, recording, unclaimed))


def test_a_gate_that_was_started_again_is_counted(boot, accepting):
    recording = (
        Recording().begun().create().gate_start().in_force().exec().gate_start().in_force().exec()
    )
    found = appraised(boot, recording, accepting)
    assert (found.verdict, found.facts.gate_restarts) == ("trusted", 2)


def test_a_newer_accepted_policy_takes_over(boot):
    newer = container_policy(2)
    references = references_of(boot, container_policies=(POLICY, newer))
    found = appraised(boot, Recording().begun().create().in_force(newer).exec(), references)
    assert (found.verdict, found.facts.container_policy) == ("trusted", "acme-containers@2")


def test_another_pcr_only_if_the_server_says_so(boot):
    references = references_of(boot, container_policies=(POLICY,), container_pcr=14)
    base = {bank: replay(tcglog.parse(boot.log), bank).pcrs[14] for bank in BANKS}
    recording = Recording(pcr=14, base=base).begun()
    values = boot.pcrs(SHA256)
    values = (*values[:14], recording.values[SHA256], values[15])
    changed = replace(boot, containers=recording.data, values=values)
    assert judge(Exchange(changed).evidence(), references).facts.container_records == 2


# What is refused ---------------------------------------------------------------------------


def test_every_altered_byte_of_a_record_is_refused(boot, accepting):
    recording = Recording().begun().create()
    for position in range(0, len(recording.data), 23):
        data = bytearray(recording.data)
        data[position] ^= 1
        try:
            found = appraised(boot, recording, accepting, bytes(data))
        except (AlteredRecord, ForeignRecord, UnexplainedRecord, UnreadableLog):
            continue
        # Digests of banks that were not quoted prove nothing and change nothing.
        assert found.facts == appraised(boot, recording, accepting).facts


def test_content_that_does_not_hash_to_its_digest_is_refused(boot, accepting):
    recording = Recording().begun().create()
    data = recording.data.replace(b'"publisher":"acme"', b'"publisher":"acmf"')
    with pytest.raises(AlteredRecord):
        appraised(boot, recording, accepting, data)


def test_an_edited_record_with_mended_digests_is_unexplained(boot, accepting):
    honest, edited = Recording().begun().create(publisher="guest"), Recording().begun().create()
    with pytest.raises(UnexplainedRecord):
        appraised(boot, honest, accepting, edited.data)


def test_a_cut_record_is_refused(boot, accepting):
    recording = Recording().begun().create().deny()
    for place in recording.places[:-1]:
        with pytest.raises(UnexplainedRecord):
            appraised(boot, recording, accepting, recording.data[:place])
    for size in range(1, len(recording.data), 41):
        if size not in recording.places:
            with pytest.raises(UnreadableLog):
                appraised(boot, recording, accepting, recording.data[:size])


def test_the_record_of_another_boot_is_refused(boot, accepting):
    with pytest.raises(UnexplainedRecord):
        appraised(boot, Recording().begun().create(), accepting, Recording().gate_start().data)


def test_a_record_that_was_begun_anew_is_refused(boot, accepting):
    """Nothing in the boot's log explains the value that the next gate found."""
    gone = Recording().begun().create(publisher="stranger")
    anew = Recording(base=gone.values).begun()
    with pytest.raises(UnexplainedRecord):
        appraised(boot, anew, accepting)


def test_a_pcr_extended_without_a_record_is_refused(boot, accepting):
    recording = Recording().begun()
    silent = replace(ran(boot, recording), containers=None)
    with pytest.raises(UnexplainedPcr):
        judge(Exchange(silent).evidence(), accepting)
    recording.values[SHA256] = SHA256.digest(recording.values[SHA256] + bytes(32))
    with pytest.raises(UnexplainedRecord):
        appraised(boot, recording, accepting)


@pytest.mark.parametrize("pcr", [0, 7, 10, 14])
def test_a_record_cannot_choose_its_pcr(boot, accepting, pcr):
    with pytest.raises(ForeignRecord):
        appraised(boot, Recording(pcr=pcr).begun(), accepting)


def test_a_record_for_an_nv_index_or_of_other_content_is_refused(boot, accepting):
    nv = Recording().append(b"{}", pcr=None, nv_index=0x1800001)
    for recording in (nv, Recording(content_type=9).begun()):
        with pytest.raises(ForeignRecord):
            appraised(boot, recording, accepting)


def test_a_record_cannot_explain_another_pcr(boot, accepting):
    changed = ran(boot, Recording())
    values = (*boot.values[:14], SHA256.digest(b"x"), boot.values[15])
    with pytest.raises(UnexplainedPcr):
        judge(Exchange(replace(changed, values=values)).evidence(), accepting)


def test_two_container_records_are_refused(boot, accepting):
    evidence = Exchange(ran(boot, Recording().begun())).evidence()
    other = log_entry("containers", Recording().data)
    manifest = (*evidence.manifest, other)
    attest = replace(
        Exchange(boot).attest,
        extra=qualifying_data(evidence.nonce, spki(), manifest),
        digest=SHA256.digest(b"".join(evidence.pcrs)),
    )
    doubled = resign(
        evidence,
        manifest=manifest,
        quote=attest.encode(),
        logs={**evidence.logs, other.sha256: b""},
    )
    with pytest.raises(RepeatedLog):
        judge(doubled, accepting)


def test_too_many_records_are_refused(boot, accepting, monkeypatch):
    monkeypatch.setattr(recorded, "MAX_RECORDS", 3)
    recording = Recording().begun().create().exit()
    with pytest.raises(UnreadableLog):
        appraised(boot, recording, accepting)


# What makes a node untrusted ---------------------------------------------------------------

FAULTS = {
    "container-record-headless": lambda r: r.in_force().create(),
    "container-gate-contradicted": lambda r: r.gate_start(banks={"sha256": "00" * 31 + "01"}),
    "container-boot-changed": lambda r: r.begun().gate_start(boot="another-kernel"),
    "container-before-policy": lambda r: r.gate_start().create(),
    "container-policy-other": lambda r: r.begun().create(policy="12" * 32),
    "container-policy-other ": lambda r: r.begun().deny(policy="12" * 32),
    "container-before-policy ": lambda r: r.begun().create().gate_start().exec(),
    "container-never-created": lambda r: r.begun().create().exit().exec(),
    "container-time-reversed": lambda r: r.begun().create(at=BEGIN - timedelta(hours=1)),
    "container-event-unreadable": lambda r: r.begun().append(b'{"kind":"create"}'),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_record_that_contradicts_itself_makes_the_node_untrusted(boot, accepting, code):
    lie, code = FAULTS[code], code.strip()
    found = appraised(boot, lie(Recording()), accepting)
    assert found.verdict == "untrusted"
    assert code in codes(found)
    assert all(reason.pcr == 15 for reason in found.reasons if reason.code == code)


def test_a_forged_gate_start_in_the_middle_is_found(boot, accepting):
    recording = Recording().begun().create()
    recording.gate_start(banks={"sha256": bytes(32).hex()}).in_force().create("web-2")
    assert codes(appraised(boot, recording, accepting)) == ["container-gate-contradicted"]


@pytest.mark.parametrize(
    "bad",
    [
        lambda r: r.begun().exec("never"),
        lambda r: r.begun().create().exec(image=f"sha256:{'00' * 32}"),
        lambda r: r.gate_start().create(),
        lambda r: r.begun().create(policy="12" * 32),
        lambda r: r.begun().create(publisher="guest"),
        lambda r: r.begun().create(publisher="stranger"),
        lambda r: r.begun().create(repository="docker.io/other"),
        lambda r: r.gate_start().in_force(container_policy(9)).create(),
    ],
    ids=[
        "exec-nowhere",
        "exec-other-image",
        "no-policy",
        "other-policy",
        "publisher-out-of-scope",
        "unknown-publisher",
        "no-scope",
        "policy-not-accepted",
    ],
)
def test_what_ran_unverified_is_counted_and_a_reason(boot, accepting, bad):
    found = appraised(boot, bad(Recording()), accepting)
    assert found.verdict == "untrusted"
    assert found.facts.containers_unverified == 1
    assert "policy:containers" in codes(found)
    # Even a policy that does not ask about containers does not admit it.
    lenient = compile_policy("[boot] Secure Boot is on\n  secure_boot\n")
    assert appraised(boot, bad(Recording()), accepting, policy=lenient).verdict == "untrusted"


def test_a_policy_that_nobody_imported_is_named(boot, accepting):
    other = container_policy(9)
    found = appraised(boot, Recording().gate_start().in_force(other).create().exec(), accepting)
    (reason,) = (one for one in found.reasons if one.code == "container-policy-unknown")
    assert "acme-containers@9" in reason.message
    assert reason.digest == policy_digest(other)
    assert (found.facts.container_policy, found.facts.containers_unverified) == ("", 2)


def test_refused_starts_alone_leave_the_node_trusted(boot, accepting):
    found = appraised(boot, Recording().begun().deny().deny("other"), accepting)
    assert (found.verdict, found.facts.containers_refused) == ("trusted", 2)
    before = appraised(boot, Recording().gate_start().deny(policy=""), accepting)
    assert before.verdict == "trusted"
    newer = container_policy(2)
    both = references_of(boot, container_policies=(POLICY, newer))
    late = Recording().begun().in_force(newer).deny(policy=policy_digest(POLICY))
    assert appraised(boot, late, both).verdict == "trusted"


def test_clocks_may_be_a_little_apart(boot, accepting):
    recording = Recording().begun().create(at=BEGIN - containers.CLOCK_SLACK + timedelta(seconds=9))
    assert appraised(boot, recording, accepting).verdict == "trusted"


@pytest.mark.parametrize("time", ["2030-01-02T00:00:00", "2030-01-02T00:00:00+01:00"])
def test_a_time_that_is_not_utc_is_a_reason_and_no_crash(boot, accepting, time):
    content = b'{"kind":"exit","at":"%s","container":"x"}' % time.encode()
    found = appraised(boot, Recording().begun().append(content), accepting)
    assert codes(found) == ["container-event-unreadable"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_ends_of_time_are_no_crash(boot, accepting, time):
    content = b'{"kind":"exit","at":"%s","container":"x"}' % time.encode()
    recording = Recording().begun().append(content).create()
    assert codes(appraised(boot, recording, accepting))[0] == "container-time-reversed"


# Policies over roles and publishers --------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "publisher", "verdict"),
    [
        ("edge", "acme", "trusted"),
        ("edge", "guest", "untrusted"),
        ("web", "guest", "trusted"),
        ("", "guest", "trusted"),
    ],
)
def test_only_images_of_one_publisher_on_nodes_of_one_role(
    boot, accepting, role, publisher, verdict
):
    where = {"acme": REPOSITORY, "guest": "docker.io/guest/tool"}[publisher]
    recording = Recording().begun().create(publisher=publisher, repository=where)
    found = appraised(boot, recording, accepting, node=node(role), policy=compile_policy(EDGE))
    assert found.verdict == verdict
    assert found.facts.role == role
    assert ("policy:edge" in codes(found)) == (verdict == "untrusted")


def test_images_that_are_not_named_any_more_fail_a_policy_over_all_images(boot, accepting):
    recording = Recording().begun()
    for number in range(MAX_IMAGES + 5):
        recording.create(f"c{number}", image=f"sha256:{number:064x}")
    facts = appraised(boot, recording, accepting).facts
    assert facts.container_images_total == MAX_IMAGES + 5
    assert (len(facts.container_images), facts.container_images[-1]) == (MAX_IMAGES + 1, MORE)


# Piece by piece ----------------------------------------------------------------------------

STEPS = {
    "gate": lambda r: r.gate_start(),
    "policy": lambda r: r.in_force(),
    "newer": lambda r: r.in_force(container_policy(2)),
    "foreign": lambda r: r.in_force(container_policy(9)),
    "create": lambda r: r.create(),
    "guest": lambda r: r.create("g", publisher="guest", repository="docker.io/guest/tool"),
    "stranger": lambda r: r.create("s", publisher="stranger"),
    "exec": lambda r: r.exec(),
    "exec-other": lambda r: r.exec("g"),
    "deny": lambda r: r.deny(),
    "exit": lambda r: r.exit(),
    "late": lambda r: r.exit("g") if r.seconds % 2 else r.deny(at=BEGIN - timedelta(days=1)),
    "garbage": lambda r: r.append(b"garbage"),
    "forged": lambda r: r.gate_start(banks={"sha256": "ff" * 32}),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.lists(st.sampled_from(sorted(STEPS)), max_size=6), min_size=1, max_size=5),
    change=st.integers(0, 9),
)
def test_appraising_in_steps_is_appraising_at_once(boot, steps, change):
    """New references on the way change who accounts for it, never what was read."""
    worlds = [
        references_of(boot, container_policies=policies)
        for policies in ((POLICY,), (POLICY, container_policy(2)))
    ]
    recording, known = Recording(), None
    for number, group in enumerate(steps):
        for step in group:
            STEPS[step](recording)
        references = worlds[number >= change]
        evidence = Exchange(ran(boot, recording)).evidence()
        found = judge(evidence, references, known=known)
        known = found.boot
        fresh = judge(evidence, references)
        assert (found.reasons, found.facts) == (fresh.reasons, fresh.facts)
        assert (found.boot.record, found.boot.contained) == (
            fresh.boot.record,
            fresh.boot.contained,
        )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), mask=st.integers(1, 255), noise=st.binary(max_size=60))
def test_whatever_was_extended_is_judged_and_never_a_crash(boot, accepting, position, mask, noise):
    """The TPM proves any content that root on the node extends, so each is read to its end."""
    recording = Recording().begun()
    honest = Recording().begun().create().exec().deny().exit()
    for record, _ in tlv_records(honest.data, honest.places[1], 2):
        content = bytearray(record.content)
        content[position % len(content)] ^= mask
        recording.append(bytes(content))
    recording.append(noise).append(noise + b'"\\ud800"').create("after")
    found = appraised(boot, recording, accepting)
    assert found.verdict == "untrusted"
    assert found.facts.container_records == recording.count
    account = found.boot.record.account
    assert msgspec.json.decode(msgspec.json.encode(account), type=type(account)) == account


def test_a_surrogate_in_a_name_is_shown_and_no_crash(boot, accepting):
    content = b'{"kind":"exit","at":"2030-01-02T00:00:09Z","container":"\\ud800\\u202e\\u0000"}'
    account = appraised(boot, Recording().begun().append(content), accepting).boot.record.account
    assert all(told.container.isprintable() for told in account.told)
    msgspec.json.encode(account)


def test_only_new_records_are_read(boot, accepting, monkeypatch):
    recording = Recording().begun()
    for number in range(50):
        recording.create(f"c{number}").exit(f"c{number}")
    known = appraised(boot, recording, accepting).boot
    read: list[int] = []
    add = containers._Reading.add
    monkeypatch.setattr(
        containers._Reading, "add", lambda self, one: (read.append(one.index), add(self, one))
    )
    before = recording.count
    found = appraised(boot, recording.create("new"), accepting, known=known)
    assert (found.facts.containers_started, read) == (51, [before])


def test_a_shorter_record_than_before_is_judged_from_its_beginning(boot, accepting):
    known = appraised(boot, Recording().begun().create(), accepting).boot
    found = appraised(boot, Recording().begun(), accepting, known=known)
    assert (found.facts.container_records, found.facts.containers_started) == (2, 0)
    gone = judge(Exchange(boot).evidence(), accepting, known=known)
    assert (gone.boot.record, gone.facts.container_records) == (None, 0)


def test_what_is_kept_of_a_record_is_bounded(boot, accepting, monkeypatch):
    for name in ("MAX_USES", "MAX_POLICIES", "MAX_RUNNING", "MAX_TOLD", "MAX_FAULTS"):
        monkeypatch.setattr(containers, name, 4)
    recording = Recording().begun()
    for number in range(9):
        recording.create(f"c{number}", repository=f"registry.acme.example/{number}")
        recording.in_force(container_policy(number + 2))
    found = appraised(boot, recording, accepting)
    account = found.boot.record.account
    sizes = (account.uses, account.policies, account.told, account.faults)
    assert [len(one) for one in sizes] == [4, 4, 4, 4]
    assert len(found.boot.record.running) == 4
    assert "container-record-overflow" in codes(found)
    assert "container-faults-omitted" in codes(found)
    assert found.facts.containers_unverified == 9 - 1


# Container policies as references ----------------------------------------------------------


SCOPES = ("*", "r/*", "r/n/*", "r/n", "r/n/m")


@pytest.mark.parametrize(
    ("repository", "scope"),
    [
        ("x", "*"),
        ("r/x", "r/*"),
        ("r/n", "r/n"),
        ("r/n/m", "r/n/m"),
        ("r/n/x", "r/n/*"),
        ("r/n/x/y", "r/n/*"),
        ("rx", "*"),
        ("r", "*"),
        ("r/", "r/*"),
        ("", "*"),
    ],
)
def test_the_longest_scope_applies_alone(repository, scope):
    names = [f"p{number}" for number in range(len(SCOPES))]
    policy = container_policy(
        publishers=tuple(Publisher(name=name) for name in names),
        scopes=tuple(
            Scope(repository=one, publishers=(name,))
            for one, name in zip(SCOPES, names, strict=True)
        ),
    )
    reference = container_reference(policy)
    allowed = [name for name in names if reference.objection(repository, name) is None]
    assert allowed == [names[SCOPES.index(scope)]]


def test_a_repository_without_a_scope_has_no_publisher():
    assert "no scope" in container_reference(POLICY).objection("quay.io/acme", "acme")


@pytest.mark.parametrize(
    "changes",
    [
        {"publishers": (Publisher(name="acme"), Publisher(name="acme"), Publisher(name="guest"))},
        {"scopes": (Scope(repository="*", publishers=("acme",)),) * 2},
        {"scopes": (Scope(repository="*", publishers=("nobody",)),)},
    ],
    ids=["publisher-twice", "scope-twice", "no-such-publisher"],
)
def test_an_ambiguous_container_policy_is_no_reference(changes):
    with pytest.raises(AmbiguousContainerPolicy):
        build_references(container_policies=(container_policy(**changes),))


def test_a_policy_is_known_by_the_digest_of_its_document():
    reference = container_reference(POLICY)
    again = msgspec.json.decode(msgspec.json.encode(POLICY), type=type(POLICY))
    assert reference.digest == policy_digest(again)
    assert reference.digest != policy_digest(container_policy(2))
