"""Glow against normflows' Glow of the same shape, interleaved in one process.

Training step, log_prob and sampling: python benchmarks/glow.py [--rounds 15] [--out FILE];
needs `pip install normflows`."""

import argparse
import copy
import json
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import normflows
import torch

from flowbook.core import Compose
from flowbook.glow import glow
from flowbook.multiscale import Split
from flowbook.records import hardware

SHAPE = 3, 32, 32
SCALES = 2
STEPS = 8
WIDTH = 128
BATCH = 16
JOBS = 'train', 'log_prob', 'sample'
PLAIN = 'flowbook without its learned prior'
OURS = 'flowbook', PLAIN
PEERS = {'normflows': True, 'normflows without LU': False}  # name: use_lu
WARM_UP = 2  # rounds that do not count


def peer(use_lu):
    "normflows' Glow: blocks, squeezes, merges and Gaussian bases, from the latent side."
    c, h, w = SHAPE
    bases = []
    merges = []
    flows = []
    for i in range(SCALES):
        channels = c * 2 ** (SCALES + 1 - i)
        blocks = [
            normflows.flows.GlowBlock(
                channels, WIDTH, split_mode='channel', scale=True, use_lu=use_lu
            )
            for _ in range(STEPS)
        ]
        flows.append([*blocks, normflows.flows.Squeeze()])
        if i:
            merges.append(normflows.flows.Merge())
        smaller = 2 ** (SCALES - i)
        left = (channels // 2 if i else channels, h // smaller, w // smaller)
        bases.append(normflows.distributions.DiagGaussian(left))
    return normflows.MultiscaleFlow(bases, flows, merges)


def without_prior(flow):
    "A copy without networks between the scales, of which normflows' Glow has none."
    plain = copy.deepcopy(flow)
    for m in plain.modules():
        if isinstance(m, Compose) and isinstance(m.layers[0], Split):
            del m.layers[1]
    return plain


def jobs(model, log_prob, sample, x):
    "The three jobs of a model, as functions without arguments."
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)

    def train():
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return dict(
        train=train,
        log_prob=torch.no_grad()(lambda: log_prob(x)),
        sample=torch.no_grad()(sample),
    )


def our_jobs(flow, x):
    "The jobs of a flow of this book."
    return jobs(flow, flow.log_prob, lambda: flow.sample((BATCH,)), x)


def peer_jobs(model, x):
    "The jobs of a model of normflows, which is initialized by the data."
    with torch.no_grad():
        model.log_prob(x, None)

    def log_prob(x):
        return model.log_prob(x, None)

    return jobs(model, log_prob, lambda: model.sample(BATCH), x)


def build(x):
    "The models by name, each initialized by `x`."
    ours = glow(SHAPE, scales=SCALES, steps=STEPS, width=WIDTH)
    ours.initialize(x)
    models = {'flowbook': ours, PLAIN: without_prior(ours)}
    for name, use_lu in PEERS.items():
        models[name] = peer(use_lu)
    return models


def time_jobs(todo, rounds):
    "Seconds of each job of each model, one after the other in every round."
    seconds = {(job, name): [] for job in JOBS for name in todo}
    for _ in range(rounds + WARM_UP):
        for job, name in seconds:
            start = time.perf_counter()
            todo[name][job]()
            seconds[job, name].append(time.perf_counter() - start)
    return {key: values[WARM_UP:] for key, values in seconds.items()}


def summarize(seconds, rounds):
    "Medians in ms, and the ratios of each round to the faster peer."
    median = {key: statistics.median(values) for key, values in seconds.items()}
    metrics = []

    def add(name, value, digits, unit):
        metrics.append(dict(name=name, value=round(value, digits), unit=unit, n=rounds))

    for job in JOBS:
        for name in [*OURS, *PEERS]:
            add(f'{job}, {name}', 1e3 * median[job, name], 2, 'ms')
        fastest = min(PEERS, key=lambda name, job=job: median[job, name])
        for name in OURS:
            pairs = zip(seconds[job, name], seconds[job, fastest])
            ratio = statistics.median(theirs / own for own, theirs in pairs)
            title = f'{job}, speed of {name} against the faster peer ({fastest})'
            add(title, ratio, 3, 'ratio')
    return metrics


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--out')
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter('ignore')
    x = torch.randn(BATCH, *SHAPE)
    models = build(x)
    todo = {
        name: our_jobs(m, x) if name in OURS else peer_jobs(m, x)
        for name, m in models.items()
    }
    metrics = summarize(time_jobs(todo, args.rounds), args.rounds)
    record = dict(
        task=f'Glow {SHAPE}, {SCALES} scales of {STEPS} steps, width {WIDTH}, '
        f'batch {BATCH}, float32, one thread, Adam',
        parameters={
            name: sum(p.numel() for p in m.parameters()) for name, m in models.items()
        },
        metrics=metrics,
        hardware=hardware('cpu'),
        normflows=version('normflows'),
        finished=time.strftime('%Y-%m-%d'),
    )
    for m in metrics:
        print(f"{m['value']:9.3f} {m['unit']:6s}{m['name']}")
    if args.out:
        Path(args.out).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
