"""Orders to a machine: the pipe, the answers, and the program on the node."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

import catena.lab
from catena.lab import orders
from catena.lab.orders import Answer
from catena.lab.running import LabDown
from catena.lab.workspace import NODE

LOG = (
    '{"level":"info","msg":"begun"}\n'
    '{"level":"error","msg":"catena refused: argv [launch-argv]","time":"2026-01-01T00:00:00Z"}\n'
)


@pytest.fixture
def node():
    """The node's program as a module: it needs nothing but the standard library."""
    path = Path(catena.lab.__file__).parent / "node/orders.py"
    spec = importlib.util.spec_from_file_location("node_orders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_answers_are_read_from_a_console_with_other_lines():
    console = (
        "[ 1.0] python3[7]: lab-orders: ready\n"
        '[ 2.0] python3[7]: lab-orders: {"order": "1", "status": 0, "said": "proof\\n"}\n'
        "[ 2.1] kernel: something\n"
        '[ 3.0] python3[7]: lab-orders: {"order": "2", "status": 1, "error": "no"}\n'
        '[ 4.0] python3[7]: lab-orders: {"order": "3", "sta'
    )
    assert orders.answers(console) == [
        Answer(order="1", status=0, said="proof\n"),
        Answer(order="2", status=1, error="no"),
    ]


def test_reason_is_the_last_line_of_the_runtimes_log():
    assert Answer(order="1", status=1, log=LOG).reason == "catena refused: argv [launch-argv]"
    assert Answer(order="1", status=1, error="runc: no\n", log="garbage\n").reason == "runc: no"


def test_an_order_to_a_machine_that_is_off_says_so(lab):
    folder = lab.workspace.machine_folder(NODE)
    folder.mkdir(parents=True)
    (folder / "console.log").write_text(f"{orders.READY}\n")
    with pytest.raises(LabDown):
        orders.give(lab, NODE, "run", "web", seconds=1)
    os.mkfifo(lab.workspace.orders(NODE))
    with pytest.raises(LabDown):
        orders.give(lab, NODE, "run", "web", seconds=1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1",
        "1 run",
        "1 run ../../etc",
        "1 kill catena.gate",
        "1 shell web",
        "1 run Web",
        "a b c d",
    ],
)
def test_what_is_no_order_is_answered_and_not_done(node, line, monkeypatch):
    monkeypatch.setattr(node, "command", None)
    answer = node.carry_out(line)
    assert answer["status"] == -1
    assert "no such order" in answer["error"]


def test_what_goes_wrong_is_a_part_of_the_answer(node, tmp_path, monkeypatch):
    monkeypatch.setattr(node, "DATA", tmp_path / "nothing")
    monkeypatch.setattr(node, "ROOMS", tmp_path / "rooms")
    answer = node.carry_out("7 run web")
    assert answer["order"] == "7"
    assert answer["status"] == -1
    assert answer["error"].startswith("FileNotFoundError")


def test_edited_record_differs_in_one_bit(node, tmp_path, monkeypatch):
    record = tmp_path / "record"
    record.write_bytes(bytes(range(101)))
    monkeypatch.setattr(node, "RECORD", record)
    assert node.carry_out("1 edit record")["status"] == 0
    after = record.read_bytes()
    assert len(after) == 101
    assert sum((one ^ other).bit_count() for one, other in zip(after, range(101), strict=True)) == 1
