"""This checkout against an earlier one, job by job: is anything slower?

    git worktree add OLD COMMIT && python benchmarks/before.py OLD [--out record.json]

Two processes take turns; one thread, float32, CPU time. The ratio is the median of
old/new over the rounds: above 1 is faster."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    'realnvp 2': (512, 40),
    'realnvp 784': (128, 4),
    'maf 64': (64, 4),
    'maf 784': (64, 1),
    'glow 784': (32, 1),
}  # model and dimension: batch, repetitions in one measurement
JOBS = ['log_prob', 'sample', 'train']


def build(name):
    "The model, with weights of moderate size that depend on nothing but the seed."
    import torch

    kind, dim = name.split()
    if kind == 'glow':
        from flowbook.glow import glow

        flow = glow((1, 28, 28), steps=4)
    elif kind == 'maf':
        from flowbook.autoregressive import maf

        flow = maf(int(dim), hidden=(512, 512))
    else:
        from flowbook.realnvp import realnvp

        flow = realnvp(int(dim), hidden=(256, 256))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            scale = 0.3 / p[0].numel() ** 0.5 if p.dim() > 1 else 0.05
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return flow


def make_jobs(name):
    "For each job a function that does it once."
    import torch

    flow, batch = build(name), SIZES[name][0]
    x = torch.randn(
        batch, *flow.event_shape, generator=torch.Generator().manual_seed(1)
    )
    optimizer = torch.optim.Adam(flow.parameters(), 1e-6)

    def train():
        optimizer.zero_grad()
        flow.loss(x).mean().backward()
        optimizer.step()

    def log_prob():
        with torch.no_grad():
            flow.log_prob(x)

    return dict(log_prob=log_prob, sample=lambda: flow.sample((batch,)), train=train)


def work():
    "A worker: reads `model/job` lines, answers with CPU milliseconds for one job."
    import torch

    torch.set_num_threads(1)
    jobs = {name: make_jobs(name) for name in SIZES}
    for line in sys.stdin:
        name, job = line.strip().split('/')
        start = time.process_time()
        for _ in range(SIZES[name][1]):
            jobs[name][job]()
        print(1e3 * (time.process_time() - start) / SIZES[name][1], flush=True)


def start_worker(folder):
    "A process that measures the package in `folder`."
    env = os.environ | {'PYTHONPATH': str(folder), 'IN_TEST': '1'}
    command = [sys.executable, __file__, '--work']
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)


def ask(worker, task):
    "CPU milliseconds of one task, measured now."
    print(task, file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('old', nargs='?', type=Path, help='folder of the earlier checkout')
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--out', type=Path)
    p.add_argument('--work', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.work:
        return work()
    workers = dict(old=start_worker(a.old), new=start_worker(ROOT))
    tasks = [f'{name}/{job}' for name in SIZES for job in JOBS]
    times = {task: dict(old=[], new=[]) for task in tasks}
    for number in range(a.rounds + 2):
        for task in tasks:
            for which in ['old', 'new'] if number % 2 else ['new', 'old']:
                ms = ask(workers[which], task)
                if number > 1:  # two rounds to warm up
                    times[task][which].append(ms)
    metrics = []
    for task, found in times.items():
        ratio = statistics.median(o / n for o, n in zip(found['old'], found['new']))
        old, new = (statistics.median(found[w]) for w in ('old', 'new'))
        metrics.append(dict(name=task, old_ms=old, new_ms=new, ratio=ratio))
        print(f'{task:22} old {old:8.2f} ms   new {new:8.2f} ms   ratio {ratio:.3f}')
    if a.out:
        commit = ['git', '-C', str(a.old), 'rev-parse', '--short', 'HEAD']
        old = subprocess.run(commit, capture_output=True, text=True).stdout.strip()
        sys.path.insert(0, str(ROOT))
        from flowbook.records import hardware

        record = dict(old=old, rounds=a.rounds, unit='CPU ms, medians', metrics=metrics)
        record['hardware'] = dict(hardware('cpu'), threads=1)
        a.out.write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    main()
