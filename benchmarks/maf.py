"""Masked autoregressive flows against nflows, zuko and normflows: sampling, density, training, gradients of samples.

python benchmarks/maf.py [--rounds 9] [--only slow fast chain gradients] [--out FILE]; needs `pip install nflows normflows zuko`.
All models of a task run interleaved in one process on one thread; times are process CPU time, medians over rounds."""

import argparse
import copy
import itertools
import json
import random
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import nflows.distributions
import nflows.flows
import nflows.transforms
import normflows
import torch
import torch.nn.functional as F
import zuko
from torch import nn

from flowbook.autoregressive import Autoregressive, by_loop, maf
from flowbook.core import Compose, Flow, Invert
from flowbook.data import mnist10k
from flowbook.made import MADE
from flowbook.records import hardware, read_run
from flowbook.train import fit

LAYERS, WIDTH = 5, 512


# ---- the same flow in four libraries -----------------------------------------------------------------------------


class Ours(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def sample(self, n):
        return self.flow.sample((n,))

    def rsample_with_log_prob(self, n):
        return self.flow.sample_with_log_prob((n,))


class Nflows(nn.Module):
    def __init__(self, dim, iaf=False):
        super().__init__()
        layers = []
        for _ in range(LAYERS):
            layer = nflows.transforms.MaskedAffineAutoregressiveTransform(
                dim, WIDTH, num_blocks=1, use_residual_blocks=False
            )
            layers += [
                nflows.transforms.InverseTransform(layer) if iaf else layer,
                nflows.transforms.ReversePermutation(dim),
            ]
        self.flow = nflows.flows.Flow(
            nflows.transforms.CompositeTransform(layers),
            nflows.distributions.StandardNormal([dim]),
        )

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def sample(self, n):
        return self.flow.sample(n)


class Normflows(nn.Module):
    def __init__(self, dim, iaf=False):
        super().__init__()
        layers = []
        for _ in range(LAYERS):
            layer = normflows.flows.MaskedAffineAutoregressive(
                dim, WIDTH, num_blocks=1, use_residual_blocks=False
            )
            layers += [
                layer if iaf else normflows.flows.Reverse(layer),
                normflows.flows.Permute(dim, mode='swap'),
            ]
        self.flow = normflows.NormalizingFlow(
            normflows.distributions.DiagGaussian(dim, trainable=False), layers
        )

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def sample(self, n):
        return self.flow.sample(n)[0]


class Zuko(nn.Module):
    def __init__(self, dim, iaf=False):
        super().__init__()
        self.flow, self.iaf = (
            zuko.flows.MAF(dim, transforms=LAYERS, hidden_features=(WIDTH, WIDTH)),
            iaf,
        )

    def law(self):
        maf = self.flow()
        return (
            zuko.distributions.NormalizingFlow(maf.transform.inv, maf.base)
            if self.iaf
            else maf
        )

    def log_prob(self, x):
        return self.law().log_prob(x)

    def sample(self, n):
        return self.law().sample((n,))

    def rsample_with_log_prob(self, n):
        return self.law().rsample_and_log_prob((n,))


PEERS = dict(nflows=Nflows, zuko=Zuko, normflows=Normflows)


def dense(flow):
    "The same flow with its masks multiplied into ordinary linear layers: what one pass costs without any idea."
    flow = copy.deepcopy(flow)
    for made in [m for m in flow.modules() if isinstance(m, MADE)]:
        for holder, name in [
            *((made.layers, str(i)) for i in range(len(made.layers))),
            (made, 'last'),
        ]:
            masked = getattr(holder, name)
            plain = nn.Linear(masked.weight.shape[1], masked.weight.shape[0])
            plain.weight.data, plain.bias.data = (
                (masked.weight * masked.mask).detach(),
                masked.bias.detach(),
            )
            setattr(holder, name, plain)
    return flow


@torch.enable_grad()
def trained(dim):
    "A flow of the size of the benchmark that has learned something: the shipped MNIST run, or digits of 8×8 pixels."
    if dim == 784:
        flow, _ = read_run('mnist-maf')
        return Flow(
            flow.base,
            Compose(
                *(f for f in flow.bijection.modules() if isinstance(f, Autoregressive))
            ),
        )
    flow = maf(dim, layers=LAYERS, hidden=(WIDTH, WIDTH), standardize=False)
    small = [
        F.avg_pool2d(mnist10k(part)[0].float(), 4, padding=2).flatten(1) / 64 - 1
        for part in ('train', 'valid')
    ]
    fit(
        flow,
        small[0] + 0.05 * torch.randn(small[0].shape),
        valid=small[1],
        epochs=6,
        batch_size=128,
        lr=1e-3,
        device='cpu',
        progress=False,
    )
    return flow


def reverse(flow):
    "The same layers, each with its directions swapped: an inverse autoregressive flow."
    return Flow(flow.base, Compose(*(Invert(f) for f in flow.bijection.layers)))


# ---- measuring ---------------------------------------------------------------------------------------------------


def interleave(jobs, rounds, warm=1):
    "Median CPU milliseconds of each job, and the median over rounds of the ratio of the fastest peer to ours."
    times = {name: [] for name in jobs}
    for _ in range(rounds + warm):
        for name, job in random.sample(list(jobs.items()), len(jobs)):
            start = time.process_time()
            job()
            times[name].append(1e3 * (time.process_time() - start))
    times = {name: values[warm:] for name, values in times.items()}
    median = {name: statistics.median(values) for name, values in times.items()}
    peers = [n for n in jobs if n in PEERS]
    ratio = None
    if peers:
        fastest = min(peers, key=median.get)
        ratio = (
            fastest,
            statistics.median(p / o for p, o in zip(times[fastest], times['flowbook'])),
        )
    return median, ratio


def peak_bytes(job):
    "Largest number of bytes that tensors held at once during a job, beyond those at its start."
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as p:
        job()
    events = sorted(
        (e.start_ns(), e.nbytes())
        for e in p.profiler.kineto_results.events()
        if e.name() == '[memory]'
    )
    return max(itertools.accumulate(n for _, n in events))


class Report(list):
    "The metrics of a record; each is printed as it comes."

    def add(self, name, value, unit, n):
        self.append(dict(name=name, value=float(f'{value:.4g}'), unit=unit, n=n))
        print(f'{value:12.4g} {unit:22s}{name}', flush=True)

    def times(self, task, jobs, rounds, **options):
        median, ratio = interleave(jobs, rounds, **options)
        for name, value in median.items():
            self.add(f'{task}: {name}', value, 'ms', rounds)
        if ratio:
            self.add(
                f'{task}: speed against the fastest peer, {ratio[0]}',
                ratio[1],
                'ratio',
                rounds,
            )
        if 'dense pass' in median:
            self.add(
                f'{task}: flowbook in dense density passes',
                median['flowbook'] / median['dense pass'],
                'passes',
                rounds,
            )


def slow_direction(report, rounds):
    "Sampling a MAF and scoring foreign points with an IAF: the direction that costs D passes elsewhere."
    for dim, batches in [(64, [1, 64, 1024]), (784, [64])]:
        flow, makers = (
            trained(dim),
            {name: (make(dim), make(dim, iaf=True)) for name, make in PEERS.items()},
        )
        iaf, plain = reverse(flow), dense(flow)
        for batch in batches:
            n = 2 if dim == 784 else rounds if batch < 1024 else 3
            x = torch.randn(batch, dim)
            pass_ = {"dense pass": lambda: plain.log_prob(x)}
            jobs = dict(
                flowbook=lambda: flow.sample((batch,)),
                **{k: lambda m=m: m.sample(batch) for k, (m, _) in makers.items()},
                **pass_,
            )
            report.times(f'MAF sampling, D = {dim}, batch {batch}', jobs, n)
            jobs = dict(
                flowbook=lambda: iaf.log_prob(x),
                **{k: lambda m=m: m.log_prob(x) for k, (_, m) in makers.items()},
                **pass_,
            )
            report.times(f'IAF density, D = {dim}, batch {batch}', jobs, n)
            report.times(
                f'without the peers, D = {dim}, batch {batch}',
                dict(flowbook=lambda: flow.sample((batch,)), **pass_),
                4 * rounds,
            )
        x, found = torch.randn(16, dim), {}
        for layer in flow.bijection.layers:  # what really reaches each layer
            z, x = x, layer(x)[0]
            single, double = (
                by_loop(layer, z)[0],
                by_loop(layer.double(), z.double())[0],
            )
            for name, a, b in [
                ('float32, from the loop', x, single),
                ('float32, from the loop in float64', x, double),
                ('float32, of the loop from the loop in float64', single, double),
                ('float64, from the loop', layer(z.double())[0], double),
                ('largest coordinate', x, 0 * x),
            ]:
                found[name] = max(found.get(name, 0.0), (a - b).abs().max().item())
            layer.float()
        for name, value in found.items():
            report.add(
                f'D = {dim}, largest difference over all layers: {name}',
                value,
                'absolute',
                16,
            )


def chain(report, rounds):
    "The worst case of a sweep: every coordinate hangs on the one before it."
    flow = chain_flow(64)
    plain, z, exact = dense(flow), torch.randn(64, 64), []
    for i in range(64):
        exact.append(z[:, i] + (0.98 * exact[-1] if i else 0))
    report.add(
        'chain, D = 64: largest error',
        (flow.bijection(z)[0] - torch.stack(exact, 1)).abs().max().item(),
        'absolute',
        64,
    )
    report.times(
        'chain, D = 64, batch 64',
        {
            'flowbook': lambda: flow.sample((64,)),
            'dense pass': lambda: plain.log_prob(z),
        },
        4 * rounds,
    )


def chain_flow(dim):
    "One layer of the chain x[i] = z[i] + 0.98 x[i-1], between layers as wide as those of the benchmark."
    flow = maf(dim, layers=1, hidden=(WIDTH, WIDTH), bound=None, standardize=False)
    net = flow.bijection.layers[0].net
    with torch.no_grad():
        for p in flow.parameters():
            p.zero_()
        for i in range(1, dim):
            for sign in (
                1.0,
                -1.0,
            ):  # two units carry the positive and the negative part
                free = [
                    next(
                        k
                        for k in range(WIDTH)
                        if r[k] == i and not (layer.weight[k] != 0).any()
                    )
                    for r, layer in zip(net.ready, net.layers)
                ]
                (
                    net.layers[0].weight[free[0], i - 1],
                    net.layers[1].weight[free[1], free[0]],
                    net.last.weight[2 * i + 1, free[1]],
                ) = sign, 1.0, 0.98 * sign
    return flow


def fast_direction(report, rounds):
    "Density and one training step, with the same optimiser for all."
    for dim in (64, 784):
        x, n = torch.randn(128, dim), 3 * rounds
        models = dict(
            flowbook=Ours(
                maf(dim, layers=LAYERS, hidden=(WIDTH, WIDTH), standardize=False)
            ),
            **{k: make(dim) for k, make in PEERS.items()},
        )
        report.times(
            f'MAF log_prob, D = {dim}, batch 128',
            {k: lambda m=m: m.log_prob(x) for k, m in models.items()},
            n,
        )
        for fused in (True, False):
            jobs = {
                k: torch.enable_grad()(step(m, x, fused)) for k, m in models.items()
            }
            report.times(
                f'MAF training step, D = {dim}, batch 128, {"fused" if fused else "default"} Adam',
                jobs,
                n,
            )
        report.add(
            f'D = {dim}: parameters of flowbook',
            sum(p.numel() for p in models['flowbook'].parameters()),
            'numbers',
            1,
        )
        for k in PEERS:
            report.add(
                f'D = {dim}: parameters of {k}',
                sum(p.numel() for p in models[k].parameters() if p.requires_grad),
                'numbers',
                1,
            )


def step(model, x, fused):
    "One training step of a model."
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=fused or None)

    def job():
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()

    return job


