"""Samples of a pixel flow with each feature computed once, beside the plain loop.

    python benchmarks/pixelflow.py [--run mnist-pixelflow] [--out record.json]

Process CPU time on one thread: 64 digits by `generate`, and 2 by `generate` and by
`by_pixel`, which runs the whole network for every pixel; the images must agree."""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from flowbook.pixelflow import by_pixel, generate
from flowbook.records import hardware, read_run

ROOT = Path(__file__).resolve().parent.parent


def seconds(job, repeats: int) -> tuple[float, torch.Tensor]:
    "Median CPU seconds of a job, and what it gave."
    times = []
    for _ in range(repeats):
        start = time.process_time()
        x, _ = job()
        times.append(time.process_time() - start)
    return statistics.median(times), x


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--run', default='mnist-pixelflow')
    record = ROOT / 'benchmarks/records/pixelflow.json'
    parser.add_argument('--out', type=Path, default=record)
    args = parser.parse_args()
    torch.set_num_threads(1)
    flow, _ = read_run(args.run)
    layer = flow.bijection
    z = flow.base.sample((64,), torch.Generator().manual_seed(0))
    many, x = seconds(lambda: generate(layer, z), 5)
    few, y = seconds(lambda: generate(layer, z[:2]), 3)
    plain, w = seconds(lambda: by_pixel(layer, z[:2]), 1)
    passes, _ = seconds(lambda: layer.inverse(x), 5)
    assert (x[:2] - y).abs().max() < 1e-3 and torch.equal(y.floor(), w.floor())
    rows = [
        ('64 digits by generate', many, 's', 5),
        ('their density', passes, 's', 5),
        ('2 digits by generate', few, 's', 3),
        ('2 digits by by_pixel', plain, 's', 1),
        ('by_pixel over generate, 2 digits', plain / few, 'ratio', 1),
    ]
    metrics = [dict(zip(('name', 'value', 'unit', 'n'), row)) for row in rows]
    found = dict(run=args.run, metrics=metrics, hardware=hardware())
    print(json.dumps(found['metrics'], indent=1))
    args.out.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main()
