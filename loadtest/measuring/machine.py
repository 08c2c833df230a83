"""What figures belong to: the machine, its disk, the commit."""

import os
import platform
import subprocess

from .server import ROOT


def output_of(*command):
    """What a program prints, or `unknown`."""
    try:
        ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return "unknown"
    return ran.stdout.strip() if ran.returncode == 0 else "unknown"


def commit():
    return output_of("git", "describe", "--always", "--dirty")


def machine(data):
    """Processor, memory, kernel, and the disk below the directory `data`."""
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    disk = output_of("df", "--output=source,fstype", str(data)).splitlines()
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores", "memory": f"{memory:.0f} GiB", "kernel": platform.release(),
        "disk": " ".join(disk[-1].split()) if disk else "unknown",
    }
