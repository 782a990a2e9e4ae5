"""Processes that wait for each other: who is awaited is said, and signals and patience end it."""

import os
import socket
import threading

import pytest
import torch

from musepose.cli import entry
from musepose.utils import meeting
from musepose.utils.distributed import ProcessGroup
from musepose.utils.errors import SharedError, UserError
from musepose.utils.meeting import meet


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of process 0 of 3, at a free port. → the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {"WORLD_SIZE": "3", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setattr(meeting, "PAUSE", 0.01)
    monkeypatch.setattr(meeting, "_kept", [])
    return port


def test_a_single_process_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    meet(0)


def test_who_does_not_come_is_named_and_given_up(place: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "FIRST_LINE", 0.0)
    with pytest.raises(UserError, match=r"gave up after 0 s of waiting for process 1, 2 of 3, .*: start all processes"):
        meet(0.05)
    assert "waiting for process 1, 2 of 3, counted from 0" in capsys.readouterr().err


def test_a_process_whose_first_does_not_come_gives_up(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match=rf"waiting for process 0 at 127.0.0.1:{place}"):
        meet(0.05)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300])
def test_an_address_that_nobody_knows_is_one_line(place: str, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    def unknown(*_) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(meeting.socket, "getaddrinfo", unknown)  # as the network's answer may take long
    monkeypatch.setenv("MASTER_ADDR", host)
    with pytest.raises(UserError, match="MASTER_ADDR .* cannot be looked up"):
        meet(0.05)


def test_a_signal_ends_the_waiting(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Signal(BaseException):
        pass

    def interrupted(_: float) -> None:
        raise Signal  # as the handler of a signal would, which runs between two looks

    monkeypatch.setattr(meeting.time, "sleep", interrupted)
    with pytest.raises(Signal):
        meet()


def test_all_that_come_go_on_with_the_same_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def others() -> None:
        for rank in (1, 2):
            store = torch.distributed.TCPStore("127.0.0.1", int(place), is_master=False, wait_for_workers=False)
            store.set(f"musepose/0/{rank}", "here")

    thread = threading.Thread(target=others)
    thread.start()
    meet(60)
    thread.join()
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "True"
    assert meeting._kept[0].get("musepose/0/2") == b"here"


@pytest.mark.parametrize(("name", "value"), [("MASTER_PORT", "x"), ("MASTER_PORT", "0"), ("MASTER_ADDR", "")])
def test_a_place_that_is_none_is_refused(place: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="name no place to meet: start all processes"):
        meet(0)


def test_a_port_in_use_is_refused(place: str) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", int(place)))
        used.listen()
        with pytest.raises(UserError, match=rf"MASTER_PORT {place}: no store there"):
            meet(0)


class Pair(ProcessGroup):
    """Process 0 of two; the other one gives `other`."""

    def __init__(self, other: object) -> None:
        super().__init__(0, 2)
        self.other = other

    def gather(self, value):
        return [value, self.other]


def test_what_one_process_cannot_do_is_an_error_in_all() -> None:
    def fail() -> None:
        raise UserError("mine: mend it")

    assert Pair(None).together(lambda: 5) == 5
    with pytest.raises(SharedError, match="theirs: mend it"):
        Pair("theirs: mend it").together(lambda: 5)
    with pytest.raises(SharedError, match="mine: mend it"):
        Pair("theirs: mend it").together(fail)


@pytest.mark.parametrize(("error", "rank", "printed"), [
    (SharedError("all"), "0", True), (SharedError("all"), "1", False), (UserError("one"), "1", True)
])  # fmt: skip
def test_one_process_prints_what_all_raise(error: Exception, rank: str, printed: bool, monkeypatch) -> None:
    """Torch is imported here, as in processes at work."""
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert entry._prints(error) == printed