def gradients(report, rounds):
    "A sample with its gradient: reverse Kullback-Leibler divergence to a law, D = 64, batch 64."
    ours, peer = Ours(trained(64)), Zuko(64)

    def job(model):
        def run():
            model.zero_grad()
            x, log_q = model.rsample_with_log_prob(64)
            (log_q + 0.5 * (x**2).sum(-1)).mean().backward()

        return torch.enable_grad()(run)

    report.times(
        'reverse KL with gradients, D = 64, batch 64',
        dict(flowbook=job(ours), zuko=job(peer)),
        rounds,
    )
    peaks = {k: peak_bytes(job(m)) for k, m in dict(flowbook=ours, zuko=peer).items()}
    for k, value in peaks.items():
        report.add(f'reverse KL, peak memory of {k}', value / 2**20, 'MiB', 1)
    report.add(
        'reverse KL, peak memory of zuko in ours',
        peaks['zuko'] / peaks['flowbook'],
        'ratio',
        1,
    )
    z, found = torch.randn(8, 64), []
    for sample in (lambda f, z: f(z), by_loop):
        x, log_det = z, 0.0
        with torch.enable_grad():
            for layer in ours.flow.bijection.layers:
                x, more = sample(layer, x)
                log_det = log_det + more
            loss = (0.5 * (x**2).sum(-1) - log_det).mean()
            found.append(
                torch.cat(
                    [
                        g.flatten()
                        for g in torch.autograd.grad(loss, list(ours.parameters()))
                    ]
                )
            )
    report.add(
        'reverse KL, gradient against the unrolled loop',
        ((found[0] - found[1]).norm() / found[1].norm()).item(),
        'relative',
        8,
    )


TASKS = dict(fast=fast_direction, gradients=gradients, chain=chain, slow=slow_direction)


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument('--rounds', type=int, default=9)
    options.add_argument('--only', nargs='+', choices=TASKS, default=list(TASKS))
    options.add_argument('--out')
    a = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    warnings.simplefilter('ignore')
    report = Report()
    with torch.no_grad():
        for name in a.only:
            TASKS[name](report, a.rounds)
    record = dict(
        task=f'MAF and IAF, {LAYERS} layers, hidden {WIDTH}, {WIDTH}, float32, one thread, process CPU time, medians',
        metrics=report,
        hardware=hardware('cpu'),
        peers={name: version(name) for name in PEERS},
        finished=time.strftime('%Y-%m-%d'),
    )
    if a.out:
        Path(a.out).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
