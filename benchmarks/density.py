"""How far from the truth: our flows and zuko's, same data, same CPU time, five laws.

    PYTHONPATH=PEERS python benchmarks/density.py [--out record.json] [--laws …] [--seeds N]

zuko's NSF and MAF are built and trained as in its README: three transformations,
hidden layers of 3 × 128, Adam at 1e-3; ours by `fit`. Each fit has the same CPU time
on one thread, 20,000 training and 2,000 validation rows, which both use to keep their
best weights, and is judged on 50,000 fresh rows. Rows of a record that exist are kept,
so that a run can be cut off and go on."""

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
from torch.distributions import Normal, StudentT

from flowbook.autoregressive import maf
from flowbook.monotone import nsf
from flowbook.records import hardware
from flowbook.train import evaluate, fit

ROOT = Path(__file__).resolve().parent.parent
TRAIN, VALID, TEST = 20_000, 2_000, 50_000


@dataclass
class Law:
    "What is to be learned; its density is known."

    dim: int
    sample: Callable  # `sample(n, generator)`: double precision, `(n, dim)`
    log_prob: Callable  # `(n, dim) → (n,)`, nats


def normal(*shape, generator):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gaussians() -> Law:
    "Eight normal laws on a circle, with weights 1 : 2 : … : 8."
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    centres = 4 * torch.stack([angles.cos(), angles.sin()], -1)
    share = torch.arange(1, 9, dtype=torch.float64) / 36

    def sample(n, generator):
        k = torch.multinomial(share, n, True, generator=generator)
        return centres[k] + 0.5 * normal(n, 2, generator=generator)

    def log_prob(x):
        parts = Normal(centres, 0.5).log_prob(x[:, None]).sum(-1)
        return (parts + share.log()).logsumexp(-1)

    return Law(2, sample, log_prob)


def funnel() -> Law:
    "x0 is normal with standard deviation 3, the nine others have e^(x0/2)."

    def sample(n, generator):
        e = normal(n, 10, generator=generator)
        first = 3 * e[:, :1]
        return torch.cat([first, e[:, 1:] * (first / 2).exp()], 1)

    def log_prob(x):
        first, others = x[:, 0], x[:, 1:]
        rest = Normal(0.0, (first / 2).exp()[:, None]).log_prob(others).sum(-1)
        return Normal(0.0, 3.0).log_prob(first) + rest

    return Law(10, sample, log_prob)


def student() -> Law:
    "Two independent coordinates with Student's law of 3 degrees of freedom."
    law = StudentT(torch.tensor(3.0, dtype=torch.float64))

    def sample(n, generator):
        e = normal(n, 2, 4, generator=generator)
        return e[..., 0] / (e[..., 1:].square().mean(-1)).sqrt()

    return Law(2, sample, lambda x: law.log_prob(x).sum(-1))


def square() -> Law:
    "Uniform on a square with sides of 2, turned by 30 degrees."
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)

    def sample(n, generator):
        u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return (2 * u - 1) @ turn.T

    return Law(2, sample, lambda x: torch.full((len(x),), -math.log(4.0)).double())


def bimodal() -> Law:
    "One coordinate: 0.3 N(−2, 0.5²) + 0.7 N(2, 1)."
    centres = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    scales = torch.tensor([0.5, 1.0], dtype=torch.float64)
    share = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def sample(n, generator):
        k = torch.multinomial(share, n, True, generator=generator)
        e = normal(n, 1, generator=generator)
        return centres[k, None] + scales[k, None] * e

    def log_prob(x):
        return (Normal(centres, scales).log_prob(x) + share.log()).logsumexp(-1)

    return Law(1, sample, log_prob)


LAWS = {
    'eight unequal Gaussians': gaussians(),
    'funnel, D = 10': funnel(),
    'Student-t(3), D = 2': student(),
    'rotated square': square(),
    'bimodal, D = 1': bimodal(),
}
GOALS = {
    'eight unequal Gaussians': 0.03,
    'funnel, D = 10': 0.05,
    'Student-t(3), D = 2': 0.01,
    'rotated square': 0.02,
    'bimodal, D = 1': 0.02,
}


RUN = dict(batch_size=256, lr=3e-3, ema=0.998, weight_decay=0.1)  # of `fit`


def spline_flow(name: str, dim: int):
    "`nsf` from median and quartiles; known heavy tails get a base that has them."
    base = 'student' if name.startswith('Student') else 'normal'
    return nsf(dim, robust=True, base=base)


def affine_flow(name: str, dim: int):
    "`maf` with smooth networks."
    return maf(dim, activation='silu')


