"""Run notebooks and store what they show: python tools/run_nbs.py [options] [notebook …].

They run in order, each in a fresh kernel; without names all of them. Beside the outputs
go hashes of what the page depends on (`tools/sources.py`).

--stale   only those whose sources have changed since they were executed
--list    do not run these, name them and what has changed
--stamp   keep each stored output that comes out again, pictures up to rounding"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbdev.clean import clean_nb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from outputs import same
from sources import KEY, sources, stale

from conftest import drop_skipped, run_notebook

ROOT = Path(__file__).resolve().parent.parent
STATE = 'application/vnd.jupyter.widget-state+json'


def stable_widgets(nb):
    "Keep only the widget models that the page shows, and name them by order of appearance."
    state = nb.metadata.get('widgets', {}).get(STATE, {}).get('state', {})
    order = []

    def visit(text):
        for m in re.findall(r'[0-9a-f]{32}', text):
            if m in state and m not in order:
                order.append(m)
                visit(json.dumps(state[m], sort_keys=True))

    for c in nb.cells:
        visit(json.dumps(c.get('outputs', [])))
    if not order:
        nb.metadata.pop('widgets', None)
        return nb
    nb.metadata.widgets[STATE]['state'] = {m: state[m] for m in order}
    text = json.dumps(nb)
    for i, m in enumerate(order):
        text = text.replace(m, f'{i:032x}')
    return nbformat.from_dict(json.loads(re.sub(r' at 0x[0-9a-f]+>', '>', text)))


def join_streams(outputs):
    "Outputs with neighbouring pieces of one stream joined; where it was cut is chance."
    joined = []
    for o in outputs:
        last = joined[-1] if joined else {}
        if o['output_type'] == 'stream' and o['name'] == last.get('name'):
            last['text'] += o['text']
        else:
            joined.append(o)
    return joined


def as_text(nb):
    "The file of a notebook, with sorted keys so that only changes differ."
    plain = json.loads(nbformat.writes(nb))
    return json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False) + '\n'


def keep_outputs(nb, old):
    "Put back the former outputs of each cell where they came out again; count the others."
    changed = 0
    for c, before in zip(nb.cells, old.cells):
        if c.cell_type == 'code' and same(before.outputs, c.outputs):
            c.outputs = before.outputs
        elif c.cell_type == 'code':
            changed += 1
    return changed


def run(path, keep=False):
    "Execute the notebook at `path`, clean it and write it back unless a cell fails."
    start = time.time()
    nb = nbformat.read(path, 4)
    old = nbformat.read(path, 4)
    texts = [c.source for c in nb.cells]
    depends = sources(nb)
    drop_skipped(nb)
    run_notebook(nb, path.parent, 600)
    for c, s in zip(nb.cells, texts):
        c.source = s
        if c.cell_type == 'code':
            c.outputs = join_streams(c.outputs)
    nb = stable_widgets(nb)
    clean_nb(nb)
    changed = keep_outputs(nb, old) if keep else None
    nb['metadata'][KEY] = dict(sources=depends)
    path.write_text(as_text(nb), encoding='utf-8')
    seconds = time.time() - start
    size = path.stat().st_size // 1024
    said = '' if changed is None else f', outputs of {changed} cells are new'
    print(f'{path.name}: {seconds:.0f} s, {size} KiB{said}', flush=True)


def main():
    "Run what the command line asks for."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('notebooks', nargs='*', type=Path)
    for option in ('--stale', '--list', '--stamp'):
        parser.add_argument(option, action='store_true')
    asked = parser.parse_args()
    paths = asked.notebooks or sorted((ROOT / 'nbs').glob('[!_.]*.ipynb'))
    changed = {path: stale(path) for path in paths if asked.stale or asked.list}
    os.environ.pop('MPLBACKEND', None)  # which would keep pictures off the pages
    for path in paths:
        if asked.list:
            if changed[path]:
                print(f'{path.name}: {", ".join(changed[path])}')
        elif not asked.stale or changed[path]:
            run(path, keep=asked.stamp)


if __name__ == '__main__':
    main()
