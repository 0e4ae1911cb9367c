"""What the map of a pixel is worth: one conditioner, five elementwise maps.

    python benchmarks/maps.py [--out record.json] [--maps …] [--seeds N] [--passes N]

Each model is an autoregressive flow over the pixels of `mnist10k` whose parameters come
from the same causal convolution (`CausalConv`), trained by the same steps; only the map
of a pixel changes, and what comes with it: knots at the levels begin with the frequencies
of the levels, the other maps, and a second run of those knots, at zeros. Rows of a record
that exist are kept."""

import argparse
import itertools
import math
import statistics
import time
from pathlib import Path

import torch
from rows import collect

from flowbook.core import Bijection, Flow, StandardLogistic, StandardNormal
from flowbook.data import mnist10k
from flowbook.monotone import LogisticMixture, RationalQuadratic
from flowbook.pixelflow import Bins, CausalConv, start_from_counts
from flowbook.pixels import dequantize, image_bits
from flowbook.realnvp import Affine
from flowbook.records import hardware
from flowbook.train import fit

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (1, 28, 28)
FIT = dict(batch_size=16, lr=2.5e-3, betas=(0.9, 0.99), ema=0.99, warmup=50, valid=0)
UNIT = 16.0  # grey levels: a continuous map sees 0…256 as −8…8

MAPS = {  # how a pixel is mapped, and the base
    'affine': (Affine(7.0), StandardNormal),
    'mixture of 5 logistics': (LogisticMixture(5, bound=7.0), StandardLogistic),
    'mixture of 10 logistics': (LogisticMixture(10, bound=7.0), StandardLogistic),
    'spline of 32 bins': (RationalQuadratic(32, bound=8.0), StandardLogistic),
    'knots at the levels': (Bins(256), StandardLogistic),
    'the same, from zeros': (Bins(256), StandardLogistic),
}


class Pixels(Bijection):
    "Noisy pixels to latents, each by `elementwise`; only this direction is needed."

    event_dim = 3

    def __init__(self, elementwise, from_counts=True):
        super().__init__()
        self.elementwise = elementwise
        self.from_counts = from_counts
        self.knots = isinstance(elementwise, Bins)
        self.net = CausalConv(SHAPE, [elementwise.n_params], width=32, hidden=96)

    def inverse(self, x, context=None):
        params = self.net(x)
        if self.knots:
            z, log_d = self.elementwise.inverse(x, params)
        else:
            z, log_d = self.elementwise.inverse((x - 128) / UNIT, params)
            log_d = log_d - math.log(UNIT)
        return z, log_d.flatten(-3).sum(-1)

    @torch.no_grad()
    def initialize(self, x, context=None):
        if self.knots and self.from_counts:
            counts = torch.bincount(x.long().flatten(), minlength=256)
            start_from_counts(self.net, 0, counts.to(x))


def measure(name: str, seed: int, passes: int, images: int) -> dict:
    "One training run, and the bits of all test images."
    train, test = mnist10k('train')[0][:images], mnist10k('test')[0]
    elementwise, base = MAPS[name]
    torch.manual_seed(seed)
    flow = Flow(base(*SHAPE), Pixels(elementwise, name != 'the same, from zeros'))
    start = time.process_time()
    fit(flow, train, prepare=dequantize, epochs=passes, seed=seed, **FIT)
    seconds = time.process_time() - start
    bits = image_bits(flow, test)
    n = sum(p.numel() for p in flow.parameters())
    return dict(
        map=name,
        seed=seed,
        passes=passes,
        bits=bits.mean().item(),
        error=bits.std().item() / len(bits) ** 0.5,
        median=bits.median().item(),
        largest=bits.max().item(),
        n=len(bits),
        parameters=n,
        cpu_seconds=round(seconds, 1),
        cpu=hardware()['cpu'],
    )


def summary(rows: list) -> list:
    "Mean over the seeds, and their range."
    found = []
    for name in MAPS:
        bits = [r['bits'] for r in rows if r['map'] == name]
        if bits:
            spread = max(bits) - min(bits)
            entry = dict(map=name, bits=statistics.mean(bits), seeds=len(bits))
            found.append(entry | dict(range=spread))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    record = ROOT / 'benchmarks/records/maps.json'
    parser.add_argument('--out', type=Path, default=record)
    parser.add_argument('--maps', nargs='*', default=list(MAPS))
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--passes', type=int, default=2)
    parser.add_argument('--images', type=int, default=8000)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def describe(rows):
        return dict(
            data='mnist10k',
            unit='bits/dim',
            split='test',
            images=args.images,
            fit=FIT,
            hardware=hardware(),
            summary=summary(rows),
            rows=rows,
        )

    def measure_job(name, seed):
        return measure(name, seed, args.passes, args.images)

    jobs = sorted(itertools.product(args.maps, range(args.seeds)), key=lambda j: j[1])
    collect(args.out, ('map', 'seed'), jobs, measure_job, describe)


if __name__ == '__main__':
    main()
