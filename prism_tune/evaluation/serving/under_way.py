"""Questions under way in threads of their own, which nobody has to wait for.

An executor of the standard library joins its threads when the program ends: after Ctrl-C that is
as long as the slowest answer takes. These end with the program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class UnderWay(Generic[Q, A]):
    """Asks questions, some at a time.

    Args:
        ask: a question's answer; called in threads.
        questions: in the order in which they are begun.
        concurrency: how many at a time.
    """

    def __init__(self, ask: Callable[[Q], A], questions: Sequence[Q], concurrency: int) -> None:
        self._ask = ask
        self._waiting = deque(questions)
        self._ended: SimpleQueue[tuple[Q, A] | BaseException | None] = SimpleQueue()
        self._num_threads = min(concurrency, len(questions))

    def __iter__(self) -> Iterator[tuple[Q, A]]:
        """Each question with its answer, when it comes.

        Raises:
            what the first failed call raised, once those under way have ended and been yielded.
        """
        for _ in range(self._num_threads):
            Thread(target=self._work, daemon=True).start()
        failed: BaseException | None = None
        try:
            while self._num_threads:
                ended = self._ended.get()
                if isinstance(ended, tuple):
                    yield ended
                elif ended is None:
                    self._num_threads -= 1
                else:
                    failed = failed or ended
                    self._waiting.clear()
        except KeyboardInterrupt:
            yield from self._take_ended()
            raise
        finally:
            self._waiting.clear()  # nothing more is begun
        if failed is not None:
            raise failed

    def _work(self) -> None:
        try:
            while (question := self._next()) is not None:
                self._ended.put((question, self._ask(question)))
        except BaseException as error:  # noqa: BLE001 - raised again where the answers are taken
            self._ended.put(error)
        finally:
            self._ended.put(None)

    def _next(self) -> Q | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _take_ended(self) -> Iterator[tuple[Q, A]]:
        """The answers that are there, without waiting for others."""
        while True:
            try:
                ended = self._ended.get_nowait()
            except Empty:
                return
            if isinstance(ended, tuple):
                yield ended
