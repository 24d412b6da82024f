from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from grade.sandboxes import sandbox_or_skip
from laconic.errors import LaconicError
from laconic.grade import sandbox as module
from laconic.grade.sandbox import NotRunError, Sandbox, StoppedError, open_sandbox


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return sandbox_or_skip()


def said(sandbox: Sandbox, code: str, data: bytes = b"", seconds: float = 20) -> str:
    with sandbox.start(code) as program:
        return program.finish(data, seconds).decode()


def alive(mark: str) -> list[int]:
    """Processes whose command line has a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(mark: str) -> bool:
    """Whether they are all ended; the kernel takes a moment for it."""
    deadline = time.monotonic() + 5
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(mark)


def test_a_program_reads_stdin_and_writes_stdout(sandbox: Sandbox) -> None:
    assert said(sandbox, "print(sum(map(int, open(0))))", b"1\n2\n" * 50_000) == "150000\n"


@pytest.mark.parametrize("ending", ["raise ValueError", "import sys; sys.exit(3)", "1/0"])
def test_a_bad_end_is_a_failure(sandbox: Sandbox, ending: str) -> None:
    with pytest.raises(StoppedError, match="failed"):
        said(sandbox, f"print(1, flush=True)\n{ending}")


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import os, time; os.close(1); time.sleep(60)",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
    ],
)
def test_a_program_without_end_is_stopped(sandbox: Sandbox, code: str) -> None:
    mark = uuid.uuid4().hex
    start = time.monotonic()
    with pytest.raises(StoppedError, match="timed out"):
        said(sandbox, f"#{mark}\n{code}", seconds=0.5)
    assert time.monotonic() - start < 10
    assert gone(mark)


def test_processes_are_few_and_none_is_left(sandbox: Sandbox) -> None:
    mark = uuid.uuid4().hex
    bomb = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(600)\n"
    bomb += "    n += 1\nexcept OSError:\n  print(n)"
    assert 0 < int(said(sandbox, f"#{mark}\n{bomb}")) < 40
    assert gone(mark)


def test_a_grandchild_with_a_session_of_its_own_is_killed(sandbox: Sandbox) -> None:
    mark = uuid.uuid4().hex
    code = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
    code += "    for fd in (0, 1, 2): os.close(fd)\n    time.sleep(600)\n"
    assert said(sandbox, f"#{mark}\n{code}") == ""
    assert gone(mark)


def test_a_program_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    sandbox_or_skip()
    mark = uuid.uuid4().hex
    script = tmp_path / "starter.py"
    script.write_text(
        "from laconic.grade.sandbox import Sandbox\nimport time\n"
        f"with Sandbox(True).start('#{mark}\\nimport time; time.sleep(600)'):\n"
        "    print('started', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        assert alive(mark)
        starter.send_signal(signal.SIGKILL)
    assert gone(mark)


def test_memory_disk_and_output_are_limited(sandbox: Sandbox) -> None:
    hog = "try:\n  bytearray(3 << 30)\nexcept MemoryError:\n  print('no')"
    assert said(sandbox, hog) == "no\n"
    files = "try:\n  for n in range(9): open(str(n), 'wb').write(bytes(16 << 20))\n"
    assert said(sandbox, files + "except OSError as error: print(error.strerror)").strip() in (
        "No space left on device",
        "File too large",
    )
    with pytest.raises(StoppedError, match="failed"):
        said(sandbox, "while True: print('x' * 100000)")


def test_no_network_not_even_this_machine(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        code = f"import socket\ntry: socket.create_connection(('127.0.0.1', {port}), timeout=5)\n"
        assert said(sandbox, code + "except OSError: print('no')") == "no\n"


def test_no_files_but_its_own_which_are_gone_after(sandbox: Sandbox, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("secret")
    (tmp_path / "open").mkdir(mode=0o777)
    code = "import os\nfor path in {!r}:\n  try: print(len(open(path, mode='a+').read()))\n"
    code += "  except OSError: print('no')"
    paths = [str(mine), str(tmp_path / "open/x"), "/x", "/usr/x", "/tmp/x", "x"]
    assert said(sandbox, code.format(paths)) == "no\nno\nno\nno\n0\n0\n"
    assert mine.read_text() == "secret"
    places = ["/", "/usr", sys.base_prefix]
    code = f"import os; print([os.statvfs(p).f_flag & os.ST_RDONLY for p in {places!r}])"
    assert said(sandbox, code) == "[1, 1, 1]\n"
    assert said(sandbox, "import os; print(os.listdir('.'), os.getcwd())") == "[] /tmp\n"


def test_environment_processes_and_rights_are_its_own(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    code = "import os; print(set(os.environ) - {'LC_CTYPE'}, os.getuid() == 0, os.listdir('/proc'))"
    with pytest.raises(StoppedError):  # there is no /proc
        said(sandbox, code)
    assert said(sandbox, code.replace("/proc", "/tmp")) == "set() False []\n"
    code = "import ctypes; libc = ctypes.CDLL(None)\n"
    code += "print(libc.unshare(0x10000000), libc.mount(b'x', b'/usr', b'tmpfs', 0, b''))"
    assert said(sandbox, code) == "-1 -1\n"
    assert said(sandbox, "import sys; print(sys.flags.isolated, 'site' in sys.modules)") == (
        "1 False\n"
    )


def test_what_cannot_be_locked_up_is_not_run(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    monkeypatch.setattr(module, "LIMITS", module.LIMITS | {"RLIMIT_NOFILE": 10**12})
    with pytest.raises((NotRunError, StoppedError)), sandbox.start(f"open({str(mark)!r}, 'w')"):
        pass
    monkeypatch.setattr(module, "LIMITS", {})
    monkeypatch.setattr(module.sys, "base_prefix", str(tmp_path / "nowhere"))
    with pytest.raises(NotRunError, match="No such file"), sandbox.start("1"):
        pass
    assert not mark.exists()


def fails(sandbox: Sandbox) -> None:
    if sandbox.namespaces:
        raise NotRunError("unshare: Operation not permitted")


def test_without_namespaces_only_where_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_try", fails)
    monkeypatch.setattr(module, "_networks", lambda: ["eth0"])
    with pytest.raises(LaconicError, match=r"unshare: .*a network \(eth0\); docs/code-execution"):
        open_sandbox()
    monkeypatch.setattr(module, "_networks", lambda: [])
    assert open_sandbox() == Sandbox(namespaces=False)
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with pytest.raises(LaconicError, match="on Linux only, and this is darwin"):
        open_sandbox()


def test_networks_are_read_from_the_routes(tmp_path: Path) -> None:
    four, six = tmp_path / "route", tmp_path / "ipv6_route"
    four.write_text("Iface\tDestination\tGateway\n")
    row = "0" * 32 + " 00 " + "0" * 32 + " 00 ffffffff 00000001 00000000 00200200       "
    six.write_text(f"{row}lo\n")
    assert module._networks([str(four), str(six), str(tmp_path / "none")]) == []
    four.write_text("Iface\tDestination\tGateway\neth0\t00000000\t0102A8C0\n")
    six.write_text(f"{row}lo\n{row}wg0\n")
    assert module._networks([str(four), str(six)]) == ["eth0", "wg0"]


def test_in_a_container_a_program_has_limits_and_a_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user, as in the container of docs/code-execution.md")
    inside = Sandbox(namespaces=False)
    code = "import os, resource; print(os.listdir('.'), os.getcwd())\nopen('x', 'w')\n"
    code += "print(resource.getrlimit(resource.RLIMIT_NPROC)[0])"
    listing, limit = said(inside, code).splitlines()
    assert listing.startswith("[] ")
    assert limit == "32"
    assert not Path(listing[3:]).exists()
