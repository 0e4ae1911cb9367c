"""The table that zuko's own benchmark prepares: six laws of the plane at its budget.

    PYTHONPATH=PEERS python benchmarks/planar.py [--out record.json] [--sets …] [--seeds N]

Sets, sizes and training are those of the branch `benchmark` of zuko: 16,384 samples,
three transformations with hidden layers of (64, 64), AdamW at 1e-3 with weight decay
1e-4, batches of 16, 65 epochs, constant rate, the last weights. Both libraries are
trained by the same loop, all sets and seeds of a flow side by side: their weights are
stacked and `torch.func.vmap` takes one step of each at once, which is the same training
at a tenth of the time. The densities of the sets are known, so that the table holds the
divergence from the truth on fresh points, ± two standard errors. Rows of a record that
exist are kept, so that a run can be cut off between flows and go on."""

import argparse
import copy
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.func import functional_call, stack_module_state, vmap

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


class Scored(nn.Module):
    "A flow of either library as a module whose output is the log-density."

    def __init__(self, flow: nn.Module, log_prob: Callable):
        super().__init__()
        self.flow = flow
        self.log_prob = log_prob

    def forward(self, x):
        return self.log_prob(self.flow, x)


def our_flow(make: Callable) -> Callable:
    def build(train):
        flow = make(2, layers=3, hidden=(64, 64))
        flow.initialize(train)
        return Scored(flow, lambda flow, x: flow.log_prob(x))

    return build


def zuko_flow(kind: str) -> Callable:
    def build(train):
        import zuko

        flow = getattr(zuko.flows, kind)(2, transforms=3, hidden_features=(64, 64))
        return Scored(flow, lambda flow, x: flow().log_prob(x))

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


@dataclass
class Task:
    "One training: its data, its flow at the start, and the order of its points."

    name: str
    model: str
    seed: int

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)
        self.train = SETS[self.name].sample(SAMPLES, generator).float()
        self.test = SETS[self.name].sample(SAMPLES, generator)
        torch.manual_seed(self.seed)
        self.flow = MODELS[self.model](self.train)
        self.orders = torch.Generator().manual_seed(self.seed)

    def shuffled(self) -> Tensor:
        "The training points in a new order, shape `(SAMPLES, 2)`."
        return self.train[torch.randperm(SAMPLES, generator=self.orders)]


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)


def train_alone(task: Task, epochs: int, steps: int | None = None) -> None:
    "Train the flow of a task: the plain loop, kept for the check below."
    optimizer = adamw(task.flow.parameters())
    for _ in range(epochs):
        for x in task.shuffled().split(BATCH)[:steps]:
            loss = -task.flow(x).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def train_together(tasks: list[Task], epochs: int, steps: int | None = None) -> None:
    "Train the flows of tasks that differ in data and seed only, one step of each at once."
    weights, buffers = stack_module_state([task.flow for task in tasks])
    flow = copy.deepcopy(tasks[0].flow)

    def loss_of(weights, buffers, x):
        return -functional_call(flow, (weights, buffers), (x,)).mean()

    optimizer = adamw(weights.values())
    for epoch in range(epochs):
        start = time.time()
        points = torch.stack([task.shuffled() for task in tasks])
        for x in points.split(BATCH, dim=1)[:steps]:
            loss = vmap(loss_of)(weights, buffers, x).sum()  # each has its own gradient
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(f'epoch {epoch + 1}: {time.time() - start:.0f} s', flush=True)
    for i, task in enumerate(tasks):
        own = {name: w[i].detach() for name, w in weights.items()}
        task.flow.load_state_dict(own, strict=False)


def check_together(model: str) -> None:
    "Ten steps side by side leave the weights that ten steps alone leave."
    jobs = [('moons', model, 0), ('spirals', model, 1)]
    alone, together = [[Task(*job) for job in jobs] for _ in range(2)]
    for task in alone:
        train_alone(task, 1, steps=10)
    train_together(together, 1, steps=10)
    for a, b in zip(alone, together):
        for v, w in zip(a.flow.parameters(), b.flow.parameters()):
            torch.testing.assert_close(v, w, rtol=1e-3, atol=1e-5)


def row_of(task: Task) -> dict:
    "How far a trained flow is from the truth, in nats, on fresh points."
    with torch.no_grad():
        log_prob = task.flow(task.test.float()).double()
    gap = SETS[task.name].log_prob(task.test) - log_prob
    return dict(
        set=task.name,
        model=task.model,
        seed=task.seed,
        kl=gap.mean().item(),
        two_errors=2 * gap.std().item() / SAMPLES**0.5,
        median=gap.median().item(),
        largest=gap.max().item(),
    )


def summary(rows: list) -> list:
    "Mean over the seeds for each set and model, ± two errors of points and of seeds."
    found = []
    for name, model in itertools.product(SETS, MODELS):
        some = [r for r in rows if r['set'] == name and r['model'] == model]
        if some:
            kl = [r['kl'] for r in some]
            points = sum(r['two_errors'] ** 2 for r in some) ** 0.5 / len(some)
            seeds = 2 * statistics.stdev(kl) / len(kl) ** 0.5 if len(kl) > 1 else 0.0
            entry = dict(set=name, model=model, seeds=len(some))
            entry['two_errors'] = math.hypot(points, seeds)
            entry['kl'] = statistics.mean(kl)
            entry['least'], entry['largest'] = min(kl), max(kl)
            entry['median'] = statistics.median(r['median'] for r in some)
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
    Distribution.set_default_validate_args(False)  # which vmap cannot do
    check_densities()
    rows = json.loads(args.out.read_text())['rows'] if args.out.exists() else []
    for model in args.models:
        check_together(model)
        jobs = itertools.product(args.sets, range(args.seeds))
        done = {(r['set'], r['seed']) for r in rows if r['model'] == model}
        tasks = [Task(s, model, k) for s, k in jobs if (s, k) not in done]
        if not tasks:
            continue
        start = time.process_time()
        train_together(tasks, EPOCHS)
        minutes = (time.process_time() - start) / 60
        print(f'{model}: {minutes:.1f} min of CPU for {len(tasks)} trainings')
        rows += [row_of(task) for task in tasks]
        record = dict(
            unit='nats',
            samples=SAMPLES,
            batch_size=BATCH,
            epochs=EPOCHS,
            hardware=hardware(),
            summary=summary(rows),
            rows=rows,
        )
        args.out.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
