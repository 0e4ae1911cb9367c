"What several test files share."

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def randomize(module, seed=0, size=1.0):
    "Give every parameter a random value of moderate size: no layer stays the identity."
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            scale = (
                size / p[0].numel() ** 0.5 if p.dim() > 1 else 0.3 * size
            )  # by the number of inputs
            p.copy_(
                scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            )
    return module


def normal(*shape, seed=0, dtype=torch.float64):
    "Standard normal numbers that depend on nothing but the seed."
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def python(code, *args, timeout=120, cwd=None, **env):
    "Run code in a fresh interpreter; fails with its stderr unless it exits with 0."
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd or ROOT,
        env=os.environ | env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_shell(*argv):
    "The exit status of the command line."
    from flowbook.cli import main

    try:
        return main([str(a) for a in argv])
    except SystemExit as e:
        return e.code
