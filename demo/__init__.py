"""The page, from a checkout: `python -m demo`. It lives in simcse_tf/demo/, so that the wheel carries it."""
