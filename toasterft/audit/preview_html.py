"""Rows as one HTML file that needs nothing beside it: pictures inside, no script, and every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from toasterft.audit.preview import FormattedRow, visible
from toasterft.data.example import ImageRef
from toasterft.errors import DataError

LONGEST_EDGE_PX = 900
# Nothing may be loaded or run, whatever a row holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #626c7a; --line: #d9dee5; --card: #fff; --page: #f3f5f8;
  --learned: #0b6b3a; --wash: #e2f4e8; --image: #7a8fd0; --read: #b9c0ca; --taught: #2f9e5f; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #333b47; --card: #1b2029;
  --page: #12161d; --learned: #7fe0a8; --wash: #15301f; --image: #5b6fb3; --read: #566070; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere } p { margin: .2rem 0; color: var(--soft) }
mark { background: var(--wash); color: var(--learned); padding: 0 .15em; border-radius: 3px }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin-top: 1.25rem;
  padding: 1rem; display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 1rem 1.5rem }
@media (max-width: 48rem) { article { grid-template-columns: minmax(0, 1fr) } }
header { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .25rem .9rem; align-items: baseline }
header b { overflow-wrap: anywhere } header span { color: var(--soft); font-size: .86rem; overflow-wrap: anywhere }
figure { margin: 0 0 .75rem } img { max-width: 100%; height: auto; border: 1px solid var(--line); background: #fff }
figcaption, .tokens { color: var(--soft); font-size: .82rem; overflow-wrap: anywhere }
.none { border: 1px dashed var(--line); border-radius: 6px; padding: 1.5rem; color: var(--soft); text-align: center }
.fault { color: var(--bad); border-color: var(--bad) }
dl { margin: 0 } dt { color: var(--soft); font-size: .82rem; margin-top: .7rem } dt:first-child { margin-top: 0 }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate }
pre { margin: .3rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.55 ui-monospace, monospace;
  color: var(--soft); border-left: 3px solid var(--line); padding-left: .7rem; unicode-bidi: isolate }
.bar { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: var(--line); margin: .9rem 0 .3rem }
.bar i { display: block } .over { color: var(--bad); font-weight: 600 }
"""


def write(
    shown: Sequence[tuple[FormattedRow, Sequence[str]]], *, title: str, about: str, max_length: int
) -> str:
    """The page's text.

    Args:
        shown: rows, each with the findings about it.
        about: one line on where the tokens come from.
        max_length: the length in tokens that the bars are drawn against.
    """
    rows = "\n".join(_row(row, findings, max_length) for row, findings in shown)
    count = f"{len(shown):,} row" + ("" if len(shown) == 1 else "s")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title><style>{_STYLE}</style></head><body>
<h1>{_text(title)}</h1>
<p>{count}; {_text(about)}.</p>
<p>Grey text is read, <mark>green text is learned</mark>. Bars show tokens against max_length {max_length:,}:
{_key("image", "image")}, {_key("read", "text that is read")}, {_key("taught", "text that is learned")}.</p>
{rows}
</body></html>
"""


def _row(row: FormattedRow, findings: Sequence[str], max_length: int) -> str:
    example = row.example
    pictures = "".join(
        _figure(ref, image.name, image.size_px, image.tokens, image.fault)
        for ref, image in zip(example.images, row.images)
    )
    facts = [row.split, example.kind, example.where]
    header = "".join(f"<span>{_text(fact)}</span>" for fact in facts if fact)
    text = "".join(f"<mark>{_text(part)}</mark>" if learned else _text(part) for part, learned in row.parts)
    faults = "".join(f'<dt class="fault">found</dt><dd>{_text(finding)}</dd>' for finding in findings)
    return f"""<article><header><b>{_text(example.id)}</b>{header}</header>
<div>{pictures or '<div class="none">no image</div>'}</div>
<div><dl><dt>question</dt><dd>{_text(example.question_in_context)}</dd>
<dt>answer</dt><dd><strong>{_text(example.answer)}</strong></dd>{faults}</dl>
{_bar(row, max_length)}<pre>{text}</pre></div></article>"""


def _figure(ref: ImageRef, name: str, size_px: tuple[int, int] | None, tokens: int, fault: str) -> str:
    try:
        if fault or size_px is None:
            raise DataError(fault)
        address, _, _ = ref.data_url(LONGEST_EDGE_PX)
    except DataError as error:
        return f'<div class="none fault">{_text(name)}: {_text(error.what)}</div>'
    width, height = size_px
    return (
        f'<figure><img alt="" src="{address}">'
        f"<figcaption>{_text(name)} · {width:,} × {height:,} px · {tokens:,} tokens</figcaption></figure>"
    )


def _bar(row: FormattedRow, max_length: int) -> str:
    whole = max(max_length, row.tokens)
    parts = (("image", row.image_tokens), ("read", row.prompt_tokens), ("taught", row.completion_tokens))
    bars = "".join(
        f'<i style="width:{100 * count / whole:.2f}%;background:var(--{name})"></i>' for name, count in parts
    )
    over = ' <span class="over">too long: training leaves it out</span>' if row.tokens > max_length else ""
    return (
        f'<div class="bar">{bars}</div><div class="tokens">{row.tokens:,} tokens: {row.image_tokens:,} image, '
        f"{row.prompt_tokens:,} read, {row.completion_tokens:,} learned{over}</div>"
    )


def _key(name: str, about: str) -> str:
    return f'<span style="color:var(--{name})">■</span> {about}'


def _text(text: str) -> str:
    return escape(visible(text))
