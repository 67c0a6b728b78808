"""What tests of several folders use."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Imports once what takes most of the time and is neither transformers nor urzoo, then forks for each code it reads and
# says what it printed and what went wrong with it. A warning goes wrong.
PROGRAM = """
import contextlib, io, json, os, sys, traceback, warnings
import scipy.optimize, torch, torch._dynamo, torch.distributed.tensor
assert not {'transformers', 'urzoo'} & set(sys.modules)
for line in sys.stdin:
    code, folder, environment = json.loads(line)
    if os.fork() == 0:
        warnings.simplefilter("error")
        os.environ |= environment
        printed, wrong = io.StringIO(), ""
        try:
            os.chdir(folder)
            with contextlib.redirect_stdout(printed):
                exec(code, {"__name__": "__main__"})
        except BaseException:
            wrong = traceback.format_exc()
        print(json.dumps([printed.getvalue(), wrong]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print(json.dumps(["", "it was killed"]), flush=True)
"""

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run_apart() -> Iterator[Run]:
    """Run code in a process of its own that has imported neither transformers nor urzoo; what it printed."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(code: str, folder: Path | None = None, **environment: str) -> str:
            process.stdin.write(json.dumps([code, str(folder or Path.cwd()), environment]) + "\n")
            process.stdin.flush()
            printed, wrong = json.loads(process.stdout.readline())
            assert not wrong, wrong
            return printed

        yield run
        process.stdin.close()
