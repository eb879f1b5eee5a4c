"""Builds the pages of this repository as a site: `make docs`. The source folder is the repository's own root.

The pages stay plain Markdown that links to files of the repository, so each is read as well where it stands.
"""

from __future__ import annotations

project = "connect-sidecar"
copyright = "the connect-sidecar authors, MPL-2.0"  # noqa: A001 - Sphinx reads this name

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/bench/*.md",
    "systemd/README.md",
    "tests/recordings/README.md",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "changes/README.md",
]
myst_heading_anchors = 4
# A block of the tour that its test leaves out is marked `sh install`; to the highlighter it is shell.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "connect-sidecar"
html_copy_source = False
html_show_sphinx = False
