r"""Forms that read well in Jupyter and on GitHub, as Quarto wants them.

    $$ x = f(z) \tag{eq-chain} $$           a numbered equation
    [Eq. (eq-chain)](05_train.ipynb#eq-chain)   a reference; also Fig., Table, or the label alone
    > **Predict**                           a box, by its title; a line `>` follows
    <details><summary>Solution</summary>    a folded box, up to `</details>`
    <a id="sec-chain"></a>                  the label of the heading that follows
    <img src="a.png" width="240" alt="…">   a small picture

Quarto's own forms stay as they are; a page may use both."""

import re

KINDS = {  # how a title begins → the kind of box
    'Predict': '{.callout-tip}',
    'After this': '{.callout-note appearance="simple"}',
    'Errata': '{.callout-important}',
    'Trap': '{.callout-warning}',
    'Caution': '{.callout-caution}',
    'What this page does not run': '{.callout-caution}',
}
FOLDED = '{.callout-note collapse="true"}'
TITLE = re.compile(r'> \*\*([^*]+)\*\*')
FOLD = re.compile(r'<details><summary>(.+)</summary>')
LABEL = re.compile(r'<a id="(sec-[\w-]+)"></a>')
EQUATION = re.compile(r'[ \n]\\tag\{(eq-[\w-]+)\}(\s*\$\$)')
PICTURE = re.compile(r'<img src="([^"]+)" width="(\d+)" alt="([^"]+)">')
REFERENCE = re.compile(
    r'\[(?:(?:Eq|Fig)\. |Figure |Table )?\(?((?:eq|fig|tbl)-[\w-]+)\)?\]\([\w.]*#\1\)'
)


def kind_of(title):
    "The kind of a box by its title."
    found = (kind for start, kind in KINDS.items() if title.startswith(start))
    return next(found, '{.callout-note}')


def box(lines, i):
    "The block quote with a title at line `i` as a box, and the line after it."
    title = TITLE.fullmatch(lines[i])[1]
    end = i + 2
    while end < len(lines) and re.match(r'>( |$)', lines[end]):
        end += 1
    inside = [line[2:] for line in lines[i + 2 : end]]
    return [f'::: {kind_of(title)}', f'## {title}', *inside, ':::'], end


def labelled(lines, i):
    "The heading after the label at line `i`, with the label; and the line after it."
    label = LABEL.fullmatch(lines[i])[1]
    at = next((k for k in range(i + 1, len(lines)) if lines[k].strip()), i)
    if not re.match(r'#+ ', lines[at]):
        return [lines[i]], i + 1
    return [f'{lines[at].rstrip()} {{#{label}}}'], at + 1


def block(lines, i):
    "What stands for the lines from `i` on, and the first line after them."
    line = lines[i]
    if TITLE.fullmatch(line) and lines[i + 1 : i + 2] == ['>']:
        return box(lines, i)
    if LABEL.fullmatch(line):
        return labelled(lines, i)
    if FOLD.fullmatch(line):
        after = i + 2 if lines[i + 1 : i + 2] == [''] else i + 1
        return [f'::: {FOLDED}', f'## {FOLD.fullmatch(line)[1]}'], after
    return [':::' if line == '</details>' else line], i + 1


def blocks(text):
    "The text with boxes, folds and labels of headings as Quarto wants them."
    lines = text.split('\n')
    made = []
    fence = ''
    i = 0
    while i < len(lines):
        opens = re.match(r'(```+|~~~+)', lines[i])
        if fence or opens:
            made.append(lines[i])
            fence = '' if fence and lines[i].startswith(fence) else fence or opens[1]
            i += 1
        else:
            new, i = block(lines, i)
            made += new
    return '\n'.join(made)


def to_quarto(text):
    "Markdown of a notebook as Quarto wants it."
    parts = re.split(r'(^```.*?^```$|`[^`\n]+`)', blocks(text), flags=re.S | re.M)
    for i in range(0, len(parts), 2):  # code keeps its words
        parts[i] = EQUATION.sub(equation, parts[i])
        parts[i] = REFERENCE.sub(r'@\1', parts[i])
        parts[i] = PICTURE.sub(r'![\3](\1){width=\2}', parts[i])
    return ''.join(parts)


def equation(found):
    "The end of a numbered equation; a tag on the line of the formula leaves it there."
    return f'{found[2]} {{#{found[1]}}}'
