"""The table that zuko's own benchmark prepares: six laws of the plane at its budget.

    PYTHONPATH=PEERS python benchmarks/planar.py [--out record.json] [--sets …] [--seeds N]

Sets, sizes and training are those of the branch `benchmark` of zuko: 16,384 samples,
three transformations with hidden layers of (64, 64), AdamW at 1e-3 with weight decay
1e-4, batches of 16, 65 epochs, constant rate, the last weights. Both libraries are
trained by the same loop. The densities of the sets are known, so that the table holds
the divergence from the truth on fresh points, ± two standard errors. Rows of a record
that exist are kept, so that a run can be cut off and go on."""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rows import collect
from torch import Tensor
from torch.distributions import Normal

from flowbook.autoregressive import maf
from flowbook.monotone import nsf
from flowbook.records import hardware

ROOT = Path(__file__).resolve().parent.parent
SAMPLES, BATCH, EPOCHS = 16_384, 16, 65
double = dict(dtype=torch.float64)


@dataclass
class Curves:
    "Points of curves plus normal noise: `place(u)` puts `u` in 0…1 on each of them."

    place: Callable  # `(n,) → (curves, n, 2)`
    sigma: float
    nodes: int = 2000  # for integrals along a curve

    def sample(self, n, generator):
        u = torch.rand(n, generator=generator, **double)
        points = self.place(u)
        which = torch.randint(0, len(points), (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator, **double)
        return points[which, torch.arange(n)] + self.sigma * noise

    def log_prob(self, x):
        u = (torch.arange(self.nodes, **double) + 0.5) / self.nodes
        centres = self.place(u).reshape(-1, 2)
        parts = []
        for some in x.split(500):
            squares = torch.cdist(some, centres).square()
            parts.append((-0.5 * squares / self.sigma**2).logsumexp(-1))
        constant = math.log(len(centres)) + math.log(2 * math.pi * self.sigma**2)
        return torch.cat(parts) - constant


def on_circle(theta: Tensor, r=1.0) -> Tensor:
    return torch.stack([r * theta.cos(), r * theta.sin()], -1)


def moons(u):
    theta = 2 * math.pi * u
    shift = (theta > math.pi).double() - 0.5
    return (on_circle(theta) + torch.stack([shift, shift / 2], -1))[None]


def circles(u):
    theta = 2 * math.pi * u
    return torch.stack([on_circle(theta, 0.75), on_circle(theta, 1.5)])


def spirals(u):
    theta = 3 * math.pi * u.sqrt()
    arm = on_circle(theta, theta / 2 / math.pi)
    return torch.stack([arm, -arm])


def gaussians(u):
    k = torch.arange(8, **double)
    return on_circle(2 * math.pi * k / 8)[:, None].expand(-1, len(u), -1)


class Pinwheel:
    "Five arms: (a, b) near (1, 0), turned by a multiple of 72 degrees and by e^(a−1)."

    def sample(self, n, generator):
        k = torch.randint(0, 5, (n,), generator=generator)
        e = torch.randn(n, 2, generator=generator, **double)
        a, b = 0.25 * e[:, 0] + 1, 0.1 * e[:, 1]
        theta = 2 * math.pi * k / 5 + (a - 1).exp()
        c, s = theta.cos(), theta.sin()
        return torch.stack([a * c - b * s, a * s + b * c], -1)

    def log_prob(self, x):
        return torch.cat([self.log_prob_of_some(part) for part in x.split(2000)])

    def log_prob_of_some(self, x):
        """Sum over all (a, b) = r (cos t, sin t) that are turned to x.

        The turn by t + e^(a−1) must be the angle of x up to a multiple of 72 degrees;
        the roots t lie between points of a grid where that angle passes a multiple."""
        r = x.norm(dim=-1)
        angle = torch.atan2(x[:, 1], x[:, 0])
        fifth = 2 * math.pi / 5

        def excess(t, r, angle):
            return (t + (r * t.cos() - 1).exp() - angle) / fifth

        t = torch.linspace(-math.pi, math.pi, 2001, **double)
        turns = excess(t, r[:, None], angle[:, None]).floor()
        row, k = (turns[:, :-1] != turns[:, 1:]).nonzero(as_tuple=True)
        goal = torch.maximum(turns[row, k], turns[row, k + 1])
        rises = turns[row, k + 1] > turns[row, k]
        low, high, r = t[k], t[k + 1], r[row]
        for _ in range(40):
            middle = (low + high) / 2
            after = (excess(middle, r, angle[row]) >= goal) == rises
            low, high = (
                torch.where(after, low, middle),
                torch.where(after, middle, high),
            )
        a, b = r * low.cos(), r * low.sin()
        slope = (1 - b * (a - 1).exp()).abs().clamp(min=1e-12)
        log_p = Normal(1.0, 0.25).log_prob(a) + Normal(0.0, 0.1).log_prob(b)
        p = (log_p.exp() / slope).double()
        return (torch.zeros(len(x), **double).index_add(0, row, p) / 5).log()


class Checkerboard:
    "Eight unit squares of sixteen."

    def sample(self, n, generator):
        u = torch.randint(0, 4, (n,), generator=generator)
        v = torch.randint(0, 2, (n,), generator=generator) * 2 + u % 2
        corner = torch.stack([u - 2, v - 2], -1)
        return corner + torch.rand(n, 2, generator=generator, **double)

    def log_prob(self, x):
        return x.new_full((len(x),), -math.log(8))


SETS = {
    'moons': Curves(moons, 0.1),
    'circles': Curves(circles, 0.1),
    'spirals': Curves(spirals, 0.05),
    'gaussians': Curves(gaussians, 0.1, nodes=1),
    'pinwheel': Pinwheel(),
    'checkerboard': Checkerboard(),
}


def zuko_flow(kind: str) -> Callable:
    def build():
        import zuko

        flow = getattr(zuko.flows, kind)(2, transforms=3, hidden_features=(64, 64))
        return flow, lambda x: flow().log_prob(x)

    return build


def our_flow(make: Callable) -> Callable:
    def build():
        flow = make(2, layers=3, hidden=(64, 64))
        return flow, flow.log_prob

    return build


MODELS = {
    'flowbook nsf': our_flow(nsf),
    'flowbook maf': our_flow(maf),
    'zuko NSF': zuko_flow('NSF'),
    'zuko MAF': zuko_flow('MAF'),
    'flowbook nsf, relu': our_flow(partial(nsf, activation='relu')),
    'flowbook maf, bound 5': our_flow(partial(maf, bound=5.0)),
}


def check_densities() -> None:
    "Every density integrates to one."
    axis = (torch.arange(200, **double) + 0.5) / 200 * 6 - 3
    grid = torch.cartesian_prod(axis, axis)
    for name, law in SETS.items():
        if name == 'checkerboard':
            continue
        mass = law.log_prob(grid).exp().sum().item() * (6 / 200) ** 2
        assert abs(mass - 1) < 5e-3, (name, mass)


def measure(name: str, model: str, seed: int) -> dict:
    "One run of the benchmark, and the divergence from the truth."
    generator = torch.Generator().manual_seed(seed)
    train = SETS[name].sample(SAMPLES, generator).float()
    test = SETS[name].sample(SAMPLES, generator)
    torch.manual_seed(seed)
    flow, log_prob = MODELS[model]()
    if hasattr(flow, 'initialize'):
        flow.initialize(train)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-3, weight_decay=1e-4)
    start = time.process_time()
    for _ in range(EPOCHS):
        for index in torch.randperm(SAMPLES).split(BATCH):
            loss = -log_prob(train[index]).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    seconds = time.process_time() - start
    with torch.no_grad():
        gap = SETS[name].log_prob(test) - log_prob(test.float()).double()
    return dict(
        set=name,
        model=model,
        seed=seed,
        kl=gap.mean().item(),
        two_errors=2 * gap.std().item() / SAMPLES**0.5,
        median=gap.median().item(),
        largest=gap.max().item(),
        cpu_seconds=round(seconds, 1),
    )


