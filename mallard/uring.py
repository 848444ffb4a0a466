"""Syncs a file while its thread goes on: one sync at a time, by Linux's io_uring.

`os.fdatasync` holds up the thread that calls it, and another thread to call it would take the
interpreter from the first and give it back each time. The kernel's own threads need none.

Source: io_uring_setup(2), io_uring_enter(2), io_uring_register(2), linux/io_uring.h. No barriers
are needed: the kernel reads what was submitted in the call that submits it, on the same thread; and
what it wrote is read after the eventfd it has signalled. (The library `liburing` asks for Linux
6.14; the kernel's older asynchronous I/O syncs on the processor of the thread that asked, and so
waits until that one pauses: 10 ms where this takes 0.2.)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import weakref

# The same for every architecture that runs Python but Alpha, whose kernel has no such calls there.
_SETUP, _ENTER, _REGISTER = 425, 426, 427
_REGISTER_EVENTFD = 4
_SINGLE_MMAP = 1  # a feature: both rings lie in one mapping; Linux 5.4
_OFFSET_ENTRIES = 0x1000_0000
_NO_OPERATION, _FSYNC = 0, 3
_DATASYNC = 1
_PARAMETERS = struct.Struct("=30I")
_ENTRY = struct.Struct("=BBHiQQII32x")  # opcode, ..., descriptor, ..., flags of the operation
_RESULT = struct.Struct("=8xi4x")
_ENTRIES = 2
_U32 = 4


class Syncs:
    """Begins a sync, and says how it ended; one at a time, on whatever thread.

    descriptor: readable once the sync that was begun is over.
    """

    descriptor: int

    def __init__(self) -> None:
        """Ask the kernel; raises OSError where it cannot do this, or may not."""
        if sys.platform != "linux":
            raise OSError(38, "only Linux has it")
        # Not CDLL, which would let go of the interpreter; no call here waits for anything.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        parameters = ctypes.create_string_buffer(_PARAMETERS.size)
        self._ring = self._checked(_SETUP, _ENTRIES, parameters)
        weakref.finalize(self, os.close, self._ring)
        told = _PARAMETERS.unpack(parameters.raw)
        if not told[5] & _SINGLE_MMAP:
            raise OSError(38, "the kernel is too old")
        (_, tail, mask, _, _, _, array), submitted = told[10:17], told[0]
        head, completed_tail, completed_mask, _, _, results = told[20:26]
        size = max(array + submitted * _U32, results + told[1] * _RESULT.size)
        self._rings = mmap.mmap(self._ring, size)
        self._entries = mmap.mmap(self._ring, submitted * _ENTRY.size, offset=_OFFSET_ENTRIES)
        self._tail, self._mask = self._number(tail), self._number(mask).value
        self._head, self._completed_mask = self._number(head), self._number(completed_mask).value
        self._completed_tail, self._results = self._number(completed_tail), results
        for index in range(submitted):
            self._number(array + index * _U32).value = index
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)
        self._checked(_REGISTER, self._ring, _REGISTER_EVENTFD, _reference(self.descriptor), 1)
        self._submit(_NO_OPERATION, -1)  # setting up may be allowed where using is not
        self.end()

    def begin(self, descriptor: int) -> None:
        """Begin to make what was written survive a power loss; raises OSError."""
        self._submit(_FSYNC, descriptor)

    def end(self) -> None:
        """Return once what was begun is done, or raise its OSError; waits where it must."""
        os.read(self.descriptor, 8)
        head = self._head.value
        assert head != self._completed_tail.value, "the kernel said that there is a result"
        place = self._results + (head & self._completed_mask) * _RESULT.size
        (result,) = _RESULT.unpack_from(self._rings, place)
        self._head.value = head + 1
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def _submit(self, operation: int, descriptor: int) -> None:
        tail = self._tail.value
        place = (tail & self._mask) * _ENTRY.size
        _ENTRY.pack_into(
            self._entries, place, operation, 0, 0, descriptor, 0, 0, 0, operation and _DATASYNC
        )
        self._tail.value = tail + 1
        try:
            self._checked(_ENTER, self._ring, 1, 0, 0, None, 0)
        except OSError:
            self._tail.value = tail  # or the next call would submit this one instead of its own
            raise

    def _checked(self, *arguments: object) -> int:
        result = int(self._call(*arguments))
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def _number(self, offset: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_buffer(self._rings, offset)


def _reference(number: int) -> object:
    return ctypes.byref(ctypes.c_int(number))
