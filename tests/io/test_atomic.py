"""A file is complete or absent; one run at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rsp_hpc.errors import BadData, ConfigError
from rsp_hpc.io import atomic as module
from rsp_hpc.io import visit as format
from rsp_hpc.io.atomic import RunLock, atomic, clean, write_text
from rsp_hpc.io.product import Header
from samples_io import visit_detector


def test_the_final_name_appears_with_the_whole_content_only(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as aside:
        aside.write_text("new")
        assert not path.exists() and aside.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyError):
        with atomic(path) as aside:
            aside.write_text("half")
            raise KeyError
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_leftovers_of_the_same_name_are_deleted_and_no_others(tmp_path):
    for name in (".a.txt.77.part", ".b.txt.77.part", ".a.txt2.77.part"):
        (tmp_path / name).touch()
    write_text(tmp_path / "a.txt", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.txt2.77.part", ".b.txt.77.part", "a.txt"]
    assert clean(tmp_path) == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadData, match="file: is not a folder|cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk):
    parts = [visit_detector(f"D{i}", i, (300, 400)) for i in range(3)]
    with pytest.raises(BadData, match="output folder is full"):
        with format.VisitWriter(small_disk / "v.h5", Header("visit", "x")) as writer:
            for part in parts:
                writer.append(format.encode_visit_detector(part, exact=True))
    assert list(small_disk.iterdir()) == []
    with pytest.raises(BadData, match="output folder is full"):
        write_text(small_disk / "big.txt", "x" * 3_000_000)
    assert list(small_disk.iterdir()) == []


def test_a_process_limit_on_file_size_is_an_error_not_a_crash(tmp_path):
    script = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from rsp_hpc.io import visit as format
from rsp_hpc.io.product import Header
from samples_io import visit_detector
part = format.encode_visit_detector(visit_detector(shape=(400, 500)), exact=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with format.VisitWriter(sys.argv[1], Header("visit", "x")) as writer:
        writer.append(part)
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "v.h5"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0 and done.stdout.strip() == "Unwritable", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_second_run_says_who_holds_the_output(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(ConfigError, match=f"another run writes here: .*process {os.getpid()}"):
            with RunLock(tmp_path):
                pass
    with RunLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_lock_behind_it(tmp_path):
    code = ("import sys, time; from rsp_hpc.io.atomic import RunLock; RunLock(sys.argv[1]).__enter__(); "
            "print('in', flush=True)")
    owner = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(60)", tmp_path], stdout=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert owner.stdout.readline() == b"in\n"
    with pytest.raises(ConfigError):
        RunLock(tmp_path).__enter__()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("owner, age, free", [
    ({"host": "elsewhere", "pid": 1, "start": "then"}, 10, False),
    ({"host": "elsewhere", "pid": 1, "start": "then"}, 1000, True),
    ({"host": "elsewhere", "pid": 1, "job": "77", "life": 0}, 10, True),
    ({}, 10, False), ({}, 1000, True)])
def test_owners_elsewhere_live_by_their_heartbeat(tmp_path, monkeypatch, owner, age, free):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / ".lock").write_text(json.dumps(owner))
    os.utime(tmp_path / ".lock", (time.time() - age,) * 2)
    if free:
        with RunLock(tmp_path):
            pass
    else:
        with pytest.raises(ConfigError, match="another run writes here"):
            RunLock(tmp_path).__enter__()


def test_the_heartbeat_refreshes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    with RunLock(tmp_path):
        os.utime(tmp_path / ".lock", (1e9, 1e9))
        time.sleep(0.4)
        assert (tmp_path / ".lock").stat().st_mtime > 1.5e9


def test_of_many_that_take_over_one_wins(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"host": "gone"}))
    os.utime(tmp_path / ".lock", (1e9, 1e9))
    won, lost = [], []

    def attempt():
        try:
            lock = RunLock(tmp_path)
            lock.__enter__()
            won.append(lock)
        except ConfigError:
            lost.append(1)
    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].__exit__()
