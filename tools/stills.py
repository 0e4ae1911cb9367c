"""Take the pictures that stand in for figures that move: python tools/stills.py [PAGE …].

The modules that notebooks store are brought up to date. Then each figure is opened in a
browser as the site shows it, at its first state, and goes to `site/stills/`. Beside the
pictures stand digests of module and state, so that a test finds what is out of date."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import look
from quarto_filter import STATE, VIEW, as_html

from flowbook.records import read_run
from flowbook.widgets import image_flow_state, module

ROOT = Path(__file__).resolve().parent.parent
STILLS = ROOT / 'site' / 'stills'
MODELS = ROOT / 'site' / 'models'
DIGESTS = STILLS / 'digests.json'


def figures():
    "Name of the still → values of the figure, for all notebooks."
    for path in sorted((ROOT / 'nbs').glob('[!_.]*.ipynb')):
        nb = json.loads(path.read_text(encoding='utf-8'))
        state = nb['metadata'].get('widgets', {}).get(STATE, {}).get('state', {})
        for c in nb['cells']:
            for o in c.get('outputs', []):
                view = o.get('data', {}).get(VIEW)
                values = state[view['model_id']]['state'] if view else {}
                if '_esm' in values:
                    yield f'{path.stem}-{values["name"]}', values


def digest(values):
    "A short hash of what a figure draws."
    text = json.dumps([values['_esm'], values['state']], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>A figure</title><style>
body {{ margin: 8px; width: 640px; background: white; color: #343a40 }}</style>
<main>{body}</main></html>"""


def take(chrome, values, target):
    "The picture of one figure."
    body = as_html(values, 'still')
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'index.html').write_text(
            PAGE.format(body=body), encoding='utf-8'
        )
        with look.served(Path(folder)) as address:
            view = dict(viewport=dict(width=656, height=900), device_scale_factor=2)
            page = chrome.new_page(**view)
            problems = []
            page.on('pageerror', lambda e: problems.append(str(e)))
            page.goto(address)
            page.wait_for_selector('.fb', timeout=20_000)
            if problems:
                sys.exit(f'{target.name}: {problems[0]}')
            page.locator('.fb').first.screenshot(path=target)
            page.close()
    shrink(target)


def shrink(path):
    "A picture with a palette."
    from PIL import Image

    image = Image.open(path).convert('RGB')
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def refresh():
    "Put the modules as they are today into the notebooks, whose states stay as they are."
    for path in sorted((ROOT / 'nbs').glob('[!_.]*.ipynb')):
        old = path.read_text(encoding='utf-8')
        nb = json.loads(old)
        stored = nb['metadata'].get('widgets', {}).get(STATE, {}).get('state', {})
        for model in stored.values():
            if '_esm' in model['state']:
                model['state']['_esm'] = module(model['state']['name'])
        new = json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n'
        if stored and new != old:
            path.write_text(new, encoding='utf-8')


def write_models():
    "The files with the numbers of large flows, which figures fetch: `site/models/`."
    flow, _ = read_run('mnist-realnvp')
    MODELS.mkdir(exist_ok=True)
    (MODELS / 'digits.bin').write_bytes(image_flow_state(flow)[1])


def main():
    "Take the pictures that are missing or out of date."
    STILLS.mkdir(exist_ok=True)
    write_models()
    refresh()
    found = dict(figures())
    known = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    with look.browser() as chrome:
        for name, values in found.items():
            asked = not sys.argv[1:] or name.rsplit('-', 1)[0] in sys.argv[1:]
            if asked and known.get(name) != digest(values):
                take(chrome, values, STILLS / f'{name}.png')
                known[name] = digest(values)
                print(name)
    for old in STILLS.glob('*.png'):
        if old.stem not in found:
            old.unlink()
    kept = {k: v for k, v in sorted(known.items()) if k in found}
    DIGESTS.write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
    main()
