"""What the plugin adds to LLaMA-Factory's web page, at the seams that `registration.PAGE_SEAMS` lists.

`fields` says which keys the page offers, when each applies and what is wrong with an entry; `texts` names them in the
page's languages; `section` builds the components; `view` turns a run's folder into what they show, with `figures` and
the `translated` report; `page` is what stands in front of the host's functions. gradio is imported where it is used: a
training does without.
"""
