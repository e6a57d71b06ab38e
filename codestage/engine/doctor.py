"""What this machine offers a study, and what to do where something is missing."""

import importlib.metadata
import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow")


def examine() -> dict[str, object]:
    """Cores, memory, disk, compiler, matrix-product speed and library versions of this machine."""
    import psutil

    compilers = [path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))]
    missing = "none: training runs uncompiled, at 0.7 to 0.9 of the speed; install g++"
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().available / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "compiler": compilers[0] if compilers else missing,
        **{f"matmul_gflops_{name}": speed for name, speed in matmul_gflops().items()},
        "gpu": gpu(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def matmul_gflops(size: int = 1024, seconds: float = 0.2) -> dict[str, float]:
    """Speed of one core's square matrix product, in GFLOP/s, by precision."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            name: _speed(torch.ones(size, size, dtype=dtype), seconds)
            for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16))
        }
    finally:
        torch.set_num_threads(threads)


def _speed(matrix: "torch.Tensor", seconds: float) -> float:
    matrix @ matrix  # the first product sets things up
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        matrix @ matrix
        products += 1
    return round(2 * matrix.shape[0] ** 3 * products / elapsed / 1e9, 1)


def gpu() -> str:
    """The accelerator's name, or that there is none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
