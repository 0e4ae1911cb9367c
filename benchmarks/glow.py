"""Glow against normflows' Glow of the same shape: training step, log_prob and sampling, interleaved in one process.

python benchmarks/glow.py [--rounds 15] [--out FILE]; needs `pip install normflows`."""

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

from flowbook.glow import glow
from flowbook.multiscale import Split
from flowbook.runs import hardware

SHAPE, LEVELS, STEPS, HIDDEN, BATCH = (3, 32, 32), 2, 8, 128, 16
PLAIN = 'flowbook without its learned prior'
OURS = 'flowbook', PLAIN


def peer(use_lu):
    "normflows' Glow: its blocks, squeezes, merges and Gaussian bases, from the latent side."
    c, h, w = SHAPE
    bases, merges, flows = [], [], []
    for i in range(LEVELS):
        width = c * 2 ** (LEVELS + 1 - i)
        flows.append(
            [
                normflows.flows.GlowBlock(
                    width, HIDDEN, split_mode='channel', scale=True, use_lu=use_lu
                )
                for _ in range(STEPS)
            ]
            + [normflows.flows.Squeeze()]
        )
        if i:
            merges.append(normflows.flows.Merge())
        left = (
            width // 2 if i else width,
            h // 2 ** (LEVELS - i),
            w // 2 ** (LEVELS - i),
        )
        bases.append(normflows.distributions.DiagGaussian(left))
    return normflows.MultiscaleFlow(bases, flows, merges)


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


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument('--rounds', type=int, default=15)
    options.add_argument('--out')
    a = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter('ignore')
    x = torch.randn(BATCH, *SHAPE)
    ours = glow(SHAPE, scales=LEVELS, steps=STEPS, width=HIDDEN)
    ours.initialize(x)
    plain = copy.deepcopy(ours)
    for m in plain.modules():  # normflows' Glow has no network between the scales
        if isinstance(m, Compose) and isinstance(m.layers[0], Split):
            del m.layers[1]
    models = {
        name: (f, jobs(f, f.log_prob, lambda f=f: f.sample((BATCH,)), x))
        for name, f in [('flowbook', ours), (PLAIN, plain)]
    }
    for name, lu in [('normflows', True), ('normflows without LU', False)]:
        m = peer(lu)
        with torch.no_grad():
            m.log_prob(x, None)  # its data-dependent start
        models[name] = (
            m,
            jobs(m, lambda x, m=m: m.log_prob(x, None), lambda m=m: m.sample(BATCH), x),
        )
    seconds = {}
    for _ in range(a.rounds + 2):  # two rounds to warm up
        for job in ['train', 'log_prob', 'sample']:
            for name, (_, todo) in models.items():
                start = time.perf_counter()
                todo[job]()
                seconds.setdefault((job, name), []).append(time.perf_counter() - start)
    median = {k: statistics.median(v[2:]) for k, v in seconds.items()}
    metrics = []
    for job in ['train', 'log_prob', 'sample']:
        fastest = min(
            (n for n in models if n not in OURS), key=lambda n: median[job, n]
        )
        metrics += [
            dict(
                name=f'{job}, {n}',
                value=round(1e3 * median[job, n], 2),
                unit='ms',
                n=a.rounds,
            )
            for n in models
        ]
        for name in OURS:
            pairs = [
                p / o for o, p in zip(seconds[job, name][2:], seconds[job, fastest][2:])
            ]
            metrics.append(
                dict(
                    name=f'{job}, speed of {name} against the faster peer ({fastest})',
                    value=round(statistics.median(pairs), 3),
                    unit='ratio',
                    n=a.rounds,
                )
            )
    record = dict(
        task=f'Glow {SHAPE}, {LEVELS} levels of {STEPS} steps, {HIDDEN} hidden, batch {BATCH}, float32, one thread, Adam',
        parameters={
            n: sum(p.numel() for p in m.parameters()) for n, (m, _) in models.items()
        },
        metrics=metrics,
        hardware=hardware('cpu'),
        normflows=version('normflows'),
        finished=time.strftime('%Y-%m-%d'),
    )
    for m in metrics:
        print(f"{m['value']:9.3f} {m['unit']:6s}{m['name']}")
    if a.out:
        Path(a.out).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
