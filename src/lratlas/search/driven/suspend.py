"""A training in a separate thread, suspended at the end of a segment."""

import contextvars
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, MutableMapping

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lratlas.errors import SearchError

_STACK = 1 << 26  # bytes; compilers and deep models recurse deeper than a thread's default allows
_REFUSALS = 3  # times that code may catch `Leave` and continue, before its thread sleeps forever
_PATIENCE = 120.0  # seconds for code to end after `Leave`


class Leave(BaseException):
    """Ends a training inside its loop; no ``except Exception`` catches it."""


class Suspendable:
    """A function that runs in a separate thread, only while `resume` waits for it.

    Attributes:
        over: Whether the function has ended.
        returned: Its return value.
        error: Its exception; None if it returned, or was made to leave.
    """

    def __init__(self, body: Callable[[], object]) -> None:
        self.over = False
        self.returned: object = None
        self.error: BaseException | None = None
        self._body, self._leaving, self._refusals = body, False, 0
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        before = threading.stack_size(_STACK)
        try:
            run = contextvars.copy_context().run  # such as NumPy's error state
            self.thread = threading.Thread(target=run, args=(self._main,), daemon=True, name="lratlas training")
            self.thread.start()
        finally:
            threading.stack_size(before)

    def resume(self) -> None:
        """Run the function until it suspends itself or ends; an interrupt makes it end first."""
        self._go.release()
        try:
            self._back.acquire()
        except BaseException:
            self._leaving = True
            _raise_in(self.thread, Leave)
            self.over = not self._back.acquire(timeout=_PATIENCE) or self.over
            raise

    def suspend(self) -> None:
        """In the function's thread: return control until the next `resume`.

        Raises:
            Leave: The function must end.
        """
        self._back.release()
        self._go.acquire()
        self.check()

    def check(self) -> None:
        """In the function's thread: raise `Leave` if it must end; code that always catches `Leave` sleeps forever.

        Raises:
            Leave: The function must end.
        """
        if not self._leaving:
            return
        self._refusals += 1
        if self._refusals > _REFUSALS:
            self.over = True
            self._back.release()
            threading.Semaphore(0).acquire()
        raise Leave

    def leave(self) -> None:
        """Make the function end; code that does not end is left until the process exits."""
        if not self.over:
            self._leaving = True
            self._go.release()
            self.over = not self._back.acquire(timeout=_PATIENCE) or self.over

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self._leaving:
                self.returned = self._body()
        except Leave:
            pass
        except SystemExit as error:
            if error.code not in {None, 0}:
                self._fail(error)
        except BaseException as error:
            if not self._leaving:
                self._fail(error)
        finally:
            self._body = lambda: None  # frees the objects that it refers to
            self.over = True
            self._back.release()

    def _fail(self, error: BaseException) -> None:
        """Print the traceback as Python does, and drop it, because it refers to all variables."""
        if isinstance(error, SystemExit):
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
        else:
            traceback.print_exception(error, file=sys.stderr)
        self.error = error.with_traceback(None)
        for chained in (error.__cause__, error.__context__):
            if chained is not None:
                chained.with_traceback(None)


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Raise an exception in another thread as soon as that thread runs Python code."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


_owners: MutableMapping[Tensor, object] = WeakIdKeyDictionary()


def claim_parameters(parameters: Iterable[Tensor], owner: object) -> bool:
    """Check that no other training trains these parameters; parameters without a gradient do not count.

    Returns:
        Whether any parameter has a gradient.

    Raises:
        SearchError: Another training trains these parameters.
    """
    trained = [each for each in parameters if each.grad is not None]
    if any(_owners.setdefault(each, owner) is not owner for each in trained):
        raise SearchError(
            "Two trainings of the search share the same parameters: the model is created outside the function."
            " Create it inside, so that each training has its own."
        )
    return bool(trained)
