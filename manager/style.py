"""Colours: the terminal's own sixteen, so that they suit a light and a dark one. Nothing is told by colour alone."""

from prompt_toolkit.styles import Style

STYLE = Style.from_dict(
    {
        "title": "reverse",
        "badge": "reverse bold",
        "heading": "bold",
        "cursor": "reverse",
        "mark": "bold",
        "dim": "ansibrightblack",
        "name": "bold",
        "key": "bold",
        "good": "ansigreen",
        "bad": "ansired bold",
        "warn": "ansiyellow",
        "pending": "",
        "processing": "ansiblue",
        "done": "ansigreen",
        "failed": "ansired",
        "cancelled": "ansibrightblack",
        "dialog": "",
        "dialog frame.border": "bold",
        "completion-menu.completion": "",
        "completion-menu.completion.current": "reverse",
        "completion-menu.meta.completion": "ansibrightblack",
    }
)
