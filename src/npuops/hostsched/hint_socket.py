"""The agent's side of hints: listens, hears whom the kernel vouches for, and bounds what anybody can cost it.

A sequenced-packet socket, not datagrams: the kernel gives each application a queue of its own. Datagrams would share
one, of ten messages on a stock kernel (`net.unix.max_dgram_qlen`), and a single flood would silence everybody.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from npuops.errors import OptionError, StorageError, UsageError
from npuops.hostsched.hint import Hint
from npuops.hostsched.hint_book import HintBook, Subject
from npuops.hostsched.hint_drain import CREDENTIALS, drain_with
from npuops.hostsched.hint_place import LONGEST, VARIABLE, place_of_agent
from npuops.hostsched.hint_rights import No, Speaker, lasts, start_of, subject_of
from npuops.hostsched.hint_wire import decode
from npuops.hostsched.look_library import Reader, usual_reader

CLIENTS: Final = 256
CLIENTS_OF_USER: Final = 64
"""Connections; root's count only in the first."""
SUBJECTS: Final = 1024
"""Threads and processes that words are kept of."""
ACCEPTS: Final = 32
MESSAGES: Final = 512
"""In one look. What is left is read at the next one."""
BURST: Final = 1024
RATE: Final = 1000
"""Words a second that a connection may send, and how many at once: more than its queue holds, so that an agent that
was stopped for a while takes nobody for a flood. Our client sends about 100 a second at most."""
BAD: Final = 16
"""A word that is not taken counts as so many: it cost a look into /proc."""
BAN_US: Final = 1_000_000
"""So long nobody listens to a process that sent more."""
RECHECK_US: Final = 1_000_000
"""How often it is looked whether threads are still those that they were, and who belongs to a process."""
_NEW: Final = ".new"


@dataclass(frozen=True, slots=True)
class HintCounts:
    """Since the socket was opened.

    Attributes:
        heard: words that were taken.
        superseded: words that a later one about the same thread followed before anybody looked.
        malformed: messages that are no hint.
        foreign: words about threads of others.
        gone: words about threads that there are not.
        flooded: connections that were ended because they sent too much.
        refused: connections that were one too many, and words about one subject too many.
        clients: connections now.
    """

    heard: int
    superseded: int
    malformed: int
    foreign: int
    gone: int
    flooded: int
    refused: int
    clients: int


_Key = tuple[bytes, int, bool]
"""Who spoke of which thread, and whether it stands for its process."""


@dataclass(slots=True)
class _Client:
    number: int
    socket: socket.socket
    speaker: Speaker
    filled_us: int
    words_left: float = BURST


