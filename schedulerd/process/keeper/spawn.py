"""posix_spawn(3) through ctypes: the fastest way to start a child that needs nothing special.

The child shares the memory of the keeper until exec (vfork), so the cost does not depend on the keeper's size. ctypes gives
access to glibc's `addchdir_np`, which `os.posix_spawn` lacks.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Mapping, Sequence

_FLAGS = 0x04 | 0x08 | 0x80  # POSIX_SPAWN_SETSIGDEF, SETSIGMASK, SETSID (spawn.h; the same in glibc and musl)
_SET_GROUP = 0x100  # POSIX_SPAWN_SETCGROUP, glibc from 2.39 on
_INPUT_FLAGS = os.O_RDONLY
OUTPUT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
OUTPUT_MODE = 0o600
# The types are opaque; glibc's largest are 336, 80 and 128 bytes.
_Attributes = ctypes.c_char * 1024
_Actions = ctypes.c_char * 512
_SignalSet = ctypes.c_char * 256

_quick = ctypes.PyDLL(None)  # keeps the GIL: calls of a microsecond
_slow = ctypes.CDLL(None)  # releases it
_quick.posix_spawn_file_actions_addopen.argtypes = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint,
)  # fmt: skip
_slow.posix_spawn.argtypes = (
    ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
)  # fmt: skip


CAN_ENTER_GROUPS = hasattr(_quick, "posix_spawnattr_setcgroup_np")


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    output_path: str,
    cwd: str | None,
    stdin: int | None = None,
    group: int | None = None,
    descriptors: int | None = None,
) -> int:
    """Start `argv[0]` as the leader of a session of its own, and return its process id.

    Its input is the descriptor `stdin`, or /dev/null; its output and errors go into the new file `output_path`; signals
    have their defaults. It starts in the control group whose folder is the descriptor `group`, if CAN_ENTER_GROUPS.
    `descriptors` is its soft RLIMIT_NOFILE; None is that of the keeper.
    Raise OSError when it cannot be started (the errno may be that of the output file or of the
    folder), ValueError for a NUL.
    """
    words, variables = _array(argv), _array([f"{name}={value}" for name, value in env.items()])
    actions, pid = _Actions(), ctypes.c_int()
    _quick.posix_spawn_file_actions_init(actions)
    try:
        if cwd is not None:
            _check(_quick.posix_spawn_file_actions_addchdir_np(actions, _text(cwd)))
        if stdin is None:
            _check(_quick.posix_spawn_file_actions_addopen(actions, 0, b"/dev/null", _INPUT_FLAGS, 0))
        else:
            _check(_quick.posix_spawn_file_actions_adddup2(actions, stdin, 0))
        _check(_quick.posix_spawn_file_actions_addopen(actions, 1, _text(output_path), OUTPUT_FLAGS, OUTPUT_MODE))
        _check(_quick.posix_spawn_file_actions_adddup2(actions, 1, 2))
        _check(
            _quick.posix_spawnattr_setflags(_ATTRIBUTES, ctypes.c_short(_FLAGS if group is None else _FLAGS | _SET_GROUP))
        )
        if group is not None:
            _check(_quick.posix_spawnattr_setcgroup_np(_ATTRIBUTES, group))
        program, own = _text(argv[0]), resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors is not None:  # no attribute of posix_spawn sets it; the only thread opens nothing meanwhile
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, own[1]), own[1]))
        try:
            _check(_slow.posix_spawn(ctypes.byref(pid), program, actions, _ATTRIBUTES, words, variables))
        finally:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, own)
    finally:
        _quick.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))


def _text(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a NUL character in a path, argument or variable")
    return os.fsencode(text)


def _array(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*map(_text, texts), None)


def _attributes() -> ctypes.Array[ctypes.c_char]:
    attributes, nothing, everything = _Attributes(), _SignalSet(), _SignalSet(*([b"\xff"] * ctypes.sizeof(_SignalSet)))
    _check(_quick.posix_spawnattr_init(attributes))
    _check(_quick.posix_spawnattr_setflags(attributes, ctypes.c_short(_FLAGS)))
    _check(_quick.posix_spawnattr_setsigmask(attributes, nothing))
    # All bits are set here: sigfillset omits two signals of glibc, which would stay ignored.
    _check(_quick.posix_spawnattr_setsigdefault(attributes, everything))
    return attributes


_ATTRIBUTES = _attributes()
