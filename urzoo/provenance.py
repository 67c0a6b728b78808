"""Where a figure comes from: the commit of the code, the versions of the libraries, the machine."""

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGE_FOLDER = Path(__file__).resolve().parent
_OF_A_HOOK = {"GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"}


@cache
def git_commit() -> str | None:
    """The commit of the checkout that urzoo runs from, `-dirty` added where the package's files differ from it.

    None where urzoo is installed otherwise, also where it is installed inside the checkout of another project, and
    where git does not tell: it refuses a checkout of another owner, or takes too long.
    """
    git = shutil.which("git")
    if git is None:
        return None
    # A hook of git's has these in its environment, for the repository that it is of.
    environment = {key: value for key, value in os.environ.items() if key not in _OF_A_HOOK}

    def run(*arguments: str) -> str:
        command = [git, "-C", str(PACKAGE_FOLDER), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment)
        return done.stdout.strip()

    try:
        run("ls-files", "--error-unmatch", "errors.py")
        commit, changes = run("rev-parse", "HEAD"), run("status", "--porcelain", "--", ".")
    except subprocess.SubprocessError:
        return None
    return f"{commit}-dirty" if changes else commit


def urzoo_version() -> str:
    """The version of this package."""
    return version("urzoo")


@cache
def processor_name() -> str:
    """The name of the machine's processor, without its clock or serial numbers."""
    # Linux has it in a file; elsewhere the platform's own word must do.
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())[:200]
    return (platform.processor() or platform.machine() or "unknown")[:200]


def hardware(device: torch.device) -> str:
    """What a figure is computed on: the GPU's name, or the processor's with the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} thread{'s' if threads != 1 else ''}"


def now() -> str:
    """The present moment in UTC, as result files write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
