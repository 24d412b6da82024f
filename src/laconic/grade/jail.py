"""Locks itself up, then becomes Python with the program it was given. Linux only, stdlib only.

Started as `python -I -S -c THIS JSON`, with JSON the order that `laconic.grade.sandbox` writes. Two
processes stay around the program: the one that was started, which waits, and process 1 of a new
process namespace, whose end is the end of every process in it. What goes wrong before the program
runs is said on stderr, which the program does not get: once it runs, stderr is closed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_PROCESSES, NEW_NETWORK = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
NO_SUID, NO_DEVICES = 2, 4
SET_MOUNT_ATTRIBUTES, AT_CWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
END_WITH_PARENT, NO_NEW_PRIVILEGES = 1, 38
ROOT = "/sys"
"""Where the program's root folder is built: a folder that every Linux has and it need not see."""
SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/nix", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
MESSAGES = os.dup(2)
"""Says why a program could not be locked up; closed, with nothing said, once it runs."""

libc = ctypes.CDLL(None, use_errno=True)


def main(order: dict[str, Any]) -> None:
    """Run the program and exit as it did. Raises OSError when the kernel refuses a part."""
    _called("prctl", END_WITH_PARENT, signal.SIGKILL)
    if not order["namespaces"]:
        os.chdir(order["folder"])
        become(order)
    enter_namespaces(os.geteuid() == 0)
    init = os.fork()
    if init == 0:
        _called("prctl", END_WITH_PARENT, signal.SIGKILL)
        build_root(order)
        supervise(order)
    _close_messages()
    exit_as(os.waitpid(init, 0)[1])


def enter_namespaces(root: bool) -> None:
    """No network, other processes or mounts in sight; an ordinary user needs users of its own."""
    user, group = os.getuid(), os.getgid()
    wanted = NEW_MOUNTS | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    _called("unshare", wanted if root else wanted | NEW_USERS)
    if not root:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")


def build_root(order: dict[str, Any]) -> None:
    """A root folder of Python, the system's libraries and nothing else, and an empty /tmp."""
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    prefix = os.open(order["prefix"], os.O_RDONLY)  # what is mounted next may hide it
    _mount("tmpfs", ROOT, "tmpfs", NO_SUID, "size=1m,mode=755")
    for place in (*SYSTEM, *DEVICES):
        _show(place)
    if not os.path.exists(ROOT + order["python"]):
        os.makedirs(ROOT + order["prefix"], exist_ok=True)
        _mount(f"/proc/self/fd/{prefix}", ROOT + order["prefix"], None, BIND | RECURSIVE)
    os.makedirs(ROOT + "/tmp", exist_ok=True)
    _protect(ROOT)
    size = f"size={order['disk']},mode=777"
    _mount("tmpfs", ROOT + "/tmp", "tmpfs", NO_SUID | NO_DEVICES, size)
    os.close(prefix)
    os.chroot(ROOT)
    os.chdir("/tmp")


def supervise(order: dict[str, Any]) -> None:
    """Be process 1: start the program, wait for it, take everything along at the end."""
    program = os.fork()
    if program == 0:
        os.setsid()
        become(order)
    _close_messages()
    while True:
        ended, status = os.wait()
        if ended == program:
            exit_as(status)


def become(order: dict[str, Any]) -> None:
    """Take on the limits, lose all rights, and run the program in place of this one."""
    for name, most in order["limits"].items():
        resource.setrlimit(getattr(resource, name), (most, most))
    _called("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # from here on it is the program's
    os.execve(order["python"], [order["python"], "-I", "-S", "-B", *order["arguments"]], {})


def exit_as(status: int) -> None:
    """Exit with a child's status; 128 and the signal's number for one that was killed."""
    code = os.waitstatus_to_exitcode(status)
    os._exit(128 - code if code < 0 else code)


def _close_messages() -> None:
    os.close(2)
    os.close(MESSAGES)


def _show(place: str) -> None:
    """Put a file, folder or link of the machine into the new root, if the machine has it."""
    inside = ROOT + place
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.islink(place):
        os.symlink(os.readlink(place), inside)
    elif os.path.isdir(place):
        os.mkdir(inside)
        _mount(place, inside, None, BIND | RECURSIVE)
    elif os.path.exists(place):
        open(inside, "x").close()
        _mount(place, inside, None, BIND)


def _protect(place: str) -> None:
    """Make a folder and all that is mounted below it read-only."""
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
    _called(
        "syscall",
        SET_MOUNT_ATTRIBUTES,
        AT_CWD,
        place.encode(),
        AT_RECURSIVE,
        attributes,
        ctypes.sizeof(attributes),
    )


def _mount(source: str | None, place: str, kind: str | None, flags: int, data: str = "") -> None:
    texts = [None if text is None else text.encode() for text in (source, place, kind)]
    _called("mount", *texts, ctypes.c_ulong(flags), data.encode())


def _called(name: str, *arguments: Any) -> None:
    if getattr(libc, name)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as error:
        os.write(MESSAGES, f"{error.strerror} {error.filename or ''}".strip().encode())
        os._exit(1)