def fit_ours(build: Callable) -> Callable:
    "A trainer for a flow of this package by `fit`."

    def train_it(name, law, train, valid, budget, seed):
        fit(build(name, law.dim), train[:512], valid=valid, epochs=1, **RUN)  # imports
        start = time.process_time()
        torch.manual_seed(seed)
        fit(build(name, law.dim), train[:5120], valid=valid, epochs=1, seed=seed, **RUN)
        seconds = time.process_time() - start  # spent on a trial, and counted
        epochs = (budget - seconds) / (seconds * len(train) / 5120)
        torch.manual_seed(seed)
        flow = build(name, law.dim)
        fit(flow, train, valid=valid, epochs=max(1, int(epochs)), seed=seed, **RUN)
        return lambda x: -evaluate(flow, x).double()

    return train_it


def fit_zuko(kind: str) -> Callable:
    "A trainer for a flow of zuko as its README trains one."

    def train_it(name, law, train, valid, budget, seed):
        import zuko

        torch.manual_seed(seed)
        flow = getattr(zuko.flows, kind)(
            law.dim, transforms=3, hidden_features=[128] * 3
        )
        mean, s = train.mean(0), train.std(0)
        data, held = (((x - mean) / s).float() for x in (train, valid))
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        best, weights = math.inf, flow.state_dict()
        start = time.process_time()
        while time.process_time() - start < budget:
            for index in torch.randperm(len(data)).split(256):
                loss = -flow().log_prob(data[index]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                found = -flow().log_prob(held).mean().item()
            if found < best:
                best = found
                weights = {k: v.clone() for k, v in flow.state_dict().items()}
        flow.load_state_dict(weights)

        def log_prob(x):
            with torch.no_grad():
                z = ((x - mean) / s).float()
                parts = [flow().log_prob(part) for part in z.split(5000)]
            return torch.cat(parts).double() - s.log().sum()

        return log_prob

    return train_it


MODELS = {
    'flowbook nsf': fit_ours(spline_flow),
    'flowbook maf': fit_ours(affine_flow),
    'zuko NSF': fit_zuko('NSF'),
    'zuko MAF': fit_zuko('MAF'),
}


def measure(name: str, model: str, seed: int, budget: float) -> dict:
    "One fit, and how far it is from the truth on fresh rows."
    law = LAWS[name]
    generator = torch.Generator().manual_seed(1000 + seed)
    train, valid, test = (law.sample(n, generator) for n in (TRAIN, VALID, TEST))
    start = time.process_time()
    log_prob = MODELS[model](name, law, train, valid, budget, seed)
    seconds = time.process_time() - start
    gap = law.log_prob(test) - log_prob(test)
    return dict(
        law=name,
        model=model,
        seed=seed,
        gap=gap.mean().item(),
        error=gap.std().item() / TEST**0.5,
        median=gap.median().item(),
        largest=gap.max().item(),
        largest_nll=(-log_prob(test)).max().item(),
        cpu_seconds=round(seconds, 1),
    )


def summary(rows: list) -> list:
    "Mean and standard deviation over the seeds, for each law and model."
    found = []
    for law, model in itertools.product(LAWS, MODELS):
        some = [r for r in rows if r['law'] == law and r['model'] == model]
        if some:
            gaps = [r['gap'] for r in some]
            found.append(
                dict(
                    law=law,
                    model=model,
                    gap=statistics.mean(gaps),
                    sd=statistics.stdev(gaps) if len(gaps) > 1 else None,
                    median=statistics.median(r['median'] for r in some),
                    largest=max(r['largest'] for r in some),
                    seeds=len(some),
                    goal=GOALS[law],
                )
            )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    record = ROOT / 'benchmarks/records/density.json'
    parser.add_argument('--out', type=Path, default=record)
    parser.add_argument('--laws', nargs='*', default=list(LAWS))
    parser.add_argument('--models', nargs='*', default=list(MODELS))
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--budget', type=float, default=60.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = itertools.product(args.laws, args.models, range(args.seeds))

    def describe(rows):
        return dict(
            unit='nats',
            train=TRAIN,
            valid=VALID,
            test=TEST,
            budget_cpu_seconds=args.budget,
            fit=RUN,
            hardware=hardware(),
            summary=summary(rows),
            rows=rows,
        )

    measure_job = partial(measure, budget=args.budget)
    by_seed = sorted(jobs, key=lambda job: job[2])
    collect(args.out, ('law', 'model', 'seed'), by_seed, measure_job, describe)


if __name__ == '__main__':
    main()
