"""Real tables that scikit-learn ships: flows beside a Gaussian, on rows held out.

    python benchmarks/tables.py [--out record.json] [--models …] [--folds N]

Wine, breast cancer and diabetes, inputs only. Columns without a density (`find_faults`)
are spread over their step by uniform noise, or dropped if they lie on no lattice. Ten
folds; both Gaussians and all flows see the same rows, the flows hold out a tenth of
their training rows to stop by. Results are nats per row in units of one standard
deviation of each column, so that a unit matters to none."""

import argparse
import itertools
import statistics
import warnings
from functools import partial
from pathlib import Path

import torch
from rows import collect
from sklearn import datasets
from sklearn.covariance import LedoitWolf
from torch.distributions import MultivariateNormal

from flowbook.autoregressive import maf
from flowbook.columns import find_faults, spread
from flowbook.monotone import nsf
from flowbook.records import hardware
from flowbook.train import evaluate, fit

ROOT = Path(__file__).resolve().parent.parent
TABLES = {
    'wine': datasets.load_wine,
    'breast cancer': datasets.load_breast_cancer,
    'diabetes': datasets.load_diabetes,
}
RUN = dict(epochs=150, batch_size=64, lr=1e-3, ema=0.99, weight_decay=1e-2, patience=30)


def read(name: str) -> torch.Tensor:
    "The inputs of a table as numbers with a density, each column in units of its sd."
    options = dict(scaled=False) if name == 'diabetes' else {}
    x = torch.tensor(TABLES[name](**options).data, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    faults = [f for f in find_faults(x) if f.kind == 'values']
    columns = [f.columns[0] for f in faults if f.step]
    x = spread(x, columns, generator=generator)
    bad = {i for f in find_faults(x) for i in f.columns[-1:]}
    x = x[:, [i for i in range(x.shape[1]) if i not in bad]]
    return (x - x.mean(0)) / x.std(0)


def gaussian(train, test, seed):
    "The Gaussian of largest likelihood, with full covariance."
    z = train - train.mean(0)
    law = MultivariateNormal(train.mean(0), z.T @ z / len(z))
    return -law.log_prob(test)


def shrunken(train, test, seed):
    "The same, its covariance shrunken by the rule of Ledoit and Wolf."
    found = LedoitWolf().fit(train.numpy())
    covariance = torch.tensor(found.covariance_)
    return -MultivariateNormal(train.mean(0), covariance).log_prob(test)


def flow(build):
    "A flow of this package with early stopping."

    def score(train, test, seed):
        torch.manual_seed(seed)
        model = build(train.shape[1])
        fit(model, train, seed=seed, **RUN)
        return evaluate(model, test).double()

    return score


MODELS = {
    'Gaussian': gaussian,
    'Gaussian, shrunken': shrunken,
    'flowbook nsf': flow(nsf),
    'flowbook maf': flow(maf),
}


def measure(name: str, model: str, folds: int) -> dict:
    "Every row is held out once."
    x = read(name)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    losses = torch.zeros(len(x), dtype=torch.float64)
    means = []
    for k, test in enumerate(order.chunk(folds)):
        kept = torch.ones(len(x), dtype=torch.bool)
        kept[test] = False
        losses[test] = MODELS[model](x[kept], x[test], k)
        means.append(losses[test].mean().item())
    reference = torch.zeros_like(losses)
    for k, test in enumerate(order.chunk(folds)):
        kept = torch.ones(len(x), dtype=torch.bool)
        kept[test] = False
        reference[test] = gaussian(x[kept], x[test], k)
    more = losses - reference
    return dict(
        table=name,
        rows=len(x),
        columns=x.shape[1],
        model=model,
        nll=losses.mean().item(),
        median=losses.median().item(),
        largest=losses.max().item(),
        folds=folds,
        sd_of_folds=statistics.stdev(means),
        above_gaussian=more.mean().item(),
        error=more.std().item() / len(x) ** 0.5,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    record = ROOT / 'benchmarks/records/tables.json'
    parser.add_argument('--out', type=Path, default=record)
    parser.add_argument('--tables', nargs='*', default=list(TABLES))
    parser.add_argument('--models', nargs='*', default=list(MODELS))
    parser.add_argument('--folds', type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings('ignore', category=FutureWarning)
    jobs = itertools.product(args.tables, args.models)

    def describe(rows):
        return dict(unit='nats', run=RUN, hardware=hardware(), rows=rows)

    measure_job = partial(measure, folds=args.folds)
    collect(args.out, ('table', 'model'), jobs, measure_job, describe)


if __name__ == '__main__':
    main()
