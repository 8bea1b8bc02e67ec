"""Holds the site to what it promises: no page loads a script, a style, a font or a picture over the network."""

import re

from mkdocs.exceptions import PluginError

_LOADS = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def on_post_page(output, page, config):
    """Fails the build, strict or not."""
    if found := _LOADS.findall(output):
        raise PluginError(f"{page.file.src_uri} loads over the network: {', '.join(found)}")
