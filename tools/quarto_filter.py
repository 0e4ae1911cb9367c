"Quarto's notebook filter: a notebook on stdin, the page of it on stdout. Runs nbdev's processors, then mends links and references."
import json
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from execnb.nbio import dict2nb, nb2str
from nbdev.processors import FilterDefaults

PAGES = {re.sub(r'^\d+_', '', p.stem): p.stem for p in Path().glob('[0-9]*.ipynb')}  # nbdev drops the number, a book keeps it


def mend(text):
    "Point nbdev's links at the pages of the book, and turn `Eq. (eq-x)` of docstrings into references."
    text = re.sub(r'/nbs/(\w+)\.html', lambda m: f'{PAGES.get(m[1], m[1])}.html', text)
    parts = re.split(r'(^```.*?^```$)', text, flags=re.S | re.M)  # code keeps its words
    return ''.join(p if p.startswith('```') else re.sub(r'Eq\. \((eq-[\w-]+)\)', r'@\1', p) for p in parts)


def page(text):
    "The notebook `text` as Quarto should see it."
    os.environ['IN_TEST'] = '1'
    nb = dict2nb(json.loads(text))
    nb['path_'] = str(next(p for p in Path().glob('*.ipynb') if p.read_text(encoding='utf-8') == text))  # Quarto runs us in its folder
    with redirect_stdout(sys.stderr): FilterDefaults()(nb)
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = mend(c.source)
        for o in c.get('outputs', []):
            data = o.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = mend(''.join(data['text/markdown']))
    return nb2str(nb)


if __name__ == '__main__': print(page(sys.stdin.read()), flush=True)
