"""Masked autoregressive flows against nflows, zuko and normflows.

Sampling, density, training steps, gradients of samples:

    python benchmarks/maf.py [--rounds 9] [--only slow fast chain gradients] [--out FILE]

needs `pip install nflows normflows zuko`. All models of a task run interleaved in one
process on one thread; times are process CPU time, medians over rounds."""

import argparse
import copy
import itertools
import json
import random
import statistics
import time
import warnings
from functools import partial
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


# The same flow in four libraries.


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
        hidden = WIDTH, WIDTH
        self.flow = zuko.flows.MAF(dim, transforms=LAYERS, hidden_features=hidden)
        self.iaf = iaf

    def law(self):
        maf = self.flow()
        if not self.iaf:
            return maf
        return zuko.distributions.NormalizingFlow(maf.transform.inv, maf.base)

    def log_prob(self, x):
        return self.law().log_prob(x)

    def sample(self, n):
        return self.law().sample((n,))

    def rsample_with_log_prob(self, n):
        return self.law().rsample_and_log_prob((n,))


PEERS = dict(nflows=Nflows, zuko=Zuko, normflows=Normflows)


def dense(flow):
    "The same flow with its masks in plain linear layers: one pass without any idea."
    flow = copy.deepcopy(flow)
    for made in [m for m in flow.modules() if isinstance(m, MADE)]:
        hidden = [(made.layers, str(i)) for i in range(len(made.layers))]
        for holder, name in [*hidden, (made, 'last')]:
            masked = getattr(holder, name)
            plain = nn.Linear(masked.weight.shape[1], masked.weight.shape[0])
            plain.weight.data = (masked.weight * masked.mask).detach()
            plain.bias.data = masked.bias.detach()
            setattr(holder, name, plain)
    return flow


def small_digits(part):
    "Digits of 8×8 pixels as vectors, in −1…3."
    images = mnist10k(part)[0].float()
    return F.avg_pool2d(images, 4, padding=2).flatten(1) / 64 - 1


@torch.enable_grad()
def trained(dim):
    "A flow that has learned something: the shipped run, or one on digits of 8×8 pixels."
    if dim == 784:
        flow, _ = read_run('mnist-maf')
        layers = [f for f in flow.bijection.modules() if isinstance(f, Autoregressive)]
        return Flow(flow.base, Compose(*layers))
    flow = maf(dim, layers=LAYERS, hidden=(WIDTH, WIDTH), standardize=False)
    train = small_digits('train')
    fit(
        flow,
        train + 0.05 * torch.randn(train.shape),
        valid=small_digits('valid'),
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


# Measuring.


def interleave(jobs, rounds, warm=1):
    "Median CPU milliseconds of each job; the median ratio of the fastest peer to ours."
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
        pairs = zip(times[fastest], times['flowbook'])
        ratio = fastest, statistics.median(peer / ours for peer, ours in pairs)
    return median, ratio


def peak_bytes(job):
    "Most bytes that tensors held at once during a job, beyond those at its start."
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
            name = f'{task}: speed against the fastest peer, {ratio[0]}'
            self.add(name, ratio[1], 'ratio', rounds)
        if 'dense pass' in median:
            passes = median['flowbook'] / median['dense pass']
            name = f'{task}: flowbook in dense density passes'
            self.add(name, passes, 'passes', rounds)


def slow_direction(report, rounds):
    "Sampling a MAF and scoring with an IAF: the direction that costs D passes elsewhere."
    for dim, batches in [(64, [1, 64, 1024]), (784, [64])]:
        flow = trained(dim)
        peers = {k: (make(dim), make(dim, iaf=True)) for k, make in PEERS.items()}
        plain = dense(flow)
        for batch in batches:
            n = 2 if dim == 784 else rounds if batch < 1024 else 3
            time_slow(report, flow, plain, peers, batch, n, 4 * rounds)
        compare_with_loop(report, flow, dim)


def time_slow(report, flow, plain, peers, batch, rounds, alone):
    "Times of one batch, beside the peers and, in more rounds, without them."
    dim = flow.event_shape[0]
    x = torch.randn(batch, dim)
    one_pass = {'dense pass': partial(plain.log_prob, x)}
    ours = {'flowbook': partial(flow.sample, (batch,))}
    theirs = {name: partial(maf.sample, batch) for name, (maf, _) in peers.items()}
    task = f'MAF sampling, D = {dim}, batch {batch}'
    report.times(task, {**ours, **theirs, **one_pass}, rounds)

    scored = {'flowbook': partial(reverse(flow).log_prob, x)}
    theirs = {name: partial(iaf.log_prob, x) for name, (_, iaf) in peers.items()}
    task = f'IAF density, D = {dim}, batch {batch}'
    report.times(task, {**scored, **theirs, **one_pass}, rounds)

    task = f'without the peers, D = {dim}, batch {batch}'
    report.times(task, {**ours, **one_pass}, alone)


def compare_with_loop(report, flow, dim):
    "Differences from the textbook's loop, for what really reaches each layer."
    x = torch.randn(16, dim)
    found = {}
    for layer in flow.bijection.layers:
        z = x
        x = layer(z)[0]
        single = by_loop(layer, z)[0]
        double = by_loop(layer.double(), z.double())[0]
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
        name = f'D = {dim}, largest difference over all layers: {name}'
        report.add(name, value, 'absolute', 16)


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


def free_unit(layer, ready, i):
    "A hidden unit that waits for coordinate `i` and has no weights yet."
    for k in range(WIDTH):
        if ready[k] == i and not (layer.weight[k] != 0).any():
            return k


def chain_flow(dim):
    "One layer of the chain x[i] = z[i] + 0.98 x[i-1], as wide as the benchmark's."
    flow = maf(dim, layers=1, hidden=(WIDTH, WIDTH), bound=None, standardize=False)
    net = flow.bijection.layers[0].net
    first, second = net.layers
    with torch.no_grad():
        for p in flow.parameters():
            p.zero_()
        for i in range(1, dim):
            for sign in (1.0, -1.0):  # the positive and the negative part
                a = free_unit(first, net.ready[0], i)
                b = free_unit(second, net.ready[1], i)
                first.weight[a, i - 1] = sign
                second.weight[b, a] = 1.0
                net.last.weight[2 * i + 1, b] = 0.98 * sign
    return flow


def count_parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def fast_direction(report, rounds):
    "Density and one training step, with the same optimiser for all."
    for dim in (64, 784):
        x = torch.randn(128, dim)
        hidden = WIDTH, WIDTH
        ours = Ours(maf(dim, layers=LAYERS, hidden=hidden, standardize=False))
        models = {'flowbook': ours, **{k: make(dim) for k, make in PEERS.items()}}
        jobs = {name: partial(model.log_prob, x) for name, model in models.items()}
        report.times(f'MAF log_prob, D = {dim}, batch 128', jobs, 3 * rounds)
        for fused in (True, False):
            jobs = {name: step(model, x, fused) for name, model in models.items()}
            kind = 'fused' if fused else 'default'
            task = f'MAF training step, D = {dim}, batch 128, {kind} Adam'
            report.times(task, jobs, 3 * rounds)
        for name, model in models.items():
            task = f'D = {dim}: parameters of {name}'
            report.add(task, count_parameters(model), 'numbers', 1)


def step(model, x, fused):
    "One training step of a model."
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=fused or None)

    @torch.enable_grad()
    def job():
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()

    return job


