"""Measure shipped runs again: python tools/rescore.py [--reach NUMBER] [--bits N] NAME ….

Adds median and largest value to their records; the means must be those on record.

With `--reach` the couplings of flows on images are told to read nothing farther from 0
than NUMBER: the weights stay, the description in their file and the scores change, and
the scores that the run had without go to `record['without a reach']`. With `--bits` the
weights are rounded, see `round_weights`, so that the wheel compresses better; the
former scores are kept in `record['metrics in full precision']`."""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flowbook.files import read_tensors, save, write_tensors
from flowbook.parts import read_parts
from flowbook.records import read_run, shipped, write_record
from flowbook.runs import measure, round_weights

torch.set_num_threads(1)


def key(m):
    "What a metric is about."
    return m['name'], m['split'], m['unit'], m['n']


def with_reach(node, reach):
    "A description whose layers of images read no farther than `reach`."
    if isinstance(node, list):
        return [with_reach(v, reach) for v in node]
    if not isinstance(node, dict):
        return node
    kwargs = {k: with_reach(v, reach) for k, v in node['kwargs'].items()}
    kind = node['class'].rpartition('.')[2]
    if kind in ('CheckerboardCoupling', 'GlowStep') or (
        kind == 'Coupling' and kwargs.get('axis') == -3
    ):
        kwargs['reach'] = reach
    return dict(node, args=with_reach(node['args'], reach), kwargs=kwargs)


def set_reach(folder, reach):
    "Write a reach into the description of a run's weights, which stay as they are."
    path = folder / 'weights.safetensors'
    tensors, meta = read_tensors(path)
    write_tensors(path, tensors, dict(meta, flow=with_reach(meta['flow'], reach)))


def update(record, metrics, name):
    "Add median and largest value to what was measured; the means must be the same."
    found = {key(m): m for m in metrics}
    for m in record['metrics']:
        again = found.get(key(m))
        if again is None or 'median' not in again:
            continue
        change = f'{name}: {m["value"]} then, {again["value"]} now'
        assert abs(again['value'] - m['value']) <= 1e-3 * abs(m['value']), change
        m.update(median=again['median'], largest=again['largest'])


def round_run(name, bits):
    "Round the weights of a run, and score them as they are stored."
    folder = shipped() / name
    flow, record = read_run(name)
    round_weights(flow, bits)
    path = folder / 'weights.safetensors'
    save(flow, path, dtype=torch.float16, data=record['data'])
    flow, _ = read_run(name)
    record.setdefault('metrics in full precision', record['metrics'])
    record['metrics'] = measure(flow, read_parts(record['data']))
    record |= dict(half=True, bits=bits)
    write_record(record, folder)


def rescore(name, reach=None):
    "Measure one run and write its record."
    folder = shipped() / name
    if reach is not None:
        set_reach(folder, reach)
    flow, record = read_run(name)
    metrics = measure(flow, read_parts(record['data']))
    if reach is None:
        update(record, metrics, name)
    else:
        then = ('metrics', 'metrics in full precision')
        record.setdefault(
            'without a reach', {k: record[k] for k in then if k in record}
        )
        record.pop('metrics in full precision', None)
        record['metrics'] = metrics
        record['job']['reach'] = reach
    write_record(record, folder)


def show(name):
    "Print what the record of a run says now."
    _, record = read_run(name)
    for m in record['metrics']:
        shown = {k: m.get(k, float('nan')) for k in ('value', 'median', 'largest')}
        numbers = ' '.join(f'{k} {v:.3f}' for k, v in shown.items())
        print(f"{name} {m['split']} {numbers}", flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    way = parser.add_mutually_exclusive_group()
    way.add_argument('--reach', type=float)
    way.add_argument('--bits', type=int)
    parser.add_argument('names', nargs='+', metavar='NAME')
    chosen = parser.parse_args()
    for name in chosen.names:
        if chosen.bits:
            round_run(name, chosen.bits)
        else:
            rescore(name, chosen.reach)
        show(name)