def summary(rows: list) -> list:
    "Mean over the seeds for each set and model."
    found = []
    for name, model in itertools.product(SETS, MODELS):
        some = [r for r in rows if r['set'] == name and r['model'] == model]
        if some:
            error = sum(r['two_errors'] ** 2 for r in some) ** 0.5 / len(some)
            entry = dict(set=name, model=model, seeds=len(some), two_errors=error)
            entry['kl'] = statistics.mean(r['kl'] for r in some)
            entry['median'] = statistics.median(r['median'] for r in some)
            entry['cpu_seconds'] = statistics.median(r['cpu_seconds'] for r in some)
            found.append(entry)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    record = ROOT / 'benchmarks/records/planar.json'
    parser.add_argument('--out', type=Path, default=record)
    parser.add_argument('--sets', nargs='*', default=list(SETS))
    parser.add_argument('--models', nargs='*', default=list(MODELS))
    parser.add_argument('--seeds', type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    check_densities()
    jobs = itertools.product(args.sets, args.models, range(args.seeds))

    def describe(rows):
        return dict(
            unit='nats',
            samples=SAMPLES,
            batch_size=BATCH,
            epochs=EPOCHS,
            hardware=hardware(),
            summary=summary(rows),
            rows=rows,
        )

    by_seed = sorted(jobs, key=lambda job: job[2])
    collect(args.out, ('set', 'model', 'seed'), by_seed, measure, describe)


if __name__ == '__main__':
    main()
