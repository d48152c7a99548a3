"""How the page looks, in light and in dark. Fonts are the system's own: nothing is fetched from anywhere."""

from __future__ import annotations

import gradio as gr

SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> gr.themes.Base:
    """The page's theme."""
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        radius_size="md",
        font=SYSTEM,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0d1117",
        background_fill_primary="white",
        background_fill_primary_dark="#151b23",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#1b222c",
        block_background_fill="white",
        block_background_fill_dark="#151b23",
        block_border_color="*neutral_200",
        block_border_color_dark="#2a3340",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2a3340",
        block_shadow="none",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        layout_gap="12px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        input_background_fill="white",
        input_background_fill_dark="#0d1117",
        input_border_color="*neutral_300",
        input_border_color_dark="#38424f",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1b222c",
        button_secondary_background_fill_hover_dark="#242d39",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#38424f",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        button_large_text_size="*text_md",
        button_large_text_weight="600",
        button_large_padding="9px 16px",
    )


_DICE = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none'"
    " stroke='black' stroke-width='2'%3E%3Crect x='3' y='3' width='18' height='18' rx='4'/%3E"
    "%3Cg fill='black' stroke='none'%3E"
    "%3Ccircle cx='8' cy='8' r='1.7'/%3E%3Ccircle cx='16' cy='8' r='1.7'/%3E"
    "%3Ccircle cx='12' cy='12' r='1.7'/%3E%3Ccircle cx='8' cy='16' r='1.7'/%3E"
    "%3Ccircle cx='16' cy='16' r='1.7'/%3E%3C/g%3E%3C/svg%3E"
)

