"Run notebooks in order, each in a fresh kernel, and store what they show: python tools/run_nbs.py [notebook …]"

import json
import re
import sys
import time
from pathlib import Path

import nbformat
from nbdev.clean import clean_nb

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
from conftest import drop_skipped, run_notebook

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


def run(path):
    "Execute the notebook at `path`, clean it and write it back; nothing is written when a cell fails."
    nb, start = nbformat.read(path, 4), time.time()
    sources = [c.source for c in nb.cells]
    drop_skipped(nb)
    run_notebook(nb, path.parent, 600)
    for c, s in zip(nb.cells, sources):
        c.source = s
    nb = stable_widgets(nb)
    clean_nb(nb)
    text = (
        json.dumps(
            json.loads(nbformat.writes(nb)),
            sort_keys=True,
            indent=1,
            ensure_ascii=False,
        )
        + '\n'
    )
    path.write_text(text, encoding='utf-8')
    print(
        f'{path.name}: {time.time() - start:.0f} s, {path.stat().st_size // 1024} KiB',
        flush=True,
    )


if __name__ == '__main__':
    for p in [Path(a) for a in sys.argv[1:]] or sorted(
        (root / 'nbs').glob('[!_.]*.ipynb')
    ):
        run(p)
