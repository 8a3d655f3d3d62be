"""Trying a policy on recorded launches: what would be refused, and what a record cannot tell."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from launch_vectors import ARGV, CANARY, STRICT, image, ordinary, parsed

from catena.containers.launch.dryrun import dry_run, images_of
from catena.containers.launch.rules import compile_launch
from catena.errors import NotFound
from catena.formats.containerlog import Create, Deny, Exec, Exit, GateStart, Launch
from changed import replace

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEX = "ab" * 32
IMAGE = f"sha256:{HEX}"
POLICY = compile_launch(STRICT)


def launch(**changes) -> Launch:
    config = parsed(ordinary())
    values = {
        "argv": config.argv,
        "argv_total": len(config.argv),
        "user": config.user,
        "env": {name: HEX for name, _ in config.env},
        "mounts": config.mount_texts,
        "capabilities": config.capabilities,
        "config": HEX,
    }
    return Launch(**{**values, **changes})


def create(**changes) -> Create:
    return Create(
        at=NOW,
        container="web",
        image=IMAGE,
        repository="registry.example/web",
        publisher="example",
        signature="cosign",
        root=HEX,
        policy=HEX,
        launch=launch(**changes),
    )


def execution(**changes) -> Exec:
    values = {"argv": ("/bin/true",), "argv_total": 1, "mounts": (), **changes}
    return Exec(at=NOW, container="web", image=IMAGE, policy=HEX, launch=launch(**values))


def tried(*events, policy=STRICT, images=lambda _: None, only=""):
    return dry_run(events, compile_launch(policy), images, only)


def test_a_launch_that_the_policy_allows_is_not_found():
    result = tried(create(), execution())
    assert (result.launches, result.refused, result.findings) == (2, 0, ())
    assert result.policy == "strict 1"


def test_values_are_only_commitments_and_said_to_be():
    said = {one.what for one in tried(create()).not_checkable}
    assert said == {"values of PATH, TERM, HOSTNAME, TOKEN: only commitments are recorded"}
    assert "seccomp" in tried(create()).not_recorded


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (create(argv=("/bin/sh",), argv_total=1), "launch-argv"),
        (create(env={"LD_PRELOAD": HEX}), "launch-env"),
        (create(user="7:7"), "launch-user"),
        (create(capabilities=("CAP_SYS_ADMIN",)), "launch-capability"),
        (create(mounts=("bind / /host rbind",)), "launch-mount"),
        (execution(argv=("/bin/sh",), argv_total=1), "exec-not-allowed"),
        (execution(env={"LD_PRELOAD": HEX}), "launch-env"),
    ],
)
def test_a_launch_beyond_the_policy_is_found_with_code_and_reason(event, code):
    result = tried(create(), event)
    (found,) = result.findings
    assert (found.event, found.code, found.container, found.at) == (1, code, "web", NOW)
    assert found.verb == ("create" if isinstance(event, Create) else "exec")
    assert found.reason
    assert result.refused == 1


def test_all_reasons_of_a_launch_are_found():
    result = tried(create(user="7:7", capabilities=("CAP_BPF",), env={"X": HEX, "Y": HEX}))
    codes = [one.code for one in result.findings]
    assert codes == ["launch-env", "launch-env", "launch-user", "launch-capability"]
    assert result.refused == 1


def test_what_the_record_does_not_tell_is_not_checkable():
    events = create(argv_total=9), create(mounts=("abridged",))
    said = [one.what for one in tried(*events).not_checkable]
    assert "command: too long for the record" in said
    assert "mount: abridged" in said


WORDS = replace(STRICT, argv=(("image:argv",),), users=("image:user",), env={"image:env": ""})


def test_words_of_an_image_are_tried_where_its_configuration_is_known():
    result = tried(create(env={"PATH": HEX}), policy=WORDS)
    said = {one.what.partition(":")[0] for one in result.not_checkable}
    assert (result.findings, said) == ((), {"command", "variable PATH", "user"})

    known = images_of(lambda _: image())
    assert tried(create(env={"PATH": HEX}), policy=WORDS, images=known).findings == ()
    other = images_of(lambda _: image(("/bin/sh",), user="7"))
    codes = [one.code for one in tried(create(env={}), policy=WORDS, images=other).findings]
    assert codes == ["launch-argv", "launch-user"]


def test_an_image_that_is_gone_is_not_known():
    def missing(_):
        raise NotFound("gone")

    assert images_of(missing)(IMAGE) is None


def test_other_events_and_other_images_are_left_out():
    deny = Deny(at=NOW, container="x", verb="create", code="c", message="m")
    start = GateStart(at=NOW, boot="b", catena="1", banks={"sha256": HEX})
    assert tried(deny, start, Exit(at=NOW, container="x")).launches == 0
    assert tried(create(), only="sha256:other").launches == 0
    assert tried(create(), only=IMAGE).launches == 1


def test_no_secret_is_shown():
    assert CANARY not in repr(tried(create(argv=(*ARGV, "more"), argv_total=4)))
