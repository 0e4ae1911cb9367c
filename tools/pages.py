"Write README.md and index.qmd, the home page of the book, from nbs/index.ipynb: python tools/pages.py [--check]"
import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def body(nb, qmd):
    "Markdown cells, code as fences, what the code printed; hidden cells are left out."
    for c in nb['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] == 'markdown': yield source
        elif '#| hide' not in source:
            shown = '\n'.join(line for line in source.split('\n') if not line.startswith('#|'))
            if '#| echo: false' not in source: yield f'```python\n{shown}\n```'
            for o in c.get('outputs', []):
                data = o.get('data', {})
                text = ''.join(data.get('text/markdown', [])) or ''.join(o.get('text', data.get('text/plain', [])))
                yield text if 'text/markdown' in data else f'```\n{text.rstrip()}\n```'


def render(qmd):
    "The text of index.qmd or of README.md."
    nb = json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))
    text = '\n\n'.join(body(nb, qmd))
    if qmd:
        title, line, rest = re.match(r'# (.+?)\n+> (.+?)\n(.*)', text, re.S).groups()
        rest = re.sub(r'\]\((\w+)\.ipynb\)', r'](nbs/\1.ipynb)', rest)
        return f'---\ntitle: "{title}"\nsubtitle: "{line}"\n---\n\n<!-- made from nbs/index.ipynb by tools/pages.py -->\n{rest}\n'
    return '<!-- made from nbs/index.ipynb by tools/pages.py -->\n\n' + re.sub(r'\]\((\w+)\.ipynb\)', r'](nbs/\1.ipynb)', text) + '\n'


if __name__ == '__main__':
    stale = []
    for name in ['README.md', 'index.qmd']:
        text, path = render(name == 'index.qmd'), root/name
        if path.exists() and path.read_text(encoding='utf-8') == text: continue
        stale.append(name)
        if '--check' not in sys.argv: path.write_text(text, encoding='utf-8')
    if '--check' in sys.argv and stale: sys.exit(f'{", ".join(stale)}: not what nbs/index.ipynb says; run python tools/pages.py')
