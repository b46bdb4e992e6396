"""The style of our components: nothing fades while it is updated, and pictures follow the theme."""

MARK = "dids"  # the class of our components

# The first rule is needed because gradio fades HTML while an event that may change it is running. The fifth inverts
# LLaMA-Factory's own loss curve, which is a picture on white in the column of our pictures.
CSS = """
.dids .pending, .dids.pending { opacity: 1 !important; transition: none !important }
.dids-frame svg { width: 100%; height: auto; color: var(--body-text-color); cursor: zoom-in }
.dark .dids-frame svg { filter: brightness(1.7) }
.dids-frame h4 { margin: 0 0 .3em }
.dark .column:has(> .dids-frame) > .block:not(.dids) img { filter: invert(.88) hue-rotate(180deg) }
.dids-frame.large { position: fixed; inset: 1.5rem; z-index: 1000; padding: 1rem; overflow: auto;
  background: var(--body-background-fill); border: 1px solid var(--border-color-primary) }
.dids-frame.large svg { height: calc(100vh - 8rem); cursor: zoom-out }
.dids-domains { width: 100%; border-collapse: collapse }
.dids-domains td, .dids-domains th { padding: .25em .6em; text-align: right; white-space: nowrap }
.dids-domains td:first-child, .dids-domains th:first-child, .dids-domains td.text { text-align: left }
.dids-domains td.text { white-space: normal }
.dids-domains tr.first td { border-top: 1px solid var(--border-color-primary) }
.dids-report iframe { width: 100%; height: 70vh; border: 0; color-scheme: light }
.dark .dids-report iframe { color-scheme: dark }
"""
HEAD = f"<style>{CSS}</style>"

# The class is on the component, which outlives its picture: an enlarged picture stays large.
ENLARGE = "this.closest('.dids-frame').classList.toggle('large')"

# Writes the shares of an update into the existing table, so that unfolded rows stay unfolded.
WRITE_SHARES = """(text) => {
  const news = text ? JSON.parse(text) : null;
  const table = news && document.querySelector('table.dids-domains');
  if (!table || table.dataset.run !== news.run) return;
  for (const row of table.querySelectorAll('tr[data-domain]')) {
    const cells = news.cells[row.dataset.domain];
    if (cells) ['now', 'times'].forEach((name, i) => { row.querySelector('.' + name).textContent = cells[i] });
  }
}"""
