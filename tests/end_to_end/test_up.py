"""`reelworks up` starts everything, restarts what dies, and leaves nothing behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.end_to_end.running import eventually, start

pytestmark = pytest.mark.timeout(300)


def exists(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


def test_one_ctrl_c_stops_all_within_five_seconds(tmp_path: Path) -> None:
    # On a machine on which much else runs, the quickest of three tells what it takes.
    took_s = [_stop_by_ctrl_c(tmp_path / "var")]
    while min(took_s) >= 5 and len(took_s) < 3:
        took_s.append(_stop_by_ctrl_c(tmp_path / "var"))
    assert min(took_s) < 5


def _stop_by_ctrl_c(var: Path) -> float:
    """Returns how long it took, in seconds."""
    with start(var) as stack:
        ids = list(stack.up_file.processes.values())
        assert all(map(exists, ids))
        began = time.monotonic()

        stack.process.send_signal(signal.SIGINT)

        assert stack.process.wait(30) == 0
        took_s = time.monotonic() - began
        assert not any(map(exists, ids))
        assert not (stack.var / "up.json").exists()
        assert "ended by" not in stack.log.read_text(), "one had to be killed or had died"
    return took_s


def test_nothing_outlives_a_supervisor_that_is_killed_nor_a_second_ctrl_c(tmp_path: Path) -> None:
    with start(tmp_path / "var") as stack:
        ids = list(stack.up_file.processes.values())
        assert stack.var.stat().st_mode & 0o777 == 0o700
        first_keys = (stack.var / "keys" / "callback_keys").read_text()

        stack.process.send_signal(signal.SIGKILL)
        stack.process.wait()

        eventually(lambda: not any(map(exists, ids)), 6)
        left = stack.run("credits", "balance")
        assert left.returncode == 1
        assert left.stderr == "error: Reelworks does not answer; start it with `reelworks up`\n"
        (stack.var / "up.json").unlink()

    with start(tmp_path / "var") as again:
        assert again.json("credits", "balance")["available_credits"] == 0
        assert (again.var / "keys" / "callback_keys").read_text() == first_keys
        ids = list(again.up_file.processes.values())
        os.kill(again.up_file.processes["credits"], signal.SIGSTOP)
        began = time.monotonic()

        again.process.send_signal(signal.SIGINT)
        eventually(lambda: "press Ctrl-C again" in again.log.read_text())
        again.process.send_signal(signal.SIGINT)

        assert again.process.wait(10) == 1
        assert time.monotonic() - began < 3, "it waited for one that does not leave"
        assert not any(map(exists, ids))


def test_a_service_that_cannot_run_ends_all_and_its_own_words_are_shown(tmp_path: Path) -> None:
    keys = tmp_path / "var" / "keys" / "callback_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("no key\n")

    with pytest.raises(AssertionError) as raised, start(tmp_path / "var"):
        pytest.fail("it cannot be up")

    log = str(raised.value)
    assert "REELWORKS_CALLBACK_KEYS_FILE" in log
    assert "cannot run with its settings; its lines above say why" in log
    assert "no key" not in log
    assert not (tmp_path / "var" / "up.json").exists()
