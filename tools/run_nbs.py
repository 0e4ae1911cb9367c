"""Run notebooks and store what they show: python tools/run_nbs.py [notebook …].

They run in order, each in a fresh kernel; without arguments all of them."""

import json
import re
import sys
import time
from pathlib import Path

import nbformat
from nbdev.clean import clean_nb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
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


def run(path):
    "Execute the notebook at `path`, clean it and write it back unless a cell fails."
    start = time.time()
    nb = nbformat.read(path, 4)
    sources = [c.source for c in nb.cells]
    drop_skipped(nb)
    run_notebook(nb, path.parent, 600)
    for c, s in zip(nb.cells, sources):
        c.source = s
        if c.cell_type == 'code':
            c.outputs = join_streams(c.outputs)
    nb = stable_widgets(nb)
    clean_nb(nb)
    path.write_text(as_text(nb), encoding='utf-8')
    seconds = time.time() - start
    size = path.stat().st_size // 1024
    print(f'{path.name}: {seconds:.0f} s, {size} KiB', flush=True)


if __name__ == '__main__':
    named = [Path(a) for a in sys.argv[1:]]
    for path in named or sorted((ROOT / 'nbs').glob('[!_.]*.ipynb')):
        run(path)