def reverse_kl(model):
    "One gradient of the reverse Kullback-Leibler divergence to a normal law."

    @torch.enable_grad()
    def job():
        model.zero_grad()
        x, log_q = model.rsample_with_log_prob(64)
        (log_q + 0.5 * (x**2).sum(-1)).mean().backward()

    return job


@torch.enable_grad()
def gradient_of_samples(flow, z, solve):
    "The gradient of that divergence for the latents `z`, all parameters in a row."
    x, log_det = z, 0.0
    for layer in flow.bijection.layers:
        x, more = solve(layer, x)
        log_det = log_det + more
    loss = (0.5 * (x**2).sum(-1) - log_det).mean()
    gradients = torch.autograd.grad(loss, list(flow.parameters()))
    return torch.cat([g.flatten() for g in gradients])


def gradients(report, rounds):
    "Samples with their gradients, D = 64, batch 64, against zuko and the unrolled loop."
    ours = Ours(trained(64))
    jobs = {'flowbook': reverse_kl(ours), 'zuko': reverse_kl(Zuko(64))}
    report.times('reverse KL with gradients, D = 64, batch 64', jobs, rounds)

    peaks = {name: peak_bytes(job) for name, job in jobs.items()}
    for name, value in peaks.items():
        report.add(f'reverse KL, peak memory of {name}', value / 2**20, 'MiB', 1)
    ratio = peaks['zuko'] / peaks['flowbook']
    report.add('reverse KL, peak memory of zuko in ours', ratio, 'ratio', 1)

    z = torch.randn(8, 64)
    found = gradient_of_samples(ours.flow, z, lambda layer, x: layer(x))
    loop = gradient_of_samples(ours.flow, z, by_loop)
    error = ((found - loop).norm() / loop.norm()).item()
    report.add('reverse KL, gradient against the unrolled loop', error, 'relative', 8)


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
        task=(
            f'MAF and IAF, {LAYERS} layers, hidden {WIDTH}, {WIDTH}, float32, '
            'one thread, process CPU time, medians'
        ),
        metrics=report,
        hardware=hardware('cpu'),
        peers={name: version(name) for name in PEERS},
        finished=time.strftime('%Y-%m-%d'),
    )
    if a.out:
        Path(a.out).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
