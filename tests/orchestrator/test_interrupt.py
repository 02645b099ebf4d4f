"""A signal ends a command within seconds, whatever it is at."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.interrupt import INTERRUPTED
from tests.orchestrator.conftest import environment

STUBBORN = """
import signal, time
from orchestrator import interrupt
interrupt.LEAVE_WITHIN_S = 0.2
interrupt.listen()
for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, lambda *_: None)  # as a library may; compiled code may call none at all
with interrupt.before_leaving(lambda: print("tidied", flush=True)):
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""

OWN_TIME = """
import signal, time
from orchestrator import interrupt
interrupt.LEAVE_WITHIN_S = 0.2
interrupt.listen()
signal.signal(signal.SIGTERM, lambda *_: None)
interrupt.give_time(signal.SIGTERM)
print("ready", flush=True)
time.sleep(1)
print("saved", flush=True)
"""


SLOW_TO_LEAVE = """
import time
from orchestrator import interrupt
interrupt.LEAVE_WITHIN_S = 0.2
interrupt.listen()
interrupt.first_when_leaving(lambda: time.sleep(1))  # as one waits for Ray that is starting
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    interrupt.tell("interrupted: nothing was written")
interrupt.leave()
"""

SLOW_TO_TELL = """
import time
from orchestrator import interrupt
interrupt.LEAVE_WITHIN_S = 0.2
interrupt.listen()
interrupt.first_when_leaving(lambda: time.sleep(1))
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.7)
    interrupt.tell("interrupted: nothing was written")
time.sleep(60)
"""

TAKEN_AWAY = """
import threading, time
from orchestrator import interrupt
interrupt.LEAVE_WITHIN_S = 0.2
interrupt.listen()
taken_away, over = threading.Event(), threading.Event()
class Held:
    def __del__(self):
        raise ConnectionResetError("that is gone")
def listens():  # as a library does in a thread, to what the command has begun
    taken_away.wait()
    held = Held()
    del held
    raise ConnectionResetError("that is gone")
def take_away():
    taken_away.set()
    listener.join()
listener = threading.Thread(target=listens, daemon=True)
listener.start()
interrupt.first_when_leaving(take_away)
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    interrupt.tell("interrupted: nothing was written")
%s
"""

TWICE = """
import os, signal
from orchestrator import interrupt
interrupt.listen()
interrupt.be_a_command()
for again in (False, True):
    try:
        if again:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            print("ready", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        interrupt.tell("interrupted: nothing was written")
interrupt.leave()
"""

MUTE = """
from orchestrator import interrupt
interrupt.be_a_command()
def closed(line):
    raise BrokenPipeError
try:
    interrupt.tell("interrupted: nothing was written", closed)
except BrokenPipeError:
    interrupt.tell("interrupted")
"""


def ended(program, which):
    """Exit code and output of a program that gets a signal once it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(which)
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_even_what_swallows_it_and_tidies_first(which):
    code, output = ended(STUBBORN, which)
    assert code == INTERRUPTED
    assert output == "interrupted; the same command goes on from here\ntidied\n"


def test_what_heeds_a_signal_itself_has_the_time_it_needs():
    assert ended(OWN_TIME, signal.SIGTERM) == (0, "saved\n")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (SLOW_TO_LEAVE, "interrupted: nothing was written\n"),
        (SLOW_TO_TELL, "interrupted; the same command goes on from here\n"),
    ],
    ids=["slow to leave", "slow to tell"],
)
def test_it_is_said_once_that_a_command_was_interrupted(program, said):
    assert ended(program, signal.SIGINT) == (INTERRUPTED, said)


@pytest.mark.parametrize("end", ["interrupt.leave()", "time.sleep(60)"])
def test_what_fails_in_a_thread_once_its_ground_is_taken_away_is_not_said(end):
    said = "interrupted: nothing was written\n"
    assert ended(TAKEN_AWAY % end, signal.SIGTERM) == (INTERRUPTED, said)


def test_a_command_that_is_interrupted_again_says_it_no_second_time():
    assert ended(TWICE, signal.SIGINT) == (INTERRUPTED, "interrupted: nothing was written\n")


def test_what_could_not_be_said_is_made_up_for():
    done = subprocess.run(
        [sys.executable, "-c", MUTE], capture_output=True, text=True, env=environment(),
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "interrupted\n")


KEPT = """
import ctypes, os, signal
from orchestrator import interrupt
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
print("ready", flush=True)
with interrupt.kept():
    ctypes.CDLL(None).signal(signal.SIGTERM, signal.SIG_DFL)  # as compiled code may
os.kill(os.getpid(), signal.SIGTERM)
print("goes on", flush=True)
"""

BESIDE_RAY = """
import os, signal
from orchestrator.driver.cluster import Cluster
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
print("ready", flush=True)
with Cluster() as cluster:
    cluster.connected()
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
print("goes on", flush=True)
"""


def output_of(program):
    """Exit code and output of a program, without a signal from here."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(),
        timeout=200, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_signal_is_handled_as_before_where_compiled_code_put_in_a_handler():
    assert output_of(KEPT) == (0, "ready\nhandled\ngoes on\n")


@pytest.mark.slow
def test_a_signal_is_ours_to_handle_while_ray_runs_and_when_it_has_gone():
    assert output_of(BESIDE_RAY) == (0, "ready\nhandled\nhandled\ngoes on\n")


def listens(pid):
    """Whether a process handles SIGTERM, as ours does from its first import on."""
    status = Path(f"/proc/{pid}/status").read_text()
    handled = int(next(line for line in status.splitlines() if line.startswith("SigCgt"))[7:], 16)
    return bool(handled & 1 << (signal.SIGTERM - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "after_s"),
    [
        *((signal.SIGINT, after_s) for after_s in (0.0, 1.0, 3.0, 8.0)),
        *((signal.SIGTERM, after_s) for after_s in (2.0, 5.0, 12.0)),
    ],
)
def test_a_study_ends_within_seconds_of_a_signal_while_it_starts(mini, tmp_path, which, after_s):
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", str(mini), "--root", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
    ) as process:  # fmt: skip
        while not listens(process.pid):
            time.sleep(0.005)
        time.sleep(after_s)
        sent = time.monotonic()
        process.send_signal(which)
        output, _ = process.communicate(timeout=60)
        took = time.monotonic() - sent
    assert process.returncode == INTERRUPTED, output
    assert "Traceback" not in output
    assert output.count("interrupted") == 1
    assert took < 6
