"""How the page looks: one calm column, beside it the contents where there is room, in the reader's light or dark."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2230; --soft: #5d6778; --line: #e1e5eb; --card: #ffffff; --page: #f7f8fa; --accent: #2862c9;
  --c0: #2862c9; --c1: #d2691e; --c2: #2b8a57; --c3: #8b4fc4; --c4: #b3873a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #9aa4b6; --line: #2b3240; --card: #181d27; --page: #10141b; --accent: #86aefb;
    --c0: #86aefb; --c1: #f0a063; --c2: #6cc796; --c3: #c79af2; --c4: #dcb668;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 16px; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
}
.frame { max-width: 1040px; margin: 0 auto; padding: 40px 20px 72px; }
a { color: var(--accent); }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 22px; line-height: 1.25; margin: 0 0 10px; }
h3 { font-size: 17px; margin: 30px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
.soft, .legend, figcaption { color: var(--soft); }
section { margin-top: 44px; padding-top: 28px; border-top: 1px solid var(--line); }
nav { margin: 22px 0 0; font-size: 15px; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 0; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.top { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 20px; margin-top: 24px; align-items: start; }
.top.alone { grid-template-columns: 1fr; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-bottom: 14px; }
.tile {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  display: flex; flex-direction: column; justify-content: center;
}
.tile b { font-size: 26px; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 14px; line-height: 1.4; }
img, video { width: 100%; height: auto; display: block; border-radius: 6px; background: #000; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 14px; margin-top: 5px; line-height: 1.4; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.row { display: grid; gap: 10px; margin: 0 0 24px; }
.row h3 { grid-column: 1 / -1; margin: 8px 0 0; font-size: 15px; font-weight: 600; }
.four { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.three { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.many { grid-template-columns: repeat(auto-fill, minmax(min(45%, 180px), 1fr)); margin: 14px 0 12px; }
.legend { font-size: 14px; }
.legend img { display: inline-block; width: 150px; height: 10px; border-radius: 5px; vertical-align: middle; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px; align-items: start; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px 8px; }
.chart > figcaption { color: var(--ink); font-weight: 600; font-size: 16px; margin: 0 0 6px; }
.chart svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12.5px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .pale { stroke-width: 1; opacity: .3; }
svg .line-0 { stroke: var(--c0); } svg .line-1 { stroke: var(--c1); } svg .line-2 { stroke: var(--c2); }
svg .line-3 { stroke: var(--c3); } svg .line-4 { stroke: var(--c4); }
svg .dot { fill: var(--card); stroke-width: 2; }
svg [class^=mark-] { stroke-width: 1; stroke-dasharray: 3 3; }
svg .mark-detail { stroke: var(--c1); } svg .mark-background { stroke: var(--c2); }
svg .mark-novel { stroke: var(--c3); } svg .mark-compare { stroke: var(--c4); }
.keys {
  list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; padding: 0; margin: 6px 0 2px;
  font-size: 14px; color: var(--soft);
}
.keys b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: 16px; height: 3px; border-radius: 2px; vertical-align: middle; margin-right: 6px; }
.key.line-0 { background: var(--c0); } .key.line-1 { background: var(--c1); } .key.line-2 { background: var(--c2); }
.key.line-3 { background: var(--c3); } .key.line-4 { background: var(--c4); }
.key.thin { width: 0; height: 13px; background: none; border-radius: 0; border-left: 2px dashed; }
.key.mark-detail { border-color: var(--c1); } .key.mark-background { border-color: var(--c2); }
.key.mark-novel { border-color: var(--c3); } .key.mark-compare { border-color: var(--c4); }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 15px; padding: 4px 0; }
.chart details summary { font-size: 14px; }
details.round { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 6px 16px; }
details.round > summary { color: var(--ink); font-variant-numeric: tabular-nums; }
details.round > summary span { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td {
  text-align: left; vertical-align: top; padding: 7px 16px 7px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere;
}
th { font-weight: 400; color: var(--soft); }
th[scope=row] { min-width: 110px; }
.top th, .top td { padding: 5px 14px 5px 0; font-size: 14.5px; }
.facts > table { table-layout: fixed; }
.facts th[scope=row] { width: 240px; }
thead th { font-size: 14px; }
.flags th, .flags td { font: 13.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { white-space: nowrap; }
.flags td { overflow-wrap: break-word; }
pre.commands { white-space: normal; }
.commands code { display: block; white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 2em; text-indent: -2em; }
.missing code { white-space: normal; overflow-wrap: anywhere; }
code, pre { font: 13.5px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; margin: 8px 0 14px;
  overflow-x: auto; white-space: pre;
}
pre.words { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22em; overflow-y: auto; }
.missing {
  background: var(--card); border: 1px dashed var(--line); border-radius: 10px; padding: 14px 16px;
  color: var(--soft); max-width: none;
}
@media (max-width: 820px) {
  .top, .charts { grid-template-columns: 1fr; }
  .four { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media (max-width: 560px) {
  body { font-size: 15.5px; }
  .frame { padding: 24px 14px 48px; }
  h1 { font-size: 25px; }
  .three { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .three.found > :nth-child(2), .three:not(.found) > :last-child { grid-column: 1 / -1; }
  svg text { font-size: 19px; }
  .facts th[scope=row] { width: 110px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  th, td { padding-right: 10px; }
}
@media (min-width: 1400px) {
  .frame {
    max-width: 1360px; display: grid; grid-template-columns: 190px minmax(0, 1080px); column-gap: 56px; justify-content: center;
  }
  nav { grid-row: 1 / span 2; margin: 0; position: sticky; top: 40px; align-self: start; }
  nav ul { flex-direction: column; gap: 8px; }
  .frame > header, .frame > main { grid-column: 2; }
  .frame > header { grid-row: 1; }
}
"""
