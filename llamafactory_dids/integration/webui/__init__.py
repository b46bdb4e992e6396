"""The plugin's part of LLaMA-Factory's web page, at the seams in `registration.PAGE_SEAMS`.

`fields` says which keys the page offers, when each applies, and what is wrong with an entry. `texts` names them in the
page's languages. `section` builds the components. `view` turns a run's folder into their content, with `figures` and
the `translated` report. `page` wraps the host's functions. gradio is imported where it is used: a training does
without.
"""