class HintSocket:
    """Listens from its making to `close`. One thread uses it.

    Attributes:
        path: of the socket.
        trouble: what was wrong with the last word that was not taken, for people; "" where none was.
    """

    def __init__(self, path: str | None = None, *, everyone: bool | None = None, reader: Reader | None = None) -> None:
        """Listen.

        Args:
            path: of the socket; None: as `place_of_agent` says. Its folder is made where there is none.
            everyone: all users may speak (of their own tasks); None: if root listens.
            reader: who reads connections; None: the usual one.

        Raises:
            OptionError: there is no place for it, or its path is too long.
            UsageError: another agent listens there, or something else is there.
            StorageError: it cannot be made there.
        """
        uid = os.geteuid()
        everyone = uid == 0 if everyone is None else everyone
        self.path = _checked(path or place_of_agent(os.environ, uid))
        self._lock, self._listener, self._inode = _listen(self.path, everyone=everyone)
        self._drain = drain_with((reader or usual_reader()).library)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._door = self._listener.fileno()
        self._clients: dict[int, _Client] = {}
        self._by_user: Counter[int] = Counter()
        self._number = 0
        self._banned: dict[int, int] = {}
        self._book = HintBook()
        self._known: dict[_Key, Subject | No] = {}
        self._lasting: set[_Key] = set()
        self._rechecked_us = 0
        self._counts: Counter[str] = Counter()
        self.trouble = ""

    @property
    def counts(self) -> HintCounts:
        """What was heard, and what was not taken."""
        names = ("heard", "superseded", "malformed", "foreign", "gone", "flooded", "refused")
        return HintCounts(**{name: self._counts[name] for name in names}, clients=len(self._clients))

    def heard(self, now_us: int | None = None) -> dict[int, Hint]:
        """What was last said, by thread. Never waits, and costs no more than `MESSAGES` and `ACCEPTS` allow.

        Args:
            now_us: monotonic; None: now.
        """
        now_us = time.monotonic_ns() // 1000 if now_us is None else now_us
        if now_us - self._rechecked_us >= RECHECK_US:
            self._recheck(now_us)
        ready = self._epoll.poll(0)
        if any(descriptor == self._door for descriptor, _ in ready):
            self._accept(now_us)
            ready = self._epoll.poll(0)  # who came just now has spoken already
        left = MESSAGES
        # The kernel puts what was served last behind the others, so a limit here keeps nobody waiting for ever.
        for descriptor, _ in ready:
            if left > 0 and descriptor != self._door:
                left -= self._read(self._clients[descriptor], left, now_us)
        return self._book.hints(now_us)

    def close(self) -> None:
        """Hang up, and remove the socket if it is still ours. A second call does nothing."""
        if self._epoll.closed:
            return
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()
        with suppress(OSError):  # somebody removed it, or the folder
            if Path(self.path).lstat().st_ino == self._inode:
                Path(self.path).unlink()
        self._listener.close()
        self._epoll.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, now_us: int) -> None:
        for _ in range(ACCEPTS):
            try:
                made, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors: hints are worth less than the agent
                self._counts["refused"] += 1
                self.trouble = f"no connection can be taken: {error.strerror}"
                return
            pid, uid, _ = CREDENTIALS.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
            self._banned = {each: until_us for each, until_us in self._banned.items() if until_us > now_us}
            if (
                len(self._clients) >= CLIENTS
                or (uid != 0 and self._by_user[uid] >= CLIENTS_OF_USER)
                or pid in self._banned
            ):
                self._counts["refused"] += 1
                made.close()
                continue
            made.setblocking(False)
            self._number += 1
            self._by_user[uid] += 1
            self._clients[made.fileno()] = _Client(self._number, made, Speaker(pid, uid), now_us)
            self._epoll.register(made, select.EPOLLIN)

    def _read(self, client: _Client, most: int, now_us: int) -> int:
        """All that waits, or `most`; gives how many. Who sent more than it may is hung up on."""
        gained = (now_us - client.filled_us) * RATE / 1e6
        client.filled_us = now_us
        found = self._drain(client.socket, most, min(BURST, client.words_left + gained), BAD)
        client.words_left = found.words_left
        self._counts["superseded"] += found.superseded
        if found.malformed:
            self._counts["malformed"] += found.malformed - 1
            self._refuse("malformed", client.speaker, f"{found.bad_size} bytes that are none")
        if found.error:
            self.trouble = f"process {client.speaker.pid}: {os.strerror(found.error)}"
        if found.ended:
            self._hang_up(client)
        elif found.words_left < 0:
            self._counts["flooded"] += 1
            self.trouble = f"process {client.speaker.pid} sent more than {RATE} words a second"
            self._banned[client.speaker.pid] = now_us + BAN_US
            self._hang_up(client)
        for said_by, data in found.words:
            if not self._take(client, data, said_by, now_us):
                client.words_left -= BAD
        return found.read

    def _take(self, client: _Client, data: bytes, said_by: bytes, now_us: int) -> bool:
        word = decode(data)
        if isinstance(word, str):
            return self._refuse("malformed", _speaker(said_by), word)
        key = (said_by, word.tid, word.whole)
        subject = self._known.get(key)
        if subject is None:
            speaker = _speaker(said_by)
            subject = subject_of(speaker, word)
            if len(self._known) < SUBJECTS:
                self._known[key] = subject
                if isinstance(subject, Subject) and lasts(speaker, subject):
                    self._lasting.add(key)
        if isinstance(subject, No):
            return self._refuse(subject.name.lower(), _speaker(said_by), subject.value)
        if subject not in self._book:
            if len(self._book) >= SUBJECTS:
                return self._refuse("refused", _speaker(said_by), f"it is about one thread more than {SUBJECTS}")
            if subject.whole:
                self._book.spread(subject, _threads_of(subject.task.tid))
        self._book.note(subject, word, client.number, now_us)
        self._counts["heard"] += 1
        return True

    def _refuse(self, why: str, speaker: Speaker, words: str) -> bool:
        self._counts[why] += 1
        self.trouble = f"a hint of process {speaker.pid} was not taken: {words}"
        return False

    def _hang_up(self, client: _Client) -> None:
        descriptor = client.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._clients[descriptor]
        client.socket.close()
        self._by_user[client.speaker.uid] -= 1
        self._book.hung_up(client.number)

    def _recheck(self, now_us: int) -> None:
        """Numbers of threads are given to others after these end; and processes start and end threads."""
        self._rechecked_us = now_us
        self._by_user += Counter()  # forgets users with none
        for subject in self._book.subjects:
            if start_of(subject.task.tid) != subject.task.start_ticks:
                self._book.forget(subject)
            elif subject.whole:
                self._book.spread(subject, _threads_of(subject.task.tid))
        self._lasting = {key for key in self._lasting if self._known[key] in self._book}
        self._known = {key: self._known[key] for key in self._lasting}