CSS = """
.gradio-container { box-sizing: border-box; width: 100% !important; max-width: 1480px !important;
  margin: 0 auto; padding: 0 20px !important; }
.gradio-container > main, .gradio-container .main { padding: 0 !important; }
.gradio-container .html-container { padding: 0 !important; }
#page { gap: 20px; align-items: flex-start; }

.tt-title { display: flex; align-items: baseline; gap: 4px 12px; flex-wrap: wrap; padding-top: 12px; }
.tt-title h1 { margin: 0; font-size: 20px; font-weight: 650; letter-spacing: -0.01em;
  color: var(--body-text-color); }
.tt-title p { margin: 0; color: var(--body-text-color-subdued); }
#rooms > .tabitem { padding: 0; border: 0; }
.tt-notice { margin: 0; padding: 7px 12px; border-radius: 6px; font-size: 14px; line-height: 20px;
  color: #713f12; background: #fef9c3; border: 1px solid #fde047; }
.dark .tt-notice { color: #fde68a; background: #2b2410; border-color: #5c4a14; }

/* As high with one line as with three; what is longer is scrolled. */
.tt-reading { margin: 0; height: 54px; overflow-y: auto; overflow-wrap: anywhere; font-size: 13px;
  line-height: 18px; color: var(--body-text-color); }
.tt-reading[data-state=hint] { color: var(--body-text-color-subdued); }
#examples .label { color: var(--body-text-color-subdued); }
#seed-row { gap: 0; align-items: flex-end; background: var(--block-background-fill);
  border: 1px solid var(--block-border-color); border-radius: var(--block-radius); }
#seed-row .form { border: 0; background: none; }
#dice { flex: 0 0 auto; margin: 0 12px 12px 0; height: 42px; }
.dark :is(#options, #mixing, #like-row) { --neutral-200: #38424f; }
#page input[type=range]::-webkit-slider-thumb { border: 1px solid var(--primary-600); }
#page input[type=range]::-moz-range-thumb { border: 1px solid var(--primary-600); }
#dice::before { content: ""; display: inline-block; width: 18px; height: 18px; margin-right: 7px;
  background: currentColor; -webkit-mask: url("DICE") center / contain no-repeat;
  mask: url("DICE") center / contain no-repeat; }
#switches { gap: 0; background: var(--block-background-fill); border: 1px solid var(--block-border-color);
  border-radius: var(--block-radius); }
#switches .block, #switches .form { border: 0; background: none; }
#switches .form { gap: 0; }
#count { padding-bottom: 10px; }
#buttons { gap: 8px; }
#downloads { gap: 8px; }
#downloads button, #downloads a { white-space: nowrap; }
/* Every tab as high as the highest, so that nothing below moves. */
#tabs .tabitem { padding: 12px 0 0 0; border: 0; min-height: 270px; }
.tt-gallery { border: 0; background: none; padding: 0; }
.tt-gallery .grid-wrap { padding: 0; }
.tt-gallery .grid-wrap { overflow: auto hidden; }
.tt-gallery .grid-container { grid: 136px / none !important; grid-auto-flow: column !important;
  grid-auto-columns: 112px; gap: 8px; width: max-content; }
#pictures .grid-container { grid: 240px / none !important; grid-auto-columns: 218px !important; }
/* A picture that is looked at closely takes the window. */
#pictures .preview { position: fixed; inset: 24px; width: auto; height: auto; z-index: 1000; }
.tt-gallery .thumbnail-item.selected:not(:hover) { --ring-color: transparent;
  border-color: var(--border-color-primary); }
.tt-gallery .thumbnail-lg { aspect-ratio: auto; padding: 2px 2px 22px;
  background: var(--block-background-fill); }
.tt-gallery .caption-label { background: none; border: 0; bottom: 2px; left: 0; right: 0; max-width: none;
  padding: 0 4px; text-align: center; font-size: 12px; color: var(--body-text-color-subdued); }
.tt-chosen { margin: 0; height: 20px; line-height: 20px; font-size: 14px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; color: var(--body-text-color); }
#past-row { gap: 8px; }
#like-row, #series-row { gap: 12px; align-items: flex-end; }

.tt-status { height: 72px; font-size: 14px; line-height: 20px; color: var(--body-text-color); }
.tt-bar { height: 4px; margin-bottom: 8px; border-radius: 2px; overflow: hidden;
  background: var(--border-color-primary); }
.tt-bar b { display: block; height: 100%; border-radius: 2px; background: var(--primary-500); }
/* The status line says it, and better than Gradio's own message. */
.tt-lost .toast-wrap { display: none; }
.tt-line { display: flex; gap: 10px; align-items: flex-start; }
.tt-words { flex: 1; min-width: 0; max-height: 60px; overflow: hidden; overflow-wrap: anywhere; }
.tt-clock { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; white-space: nowrap; }
.tt-dots { display: inline-flex; gap: 4px; padding-top: 6px; }
.tt-dots i { width: 8px; height: 8px; border-radius: 50%; background: var(--border-color-primary); }
.tt-dots i.on { background: var(--primary-500); }
/* Only where nothing else has moved for long: each of its frames is time that whatever works here lacks. */
[data-state=running] .tt-bar { animation: tt-alive 1.6s ease-in-out 3s infinite; }
[data-state=error] .tt-words { color: #b91c1c; }
.dark [data-state=error] .tt-words { color: #fca5a5; }
[data-state=error] .tt-bar { background: #dc2626; }
@keyframes tt-alive { 50% { opacity: 0.45; } }
@media (prefers-reduced-motion: reduce) { [data-state=running] .tt-bar { animation: none; } }

#viewer { height: clamp(380px, 100vh - 400px, 760px) !important;
  background: radial-gradient(circle at 50% 42%, #ffffff 0%, #e6ecf3 100%) !important; }
.dark #viewer { background: radial-gradient(circle at 50% 42%, #2f3a49 0%, #171d26 100%) !important; }
#viewer canvas { outline: none; width: 100%; height: 100%; }
/* Its own buttons: one that downloads, as those below do, and one that is never enabled (Gradio 6.31). */
#viewer .icon-button-wrapper { display: none; }
#viewer .empty { flex-direction: column; gap: 10px; }
#viewer .empty .icon { display: none; }
#viewer .empty::after { content: "The mesh will appear here."; color: var(--body-text-color-subdued); }

.tt-facts { font-size: 14px; color: var(--body-text-color); }
.tt-head { display: flex; gap: 16px; height: 20px; line-height: 20px; margin-bottom: 8px;
  white-space: nowrap; }
.tt-head p { margin: 0; }
.tt-caption { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; font-weight: 600; }
.tt-hint { font-weight: 400; color: var(--body-text-color-subdued); }
.tt-facts dl { margin: 0; display: grid; gap: 1px; border-radius: 6px; overflow: hidden;
  background: var(--border-color-primary); border: 1px solid var(--border-color-primary); }
.tt-facts dl > div { padding: 5px 10px; background: var(--block-background-fill); min-width: 0; }
.tt-facts dt { font-size: 12px; line-height: 16px; color: var(--body-text-color-subdued); }
.tt-facts dd { margin: 0; line-height: 20px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tt-numbers { grid-template-columns: repeat(8, 1fr); }
.tt-check { margin: 8px 0; height: 20px; line-height: 20px; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.tt-numbers dd { font-weight: 600; }
.tt-stages { grid-template-columns: repeat(8, 1fr); }
.tt-stages dd { font-size: 13px; }

.tt-report { display: grid; grid-template-columns: max-content 1fr; gap: 4px 14px; margin: 0;
  font-size: 13px; }
.tt-report dt { color: var(--body-text-color-subdued); }
.tt-report dd { margin: 0; overflow-wrap: anywhere; color: var(--body-text-color); }
.tt-vocabulary { margin: 0; font-size: 14px; line-height: 20px; color: var(--body-text-color); }
.tt-vocabulary dt { font-size: 13px; color: var(--body-text-color-subdued); }
.tt-vocabulary dd { margin: 0; }
.tt-vocabulary dd + dt { margin-top: 8px; }

@media (max-width: 1100px) {
  p.tt-hint { display: none; }
  .tt-stages, .tt-numbers { grid-template-columns: repeat(4, 1fr); }
  #viewer { height: clamp(360px, 100vh - 432px, 760px) !important; }
}
/* One column: the mesh comes right after the buttons, what is folded away comes last. */
@media (max-width: 760px) {
  #page { flex-direction: column; gap: 12px; }
  #controls, #result { display: contents !important; }
  #controls > *, #result > * { width: 100%; min-width: 0 !important; flex-grow: 0 !important; }
  #switches, #seed-row, #count, #examples, #adapter, #mixing, #options, #placing, #vocabulary, #report
    { order: 1; }
  /* Gradio puts a frame of its own around these. */
  #controls > :has(> :is(#count, #adapter)) { order: 1; }
  #tabs .tabitem { min-height: 296px; }
  #viewer { height: 360px !important; }
}
@media (max-width: 600px) {
  .gradio-container { padding: 0 12px !important; }
  .tt-title p { display: none; }
}
""".replace("DICE", _DICE)
