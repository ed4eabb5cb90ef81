"""The dashboard: the queue in a browser. ``streamlit run ops/ops.py`` = ``persistq ops``."""