def _threads_of(pid: int) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names are all it needs
    except OSError:  # it has ended
        return ()


def _speaker(said_by: bytes) -> Speaker:
    pid, uid, _ = CREDENTIALS.unpack_from(said_by)
    return Speaker(pid, uid)


def _checked(path: str | None) -> str:
    if path is None:
        raise OptionError(
            "there is no place for the socket of hints: $XDG_RUNTIME_DIR is not set",
            advice=f"name one, by option or by ${VARIABLE}",
        )
    whole, most = os.path.abspath(path), LONGEST - len(_NEW)  # noqa: PTH100 - Path would not take a zero byte apart
    if len(os.fsencode(whole)) > most or "\0" in path:
        raise OptionError(f"{path!r} cannot be a socket's path", advice=f"one of at most {most} bytes")
    return whole


def _listen(path: str, *, everyone: bool) -> tuple[int, socket.socket, int]:
    """The lock, the listener, and the socket's inode. The lock is held for as long as an agent listens."""
    place = Path(path)
    try:
        _make_folder(place.parent, 0o755 if everyone else 0o700)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _storage(path, error) from error
    try:
        _take_place(place, lock)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except BaseException:
        os.close(lock)
        raise
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # Made under another name: at its own it is never there with wrong rights, nor before it listens.
        new = Path(path + _NEW)
        new.unlink(missing_ok=True)
        listener.bind(str(new))
        new.chmod(0o666 if everyone else 0o600)
        listener.listen(ACCEPTS)
        inode = new.lstat().st_ino
        new.rename(place)
    except OSError as error:
        listener.close()
        os.close(lock)
        raise _storage(path, error) from error
    return lock, listener, inode


def _make_folder(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(mode)  # whatever the umask is


def _take_place(place: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _taken(place) from error
    try:
        is_socket = stat.S_ISSOCK(place.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise UsageError(f"{place} is there, and is no socket", advice="name another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(place))
        except ConnectionRefusedError:  # of an agent that was killed: it is replaced
            return
        except OSError:  # it listens: its queue is full, or it is of another kind
            raise _taken(place) from None
    raise _taken(place)


def _taken(place: Path) -> UsageError:
    return UsageError(
        f"something listens at {place} already", advice="one agent at a time: end the other, or name another socket"
    )


def _storage(path: str, error: OSError) -> StorageError:
    return StorageError(
        f"the socket of hints cannot be made at {path}: {error.strerror}",
        advice=f"name another path, by option or by ${VARIABLE}",
    )
