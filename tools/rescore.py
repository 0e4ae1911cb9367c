"""Measure shipped runs again: python tools/rescore.py NAME ….

Adds median and largest value to their records; the means must be those on record."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flowbook.records import read_run, shipped, write_record
from flowbook.runs import measure, read_parts

torch.set_num_threads(1)


def key(m):
    "What a metric is about."
    return m['name'], m['split'], m['unit'], m['n']


def rescore(name):
    "Measure one run and write its record."
    flow, record = read_run(name)
    found = {key(m): m for m in measure(flow, read_parts(record['data']))}
    for m in record['metrics']:
        again = found.get(key(m))
        if again is None or 'median' not in again:
            continue
        change = f'{name}: {m["value"]} then, {again["value"]} now'
        assert abs(again['value'] - m['value']) <= 1e-3 * abs(m['value']), change
        m.update(median=again['median'], largest=again['largest'])
    write_record(record, shipped() / name)
    for m in record['metrics']:
        median = m.get('median', float('nan'))
        print(f"{name} {m['split']} {m['value']:.3f} median {median:.3f}", flush=True)


if __name__ == '__main__':
    for name in sys.argv[1:]:
        rescore(name)
