"""The page around the report: one style sheet for light and dark, nothing from elsewhere."""

from motet.report._html import Html, join, tag

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6570; --line: #d9dee3; --paper: #fff; --panel: #f5f7f9;
  --shared: #0068a8; --network: #c55300; --lightgbm: #00805a; --good: #00805a; --warn: #b35c00; --bad: #c22f2f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b0; --line: #39414a; --paper: #15181b;
  --panel: #1e2327; --shared: #5ab4ec; --network: #f0a04b; --lightgbm: #3fc79a; --good: #3fc79a; --warn: #f0a04b;
  --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1.5rem; background: var(--paper); color: var(--ink); font:
  16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; }
section { margin: 2.4rem 0 0; }
p { margin: .4rem 0 .7rem; max-width: 75ch; }
.soft, figcaption, dd { color: var(--soft); font-size: .9rem; }
nav a { margin-right: 1rem; color: var(--shared); }
a { color: var(--shared); }
code { font: .92em ui-monospace, Menlo, Consolas, monospace; background: var(--panel); padding: .05em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
.box { border-left: 5px solid var(--good); background: var(--panel); padding: .7rem 1rem; margin: 1rem 0;
  border-radius: 0 6px 6px 0; }
.box.warn { border-color: var(--warn); }
.box.bad { border-color: var(--bad); }
.box p { margin: .25rem 0; }
.box .lead { font-size: 1.1rem; font-weight: 600; }
.scroll { overflow: auto; max-height: 44rem; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid
  var(--line); }
th { color: var(--soft); font-weight: 600; position: sticky; top: 0; background: var(--paper); }
td { font-variant-numeric: tabular-nums; }
.n { text-align: right; white-space: nowrap; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0; }
figure { margin: .6rem 0; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.part { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 0 2rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: .6rem 1rem; }
svg { max-width: 100%; height: auto; display: block; font: 12px system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
svg text { fill: var(--ink); }
svg .t { fill: var(--soft); font-size: 11px; }
svg .h { font-weight: 600; }
svg .g { stroke: var(--line); fill: none; }
svg .zero { stroke: var(--soft); }
svg .margin { stroke: var(--warn); stroke-dasharray: 4 3; }
.shared { --c: var(--shared); }
.own_network { --c: var(--network); }
.own_lightgbm { --c: var(--lightgbm); }
.own_catboost, .own_linear { --c: var(--warn); }
.blend, .distilled { --c: var(--ink); }
.embedding { --c: var(--network); }
.worse { --c: var(--bad); }
.own { --c: var(--soft); }
.p0 { --c: var(--shared); }
.p1 { --c: var(--network); }
.p2 { --c: var(--lightgbm); }
.p3 { --c: var(--bad); }
.p4 { --c: var(--soft); }
svg .dot { fill: var(--c); }
svg .bar { fill: var(--c); opacity: .3; }
svg .stroke { stroke: var(--c); fill: none; stroke-width: 1.8; }
svg .dash { stroke-dasharray: 5 3; }
svg .pos { fill: var(--shared); }
svg .neg { fill: var(--network); }
.key { display: inline-block; width: 1.4em; height: 0; border-top: 3px solid var(--c); vertical-align: middle;
  margin: 0 .35em 0 .9em; }
.key:first-child { margin-left: 0; }
.key.dash { border-top-style: dashed; }
.tag { font-size: .85rem; padding: .05em .5em; border-radius: 1em; border: 1px solid currentColor; white-space:
  nowrap; }
.tag.shared, .tag.own_network, .tag.own_lightgbm, .tag.own_catboost, .tag.own_linear, .tag.blend,
  .tag.distilled { color: var(--c); }
@media print { details > * { display: block; } .scroll { max-height: none; } }
"""


def page(title: str, *children: str) -> Html:
    """A whole document. Its policy forbids every request, so that opening a report never reaches the network."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    return join([Html("<!DOCTYPE html>\n"), tag("html", head, tag("body", *children), lang="en"), Html("\n")])
