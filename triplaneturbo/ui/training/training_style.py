"""How the Advanced tab looks, beside what theme.py says of the whole page."""

from __future__ import annotations

TRAINING_CSS = """
#training { gap: 20px; align-items: flex-start; }
/* Gradio 6.31 shows whatever is hidden in a row that is shown. */
#train-key, #train-told { display: none; }
.tt-soft { color: var(--body-text-color-subdued); }
.tt-told { margin: 0; min-height: 20px; font-size: 14px; line-height: 20px; color: var(--body-text-color); }
/* Of one height whatever it says, so that nothing below moves. */
.tt-counted { height: 108px; overflow-y: auto; overflow-wrap: anywhere; padding: 8px 12px; font-size: 13px;
  line-height: 18px; border: 1px solid var(--block-border-color); border-radius: var(--block-radius);
  background: var(--block-background-fill); color: var(--body-text-color); }
.tt-counted p { margin: 0; }
#train-lists { align-items: flex-end; }
#train-prompts textarea { font-family: var(--font-mono); font-size: 13px; line-height: 20px; }
.tt-lengths { font-size: 14px; color: var(--body-text-color); }
#train-status .tt-told { min-height: 40px; }
.dark #train-settings { --neutral-200: #38424f; }
#train-settings input[type=range]::-webkit-slider-thumb { border: 1px solid var(--primary-600); }
#train-settings input[type=range]::-moz-range-thumb { border: 1px solid var(--primary-600); }

.tt-run { font-size: 14px; line-height: 20px; color: var(--body-text-color); }
.tt-run .tt-words { margin: 0 0 8px 0; height: 40px; overflow: hidden; }
.tt-run dl, .tt-lengths { margin: 0; display: grid; gap: 1px; border-radius: 6px; overflow: hidden;
  background: var(--border-color-primary); border: 1px solid var(--border-color-primary); }
.tt-run dl > div, .tt-lengths > div { padding: 5px 10px; min-width: 0;
  background: var(--block-background-fill); }
.tt-run dt, .tt-lengths dt { font-size: 12px; line-height: 16px; color: var(--body-text-color-subdued); }
.tt-run dd, .tt-lengths dd { margin: 0; line-height: 20px; font-weight: 600; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tt-run .tt-numbers, .tt-lengths { grid-template-columns: repeat(4, 1fr); }
.tt-lengths dd.tt-soft { font-weight: 400; }
#run-buttons { gap: 8px; }
#run-buttons button { white-space: nowrap; padding: 9px 8px; }
.tt-heading { margin: 0; font-size: 14px; line-height: 20px; font-weight: 600;
  color: var(--body-text-color); }
#run-previews .grid-container { grid-template-rows: 240px !important; grid-auto-columns: 440px !important; }
#run-previews { border: 1px solid var(--block-border-color); background: var(--block-background-fill);
  padding: 12px; }
#run-previews .empty .icon { display: none; }
#run-previews .empty::after { content: "Pictures of the same prompts will appear here while it learns.";
  color: var(--body-text-color-subdued); }
#run-previews .preview { position: fixed; inset: 24px; width: auto; height: auto; z-index: 1000; }
#run-plots { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
.tt-plot { padding: 8px !important; }
#run-end { gap: 12px; }
#run-sheet { border: 1px solid var(--block-border-color); }
.tt-scores, .tt-scores tr, .tt-scores th, .tt-scores td { border: 0; background: none; }
.tt-scores { width: 100%; border-collapse: collapse; font-size: 13px; line-height: 20px;
  color: var(--body-text-color); }
.tt-scores th, .tt-scores td { padding: 4px 8px; text-align: left; font-weight: 400;
  border-bottom: 1px solid var(--border-color-primary); }
.tt-scores thead th, .tt-scores td:last-child { color: var(--body-text-color-subdued); }
.tt-scores td:nth-child(2), .tt-scores td:nth-child(3) { font-variant-numeric: tabular-nums;
  font-weight: 600; }
@media (max-width: 760px) {
  #training { flex-direction: column; gap: 12px; }
  #training > .column { width: 100%; min-width: 0 !important; }
  #run-previews .grid-container { grid-auto-columns: 330px !important; }
  .tt-scores td:last-child, .tt-scores thead th:last-child { display: none; }
}
@media (max-width: 600px) {
  .tt-run .tt-numbers { grid-template-columns: repeat(2, 1fr); }
}
"""
