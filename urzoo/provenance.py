"""Where a figure comes from: the commit of the code, the versions of the libraries, the machine."""

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGE_FOLDER = Path(__file__).resolve().parent


@cache
def git_commit() -> str | None:
    """The commit of the checkout that urzoo runs from, `-dirty` added where the package's files differ from it.

    None where urzoo is installed otherwise, also where it is installed inside the checkout of another project.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def run(*arguments: str) -> str | None:
        # A checkout of another owner is refused by git, and then nothing is known of the commit.
        outcome = subprocess.run(
            [git, "-C", str(PACKAGE_FOLDER), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
        return outcome.stdout.strip() if outcome.returncode == 0 else None

    if run("ls-files", "--error-unmatch", "errors.py") is None:
        return None
    commit = run("rev-parse", "HEAD")
    changes = run("status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if commit and changes else commit


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
