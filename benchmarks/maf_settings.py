"""Why is this MAF ahead of the published one? Settings taken back one at a time.

    python benchmarks/maf_settings.py [--out record.json] [--settings …] [--seeds N] [--passes N]

MAF on the 784 pixels of `mnist10k`, as for the shipped run of MNIST but with half the
width, trained with the recipe of this book; then with one setting of the authors' code
(github.com/gpapamak/maf) in the place of ours, and with all of them. Rows of a record
that exist are kept, so that a run can be cut off and go on."""

import argparse
import itertools
import statistics
from pathlib import Path

import torch
from rows import collect
from torch import nn

from flowbook.autoregressive import maf
from flowbook.core import Bijection, Compose, Flow
from flowbook.data import mnist10k
from flowbook.fitting import fit
from flowbook.pixels import dequantize, evaluate_bits, on_pixels
from flowbook.records import hardware

ROOT = Path(__file__).resolve().parent.parent
OURS = dict(
    width=256,
    activation='silu',
    normalize=False,  # log-scales bounded by 3 instead
    order='random',
    noise='new in each pass',
    lr=1e-3,
    schedule='cosine',
    weight_decay=0.01,
    ema=0.999,
)
WAYS = {  # each is one row of the table of chapter Digits
    'hidden layers': dict(width=512, activation='relu'),
    'between layers': dict(normalize=True),
    'order of pixels': dict(order='as read'),
    'noise': dict(noise='once'),
    'optimiser': dict(lr=1e-4, schedule='constant', weight_decay=0.0),
    'average of the weights': dict(ema=None),
}
ALL = {k: v for way in WAYS.values() for k, v in way.items()}
SETTINGS = {'ours': {}, **WAYS, 'all of them': ALL}


class BatchNorm(Bijection):
    "Batch normalisation as a layer, latent = (x − m) / √v · e^γ + β (Dinh et al. 2017)."

    event_dim = 1

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.log_gain = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        self.register_buffer('mean', torch.zeros(dim))
        self.register_buffer('var', torch.ones(dim))

    def inverse(self, x, context=None):
        mean, var = self.mean, self.var
        if self.training and len(x) > 1:
            mean, var = x.mean(0), x.var(0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.var.lerp_(var, self.momentum)
        var = var + self.eps
        z = (x - mean) / var.sqrt() * self.log_gain.exp() + self.shift
        log_det = (self.log_gain - 0.5 * var.log()).sum()
        return z, log_det.expand(x.shape[:-1])


def build(way: dict) -> Flow:
    "A MAF of five layers on images."
    order = None if way['order'] == 'as read' else torch.randperm(784).tolist()
    hidden = (way['width'],) * 2
    bound = None if way['normalize'] else 3.0
    flow = maf(
        784, hidden=hidden, activation=way['activation'], order=order, bound=bound
    )
    if way['normalize']:
        *layers, end = flow.bijection.layers
        pairs = [(BatchNorm(784), layer) for layer in layers]
        flow = Flow(flow.base, Compose(*itertools.chain(*pairs), end))
    return on_pixels(flow)


def measure(name: str, seed: int, passes: int) -> dict:
    "One training run, and the bits of the test images."
    way = OURS | SETTINGS[name]
    train, valid, test = (mnist10k(part)[0] for part in ('train', 'valid', 'test'))
    prepare = dequantize
    if way['noise'] == 'once':
        noise = torch.Generator().manual_seed(seed)
        train, valid = dequantize(train, noise), dequantize(valid, noise)
        prepare = None
    torch.manual_seed(seed)
    flow = build(way)
    training = {k: way[k] for k in ('lr', 'schedule', 'weight_decay', 'ema')}
    history = fit(
        flow,
        train,
        valid=valid,
        prepare=prepare,
        epochs=passes,
        batch_size=100,
        seed=seed,
        device='cpu',
        **training,
    )
    bits = evaluate_bits(flow, test)
    return dict(
        setting=name,
        seed=seed,
        passes=passes,
        best_pass=history.best_epoch,
        bits=bits.mean,
        error=bits.error,
        median=bits.median,
        largest=bits.largest,
        n=len(test),
        parameters=sum(p.numel() for p in flow.parameters()),
        seconds=round(history.seconds, 1),
    )


def summary(rows: list) -> list:
    "Mean over the seeds, their range, and the difference from our settings."
    found = []
    for name in SETTINGS:
        bits = [r['bits'] for r in rows if r['setting'] == name]
        if bits:
            spread = max(bits) - min(bits)
            found.append(dict(setting=name, bits=statistics.mean(bits), range=spread))
            found[-1] |= dict(
                seeds=len(bits), worse=found[-1]['bits'] - found[0]['bits']
            )
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    record = ROOT / 'benchmarks/records/maf_settings.json'
    parser.add_argument('--out', type=Path, default=record)
    parser.add_argument('--settings', nargs='*', default=list(SETTINGS))
    parser.add_argument('--seeds', type=int, default=2)
    parser.add_argument('--passes', type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def describe(rows):
        return dict(
            data='mnist10k',
            unit='bits/dim',
            split='test',
            ours=OURS,
            instead=SETTINGS,
            hardware=hardware('cpu'),
            summary=summary(rows),
            rows=rows,
        )

    def measure_job(name, seed):
        return measure(name, seed, args.passes)

    jobs = itertools.product(args.settings, range(args.seeds))
    by_seed = sorted(jobs, key=lambda job: job[1])
    collect(args.out, ('setting', 'seed'), by_seed, measure_job, describe)


if __name__ == '__main__':
    main()
