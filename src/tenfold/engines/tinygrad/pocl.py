"""PoCL, the OpenCL driver for processors: programs from their source.

tinygrad asks a driver for each program's binary, keeps that, and loads it again. PoCL has to compile a program for any
size of work group for that, and then once more for the size in use; it keeps what it compiled in a folder of its own
anyway. Given the source it compiles once.
"""

from __future__ import annotations

import ctypes
from typing import Any

PLATFORM = "Portable Computing Language"


def take_source(device: Any) -> None:
    """Makes tinygrad's opened OpenCL device build its programs from source from now on."""
    from tinygrad.runtime.autogen import opencl as cl
    from tinygrad.runtime.ops_cl import BP_CB, CLProgram, check, checked

    class FromSource(CLProgram):
        def __init__(self, device: Any, program: Any) -> None:
            self.dev, self.lib, self.signature = device, program.lib, program.signature
            status = ctypes.c_int32()
            source = (ctypes.POINTER(ctypes.c_char) * 1)(
                ctypes.cast(ctypes.create_string_buffer(program.lib), ctypes.POINTER(ctypes.c_char))
            )
            self.program = checked(cl.clCreateProgramWithSource(device.context, 1, source, None, status), status)
            # -w: or the number of warnings about generated code is written to the terminal
            options = ctypes.create_string_buffer(b"-w")
            check(cl.clBuildProgram(self.program, 1, device.cl_dev, options, BP_CB(), None))
            self.kernel = checked(cl.clCreateKernel(self.program, program.name.encode(), status), status)

    device.runtime_t = FromSource
